"""What a budget looks at: a number of a report with its standard error, and what that error comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import stdtridf

from ..comparison.gap_report import GapReport, Kept, Resampled, Slice
from ..errors import InputError
from ..registry import unknown
from ..statistics.jackknife import Jackknife, jackknife
from ..statistics.measurement import Measurement
from ..statistics.table import known_metrics, metric
from .budgets import Budget

FLAGS = {
    "after": "--metric {metrics}",
    "baseline": "--metric {metrics}",
    "closed": "--metric {metrics} --before RAW",
    "change": "--metric {metrics} --before RAW",
    "kept": "--before RAW",
    "slices": "--slice label",
}
Found = TypeVar("Found", bound=Measurement | Kept)
NORMAL = 1.959963984540054  # 97.5 % quantile: the half width of a 95 % interval in standard errors is no less


@dataclass(frozen=True)
class Estimate:
    """A number under a budget. ``se`` is None where there is no error bar, and then ``reason`` says why.

    ``images`` counts the images of the set and ``reals`` the independent real photos. ``set_variance`` and
    ``reference_variance`` are the parts of se² that more of either would shrink, or None where the report does not
    tell them apart. ``too_few``: a slice of too few images to have a value. ``squared``: a squared distance, whose law
    is skewed.
    """

    name: str
    value: float
    se: float | None
    dof: float
    images: int
    reals: int
    set_variance: float | None = None
    reference_variance: float | None = None
    reason: str = "it has no error bar"
    too_few: bool = False
    squared: bool = False


def estimates(report: GapReport, budget: Budget, baseline: GapReport | None = None) -> list[Estimate]:
    """The numbers that ``budget`` bounds: one, or one per slice.

    Args:
        report: of ``compare``.
        budget: one of them.
        baseline: an earlier report, or None.

    Returns:
        One per slice of a budget on slices, else one.

    Raises:
        InputError: the metric is unknown or not in the report, or the baseline is missing or not comparable.
    """
    if budget.place == "after":
        return [_after(report, budget)]
    if budget.place == "baseline":
        return [_difference(report, baseline, budget)]
    if budget.place == "slices":
        parts = [part for part in report.slices if _matches(part.measurement.name, budget.metric)]
        if not parts:
            _missing(report, budget, [part.measurement.name for part in report.slices])
        return [_slice(part) for part in parts]
    held: Sequence[Measurement | Kept] = getattr(report, budget.place)
    found = _find(held, report, budget)
    reals = report.reference.groups if isinstance(found, Measurement) else 0
    return [_plain(f"{budget.place}.{found.name}", found, reals)]


def _after(report: GapReport, budget: Budget) -> Estimate:
    row = report.row("after")
    found = _find(row.measurements if row else (), report, budget)
    plain = _plain(found.name, found, report.reference.groups)
    resampled = _resampled(report, found.name)
    if resampled is None or plain.se is None:
        return plain
    parts = _variance(resampled.set), _variance(resampled.reference)
    return replace(plain, set_variance=parts[0], reference_variance=parts[1])


def _slice(part: Slice) -> Estimate:
    found = part.measurement
    plain = _plain(f"slices.{found.name}: {part.name}", found, found.m)
    return plain if math.isfinite(found.value) else replace(plain, se=None, too_few=True)


def _difference(report: GapReport, baseline: GapReport | None, budget: Budget) -> Estimate:
    """New − old against one reference, with the standard error that the shared reference allows.

    Leaving out a real photo moves both values. The two sets are taken as independent samples, which is conservative
    when they show the same scenes. Where all leave-one-out values are equal it is one set, and the error is 0.

    Returns:
        The difference with its error, or without where either has none.
    """
    if baseline is None:
        raise InputError(f"the budget {budget} needs the report to compare with: --baseline old/report.json")
    _check_comparable(report, baseline)
    new, old = (_find(_measured(side), side, budget) for side in (report, baseline))
    name, value = f"baseline.{new.name}", new.value - old.value
    loo_new, loo_old = _resampled(report, new.name), _resampled(baseline, old.name)
    if new.name != old.name or loo_new is None or loo_old is None:
        reason = "the reports hold no leave-one-out values of it"
        return Estimate(name, value, None, math.nan, new.n, report.reference.groups, reason=reason)
    if len(loo_new.reference) != len(loo_old.reference):
        raise InputError(
            "the two reports name one reference and hold different numbers of its groups. Make them again."
        )
    shared = np.subtract(loo_new.reference, loo_old.reference)
    own: npt.ArrayLike = loo_new.set
    if loo_new == loo_old:
        own = np.zeros(len(loo_new.set))
        error = jackknife(shared, own)
    else:
        error = jackknife(shared, own, loo_old.set)
    plain = _with_error(name, value, error, new.n, report.reference.groups)
    return replace(plain, set_variance=_variance(own), reference_variance=_variance(shared))


def _check_comparable(report: GapReport, baseline: GapReport) -> None:
    again = (
        f"Measure both sets against one reference with the same version and options: domain-gap compare SET "
        f"{report.config.get('real', 'REAL')} -o REPORT, once for each."
    )
    new, old = (side.extractor.get("fingerprint", "") for side in (report, baseline))
    if new != old or not new:
        raise InputError(
            f"the reports come from different extractors ({_called(report)} and {_called(baseline)}), so their numbers "
            f"cannot be subtracted. {again}"
        )
    if report.reference.digest != baseline.reference.digest or not report.reference.digest:
        raise InputError(
            f"the reports were measured against different reference images ({report.reference.root} and "
            f"{baseline.reference.root} hold other images, crops or groups). {again}"
        )


def _called(report: GapReport) -> str:
    return f"{report.extractor.get('name', 'unnamed')}, fingerprint {report.extractor.get('fingerprint', 'none')[:12]}"


def _measured(report: GapReport) -> Sequence[Measurement]:
    row = report.row("after")
    return row.measurements if row else ()


def _plain(name: str, found: Measurement | Kept, reals: int) -> Estimate:
    """An estimate whose degrees of freedom are those of the report's own Student interval."""
    se, low, high = found.se, found.low, found.high
    if se is None or not math.isfinite(se) or se < 0 or low is None or high is None:
        return Estimate(name, found.value, None, math.nan, found.n, reals)
    width = max(high - found.value, found.value - low)  # an interval may be cut at the end of its range
    if se > 0 and not width >= 0.99 * NORMAL * se:
        return Estimate(name, found.value, None, math.nan, found.n, reals, reason="its interval and error disagree")
    kind = name.removeprefix("slices.").partition("@")[0]
    squared = isinstance(found, Measurement) and kind in known_metrics() and metric(kind).squared
    dof = float(stdtridf(0.975, width / se)) if se > 0 and width / se > NORMAL * (1 + 1e-9) else math.inf
    return Estimate(name, found.value, se, dof, found.n, reals, squared=squared)


