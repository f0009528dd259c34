"""Measure how far one image set is from another: features, distances with error bars, reports."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .budget_gate.assertion import assert_domain_gap as assert_domain_gap
    from .comparison.compare import compare as compare
    from .comparison.gap_report import GapReport as GapReport
    from .copy_audit.audit import audit as audit
    from .image_sets.open import open_images as open_images
    from .report import write_report as write_report

__all__ = ["GapReport", "assert_domain_gap", "audit", "compare", "open_images", "write_report"]

_HOMES = {
    "assert_domain_gap": ".budget_gate.assertion",
    "audit": ".copy_audit.audit",
    "compare": ".comparison.compare",
    "GapReport": ".comparison.gap_report",
    "open_images": ".image_sets.open",
    "write_report": ".report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
