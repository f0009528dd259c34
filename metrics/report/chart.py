"""Where the marks of an error-bar chart go, in percent of the axis; the HTML template draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..statistics.measurement import Measurement
from .table import Block
from .unit import Unit, unit

TICKS = 4  # aimed at; the step is 1, 2 or 5 times a power of ten
SHORTEST, FARTHEST = 1e-9, 1e12  # a shorter axis is widened to 1, a number farther out is not drawn


@dataclass(frozen=True)
class Mark:
    """One row: its name, point and 95 % interval, in percent of the axis; None where there is no finite number."""

    label: str
    text: str
    tip: str
    at: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Chart:
    """``ticks`` are (percent, label); ``floor`` is the floor line and ``moved`` the span from before to after."""

    unit: Unit
    marks: tuple[Mark, ...]
    ticks: tuple[tuple[float, str], ...]
    floor: float | None = None
    moved: tuple[float, float] | None = None
    away: bool = False  # the set under test moved away from the reference


def chart(block: Block) -> Chart:
    """The chart of one metric, one row per role. The axis always shows zero."""
    marks, ticks = _drawn(block.measured, block.unit)
    at = {mark.label: mark.at for mark in marks}
    before, after = block.get("before"), block.get("after")
    ends = (at.get("before"), at.get("after"))
    moved = None if ends[0] is None or ends[1] is None else (min(ends[0], ends[1]), max(ends[0], ends[1]))
    away = before is not None and after is not None and block.unit.closer(before.value, after.value)
    return Chart(block.unit, marks, ticks, at.get("floor"), moved, away)


def profile_chart(profile: Sequence[Measurement]) -> Chart | None:
    """One row per layer of the network, from low to high; None where no layer was measured."""
    if not profile:
        return None
    shown = unit(profile[0].name, profile)
    return Chart(shown, *_drawn([(layer_of(measured.name), measured) for measured in profile], shown))


def layer_of(name: str) -> str:
    """``blocks.2`` of ``kid@efficientnet-lite0/blocks.2``; ``output`` for the network's own features."""
    _, parted, layer = name.rpartition("@")[2].rpartition("/")
    return layer if parted else "output"


def ticks_over(low: float, high: float) -> list[float]:
    """Round, evenly spaced numbers whose first and last enclose [low, high]."""
    if high - low < SHORTEST:
        high = low + 1.0
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _drawn(
    measured: Sequence[tuple[str, Measurement]], shown: Unit
) -> tuple[tuple[Mark, ...], tuple[tuple[float, str], ...]]:
    """Marks and ticks on one axis that holds zero and all of ``measured``."""
    triples = [tuple(_drawable(v, shown.factor) for v in (m.value, m.low, m.high)) for _, m in measured]
    finite = [value for triple in triples for value in triple if value is not None]
    ticks = ticks_over(min([0.0, *finite]), max([0.0, *finite]))
    start, length = ticks[0], ticks[-1] - ticks[0]

    def percent(value: float | None) -> float | None:
        return None if value is None else round(100.0 * (value - start) / length, 3)

    marks = tuple(
        Mark(label, shown.with_error(m), _tip(label, shown, m), *map(percent, triple))
        for (label, m), triple in zip(measured, triples, strict=True)
    )
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    labels = tuple(
        (percent(tick) or 0.0, f"{tick + 0.0:,.{digits}f}".replace("-", "−") + shown.suffix) for tick in ticks
    )
    return marks, labels


def _tip(label: str, shown: Unit, measured: Measurement) -> str:
    interval = "" if measured.low is None else f", 95 % interval {shown.interval(measured)}"
    counts = f"n = {measured.n:,}, m = {measured.m:,}"
    return f"{label[:1].upper()}{label[1:]}: {shown.with_error(measured)}{interval}; {counts}"


def _drawable(value: float | None, factor: float) -> float | None:
    return None if value is None or not abs(value * factor) <= FARTHEST else value * factor
