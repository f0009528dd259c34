"""Noise floor: the distance between two parts of one real set, at the size of the candidate.

No generator gets below it, and it answers "how large is 0.003?" in the units of the metric. It works for any statistic
of two feature sets, those that are biased at few images included, because both parts are as small as the candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch

from ..errors import InputError
from ..seed import generator
from .pair import Features, Groups, check_features, group_index

Statistic = Callable[[torch.Tensor, torch.Tensor, list[Hashable], list[Hashable]], float]


def noise_floor(
    real_features: Features,
    groups: Groups | None,
    n: int,
    statistic: Statistic,
    halvings: int = 20,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """``statistic`` between two parts of ``real_features [N,D]``, for seeded random divisions by group.

    The first part stands for the candidate: it has ``n`` rows, or as near to that as whole groups come, but at most
    half of all rows, so that the second part, which stands for the reference, is never the smaller one by more than a
    group. Both parts have at least two groups. Rows keep their order.

    Args:
        real_features: features of the reference, float32 or float64.
        groups: each row's independent unit (photo); None: every row its own.
        n: images of the candidate.
        statistic: of (first part, second part, groups of its rows, groups of its rows), e.g.
            ``lambda x, y, a, b: kid(x, y, groups_x=a, groups_y=b).value``.
        halvings: how many divisions.
        seed: decides the divisions, each by its own number: more halvings begin with the same ones. With named
            groups they do not depend on the order of the rows.

    Returns:
        The values, float64 ``[halvings]``, and the rows of both parts, int64 ``[halvings,2]``. Divisions of one set
        overlap, so the spread of the values is that of a single distance, not of their mean.

    Raises:
        InputError: fewer than four groups, ``n`` below 1, no halving, or bad features.
    """
    features = check_features(real_features, "real_features")
    names: Groups = list(range(len(features))) if groups is None else groups
    index = group_index(names, len(features), "real")
    if len(set(names)) < 4:
        raise InputError(f"{len(set(names))} independent real images. Expected at least 4: a floor halves them.")
    if n < 1 or halvings < 1:
        raise InputError(f"got n = {n} and halvings = {halvings}. Expected at least 1 of each.")
    values, sizes = [], []
    for halving in range(halvings):
        first = _first_part(names, index, n, generator(seed, "halving", str(halving)))
        parts = [np.flatnonzero(first[index]), np.flatnonzero(~first[index])]
        x, y = (features[torch.from_numpy(rows).to(features.device)] for rows in parts)
        values.append(statistic(x, y, *([names[row] for row in rows.tolist()] for rows in parts)))
        sizes.append([len(rows) for rows in parts])
    return np.array(values, dtype=np.float64), np.array(sizes, dtype=np.int64)


def _first_part(names: Sequence[Hashable], index: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """Which groups are in the first part, bool [groups]: the number whose rows come nearest to n or half of all."""
    sizes = np.bincount(index)
    labels = [repr(label) for label in dict.fromkeys(names)]
    order = np.argsort(labels)[random.permutation(len(labels))]  # by name first: the order of the rows must not matter
    reached = np.cumsum(sizes[order])
    target = min(n, len(index) / 2)
    count = int(np.clip(np.argmin(np.abs(reached - target)) + 1, 2, len(order) - 2))
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order[:count]] = True
    return chosen
