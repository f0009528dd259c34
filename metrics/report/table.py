"""What a report says in rows of text, however it is rendered: metrics, slices, warnings, skipped images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..comparison.gap_report import GapReport, Kept, Permuted, Slice
from ..statistics.measurement import LowLevel, Measurement
from .unit import Unit, figures, label_of, listed, p_value, percent, unit

CHANGE = "after − before"
CLOSED = "gap closed"


@dataclass(frozen=True)
class Line:
    """One line of a metric's table, as text."""

    role: str  # before, after, floor, CHANGE or CLOSED
    value: str
    interval: str
    p: str
    n: int
    m: int


@dataclass(frozen=True)
class KeptLine:
    """One line of the table of what the results keep, as text."""

    label: str
    name: str
    value: str
    interval: str
    n: int
    note: str


@dataclass(frozen=True)
class SliceLine:
    """One line of the table of slices, as text; ``slice`` holds the numbers."""

    slice: Slice
    value: str
    interval: str
    p: str
    p_adjusted: str


@dataclass(frozen=True)
class LowLevelLine:
    """One line of the table of low-level properties, as text; ``found`` holds the numbers."""

    found: LowLevel
    mean: str
    real_mean: str
    difference: str
    distance: str
    effect: str


@dataclass(frozen=True)
class Block:
    """One metric: its unit, what was measured per role, and the lines of its table."""

    name: str
    unit: Unit
    measured: tuple[tuple[str, Measurement], ...]
    change: Measurement | None
    closed: Measurement | None
    lines: tuple[Line, ...]

    def get(self, role: str) -> Measurement | None:
        """The measurement of the row with this role, or None."""
        return dict(self.measured).get(role)


def blocks(report: GapReport) -> list[Block]:
    """One block per metric, in the order of the first row that holds it; metrics with a gap closed come first."""
    closed = {measured.name: measured for measured in report.closed}
    change = {measured.name: measured for measured in report.change}
    names = dict.fromkeys([*closed, *(measured.name for row in report.rows for measured in row.measurements)])
    return [_block(report, name, change.get(name), closed.get(name)) for name in names]


def kept_lines(report: GapReport) -> list[KeptLine]:
    """What the results keep of the raw images, in the report's order; the label probe is in percent."""
    return [_kept_line(kept) for kept in report.kept]


def slice_lines(report: GapReport) -> list[SliceLine]:
    """Classes and tags, the worst first; what could not be measured comes last."""
    names = {part.measurement.name for part in report.slices}
    units = {name: unit(name, [s.measurement for s in report.slices if s.measurement.name == name]) for name in names}

    def badness(part: Slice) -> tuple[bool, float]:
        value = part.measurement.value
        return not math.isfinite(value), value if units[part.measurement.name].higher else -value

    return [_slice_line(part, units[part.measurement.name]) for part in sorted(report.slices, key=badness)]


def slice_units(report: GapReport) -> str:
    """The metrics that the slices were measured by: ``KID × 1000``."""
    return listed(list(dict.fromkeys(unit(part.measurement.name, []).label for part in report.slices)))


def low_level_lines(report: GapReport) -> list[LowLevelLine]:
    """Low-level properties, the largest effect first."""
    return [_low_level_line(found) for found in _by_effect(report)]


def low_level_sentences(report: GapReport) -> list[str]:
    """What differs beyond its error, in words, the largest effect first."""
    return [found.sentence for found in _by_effect(report) if found.sentence]


def permutation(permuted: Permuted) -> str:
    """``p = 0.005 (199 permutations)``."""
    sign = "" if permuted.p < 0.0001 else "= "
    return f"p {sign}{p_value(permuted.p)} ({permuted.permutations:,} permutations)"


def permuted_statistics(permuted: Permuted) -> str:
    """``KID, RBF MMD and energy distance``."""
    return listed([label_of(name) for name in permuted.statistics])


