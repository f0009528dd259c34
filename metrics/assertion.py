"""The gate as one assertion: ``assert_domain_gap("renders", "photos", kid=0.02)``, in a test or in a notebook."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import SkipTest

from .budget_gate.budgets import Budget, Budgets, as_budgets, combine
from .budget_gate.gate import GateResult, gate, worst_first
from .comparison.compare import compare
from .comparison.gap_report import GapReport
from .errors import InputError
from .escapes import escaped
from .registry import unknown
from .report import write_report
from .report.reading import read_report
from .statistics.table import known_metrics, metric

INCONCLUSIVE = ("fail", "skip", "pass")
WORST = 5  # images named


def assert_domain_gap(
    synthetic: Any,
    real: Any,
    *,
    budgets: str | Path | Mapping[str, Any] | None = None,
    baseline: str | Path | GapReport | None = None,
    value_only: Sequence[str] = (),
    confidence: float | None = None,
    on_inconclusive: str = "fail",
    report: str | Path | None = None,
    **options: Any,
) -> GapReport:
    """Compare two image sets and raise unless every budget passes by its one-sided confidence bound.

    Args:
        synthetic: the images under test, as :func:`metrics.comparison.compare.compare` takes them.
        real: the real images.
        budgets: a TOML file or the same as nested mappings, for what a keyword cannot say:
            ``{"closed": {"kid": {"min": 0.3}}}``.
        baseline: an earlier report, its file or folder, for budgets of the place ``baseline``.
        value_only: metrics without an error bar that are decided on their value.
        confidence: of every one-sided bound; None is that of the file, or 0.95.
        on_inconclusive: ``fail``, ``skip`` the test, or ``pass``, when there are too few images to tell.
        report: a folder to write the report to, pass or not.
        **options: budgets by metric (``kid=0.02``, ``sliced_wasserstein=1.0``), each a maximum, but a minimum for
            precision, recall, density and coverage; and options of ``compare`` (``before``, ``crops``, ...). Without
            ``metrics``, those that have a budget are measured; without ``permutations``, there is no permutation test.

    Returns:
        The report, for further assertions.

    Raises:
        AssertionError: a budget failed, or is inconclusive; says value, error, bound, budget, and what would decide.
        unittest.SkipTest: inconclusive and ``on_inconclusive="skip"``; pytest and unittest show a skipped test.
        InputError: bad images, budgets or options.
    """
    __tracebackhide__ = True
    if on_inconclusive not in INCONCLUSIVE:
        raise unknown("on_inconclusive", on_inconclusive, INCONCLUSIVE)
    flags, chosen = _split(options)
    wanted = combine(None if budgets is None else as_budgets(budgets), flags, confidence, value_only)
    earlier = read_report(baseline) if isinstance(baseline, (str, Path)) else baseline
    chosen.setdefault("metrics", _metrics(wanted))
    chosen.setdefault("permutations", 0)
    found = compare(synthetic, real, **chosen)
    if report is not None:
        write_report(found, report)
    result = gate(found, wanted, baseline=earlier)
    message = _message(result, found, report)
    if result.verdict == "inconclusive" and on_inconclusive == "skip":
        raise SkipTest(message)
    if result.verdict == "fail" or (result.verdict == "inconclusive" and on_inconclusive == "fail"):
        raise AssertionError(message)
    return found


def _split(options: Mapping[str, Any]) -> tuple[list[Budget], dict[str, Any]]:
    """Budgets by metric, and the options of ``compare``."""
    metrics = {name.replace("-", "_"): name for name in known_metrics()}
    known = [name for name, parameter in inspect.signature(compare).parameters.items() if parameter.kind.name[0] == "K"]
    flags: list[Budget] = []
    chosen: dict[str, Any] = {}
    for name, value in options.items():
        if name in known:
            chosen[name] = value
        elif name not in metrics:
            raise unknown("metric or option", name, (*metrics, *known))
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(
                f"{name} = {value!r}. Expected a finite number: the most, or for scores the least, allowed."
            )
        else:
            side = "min" if metric(metrics[name]).higher else "max"
            flags.append(Budget("after", metrics[name], side, float(value)))
    return flags, chosen


def _metrics(budgets: Budgets) -> tuple[str, ...]:
    """The statistics that the budgets need; kid where none needs any."""
    kinds = [budget.metric.partition("@")[0] for budget in budgets.budgets if budget.place not in ("kept", "slices")]
    return tuple(dict.fromkeys(kinds)) or ("kid",)


def _message(result: GateResult, found: GapReport, report: str | Path | None) -> str:
    """The checks that did not pass, the worst first, and the images to look at."""
    lines = [f"domain gap: {result.headline}"]
    lines += [
        f"  {check.verdict}: {escaped(check.sentence)}"
        for check in worst_first(result.checks)
        if check.verdict != "pass"
    ]
    lists = {"most synthetic-looking": found.most_synthetic, "least covered real images": found.least_covered}
    lines += [
        f"  {title}: {', '.join(escaped(image.key) for image in images[:WORST])}"
        for title, images in lists.items()
        if images
    ]
    if report is not None:
        lines.append(f"  report: {Path(report) / 'report.html'}")
    return "\n".join(lines)