def _with_error(name: str, value: float, error: Jackknife, images: int, reals: int) -> Estimate:
    if error.se is None or error.dof is None:
        return Estimate(name, value, None, math.nan, images, reals, reason=error.reason or "it has no error bar")
    return Estimate(name, value, error.se, error.dof, images, reals)


def _variance(leave_one_out: npt.ArrayLike) -> float | None:
    se = jackknife(leave_one_out).se
    return None if se is None else se**2


def _resampled(report: GapReport, name: str) -> Resampled | None:
    return next((entry for entry in report.resampled if entry.name == name), None)


def _matches(name: str, metric: str) -> bool:
    return metric in (name, name.partition("@")[0])


def _find(held: Sequence[Found], report: GapReport, budget: Budget) -> Found:
    found = [entry for entry in held if _matches(entry.name, budget.metric)]
    if not found:
        _missing(report, budget, [entry.name for entry in held])
    if len(found) > 1:
        names = " or ".join(f'"{entry.name}"' for entry in found)
        raise InputError(f"{budget}: the report holds several; name one: {names}.")
    return found[0]


def _missing(report: GapReport, budget: Budget, present: Sequence[str]) -> NoReturn:
    from ..comparison.kept import MEASURES  # imports torch, which a gate that finds everything does without

    kind, _, extractor = budget.metric.partition("@")
    known = (*MEASURES, "label-probe") if budget.place == "kept" else known_metrics()
    if kind not in known:
        raise unknown("metric", kind, known)
    if budget.place in ("closed", "change") and not metric(kind).distance:
        raise InputError(f"{budget}: {kind} is no distance, so no {budget.place} is measured. Bound it in [after].")
    if budget.place == "slices" and kind != "kid":
        raise InputError(f"{budget}: slices are measured by kid alone. Bound slices.kid.")
    kinds = dict.fromkeys([*(m.name.partition("@")[0] for m in _measured(report)), kind])
    flags = FLAGS[budget.place].format(metrics=",".join(kinds))
    if extractor and extractor != report.extractor.get("name"):
        flags += f" --extractor {extractor}"
    if kind == "label-probe":
        flags += ", with images in one folder per class"
    place = "the set under test" if budget.place in ("after", "baseline") else f"[{budget.place}]"
    held = ", ".join(sorted(set(present))) or "nothing"
    raise InputError(
        f"{budget}: the report holds no {budget.metric} of {place}, only {held}. "
        f"Make it again with domain-gap compare ... {flags}"
    )
