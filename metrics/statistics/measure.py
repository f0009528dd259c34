"""The statistics of a report by name: features of a set and of the reference in, one measurement out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..errors import InputError
from ..features.extraction import FeatureSet, check_comparable
from .c2st import c2st
from .cmmd import SCALE, cmmd
from .frechet import frechet
from .frechet_infinity import frechet_infinity
from .jackknife import interval
from .kid import kid
from .kid_subsets import kid_subsets
from .measurement import Measurement
from .mmd import Mmd, energy, median_distance, rbf
from .precision_recall import density_coverage, precision_recall
from .sliced_wasserstein import sliced_wasserstein
from .table import Metric, known_metrics, metric

SUBSET = 1000  # images of a subset of published KIDs
LEAST_GROUPS = 20  # independent images a side below which balls to the nearest neighbours say nothing
FEW_GROUPS = 8  # below this many independent real photos, say so


@dataclass(frozen=True, eq=False)
class Measured:
    """A measurement and, for kernel distances, the estimate behind it with its leave-one-out values."""

    measurement: Measurement
    mmd: Mmd | None = None


def check_metrics(names: Sequence[str]) -> None:
    """Refuse an empty list or an unknown name.

    Raises:
        InputError: with near names.
    """
    for name in names:
        metric(name)
    if not names:
        raise InputError(f"no metric named. Expected some of: {', '.join(known_metrics())}.")


def measure(name: str, x: FeatureSet, real: FeatureSet, *, seed: int = 0) -> Measured:
    """The metric ``name`` of ``x`` against ``real``; ``seed`` decides projections and folds.

    The RBF bandwidth is the median distance within ``real``, so that all sets measured against it share one scale.

    Args:
        name: of the metric.
        x: features of the set under test.
        real: features of the reference.
        seed: decides projections and folds.

    Returns:
        The measurement, with its leave-one-out values where it has such.

    Raises:
        InputError: features of different extractors, or too few images.
    """
    check_comparable(x, real)
    found = _MEASURES[name](x, real, seed) if name in _MEASURES else _foreign(metric(name), x, real, seed)
    return replace(found, measurement=replace(found.measurement, name=f"{name}@{x.extractor}"))


def from_mmd(estimate: Mmd, real: FeatureSet) -> Measured:
    """The measurement of a kernel distance, with its interval and what the reader must know."""
    error = estimate.error
    warnings = [] if error.reason is None else [f"No standard error: {error.reason}."]
    groups = len(set(real.groups))
    if groups < FEW_GROUPS:
        warnings.append(
            f"Only {groups} independent real photos: the error bar covers how these photos vary, and is itself rough."
        )
    low, high = interval(estimate.value, error) or (None, None)
    measurement = Measurement("", estimate.value, error.se, low, high, estimate.n, estimate.m, tuple(warnings))
    return Measured(measurement, estimate)


def _scaled(estimate: Mmd, factor: float) -> Mmd:
    error = estimate.error
    return replace(
        estimate,
        value=factor * estimate.value,
        error=replace(error, se=None if error.se is None else factor * error.se),
        loo_x=factor * estimate.loo_x,
        loo_y=factor * estimate.loo_y,
    )


def _foreign(facts: Metric, x: FeatureSet, real: FeatureSet, seed: int) -> Measured:
    """A metric of another package, which gives a number without an error bar."""
    assert facts.function is not None
    return _bare(float(facts.function(x.features, real.features, seed)), x, real, ())


def _kid(x: FeatureSet, real: FeatureSet, seed: int) -> Measured:
    return from_mmd(kid(x.features, real.features, groups_x=x.groups, groups_y=real.groups), real)


def _rbf(x: FeatureSet, real: FeatureSet, seed: int) -> Measured:
    width = median_distance(real.features[::2], real.features[1::2])  # the pairs of all rows of the reference
    return from_mmd(rbf(x.features, real.features, groups_x=x.groups, groups_y=real.groups, bandwidth=width), real)


def _energy(x: FeatureSet, real: FeatureSet, seed: int) -> Measured:
    return from_mmd(energy(x.features, real.features, groups_x=x.groups, groups_y=real.groups), real)


def _cmmd(x: FeatureSet, real: FeatureSet, seed: int) -> Measured:
    found = cmmd(x.features, real.features, groups_x=x.groups, groups_y=real.groups)
    measured = from_mmd(_scaled(found.mmd, SCALE), real)
    beside = found.warnings or (f"The published estimate, which is biased, is {found.published:.4g}.",)
    warnings = (*measured.measurement.warnings, *beside)
    return replace(measured, measurement=replace(measured.measurement, warnings=warnings))


def _fid(x: FeatureSet, real: FeatureSet, seed: int) -> Measured:
    found = frechet(x.features, real.features)
    return _bare(found.value, x, real, found.warnings)


def _kid_subsets(x: FeatureSet, real: FeatureSet, seed: int) -> Measured:
    """As papers publish it; the smaller set as a whole where it has fewer images than a subset."""
    size = min(SUBSET, len(x), len(real))
    found = kid_subsets(x.features, real.features, size=size)
    spread = f"Mean over random subsets of {size} images; their spread, {found.std:.2g}, is no standard error: see kid."
    return _bare(found.mean, x, real, (spread,))


def _fid_infinity(x: FeatureSet, real: FeatureSet, seed: int) -> Measured:
    found = frechet_infinity(x.features, real.features, seed=seed)
    return _bare(found.value, x, real, (f"Extrapolated to endless images; the line fits to {found.fit_se:.2g}.",))


def _sliced(x: FeatureSet, real: FeatureSet, seed: int) -> Measured:
    found = sliced_wasserstein(x.features, real.features, seed=seed)
    note = "Sliced Wasserstein distances are too high where images are few: read this one against the floor."
    return _bare(found.value, x, real, (note,))


def _c2st(x: FeatureSet, real: FeatureSet, seed: int) -> Measured:
    found = c2st(x.features, real.features, groups_x=x.groups, groups_y=real.groups, seed=seed)
    scatter = "Cross-validated with so few independent images the area can lie far below 0.5: go by the p-value."
    warnings = (*found.warnings, scatter) if found.value < 0.4 else found.warnings
    bare = _bare(found.value, x, real, warnings)
    return replace(bare, measurement=replace(bare.measurement, p=found.p))


def _precision_recall(part: str) -> Callable[[FeatureSet, FeatureSet, int], Measured]:
    def measured(x: FeatureSet, real: FeatureSet, seed: int) -> Measured:
        _check_neighbours(x, real)
        found = precision_recall(x.features, real.features, groups_x=x.groups, groups_y=real.groups)
        return _bare(getattr(found, part), x, real, found.warnings)

    return measured


def _density_coverage(part: str) -> Callable[[FeatureSet, FeatureSet, int], Measured]:
    def measured(x: FeatureSet, real: FeatureSet, seed: int) -> Measured:
        _check_neighbours(x, real)
        found = density_coverage(x.features, real.features, groups_x=x.groups, groups_y=real.groups)
        return _bare(getattr(found, part), x, real, found.warnings)

    return measured


def _check_neighbours(x: FeatureSet, real: FeatureSet) -> None:
    """With few photos the ball around one reaches to all others, and everything seems plausible."""
    few = min((len(set(one.groups)), one.root) for one in (x, real))
    if few[0] < LEAST_GROUPS:
        raise InputError(
            f"{few[1]}: {few[0]} independent images, too few for nearest neighbours across them. Expected at least "
            f"{LEAST_GROUPS}."
        )


def _bare(value: float, x: FeatureSet, real: FeatureSet, warnings: Sequence[str]) -> Measured:
    """A measurement that has no error bar."""
    return Measured(Measurement("", value, None, None, None, len(x), len(real), tuple(warnings)))


_MEASURES: dict[str, Callable[[FeatureSet, FeatureSet, int], Measured]] = {
    "kid": _kid,
    "kid-subsets": _kid_subsets,
    "fid": _fid,
    "fid-infinity": _fid_infinity,
    "rbf": _rbf,
    "energy": _energy,
    "cmmd": _cmmd,
    "sliced-wasserstein": _sliced,
    "precision": _precision_recall("precision"),
    "recall": _precision_recall("recall"),
    "density": _density_coverage("density"),
    "coverage": _density_coverage("coverage"),
    "c2st": _c2st,
}
