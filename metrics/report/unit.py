"""How the numbers of a report are written: names, factors, digits, and which way is closer to real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..comparison.gap_report import Kept
from ..statistics.measurement import Measurement
from ..statistics.table import Metric, known_metrics, metric

LABELS = {  # of what is kept
    "gradient-correlation": "gradient correlation",
    "edge-f-score": "edge F-score",
    "label-probe": "label probe",
}


@dataclass(frozen=True)
class Unit:
    """How one statistic is written: shown number = value × ``factor``, with ``digits`` after the point."""

    label: str  # "KID × 1000"
    factor: float
    digits: int
    suffix: str = ""
    higher: bool = False  # closer to real when higher

    @property
    def direction(self) -> str:
        """``lower`` or ``higher``: which is closer to real."""
        return "higher" if self.higher else "lower"

    def closer(self, a: float, b: float) -> bool:
        """Whether ``a`` is closer to real than ``b``."""
        return a > b if self.higher else a < b

    def number(self, value: float) -> str:
        """``0.0123`` -> ``12.3``."""
        shown = value * self.factor
        if not math.isfinite(shown):
            return "undefined"
        rounded = round(shown, self.digits) + 0.0  # no "-0"
        return f"{rounded:,.{self.digits}f}".replace("-", "−") + self.suffix

    def with_error(self, measured: Measurement | Kept) -> str:
        """``12.3 ± 0.4``; without a standard error the number alone."""
        text = self.number(measured.value)
        return text if measured.se is None else f"{text} ± {self.number(measured.se)}"

    def interval(self, measured: Measurement | Kept) -> str:
        """``11.5 to 13.1``, or a dash."""
        if measured.low is None or measured.high is None:
            return "–"
        return f"{self.number(measured.low)} to {self.number(measured.high)}"


def unit(name: str, measured: Sequence[Measurement]) -> Unit:
    """The unit of one statistic; the digits shown follow the standard errors, or are four figures without them."""
    facts = _facts(name)
    times = f" × {facts.factor:.0f}" if facts.factor != 1.0 else ""
    digits = _digits(measured, facts.factor)
    shown = min(digits, 3) if facts.share else digits
    return Unit(label_of(name) + times, facts.factor, shown, higher=facts.higher)


def percent(measured: Measurement | Kept) -> Unit:
    """The unit of a gap closed: whole percent, or one digit more when the standard error is below 1 %."""
    fine = measured.se is not None and 0.0 < measured.se < 0.0095
    return Unit("gap closed", 100.0, 1 if fine else 0, " %")


def label_of(name: str) -> str:
    """``kid@efficientnet-lite0`` -> ``KID``; a kind that is not known keeps its name."""
    kind = name.partition("@")[0]
    return LABELS.get(kind) or _facts(name).label


def _facts(name: str) -> Metric:
    """The metric's facts; a report may hold one whose package is not installed here."""
    kind = name.partition("@")[0]
    return metric(kind) if kind in known_metrics() else Metric(kind, kind)


def p_value(p: float | None) -> str:
    """Two figures (``0.34``, ``0.005``); a dash where there is none."""
    if p is None or not math.isfinite(p):
        return "–"
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def figures(value: float) -> str:
    """Three figures, for quantities of any size: ``0.0123``, ``12.3``, ``1,230``."""
    if not math.isfinite(value):
        return "undefined"
    size = abs(value)
    if size and not 1e-4 <= size < 1e9:
        return f"{value:.2e}".replace("-", "−")
    digits = max(0, 2 - math.floor(math.log10(size))) if size else 0
    return f"{value:,.{digits}f}".replace("-", "−")


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _digits(measured: Sequence[Measurement], factor: float) -> int:
    errors = [m.se * factor for m in measured if m.se is not None and m.se > 0 and math.isfinite(m.se)]
    values = [abs(m.value) * factor for m in measured if m.value != 0 and math.isfinite(m.value)]
    if errors:
        digits = max(1 - math.floor(math.log10(max(errors))), -math.floor(math.log10(min(errors))))
    elif values:
        digits = 3 - math.floor(math.log10(max(values)))
    else:
        digits = 3
    return min(max(digits, 0), 6)
