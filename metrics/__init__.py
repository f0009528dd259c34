"""Measure how far one image set is from another: features, distances with error bars, reports, verdicts.

Functions do the work and return a result; ``progress=`` takes a callable that is told of every step.

==================================================  ==================================================================
``open_images``                                     a set of images from a folder, archive, dataset or array
``load_extractor``, ``extract``, ``iter_extract``   features of a set, a ``FeatureSet``
``kid``, ``frechet``                                one distance between two arrays of features
``compare``, ``GapReport``                          everything about two sets
``read_report``, ``write_report``                   a report as JSON, Markdown and HTML
``gate``, ``Budgets``, ``assert_domain_gap``        does it keep its budgets: pass, fail or inconclusive
``audit``                                           were pixels of photos copied?
==================================================  ==================================================================
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assertion import assert_domain_gap as assert_domain_gap
    from .budget_gate.budgets import Budgets as Budgets
    from .budget_gate.gate import gate as gate
    from .comparison.compare import compare as compare
    from .comparison.gap_report import GapReport as GapReport
    from .copy_audit.audit import audit as audit
    from .extractors import load_extractor as load_extractor
    from .features.extraction import FeatureSet as FeatureSet
    from .features.extraction import extract as extract
    from .features.extraction import iter_extract as iter_extract
    from .image_sets.open import open_images as open_images
    from .report import write_report as write_report
    from .report.reading import read_report as read_report
    from .statistics.frechet import frechet as frechet
    from .statistics.kid import kid as kid

_HOMES = {
    "Budgets": ".budget_gate.budgets",
    "FeatureSet": ".features.extraction",
    "GapReport": ".comparison.gap_report",
    "assert_domain_gap": ".assertion",
    "audit": ".copy_audit.audit",
    "compare": ".comparison.compare",
    "extract": ".features.extraction",
    "frechet": ".statistics.frechet",
    "gate": ".budget_gate.gate",
    "iter_extract": ".features.extraction",
    "kid": ".statistics.kid",
    "load_extractor": ".extractors",
    "open_images": ".image_sets.open",
    "read_report": ".report.reading",
    "write_report": ".report",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
