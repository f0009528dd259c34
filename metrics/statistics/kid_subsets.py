"""KID by the published protocol: the mean over random subsets, with the same subsets as torch-fidelity.

Bińkowski et al. (2018) and all common tools average the KIDs of 100 subsets of 1 000 images a side; torch-fidelity
draws them from NumPy's legacy ``RandomState(2020)``, x and y in turn, without replacement. The same stream gives the
same subsets here, hence the same number to rounding. torchmetrics (``kid_mean``, ``kid_std``; ``subsets=100``,
``subset_size=1000``) and clean-fid follow the protocol with unseeded draws, so theirs differ from run to run.

For any other purpose use :func:`metrics.statistics.kid.kid`: it needs no seed, varies less and knows its error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import InputError
from ..extractors.float_precision import ieee_float32
from .kid import cubic, kid
from .mmd import blocks
from .pair import Features, check_pair


@dataclass(frozen=True, eq=False)
class KidSubsets:
    """Mean and spread of the KIDs ``values`` (float64 ``[subsets]``) of random subsets of ``size`` images a side.

    ``std`` is what papers and tools print behind "±" (population standard deviation). It is NO standard error: subsets
    overlap, and it is ruled by ``size`` alone, down to 0 where a subset is the whole set. The error of the KID of these
    images is ``metrics.statistics.kid.kid(x, y).se``.
    """

    mean: float
    std: float
    values: np.ndarray
    size: int


def kid_subsets(x: Features, y: Features, *, subsets: int = 100, size: int = 1000, seed: int = 2020) -> KidSubsets:
    """Published KID of features ``x [N,D]`` and ``y [M,D]``; the defaults are those of torch-fidelity.

    Kernel values have the features' dtype and sums are float64. torch-fidelity sums in the features' dtype: with
    float64 features the two agree to 1e-9 of the value, with float32 to its rounding (1e-4 of a KID of 1e-3).

    Where subsets overlap enough, every pair of images is computed once and serves all of them by a 0/1 matrix of
    membership; otherwise each subset is computed by itself. Both give the same to rounding.

    Args:
        x: features ``[N,D]`` of the set under test.
        y: features ``[M,D]`` of the reference.
        subsets: how many.
        size: images a side of each.
        seed: decides them.

    Returns:
        Mean and spread over the subsets, and the value of each.

    Raises:
        InputError: as ``metrics.statistics.kid.kid``; a subset larger than a set (published numbers need at least 1 000
            images a side), fewer than 2 images or 1 subset.
    """
    x, y = check_pair(x, y)
    n, m = len(x), len(y)
    if subsets < 1 or not 2 <= size <= min(n, m):
        raise InputError(
            f"{subsets} subsets of {size} images from {n} and {m}. Expected at least 1 subset of 2 images, and no more "
            "than either set has. For few images use the function kid, which takes all of them."
        )
    random = np.random.RandomState(seed)  # torch-fidelity's stream
    draws = [(random.choice(n, size, replace=False), random.choice(m, size, replace=False)) for _ in range(subsets)]
    if n * n + m * m + 2 * n * m < 4 * subsets * size * size:
        in_x, in_y = _membership([rows for rows, _ in draws], n), _membership([rows for _, rows in draws], m)
        values = _all_at_once(x, y, in_x.to(x.device), in_y.to(x.device))
    else:
        values = np.array([kid(x[torch.from_numpy(i)], y[torch.from_numpy(j)]).value for i, j in draws])
    if not np.isfinite(values).all():
        raise InputError("the kernel overflows: features are too large for their dtype. Rescale them or pass float64.")
    return KidSubsets(float(np.mean(values)), float(np.std(values)), values, size)


def _membership(draws: list[np.ndarray], rows: int) -> torch.Tensor:
    """Which rows are in which subset: 0/1, float64 [rows, subsets]."""
    members = torch.zeros(rows, len(draws), dtype=torch.float64)
    for subset, chosen in enumerate(draws):
        members[torch.from_numpy(chosen), subset] = 1
    return members


def _all_at_once(x: torch.Tensor, y: torch.Tensor, in_x: torch.Tensor, in_y: torch.Tensor) -> np.ndarray:
    """The KID of every subset, [subsets], from one pass over all pairs."""
    size = in_x[:, 0].sum()
    with torch.inference_mode(), ieee_float32():
        own = _own_forms(x, in_x) + _own_forms(y, in_y)
        cross = torch.zeros_like(own)
        for rows in blocks(len(x)):
            for columns in blocks(len(y)):
                cross += _form(cubic(x[rows], y[columns]), in_x[rows], in_y[columns])
        values: np.ndarray = (own / (size * (size - 1)) - 2 * cross / size**2).cpu().numpy()
    return values


def _own_forms(x: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """Per subset, the sum of the kernel over ordered pairs of its different rows."""
    forms = torch.zeros_like(members[0])
    for rows in blocks(len(x)):
        tile = cubic(x[rows], x[rows])
        tile.diagonal().zero_()
        forms += _form(tile, members[rows], members[rows])
        for columns in blocks(len(x), rows.stop):
            forms += 2 * _form(cubic(x[rows], x[columns]), members[rows], members[columns])
    return forms


def _form(tile: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """uᵀKv of every pair of columns u, v."""
    return (tile @ right).mul_(left).sum(0)