def warnings(report: GapReport) -> list[tuple[str, str]]:
    """Every warning once: (where it arose, such as ``FID: before, after``; sentence)."""
    places: dict[str, list[tuple[str, str]]] = {}
    for label, role, sentences in _everything(report):
        for sentence in sentences:
            places.setdefault(sentence, []).append((label, role))
    return [(": ".join(", ".join(dict.fromkeys(part)) for part in zip(*p, strict=True)), s) for s, p in places.items()]


def skipped(report: GapReport) -> list[tuple[str, str, str]]:
    """Every image that was left out: (set, key, reason)."""
    sets = [("reference", report.reference), *((row.role, row.set) for row in report.rows)]
    return [(role, key, reason) for role, images in sets for key, reason in images.skipped]


def notes(report: GapReport) -> list[tuple[str, str]]:
    """Every line about what was passed over, or is there twice: (set, line)."""
    sets = [("reference", report.reference), *((row.role, row.set) for row in report.rows)]
    return [(role, line) for role, images in sets for line in images.notes]


def _block(report: GapReport, name: str, change: Measurement | None, closed: Measurement | None) -> Block:
    measured = tuple((row.role, m) for row in report.rows for m in row.measurements if m.name == name)
    shown = unit(name, [m for _, m in measured])
    lines = [_line(role, shown, m) for role, m in measured]
    if change is not None:
        lines.append(_line(CHANGE, shown, change))
    if closed is not None:
        lines.append(_line(CLOSED, percent(closed), closed))
    return Block(name, shown, measured, change, closed, tuple(lines))


def _line(role: str, shown: Unit, measured: Measurement) -> Line:
    value, interval = shown.with_error(measured), shown.interval(measured)
    return Line(role, value, interval, p_value(measured.p), measured.n, measured.m)


def _kept_line(kept: Kept) -> KeptLine:
    probe = kept.name.startswith("label-probe@")
    shown = percent(kept) if probe else Unit("", 1.0, 3 if kept.se is not None and kept.se < 0.0095 else 2)
    value, interval = shown.with_error(kept), shown.interval(kept)
    return KeptLine(label_of(kept.name), kept.name, value, interval, kept.n, _note(kept.facts))


def _note(facts: Mapping[str, float]) -> str:
    """``accuracy before 98 %, after 86 %, chance 5 % (20 classes)``."""
    shares = [f"{name} {100 * value:.0f} %" for name, value in facts.items() if name != "classes"]
    classes = f" ({facts['classes']:.0f} classes)" if "classes" in facts else ""
    return ", ".join(shares).replace("accuracy after", "after") + classes


def _slice_line(part: Slice, shown: Unit) -> SliceLine:
    m = part.measurement
    return SliceLine(part, shown.with_error(m), shown.interval(m), p_value(m.p), p_value(part.p_adjusted))


def _by_effect(report: GapReport) -> list[LowLevel]:
    return sorted(report.low_level, key=lambda found: -abs(found.effect) if math.isfinite(found.effect) else math.inf)


def _low_level_line(found: LowLevel) -> LowLevelLine:
    difference = found.mean - found.real_mean
    exact = Measurement(found.name, difference, found.se, None, None, 0, 0)
    effect = f"{found.effect:+.2f}".replace("-", "−") if math.isfinite(found.effect) else "undefined"
    return LowLevelLine(
        found,
        figures(found.mean),
        figures(found.real_mean),
        unit(found.name, [exact]).with_error(exact),
        figures(found.distance),
        effect,
    )


def _everything(report: GapReport) -> Iterator[tuple[str, str, Sequence[str]]]:
    """(statistic, place, warnings) of all that was measured."""
    for row in report.rows:
        for measured in row.measurements:
            yield label_of(measured.name), row.role, measured.warnings
    for place, group in (("change", report.change), (CLOSED, report.closed), ("layers", report.profile)):
        for measured in group:
            yield label_of(measured.name), place, measured.warnings
    for part in report.slices:
        yield label_of(part.measurement.name), "slices", part.measurement.warnings
    for kept in report.kept:
        yield label_of(kept.name), "kept", kept.warnings
    if report.permuted is not None:
        yield "permutation test", "after", report.permuted.warnings
