"""Make images: formula-driven patterns, and the look of real photos moved onto them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .styles.bank import StyleBank as StyleBank
    from .styles.bank import learn as learn
    from .writing.apply import apply_style as apply_style
    from .writing.render import render_patterns as render_patterns

__all__ = ["StyleBank", "__version__", "apply_style", "learn", "render_patterns"]

_HOMES = {
    "apply_style": ".writing.apply",
    "render_patterns": ".writing.render",
    "learn": ".styles.bank",
    "StyleBank": ".styles.bank",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
