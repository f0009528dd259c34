"""What a comparison found, as plain data: the one document behind every report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 2


@dataclass(frozen=True)
class Measurement:
    """One statistic of one set against the reference.

    ``name`` carries its provenance (``kid@efficientnet-lite0``). ``se`` is a jackknife standard error and
    ``low``/``high`` a 95 % confidence interval; all three are None for statistics that have none.
    ``n`` and ``m`` count the images of the set and of the reference. ``warnings`` are sentences for the reader.
    """

    name: str
    value: float
    se: float | None
    low: float | None
    high: float | None
    n: int
    m: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SetSummary:
    """What was measured: where it lies, how many images and independent groups (photos), and what was skipped."""

    root: str
    images: int
    groups: int
    skipped: tuple[tuple[str, str], ...] = ()  # (key, reason)


@dataclass(frozen=True)
class Row:
    """One set against the reference; ``role`` is 'before' (raw), 'after' (under test) or 'floor' (real to real)."""

    role: str
    set: SetSummary
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Kept:
    """A share of the raw images' structure or labels that their results keep: 1 is all of it.

    ``name`` is gradient-correlation, edge-f-score or ``label-probe@`` and an extractor. ``se`` is a standard error over
    the ``n`` images that were measured, ``low``/``high`` a 95 % confidence interval. ``facts`` holds numbers behind the
    value, such as the label probe's accuracies. A value that could not be had is NaN, and ``warnings`` say why.
    """

    name: str
    value: float
    se: float | None
    low: float | None
    high: float | None
    n: int
    facts: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """One row of the image grid: files of the raw image, the style image and the result; each may be None.

    ``style_box`` is (left, top, side) in pixels of the style photo, or None for the whole photo.
    """

    key: str
    content: str | None
    style: str | None
    style_box: tuple[int, int, int] | None
    result: str


@dataclass(frozen=True)
class GapReport:
    """Everything a report shows. Plain data: ``dataclasses.asdict`` of it is the JSON document.

    ``closed`` holds, per metric, gap closed = 1 − (after − floor) / (before − floor) as a fraction with its
    standard error, and ``kept`` what of the raw images survives; both are empty without a 'before' row. ``extractor``
    holds name, fingerprint and preprocessing; ``config`` the resolved run configuration and versions; ``licences`` the
    ledger rows of the real images, and ``unlicensed`` the keys of those without one.
    """

    reference: SetSummary
    rows: tuple[Row, ...]
    closed: tuple[Measurement, ...]
    extractor: Mapping[str, str]
    config: Mapping[str, Any]
    licences: tuple[Mapping[str, str], ...] = ()
    examples: tuple[Example, ...] = ()
    unlicensed: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    schema: int = field(default=SCHEMA)

    def row(self, role: str) -> Row | None:
        """The row with this role, or None."""
        return next((row for row in self.rows if row.role == role), None)
