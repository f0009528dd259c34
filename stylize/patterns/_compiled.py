"""The one place that compiles pattern kernels: by Numba, without the GIL, kept between runs where that is possible.

Without fast-math, so that the bits are the same on any machine. Keeping compiled code saves seconds and never ends a
run: in a read-only or home-less container it is compiled in every process, and a damaged file or a full disk is as if
nothing had been kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a kernel."""
    return cast(F, _kept(njit(nogil=True, error_model="numpy")(function)))


def inlined(function: F) -> F:
    """Compile a kernel whose body is put into every kernel that calls it."""
    return cast(F, _kept(njit(nogil=True, error_model="numpy", inline="always")(function)))


def _kept(dispatcher: Any) -> Any:
    if _has_a_place(Path(dispatcher.py_func.__code__.co_filename).parent):
        try:
            dispatcher.enable_caching()
            dispatcher._cache = _Spare(dispatcher._cache)
        except RuntimeError:  # no folder that can be written
            pass
    return dispatcher


def _has_a_place(source: Path) -> bool:
    """Without a home, Numba would make a folder that is called ``~``."""
    homeless = os.path.expanduser("~") == "~" and not os.environ.get("XDG_CACHE_HOME")  # noqa: PTH111 - it never raises
    return not homeless or bool(os.environ.get("NUMBA_CACHE_DIR")) or os.access(source, os.W_OK)


class _Spare:
    """Numba's cache of one kernel, in which a file that cannot be read or written is one that is not there."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, *where: Any) -> Any:
        try:
            return self._cache.load_overload(*where)
        except Exception:  # damaged pickles raise many types
            return None

    def save_overload(self, *what: Any) -> None:
        try:
            self._cache.save_overload(*what)
        except Exception:  # a full disk, or a damaged index
            return
