"""Classifier two-sample test: can a linear classifier tell synthetic images from real ones that it has not seen?

Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests" (2017), with deliberate deviations:

- The score is the area under the ROC curve, not the accuracy: shown one synthetic and one real image, how often does
  the classifier name the right one? 0.5 is guessing, 1 always right. It needs no threshold and no equal sizes.
- Every image is tested, by cross-validation. Scores of cross-validation are not independent and the binomial null of
  the paper rejects too often, so the p-value comes from permuting the labels, p = (1 + #{permuted ≥ observed})/(1 + B)
  (Phipson and Smyth, 2010): it is exact at any size, and never 0.
- Labels are permuted within folds. Every fold then keeps its numbers of synthetic and real images, and so do the sets
  that train, in all permutations alike.

The classifier is ridge regression of ±1 with an intercept. Its predictions are linear in the labels, so all
permutations cost one solution per fold and matrix products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

from ..errors import InputError
from ..seed import generator, seed_for
from .pair import Features, Groups, check_pair, group_index

FOLDS = 5
RIDGE = 0.3  # penalty in units of the features' mean squared distance from their mean
PERMUTATIONS = 199
TIE = 1e-9  # areas closer than this are equal


@dataclass(frozen=True, eq=False)
class C2st:
    """How well a linear classifier tells ``n`` synthetic images from ``m`` real ones.

    ``value`` is the cross-validated area under the ROC curve. ``p`` is the permutation p-value of the hypothesis that
    both sets come from one distribution, and ``null [B]`` holds the areas under permuted labels.
    """

    value: float
    p: float
    null: npt.NDArray[np.float64]
    folds: int
    n: int
    m: int
    warnings: tuple[str, ...] = ()


def c2st(
    x: Features,
    y: Features,
    *,
    groups_x: Groups | None = None,
    groups_y: Groups | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> C2st:
    """Classifier two-sample test of features ``x [N,D]`` and ``y [M,D]``, in float64 on the device of ``x``.

    ``groups_x`` and ``groups_y`` name each row's group, the photo that a crop comes from: groups are dealt to folds and
    permuted as wholes. The level is exact where, without a gap, groups *with their sizes* are exchangeable. Where one
    side has larger groups, ``warnings`` say so; with 4 to 8 crops of each real photo against single synthetic images, a
    test at 5 % rejected 1.5 to 3.5 % of simulated pairs without a gap.

    Groups are ordered by a hash of ``(seed, name)``, which decides folds and permutations; without groups the name is
    the row's number.

    Args:
        x: features ``[N,D]`` of the set under test.
        y: features ``[M,D]`` of the reference.
        groups_x: the group of each row of ``x``; None: every row is its own.
        groups_y: the same for ``y``.
        permutations: how many random deals the p-value is from.
        seed: decides folds and permutations.

    Returns:
        Area under the curve, its p-value, and the areas under permuted labels.

    Raises:
        InputError: as ``metrics.statistics.pair.check_pair`` and ``group_index``; or fewer than one permutation.
    """
    x, y = check_pair(x, y)
    if permutations < 1:
        raise InputError(f"permutations = {permutations}. Expected 1 or more; {PERMUTATIONS} are usual.")
    index_x, index_y = _hash_order(groups_x, len(x), "x", seed), _hash_order(groups_y, len(y), "y", seed)
    units_x, units_y = int(index_x.max()) + 1, int(index_y.max()) + 1
    folds = min(FOLDS, units_x, units_y)
    group = np.concatenate([index_x, units_x + index_y])
    fold_of_group = np.concatenate([np.arange(units_x) % folds, np.arange(units_y) % folds])
    labels = _permuted(np.arange(units_x + units_y) < units_x, fold_of_group, permutations, seed)[group]
    fold = fold_of_group[group]
    scores = _cross_validated(_coordinates(x, y), torch.from_numpy(labels).to(x.device), fold)
    areas = _areas(scores, labels, fold)
    observed, null = float(areas[0]), areas[1:]
    p = (1 + int((null >= observed - TIE).sum())) / (1 + permutations)
    warnings = _warnings(units_x, units_y, len(x), len(y), folds)
    return C2st(observed, p, null, folds, len(x), len(y), warnings)


def _hash_order(groups: Groups | None, rows: int, name: str, seed: int) -> npt.NDArray[np.int64]:
    """Each row's group as its rank in the order of hashes: int64 [rows]."""
    index = group_index(groups, rows, name)
    first = np.unique(index, return_index=True)[1].tolist()
    keys = [seed_for(seed, f"c2st-{name}", str(row if groups is None else groups[row])) for row in first]
    rank = np.empty(len(keys), dtype=np.int64)
    rank[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    return np.asarray(rank[index])


def _permuted(
    synthetic: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64], permutations: int, seed: int
) -> npt.NDArray[np.bool_]:
    """Labels of the groups: as they are, then permuted within folds: bool [groups, 1 + permutations]."""
    labels = np.repeat(synthetic[:, None], 1 + permutations, axis=1)
    rng = generator(seed, "c2st", "permutations")
    for number in range(int(fold.max()) + 1):
        rows = np.flatnonzero(fold == number)
        labels[rows, 1:] = rng.permuted(labels[rows, 1:], axis=0)
    return labels


