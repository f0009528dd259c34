"""Does a report keep its budgets? Pass, fail or inconclusive, by one-sided confidence bounds.

A budget ``kid ≤ 0.05`` passes when the upper confidence bound is at most 0.05, fails when even the lower bound is
above it, and is inconclusive between: the images measured are too few to tell. Where the true value breaks the
budget, a pass has the probability 1 − confidence at most, and so has a fail where the true value keeps it.

The bounds are Student's, value ± t · SE. The law of a squared distance (KID and the other MMDs) is skewed, so that they
would let pass up to 9 % on the edge of a 95 % budget; its bounds are therefore taken on the scale of its square root,
which is nearly symmetric: (√v ± h / (2√v))² = v ± h + h²/(4v) with h = t · SE. Below v = h, where the root means
little, the last term stays h/4. Measured on Gaussian sets of 20 to 200 images with a true KID on the edge: 0.5 to 7 %
wrong passes and 2 to 5 % wrong fails (without it 1 to 9 % and 1 to 5 %).

A set of the comparison, the reference included, of which more than UNREADABLE could not be read fails, whatever the
rest of it measures.
What has no error bar is inconclusive, unless the budget says ``value_only``. A value that is not finite always fails,
except that a slice of too few images is inconclusive.
A budget on every slice passes only if each slice passes, which needs no correction; to fail, a slice must be beyond
its bound at Bonferroni's level over the slices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scipy.special import stdtrit

from ..comparison.gap_report import GapReport
from ..errors import InputError
from .budgets import Budget, Budgets, as_budgets
from .estimate import Estimate, estimates
from .sample_size import CHEAP, More, more_images

Verdict = Literal["pass", "fail", "inconclusive"]
UNREADABLE = 0.01  # share of any set beyond which no report passes
SETS = {"after": "under test", "reference": "of the reference", "before": "of the raw set", "floor": "of the floor"}
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "inconclusive": 3}
SEVERITY: tuple[Verdict, ...] = ("fail", "inconclusive", "pass")


@dataclass(frozen=True)
class Check:
    """One number against one budget.

    ``low`` and ``high`` are one-sided confidence bounds, None without an error bar. ``more_images`` and ``more_reals``
    say how many more images of the set and independent real photos would decide an inconclusive check, None where
    that is unknown or too many.
    """

    name: str
    budget: Budget
    value: float
    se: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    sentence: str
    more_images: int | None = None
    more_reals: int | None = None

    @property
    def bound(self) -> float | None:
        """The bound that must keep the budget: the upper one of a maximum, the lower one of a minimum."""
        return self.high if self.budget.side == "max" else self.low


@dataclass(frozen=True)
class GateResult:
    """All checks and what they amount to; ``checks`` are in the order of the budgets."""

    checks: tuple[Check, ...]
    confidence: float

    @property
    def verdict(self) -> Verdict:
        """Fail if any check fails, else inconclusive if any is, else pass."""
        return next((verdict for verdict in SEVERITY if any(c.verdict == verdict for c in self.checks)), "fail")

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive (2 is misuse)."""
        return EXIT_CODES[self.verdict]

    @property
    def headline(self) -> str:
        """One line: ``FAIL: of 3 checks, 1 failed, 2 passed``."""
        words = {"fail": "failed", "inconclusive": "inconclusive", "pass": "passed"}
        counts = {verdict: sum(c.verdict == verdict for c in self.checks) for verdict in SEVERITY}
        told = ", ".join(f"{count} {words[verdict]}" for verdict, count in counts.items() if count)
        return f"{self.verdict.upper()}: of {len(self.checks)} check{'s' * (len(self.checks) > 1)}, {told}."


def gate(
    report: GapReport,
    budgets: Budgets | str | Path | Mapping[str, Any],
    *,
    baseline: GapReport | None = None,
) -> GateResult:
    """Decide every budget on the report.

    Args:
        report: of ``compare``, or as ``read_report`` reads it.
        budgets: see :func:`metrics.budget_gate.budgets.as_budgets`.
        baseline: the earlier report that budgets of the place 'baseline' compare with. Its difference to ``report`` has
            the standard error that one shared reference allows, so it is decided far more sharply than two intervals.

    Returns:
        Every check, and what they amount to: ``verdict`` and ``exit_code``.

    Raises:
        InputError: a budget names a metric that is unknown or not in the report, or the baseline is missing, unused or
            was measured against another reference or with another extractor.
    """
    budgets = as_budgets(budgets)
    if baseline is not None and not any(budget.place == "baseline" for budget in budgets.budgets):
        raise InputError(
            "a baseline report is given and no budget compares with it. Add one, such as --max-increase kid=0.002, or "
            "leave out --baseline."
        )
    checks: list[Check] = []
    for budget in budgets.budgets:
        found = estimates(report, budget, baseline)
        checks += [_check(estimate, budget, budgets.confidence, len(found)) for estimate in found]
    checks += _unreadable(report)
    return GateResult(tuple(checks), budgets.confidence)


