"""Where the marks of a metric's error-bar chart go, in percent of the axis; the HTML template draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .table import Block

TICKS = 4  # aimed at; the step is 1, 2 or 5 times a power of ten
SHORTEST, FARTHEST = 1e-9, 1e12  # a shorter axis is widened to 1, a number farther out is not drawn


@dataclass(frozen=True)
class Mark:
    """One role's point and 95 % interval, in percent of the axis; None where there is no finite number."""

    role: str
    text: str
    at: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Chart:
    """``ticks`` are (percent, label); ``floor`` is the floor line and ``moved`` the span from before to after."""

    marks: tuple[Mark, ...]
    ticks: tuple[tuple[float, str], ...]
    floor: float | None
    moved: tuple[float, float] | None
    away: bool  # the set under test moved away from the reference


def chart(block: Block) -> Chart:
    """The chart of one metric. The axis always shows zero."""
    unit = block.unit
    shown = [tuple(_drawn(v, unit.factor) for v in (m.value, m.low, m.high)) for _, m in block.measured]
    finite = [value for triple in shown for value in triple if value is not None]
    ticks = ticks_over(min([0.0, *finite]), max([0.0, *finite]))
    start, length = ticks[0], ticks[-1] - ticks[0]

    def percent(value: float | None) -> float | None:
        return None if value is None else round(100.0 * (value - start) / length, 3)

    marks = tuple(
        Mark(role, unit.with_error(m), *map(percent, triple))
        for (role, m), triple in zip(block.measured, shown, strict=True)
    )
    at = {mark.role: mark.at for mark in marks}
    before, after = at.get("before"), at.get("after")
    moved = None if before is None or after is None else (min(before, after), max(before, after))
    away = before is not None and after is not None and after > before
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    labels = tuple((percent(tick) or 0.0, f"{tick + 0.0:,.{digits}f}".replace("-", "−")) for tick in ticks)
    return Chart(marks, labels, at.get("floor"), moved, away)


def ticks_over(low: float, high: float) -> list[float]:
    """Round, evenly spaced numbers whose first and last enclose [low, high]."""
    if high - low < SHORTEST:
        high = low + 1.0
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _drawn(value: float | None, factor: float) -> float | None:
    return None if value is None or not abs(value * factor) <= FARTHEST else value * factor