def _coordinates(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The pooled, centred rows in an orthonormal basis of their span: float64 [N + M, min(N + M, D)]."""
    pooled = torch.cat([x, y]).double()
    pooled = pooled - pooled.mean(0)
    if len(pooled) >= pooled.shape[1]:
        return pooled
    triangle: torch.Tensor = torch.linalg.qr(pooled.T, mode="r").R
    return triangle.T


def _cross_validated(
    features: torch.Tensor, labels: torch.Tensor, fold: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Each row's score from the classifier trained without its fold, one column per column of ``labels``."""
    targets = labels.double() * 2 - 1
    scores = torch.empty_like(targets)
    gram = features.T @ features
    rounding = max(1e-12 * float(gram.trace()), torch.finfo(torch.float64).tiny)  # where training rows are all equal
    for number in range(int(fold.max()) + 1):
        test = torch.from_numpy(fold == number).to(features.device)
        held, train = features[test], features[~test]
        mean = train.mean(0)
        scatter = gram - held.T @ held - len(train) * torch.outer(mean, mean)  # of the training rows about their mean
        penalty = max(RIDGE * float(scatter.trace()) / len(train), rounding)
        factor = torch.linalg.cholesky(scatter.diagonal_scatter(scatter.diagonal() + penalty))
        weights = torch.cholesky_solve((train - mean).T @ targets[~test], factor)
        scores[test] = (held - mean) @ weights  # the intercept moves all scores of a fold alike
    return np.asarray(scores.cpu().numpy())


def _areas(
    scores: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Area under the ROC curve per column, over pairs of a synthetic and a real row of one fold; ties count half."""
    right, pairs = np.zeros(scores.shape[1]), np.zeros(scores.shape[1])
    for number in range(int(fold.max()) + 1):
        own, synthetic = scores[fold == number], labels[fold == number]
        count = synthetic.sum(0)
        right += (rankdata(own, axis=0) * synthetic).sum(0) - count * (count + 1) / 2
        pairs += count * (len(own) - count)
    return right / pairs


def _warnings(units_x: int, units_y: int, n: int, m: int, folds: int) -> tuple[str, ...]:
    found = []
    sizes = n / units_x, m / units_y
    if max(sizes) > 2 * min(sizes):
        found.append(
            f"Groups have {sizes[0]:.3g} images on one side and {sizes[1]:.3g} on the other: "
            "the p-value is approximate, on the cautious side. One image per group makes it exact."
        )
    smallest = 1 / math.prod(_deals(units_x, units_y, folds))
    if smallest > 0.01:
        found.append(f"{units_x} and {units_y} independent images: p-values cannot fall below about {smallest:.2g}.")
    return tuple(found)


def _deals(units_x: int, units_y: int, folds: int) -> list[int]:
    """In how many ways labels can be dealt out, fold by fold."""
    sides = [[len(range(fold, units, folds)) for units in (units_x, units_y)] for fold in range(folds)]
    return [math.comb(a + b, a) for a, b in sides]
