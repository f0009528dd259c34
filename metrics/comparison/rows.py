"""The rows of a report: every set against the reference, by every metric, and the floor where none was given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..errors import InputError, UndefinedError
from ..features.extraction import FeatureSet
from ..statistics.measure import Measured, measure
from ..statistics.measurement import Measurement
from ..statistics.noise_floor import noise_floor
from ..statistics.table import metric
from .gap_report import Row, SetSummary

HALVINGS = 20


def measured_rows(
    features: Mapping[str, FeatureSet],
    metrics: Sequence[str],
    seed: int,
    notes: Sequence[str],
    p: Mapping[str, float],
) -> tuple[tuple[Row, ...], dict[str, dict[str, Measured]]]:
    """The rows of a report, and what was measured by role and metric.

    Args:
        features: of the reference, ``real``, of the set under test, ``after``, and perhaps of ``before`` and ``floor``.
        metrics: names in :mod:`metrics.statistics.table`.
        seed: decides halvings and projections.
        notes: lines for people, said with the set under test.
        p: the p-value of a metric, of the set under test.

    Returns:
        The rows in the order of their roles; what was measured, by role and metric.
    """
    reference = features["real"]
    roles = [role for role in ("before", "after", "floor") if role in features]
    found = {role: {name: measured(name, features[role], reference, seed) for name in metrics} for role in roles}
    rows = []
    for role in roles:
        said = (*_shared(features[role], reference), *(notes if role == "after" else ()))
        rows.append(_row(role, features[role], found[role].values(), said, p if role == "after" else {}))
    if "floor" not in features:
        found["floor"] = {name: _split_floor(name, features["after"], reference, seed) for name in metrics}
        told = replace(reference, skipped=(), notes=())  # of the reference itself
        rows.append(_row("floor", told, found["floor"].values(), (), {}))
    return tuple(rows), found


def measured(name: str, features: FeatureSet, real: FeatureSet, seed: int) -> Measured:
    """The statistic; one that these images leave undefined, as a score does that takes more of them, says why."""
    try:
        return measure(name, features, real, seed=seed)
    except InputError as error:
        if metric(name).distance and not isinstance(error, UndefinedError):
            raise
        return _undefined(name, features, str(error))


def _undefined(name: str, features: FeatureSet, why: str) -> Measured:
    return Measured(Measurement(f"{name}@{features.extractor}", math.nan, None, None, None, len(features), 0, (why,)))


def _row(
    role: str, features: FeatureSet, found: Iterable[Measured], notes: Sequence[str], p: Mapping[str, float]
) -> Row:
    """One set's measurements; what was left out is said with the first."""
    measurements = [
        replace(one.measurement, p=p.get(one.measurement.name.partition("@")[0], one.measurement.p)) for one in found
    ]
    measurements[0] = replace(measurements[0], warnings=(*notes, *measurements[0].warnings))
    return Row(role, summary(features), tuple(measurements))


def _shared(features: FeatureSet, real: FeatureSet) -> tuple[str, ...]:
    """A warning where images are in the set and among the real ones: the distance is then too small."""
    known = {row.tobytes() for row in real.features.numpy()}
    count = sum(row.tobytes() in known for row in features.features.numpy())
    return (f"{count} of {len(features)} images have the very features of a real one: the gap reads too small.",) * (
        count > 0
    )


def _split_floor(name: str, after: FeatureSet, real: FeatureSet, seed: int) -> Measured:
    """Real against real: the mean of a metric over HALVINGS random divisions of the reference by group."""

    def statistic(x: torch.Tensor, y: torch.Tensor, groups_x: Sequence[Any], groups_y: Sequence[Any]) -> float:
        parts = (
            replace(real, features=part, keys=tuple(map(str, range(len(part)))), groups=tuple(groups))
            for part, groups in ((x, groups_x), (y, groups_y))
        )
        return measure(name, *parts, seed=seed).measurement.value

    full = f"{name}@{real.extractor}"
    try:
        values, sizes = noise_floor(real.features, real.groups, len(after), statistic, HALVINGS, seed)
    except InputError as error:
        return _undefined(name, real, f"No floor: {error}")
    n, m = (round(float(side)) for side in sizes.mean(0))
    low, high = np.quantile(values, (0.025, 0.975))
    if metric(name).unbiased:
        note = (
            f"Real against real is 0 for an unbiased distance; the interval holds 95 % of {HALVINGS} random halvings."
        )
        return Measured(Measurement(full, 0.0, None, float(low), float(high), n, m, (note,)))
    note = (
        f"Real against real: mean of {len(values)} random halvings of the reference; the interval holds 95 % of them."
    )
    return Measured(Measurement(full, float(values.mean()), None, float(low), float(high), n, m, (note,)))


def summary(features: FeatureSet, digest: str = "") -> SetSummary:
    """What a report says of a set."""
    groups = len(set(features.groups))
    return SetSummary(features.root, len(features), groups, features.skipped, digest, features.photos, features.notes)
