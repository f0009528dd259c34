"""What a report says in rows of text, however it is rendered: numbers with units, warnings, skipped images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..gap_report import GapReport, Kept, Measurement

LABELS = {
    "kid": "KID",
    "fid": "FID",
    "gradient-correlation": "gradient correlation",
    "edge-f-score": "edge F-score",
    "label-probe": "label probe",
}
FACTORS = {"kid": 1000.0}  # papers print KID × 1000


@dataclass(frozen=True)
class Unit:
    """How one statistic is written: shown number = value × ``factor``, with ``digits`` after the point."""

    label: str  # "KID × 1000"
    factor: float
    digits: int
    suffix: str = ""

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


@dataclass(frozen=True)
class Line:
    """One line of a metric's table, as text."""

    role: str  # before, after, floor or "gap closed"
    value: str
    interval: str
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
class Block:
    """One metric: its unit, what was measured per role, and the lines of its table."""

    name: str
    unit: Unit
    measured: tuple[tuple[str, Measurement], ...]
    closed: Measurement | None
    lines: tuple[Line, ...]

    def get(self, role: str) -> Measurement | None:
        """The measurement of the row with this role, or None."""
        return dict(self.measured).get(role)


def blocks(report: GapReport) -> list[Block]:
    """One block per metric, in the order of the first row that holds it; metrics with a gap closed come first."""
    closed = {measured.name: measured for measured in report.closed}
    names = dict.fromkeys([*closed, *(measured.name for row in report.rows for measured in row.measurements)])
    return [_block(report, name, closed.get(name)) for name in names]


def kept_lines(report: GapReport) -> list[KeptLine]:
    """What the results keep of the raw images, in the report's order; the label probe is in percent."""
    return [_kept_line(kept) for kept in report.kept]


def unit(name: str, measured: Sequence[Measurement]) -> Unit:
    """The unit of one statistic; the digits shown follow the standard errors, or are four figures without them."""
    factor = FACTORS.get(name.partition("@")[0], 1.0)
    label = _label(name) + (f" × {factor:.0f}" if factor != 1.0 else "")
    return Unit(label, factor, _digits(measured, factor))


def percent(measured: Measurement | Kept) -> Unit:
    """The unit of a gap closed: whole percent, or one digit more when the standard error is below 1 %."""
    fine = measured.se is not None and 0.0 < measured.se < 0.0095
    return Unit("gap closed", 100.0, 1 if fine else 0, " %")


def warnings(report: GapReport) -> list[tuple[str, str]]:
    """Every warning once: (where it arose, such as ``FID: before, after``; sentence)."""
    places: dict[str, list[tuple[str, str]]] = {}
    for role, measured in _everything(report):
        for sentence in measured.warnings:
            places.setdefault(sentence, []).append((_label(measured.name), role))
    return [(": ".join(", ".join(dict.fromkeys(part)) for part in zip(*p, strict=True)), s) for s, p in places.items()]


def skipped(report: GapReport) -> list[tuple[str, str, str]]:
    """Every image that was left out: (set, key, reason)."""
    sets = [("reference", report.reference), *((row.role, row.set) for row in report.rows)]
    return [(role, key, reason) for role, images in sets for key, reason in images.skipped]


def _block(report: GapReport, name: str, closed: Measurement | None) -> Block:
    measured = tuple((row.role, m) for row in report.rows for m in row.measurements if m.name == name)
    shown = unit(name, [m for _, m in measured])
    lines = [_line(role, shown, m) for role, m in measured]
    if closed is not None:
        lines.append(_line("gap closed", percent(closed), closed))
    return Block(name, shown, measured, closed, tuple(lines))


def _kept_line(kept: Kept) -> KeptLine:
    probe = kept.name.startswith("label-probe@")
    shown = percent(kept) if probe else Unit("", 1.0, 3 if kept.se is not None and kept.se < 0.0095 else 2)
    return KeptLine(
        _label(kept.name), kept.name, shown.with_error(kept), shown.interval(kept), kept.n, _note(kept.facts)
    )


def _note(facts: Mapping[str, float]) -> str:
    """``accuracy before 98 %, after 86 %, chance 5 % (20 classes)``."""
    shares = [f"{name} {100 * value:.0f} %" for name, value in facts.items() if name != "classes"]
    classes = f" ({facts['classes']:.0f} classes)" if "classes" in facts else ""
    return ", ".join(shares).replace("accuracy after", "after") + classes


def _label(name: str) -> str:
    kind = name.partition("@")[0]
    return LABELS.get(kind, kind)


def _line(role: str, shown: Unit, measured: Measurement) -> Line:
    return Line(role, shown.with_error(measured), shown.interval(measured), measured.n, measured.m)


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


def _everything(report: GapReport) -> Iterator[tuple[str, Measurement | Kept]]:
    for row in report.rows:
        for measured in row.measurements:
            yield row.role, measured
    for measured in report.closed:
        yield "gap closed", measured
    for kept in report.kept:
        yield "kept", kept
