"""The label probe: how much of what a linear classifier reads from raw images it still reads from their results."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..features.extraction import FeatureSet, check_comparable
from ..seed import seed_for

Array = npt.NDArray[np.float64]
FOLDS = 5
RIDGE = 0.1  # penalty in units of the features' mean squared distance from their mean


@dataclass(frozen=True)
class LabelProbe:
    """``value`` = accuracy after / accuracy before, with its standard error (NaN where nothing is read before).

    ``before`` and ``after`` are cross-validated accuracies, ``chance`` what always naming the largest class would give.
    ``n`` images of ``classes`` classes took part; ``left_out`` had no label, or a class of fewer than FOLDS groups.
    """

    value: float
    se: float
    before: float
    after: float
    chance: float
    n: int
    classes: int
    left_out: int


def label_probe(after: FeatureSet, before: FeatureSet, *, seed: int = 0) -> LabelProbe:
    """Accuracy of a linear probe on the results' features divided by that on the raw images' features.

    The probe is a ridge classifier (one-hot least squares with an intercept, closed form, float64, penalty RIDGE),
    trained and tested on either set by itself in the same FOLDS folds: the groups of each class are ordered by a hash
    of ``(seed, group)`` and dealt out in turn, so the folds depend on nothing else. The standard error is that of a
    ratio of means over paired images (delta method; groups are the independent units), the trained probes held fixed.

    Args:
        after: features of the results.
        before: features of the raw images, with the same keys in any order; their labels and groups count.
        seed: decides the folds.

    Returns:
        The ratio with its standard error, and both accuracies.

    Raises:
        InputError: features of different extractors, different keys, or fewer than two classes that have FOLDS groups.
    """
    check_comparable(after, before)
    if set(after.keys) != set(before.keys):
        raise InputError("the two sets hold different keys. Expected features of the same images before and after.")
    rows = _usable(before)
    labels = np.array([str(before.labels[row]) for row in rows])
    groups = [before.groups[row] for row in rows]
    folds = _folds(labels.tolist(), groups, seed)
    places = {key: row for row, key in enumerate(after.keys)}
    paired = [places[before.keys[row]] for row in rows]
    right_before = _correct(before.features[rows].double().numpy(), labels, folds)
    right_after = _correct(after.features[paired].double().numpy(), labels, folds)
    value, se = _ratio(right_after, right_before, groups)
    sizes = Counter(labels.tolist())
    return LabelProbe(
        value,
        se,
        float(right_before.mean()),
        float(right_after.mean()),
        max(sizes.values()) / len(rows),
        len(rows),
        len(sizes),
        len(before) - len(rows),
    )


def _usable(features: FeatureSet) -> list[int]:
    """Rows in key order whose class has at least FOLDS groups."""
    held = {
        (str(label), group) for label, group in zip(features.labels, features.groups, strict=True) if label is not None
    }
    sizes = Counter(label for label, _ in held)
    if len(sizes) < 2:
        raise InputError(
            f"{features.root}: {len(sizes)} class(es) among {len(features)} images. A label probe needs two or more: "
            "one folder per class, or a label in metadata.jsonl."
        )
    fit = {label for label, size in sizes.items() if size >= FOLDS}
    if len(fit) < 2:
        raise InputError(
            f"{features.root}: {len(fit)} of {len(sizes)} classes have {FOLDS} images or more, and the largest has "
            f"{max(sizes.values())}. A label probe needs two such classes: add images."
        )
    order = sorted(range(len(features)), key=lambda row: features.keys[row])
    return [row for row in order if features.labels[row] is not None and str(features.labels[row]) in fit]


def _folds(labels: list[str], groups: list[str], seed: int) -> npt.NDArray[np.int64]:
    """The fold of every row: within a class, groups in hash order are dealt out in turn."""
    fold: dict[tuple[str, str], int] = {}
    for label in sorted(set(labels)):
        own = {group for group, name in zip(groups, labels, strict=True) if name == label}
        ordered = sorted(own, key=lambda group: (seed_for(seed, "fold", group), group))
        fold |= {(label, group): rank % FOLDS for rank, group in enumerate(ordered)}
    return np.array([fold[pair] for pair in zip(labels, groups, strict=True)])


def _correct(features: Array, labels: npt.NDArray[np.str_], folds: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the probe trained without a row's fold names the row's class."""
    names, truth = np.unique(labels, return_inverse=True)
    guess = np.empty_like(truth)
    for fold in range(FOLDS):
        test = folds == fold
        guess[test] = ridge_scores(features[~test], np.eye(len(names))[truth[~test]], features[test]).argmax(1)
    return np.asarray(guess == truth)


def ridge_scores(train: Array, targets: Array, test: Array) -> Array:
    """Predictions ``[M,C]`` for ``test [M,D]`` by ridge regression of ``targets [N,C]`` on ``train [N,D]``.

    Minimises ``|Xw + b − y|² + λ|w|²`` with λ = RIDGE · mean squared distance of the training rows from their mean;
    the intercept is not penalised. Solved in whichever of N and D is smaller.

    Returns:
        ``float64 [M,C]``.
    """
    mean, offset = train.mean(0), targets.mean(0)
    x, y = train - mean, targets - offset
    penalty = max(RIDGE * float((x * x).sum()) / len(x), np.finfo(np.float64).tiny)
    if len(x) <= x.shape[1]:
        weights = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
    else:
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return np.asarray((test - mean) @ weights + offset)


def _ratio(after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_], groups: list[str]) -> tuple[float, float]:
    """Ratio of means and its delta-method standard error with groups as the independent units."""
    if not before.any():
        return math.nan, math.nan
    value = float(after.mean() / before.mean())
    places = np.unique(groups, return_inverse=True)[1]
    residuals = np.bincount(places, weights=after - value * before)
    count = len(residuals)
    variance = float((residuals**2).sum()) * count / (count - 1)
    return value, math.sqrt(variance) / float(before.sum())
