"""Which images make the gap: the witness of the MMD, image by image, and nearest neighbours across the sets.

The witness function (Gretton et al., "A Kernel Two-Sample Test", 2012, section 2.3) is high where synthetic images are
dense and real ones are not: f(z) = mean of k(z, x_i) − mean of k(z, y_j), here with KID's cubic kernel. An image is
not compared with itself or with its own group, so that the scores of images that are not in a gap average 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..errors import InputError
from ..extractors.float_precision import ieee_float32
from ..statistics.kid import cubic
from ..statistics.mmd import blocks
from ..statistics.neighbours import nearest
from ..statistics.pair import Features, Groups, check_pair, group_index


@dataclass(frozen=True, eq=False)
class Witness:
    """Scores and nearest neighbours of ``N`` synthetic and ``M`` real images, in the order of the features.

    ``synthetic [N]`` is f of every synthetic image: the highest look most synthetic, least like the real set.
    ``real [M]`` is −f of every real image: the highest are those that the synthetic set covers least. Without groups
    the mean of ``synthetic`` plus the mean of ``real`` is the KID, so a score is the image's share in it.

    ``nearest_real [N]`` is the row of the real image nearest to each synthetic one and ``real_distance [N]`` its
    Euclidean distance; ``nearest_synthetic [M]`` and ``synthetic_distance [M]`` are the other way round.
    """

    synthetic: npt.NDArray[np.float64]
    real: npt.NDArray[np.float64]
    nearest_real: npt.NDArray[np.int64]
    real_distance: npt.NDArray[np.float64]
    nearest_synthetic: npt.NDArray[np.int64]
    synthetic_distance: npt.NDArray[np.float64]


def witness(x: Features, y: Features, *, groups_x: Groups | None = None, groups_y: Groups | None = None) -> Witness:
    """Scores of synthetic features ``x [N,D]`` against real ones ``y [M,D]``; groups are as for ``kid``.

    Memory beside the features is O(BLOCK · (N + M)).

    Args:
        x: features ``[N,D]`` of the set under test.
        y: features ``[M,D]`` of the reference.
        groups_x: the group of each row of ``x``; None: every row is its own.
        groups_y: the same for ``y``.

    Returns:
        A score per image of either set, high where it makes the gap, and its nearest neighbour in the other.

    Raises:
        InputError: as ``metrics.statistics.kid.kid``.
    """
    x, y = check_pair(x, y)
    index_x, index_y = group_index(groups_x, len(x), "x"), group_index(groups_y, len(y), "y")
    with torch.inference_mode(), ieee_float32():
        synthetic = _mean_kernel(x, x, index_x) - _mean_kernel(x, y)
        real = _mean_kernel(y, y, index_y) - _mean_kernel(y, x)
    if not (np.isfinite(synthetic).all() and np.isfinite(real).all()):
        raise InputError("the kernel overflows: features are too large for their dtype. Rescale them or pass float64.")
    return Witness(synthetic, real, *nearest(x, y), *nearest(y, x))


def _mean_kernel(
    x: torch.Tensor, y: torch.Tensor, group: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.float64]:
    """Mean over the rows of ``y`` of the kernel with each row of ``x``; with ``group`` (x is y), over other groups."""
    groups = None if group is None else torch.from_numpy(group).to(x.device)
    found = []
    for rows in blocks(len(x)):
        tile = cubic(x[rows], y)
        others = torch.full((len(tile),), len(y), device=x.device)
        if groups is not None:
            own = groups[rows, None] == groups
            tile.masked_fill_(own, 0)
            others = others - own.sum(1)
        found.append(tile.sum(1) / others)
    return np.asarray(torch.cat(found).cpu().numpy())