def _unreadable(report: GapReport) -> list[Check]:
    """A check that fails for every set of which more than UNREADABLE could not be read."""
    summaries = {"reference": report.reference, **{row.role: row.set for row in report.rows}}
    found = []
    for role, which in SETS.items():
        summary = summaries.get(role)
        if summary is None or summary.lost <= UNREADABLE:
            continue
        count = len(summary.skipped)
        total = count + (summary.photos or summary.images)
        why = f"{count} of {total} images {which} could not be read: repair or remove them, they count as no images."
        budget = Budget(role, "unreadable", "max", UNREADABLE, value_only=True)
        name = "unreadable images" if role == "after" else f"unreadable images {which}"
        found.append(Check(name, budget, summary.lost, None, None, None, "fail", why))
    return found


def _check(estimate: Estimate, budget: Budget, confidence: float, family: int) -> Check:
    sign = 1.0 if budget.side == "max" else -1.0
    excess = sign * (estimate.value - budget.limit)  # above 0: beyond the budget
    if estimate.too_few:
        why = f"{estimate.name} has too few images ({estimate.images}) to be measured. Add images of it."
        return _without_bounds(estimate, budget, "inconclusive", why)
    if not math.isfinite(estimate.value):
        why = f"{estimate.name} could not be measured: its value is not finite, which keeps no budget."
        return _without_bounds(estimate, budget, "fail", why)
    if budget.value_only:
        told = f"{estimate.name} is {_number(estimate.value)}, {_place(excess <= 0)} the budget, {_limit(budget)}"
        verdict: Verdict = "pass" if excess <= 0 else "fail"
        return _without_bounds(estimate, budget, verdict, f"{told}; decided on the value, without an error bar.")
    if estimate.se is None:
        told = f"{estimate.name} is {_number(estimate.value)}, and {estimate.reason}, so nothing is decided."
        accept = "To decide on the value alone, set value_only = true (--value-only NAME)."
        return _without_bounds(estimate, budget, "inconclusive", f"{told} {accept}")
    return _bounded(estimate, budget, confidence, family, excess, estimate.se)


def _without_bounds(estimate: Estimate, budget: Budget, verdict: Verdict, sentence: str) -> Check:
    return Check(estimate.name, budget, estimate.value, estimate.se, None, None, verdict, sentence)


def _bounded(estimate: Estimate, budget: Budget, confidence: float, family: int, excess: float, se: float) -> Check:
    to_pass = float(stdtrit(estimate.dof, confidence))
    to_fail = float(stdtrit(estimate.dof, 1 - (1 - confidence) / family))
    maximum = budget.side == "max"
    low, high = (_bound(estimate, q * se) for q in ((-to_fail, to_pass) if maximum else (-to_pass, to_fail)))
    near, far = (f"the lower {_number(low)}", f"the upper {_number(high)}")[:: 1 if maximum else -1]
    told = f"{estimate.name} is {_number(estimate.value)} ± {_number(se)}"
    level, verdict, more = f"{confidence * 100:g} %", _verdict(budget, low, high), None
    if verdict == "pass":
        sentence = f"{told}; {far} bound at {level} is within the budget, {_limit(budget)}."
    elif verdict == "fail":
        sentence = f"{told}; even {near} bound at {level} is beyond the budget, {_limit(budget)}."
    else:
        more = more_images(estimate, excess, to_pass if excess <= 0 else to_fail)
        enclosed = f"its bounds at {level}, {_number(low)} and {_number(high)}, enclose the budget, {_limit(budget)}."
        sentence = f"{told}; {enclosed} {_advice(more)}"
    images, reals = (None, None) if more is None else (more.images, more.reals)
    return Check(estimate.name, budget, estimate.value, se, low, high, verdict, sentence, images, reals)


def _bound(estimate: Estimate, half: float) -> float:
    """The bound at ``half``, t standard errors below (negative) or above the value."""
    skew = half * half / (4 * max(estimate.value, abs(half))) if estimate.squared and half else 0.0
    return estimate.value + half + skew


def _verdict(budget: Budget, low: float, high: float) -> Verdict:
    inside, outside = (high <= budget.limit, low > budget.limit)
    if budget.side == "min":
        inside, outside = (low >= budget.limit, high < budget.limit)
    return "pass" if inside else "fail" if outside else "inconclusive"


def _advice(more: More | None) -> str:
    if more is None:
        return "No practical number of more images would decide it: the value lies too near the limit."
    ending = "would decide it in four of five cases, if the value stays as it is."
    if not more.reals:
        return f"About {more.images:,} more images of the set {ending}"
    if not more.images:
        why = f"Even {CHEAP:.0f} times as many images of the set would not do, because the reference is too small:"
        return f"{why} about {more.reals:,} more real photos {ending}"
    return f"About {more.images:,} more images of the set and {more.reals:,} more real photos {ending}"


def worst_first(checks: Sequence[Check]) -> list[Check]:
    """Failed, then inconclusive, then passed; each in its order."""
    return sorted(checks, key=lambda check: SEVERITY.index(check.verdict))


def _place(inside: bool) -> str:
    return "within" if inside else "beyond"


def _limit(budget: Budget) -> str:
    return f"at {'most' if budget.side == 'max' else 'least'} {budget.limit:g}"


def _number(value: float) -> str:
    return f"{value:.4g}"
