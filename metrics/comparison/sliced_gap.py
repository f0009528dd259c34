"""The gap slice by slice: KID of each class or tag of the set under test, with Holm's correction for having many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..features.extraction import FeatureSet
from ..statistics.measure import measure
from ..statistics.measurement import Measurement
from ..statistics.permutation import permutation_test
from .gap_report import Slice
from .slices import LEAST, holm, slices

ALL = "all real images"


def measure_slices(
    after: FeatureSet, real: FeatureSet, names: Sequence[str], permutations: int, seed: int
) -> tuple[Slice, ...]:
    """KID of every slice of ``after`` that ``names`` call for: ``label``, or a column of the metadata.

    A slice is compared with the same slice of ``real`` where that has LEAST images in two groups, else with all of
    ``real``. With ``permutations`` every slice has a p-value and its adjusted one. Slices that are too small are listed
    with a value of NaN.

    Args:
        after: features of the set under test.
        real: features of the reference.
        names: ``label``, or columns of the metadata.
        permutations: deals of every slice's test; 0: none.
        seed: decides them.

    Returns:
        A slice per value, those that are too small last.
    """
    ours, theirs = (slices(features.labels, features.tags) for features in (after, real))
    chosen = [slice_ for slice_ in ours.rows if slice_.partition(": ")[0] in names]
    references = [_reference(real, theirs.rows.get(slice_, ())) for slice_ in chosen]
    found = [
        _measured(after.subset(ours.rows[slice_]), reference, permutations, seed)
        for slice_, reference in zip(chosen, references, strict=True)
    ]
    adjusted = iter(holm([one.p for one in found if one.p is not None]))
    measured = [
        Slice(slice_, ALL if reference is real else slice_, one, None if one.p is None else next(adjusted))
        for slice_, reference, one in zip(chosen, references, found, strict=True)
    ]
    small = [(slice_, count) for slice_, count in ours.small.items() if slice_.partition(": ")[0] in names]
    return (*measured, *(Slice(slice_, ALL, _too_small(count, after)) for slice_, count in small))


def _reference(real: FeatureSet, rows: Sequence[int]) -> FeatureSet:
    part = real.subset(rows)
    return part if len(part) >= LEAST and len(set(part.groups)) >= 2 else real


def _measured(part: FeatureSet, real: FeatureSet, permutations: int, seed: int) -> Measurement:
    if len(set(part.groups)) < 2:
        return _too_small(len(set(part.groups)), part)
    found = measure("kid", part, real).measurement
    if not permutations:
        return found
    test = permutation_test(
        part.features,
        real.features,
        ("kid",),
        permutations,
        seed,
        groups_x=part.groups,
        groups_y=real.groups,
    )
    return replace(found, p=test.p_values["kid"], warnings=(*found.warnings, *test.warnings))


def _too_small(count: int, features: FeatureSet) -> Measurement:
    note = f"{count} independent images: a slice needs {LEAST}."
    return Measurement(f"kid@{features.extractor}", math.nan, None, None, None, count, 0, (note,))
