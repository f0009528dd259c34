"""What a comparison found, as plain data: the one document behind every report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..statistics.measurement import LowLevel, Measurement

SCHEMA = 4


@dataclass(frozen=True)
class SetSummary:
    """What was measured: where it lies, how many images and independent groups (photos), and what was skipped.

    ``skipped`` holds (key, reason) of every whole image that belongs to the set and took no part, beside the ``photos``
    that did (0: as many as ``images``, which may be crops of them). ``notes`` say what was passed over and is no image.

    ``digest``, of the reference only, names the content, crops and groups of its images and the network: two reports
    were measured against the same reference if and only if these are equal.
    """

    root: str
    images: int
    groups: int
    skipped: tuple[tuple[str, str], ...] = ()  # (key, reason)
    digest: str = ""
    photos: int = 0
    notes: tuple[str, ...] = ()

    @property
    def lost(self) -> float:
        """The share of the whole images that took no part."""
        count = len(self.skipped)
        return count / (count + (self.photos or self.images)) if count else 0.0


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
class Resampled:
    """Leave-one-group-out values of a statistic of the set under test, which its standard error comes from.

    ``set[g]`` is the value without group g of the set, ``reference[g]`` without group g of the reference. Two reports
    of one reference are compared with them: leaving out a real image moves both values together.
    """

    name: str
    set: tuple[float, ...]
    reference: tuple[float, ...]


@dataclass(frozen=True)
class Permuted:
    """The permutation test of the set under test: ``p`` combines ``statistics`` by their smallest p-value (min-p)."""

    p: float
    permutations: int
    statistics: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slice:
    """One class or tag of the set under test against the reference; ``p_adjusted`` is Holm's over all slices.

    ``reference`` says what it was compared with: the same class or tag of the real images, or all of them.
    """

    name: str
    reference: str
    measurement: Measurement
    p_adjusted: float | None = None


@dataclass(frozen=True)
class Explained:
    """One image that explains the gap, its witness score, and the nearest image of the other set.

    The witness score is the mean kernel value to the own set less the one to the other set: high for a synthetic
    image that looks like no real one, and for a real image that no synthetic one comes near.
    ``file`` and ``neighbour_file`` say where the whole images are ('' where only features are known), ``box`` and
    ``neighbour_box`` (left, top, side) which square of them was measured: None for all of it.
    """

    key: str
    file: str
    score: float
    neighbour: str
    neighbour_file: str
    box: tuple[int, int, int] | None = None
    neighbour_box: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Point:
    """One image on the map of both sets; ``role`` is 'after' or 'real'."""

    key: str
    role: str
    x: float
    y: float


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

    Attributes:
        reference: the real images that all rows are measured against.
        rows: ``before``, ``after`` and ``floor``, as far as they were given, with their measurements.
        closed: per metric, gap closed = 1 − (after − floor) / (before − floor) as a fraction with its standard error;
            empty without a row ``before``.
        extractor: name, fingerprint and preprocessing.
        config: the resolved run configuration, and versions.
        licences: ledger rows of the real images.
        examples: rows of the grid of images.
        unlicensed: keys of the real images without a licence.
        kept: what of the raw images survives; empty without a row ``before``.
        change: per metric, after − before with the standard error that their shared reference allows.
        permuted: the permutation test; None: not made.
        profile: the distance of the set under test by layers of the network, from low to high.
        slices: parts of the set under test, each measured by itself.
        low_level: how the sets differ in brightness, colour, contrast, spectrum, sharpness and edges.
        most_synthetic: the images under test that explain the gap, worst first.
        least_covered: the real images that the set under test covers least, worst first.
        points: a map of both sets.
        resampled: leave-one-out values, for comparison with a later report.
        schema: version of the document.
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
    change: tuple[Measurement, ...] = ()
    permuted: Permuted | None = None
    profile: tuple[Measurement, ...] = ()
    slices: tuple[Slice, ...] = ()
    low_level: tuple[LowLevel, ...] = ()
    most_synthetic: tuple[Explained, ...] = ()
    least_covered: tuple[Explained, ...] = ()
    points: tuple[Point, ...] = ()
    resampled: tuple[Resampled, ...] = ()
    schema: int = field(default=SCHEMA)

    def row(self, role: str) -> Row | None:
        """One row of the report.

        Args:
            role: ``before``, ``after`` or ``floor``.

        Returns:
            The row, or None where that set was not given.
        """
        return next((row for row in self.rows if row.role == role), None)
