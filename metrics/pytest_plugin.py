"""pytest plugin: the fixture ``assert_domain_gap``. A test run that does not use it imports nothing heavy.

    def test_renders_look_real(assert_domain_gap):
        assert_domain_gap("renders", "photos/judge", kid=0.02)

``from metrics import assert_domain_gap`` is the same function, without the plugin.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .gap_report import GapReport


@pytest.fixture(scope="session")
def assert_domain_gap() -> Callable[..., GapReport]:
    """``metrics.assertion.assert_domain_gap``: compare two image sets, and fail beyond the budgets."""
    from .assertion import assert_domain_gap as check

    return check
