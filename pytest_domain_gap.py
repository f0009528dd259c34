"""pytest plugin: the fixture ``assert_domain_gap``. A test run that does not use it imports nothing heavy.

    def test_renders_look_real(assert_domain_gap):
        assert_domain_gap("renders", "photos/judge", kid=0.02)

``from metrics import assert_domain_gap`` is the same function, without the plugin. The plugin is a module of its own
name because pytest imports it in every project of the environment: where one has a ``metrics.py`` of its own, importing
our package at start would end every test run there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def assert_domain_gap() -> Callable[..., Any]:
    """``metrics.assertion.assert_domain_gap``: compare two image sets, and fail beyond the budgets."""
    from metrics.assertion import assert_domain_gap as check

    return check
