"""The verdict: a report's first metric in one sentence that a busy reader grasps, and one with the numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

from ..comparison.gap_report import GapReport, Permuted
from ..statistics.measurement import Measurement
from .table import Block, blocks, permutation
from .unit import Unit, percent

LEVEL = 0.05  # of the permutation test


@dataclass(frozen=True)
class Headline:
    """``tone`` is closed, away, unclear or plain; ``headline`` and ``detail`` are plain text."""

    tone: str
    headline: str
    detail: str


def verdict(report: GapReport) -> Headline:
    """The verdict on the first metric of ``report.closed``, or of the set under test when no gap closed is known."""
    block = next((block for block in blocks(report) if block.get("after") is not None), None)
    after = None if block is None else block.get("after")
    if block is None or after is None:
        return Headline("unclear", "This report holds no measured set.", "No row with the role 'after' was found.")
    before, floor = block.get("before"), block.get("floor")
    detail = _detail(block, before, after, floor)
    if report.permuted is not None and isfinite(report.permuted.p):
        detail = f"{detail} {_told_apart(report.permuted)}"
    values = [m.value for m in (before, after, floor) if m is not None]
    if not all(isfinite(value) for value in values):
        return Headline("unclear", "The distance could not be measured: a value is not finite.", detail)
    if before is not None and floor is not None and not block.unit.closer(floor.value, before.value):
        headline = "There is no gap to close: the raw set is already as close to the real images as the floor."
        return Headline("plain", headline, detail)
    if before is not None and block.closed is not None and isfinite(block.closed.value):
        return _on_closed(block.closed, detail)
    if before is not None:
        return _on_change(block.unit, before, after, detail)
    apart = report.permuted is not None and report.permuted.p <= LEVEL
    return _on_distance(block, after, floor, detail, apart)


def _on_closed(closed: Measurement, detail: str) -> Headline:
    unit = percent(closed)
    share = unit.with_error(closed)
    if closed.value == 0 and closed.se == 0:
        return Headline("plain", "The stylised set measures exactly as the raw set: nothing was changed.", detail)
    if closed.low is not None and closed.high is not None and closed.low <= 0 <= closed.high:
        headline = f"Undecided: the stylised set closed {share} of the domain gap, perhaps none."
        return Headline("unclear", headline, detail)
    if closed.value == 0:
        return Headline("plain", "The stylised set closed none of the domain gap.", detail)
    if closed.value < 0:
        grown = unit.with_error(replace(closed, value=-closed.value))
        headline = f"The stylised set moved away from the real images: the domain gap grew by {grown}."
        return Headline("away", headline, detail)
    if closed.value >= 1:
        return Headline("closed", f"The stylised set closed the whole domain gap: {share}.", detail)
    return Headline("closed", f"The stylised set closed {share} of the domain gap.", detail)


def _on_change(unit: Unit, before: Measurement, after: Measurement, detail: str) -> Headline:
    nearer = "closer" if unit.closer(after.value, before.value) else "no closer"
    return Headline("plain", f"The stylised set is {nearer} to the real images than the raw set.", detail)


def _on_distance(block: Block, after: Measurement, floor: Measurement | None, detail: str, apart: bool) -> Headline:
    unit = block.unit
    if floor is None:
        headline = f"The set measures {unit.with_error(after)} against the real images ({unit.label})."
        return Headline("plain", headline, detail)
    if not unit.closer(floor.value, after.value):
        near = "the set is as close to the real images as the floor"
        headline = f"Undecided: {near}, and yet it can be told from them." if apart else f"No domain gap found: {near}."
        return Headline("unclear" if apart else "plain", headline, detail)
    if _overlap(after, floor):
        near = "the error bars of the set and the floor overlap"
        rest = "its size is uncertain" if apart else "there may be no domain gap"
        return Headline("unclear", f"{'A gap, but' if apart else 'Undecided:'} {near}, so {rest}.", detail)
    gap, side = unit.number(abs(after.value - floor.value)), "below" if unit.higher else "above"
    headline = f"The domain gap is {gap} {side} the floor ({unit.label})."
    return Headline("plain", headline, detail)


def _detail(block: Block, before: Measurement | None, after: Measurement, floor: Measurement | None) -> str:
    unit = block.unit
    if before is not None:
        moved = f"went from {unit.with_error(before)} (before) to {unit.with_error(after)} (after)"
    else:
        moved = f"is {unit.with_error(after)}"
    real = "no floor was measured" if floor is None else f"the floor, real against real, is {unit.with_error(floor)}"
    parts = [f"{unit.label} {moved}; {real}; {unit.direction} is closer."]
    if before is not None and floor is not None and _overlap(before, floor):
        parts.append("The error bars of before and floor overlap, so the gap itself is uncertain.")
    if block.closed is not None and isfinite(block.closed.value):
        bounded = block.closed.low is not None and block.closed.high is not None
        interval = f"95 % interval {percent(block.closed).interval(block.closed)}" if bounded else "no error bar"
        parts.append(f"Gap closed: {interval}.")
    if any(m is not None and m.se is not None for m in (before, after, floor, block.closed)):
        parts.append("± is one standard error.")
    return " ".join(parts)


def _told_apart(permuted: Permuted) -> str:
    if (permuted.permutations + 1) * LEVEL < 1:
        return f"Too few permutations to tell: {permutation(permuted)}."
    can = "can" if permuted.p <= LEVEL else "cannot"
    return f"The set {can} be told from the real images: {permutation(permuted)}."


def _overlap(a: Measurement, b: Measurement) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high
