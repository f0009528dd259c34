"""Exact nearest neighbours by Euclidean distance, in blocks: memory is O(BLOCK · N).

Distances come from a float64 matrix product, whose rounding depends on where a row lies in the block. Decisions that
turn on them, which row is nearer and whether a point lies inside a ball, therefore recompute the pairs that are
within rounding of each other by direct differences, so that ties are ties: duplicates, and copies of real images.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from ..errors import InputError
from .pair import Features, check_pair

BLOCK = 512  # rows of the distance tile in memory: changes the speed only
ROUNDING = 1e-12  # of the squared norms: far above the error of a float64 product, far below any distance of interest


def nearest(x: Features, y: Features) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """For every row of ``x [N,D]`` the index of the nearest row of ``y [M,D]`` and its distance, ``[N]`` each.

    Of several rows at the same distance it is the first.

    Args:
        x: rows to look from, ``[N,D]``.
        y: rows to look among, ``[M,D]``.

    Returns:
        Indices and Euclidean distances.

    Raises:
        InputError: as ``metrics.statistics.pair.check_pair``.
    """
    x, y = (features.double() for features in check_pair(x, y))
    index = torch.empty(len(x), dtype=torch.int64, device=x.device)
    with torch.inference_mode():
        for rows, squared, slack in tiles(x, y):
            index[rows] = _first_of_least(x[rows], y, squared, slack)
        distance = gaps(x, y, torch.arange(len(x), device=x.device), index).sqrt()
    return index.cpu().numpy(), distance.cpu().numpy()


def radii(x: torch.Tensor, k: int, group: npt.NDArray[np.int64], name: str) -> torch.Tensor:
    """Squared distance of every row of ``x`` (float64 [N,D]) to the k-th nearest other group, float64 [N].

    Returns:
        ``float64 [N]``.

    Raises:
        InputError: not 1 ≤ k < groups; the message names ``name`` and the largest k.
    """
    groups = torch.from_numpy(group).to(x.device)
    most = int(groups.max())
    if not 1 <= k <= most:
        raise InputError(
            f"k = {k} nearest neighbours among the {most + 1} independent images of {name}: "
            f"use k = {most} or fewer, or add images."
        )
    index = torch.empty(len(x), dtype=torch.int64, device=x.device)
    for rows, squared, _ in tiles(x, x):
        squared.masked_fill_(groups[rows, None] == groups, torch.inf)
        by_group = squared.new_full((len(squared), most + 1), torch.inf)
        by_group.scatter_reduce_(1, groups.expand_as(squared), squared, "amin")
        index[rows] = (squared == by_group.kthvalue(k, 1, keepdim=True).values).byte().argmax(1)
    return gaps(x, x, torch.arange(len(x), device=x.device), index)


def tiles(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Blocks of squared distances: the rows of ``x``, the tile [B,M] and the rounding error to allow for [B,M]."""
    centre = y.mean(0)
    norms_x, norms_y = ((rows - centre).square().sum(1) for rows in (x, y))
    others = (y - centre).T
    for first in range(0, len(x), BLOCK):
        rows = slice(first, min(first + BLOCK, len(x)))
        norms = norms_x[rows, None] + norms_y
        yield rows, torch.addmm(norms, x[rows] - centre, others, alpha=-2), ROUNDING * norms


def gaps(x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Squared distances of ``x[rows]`` to ``y[columns]``, pair by pair, by differences: float64 [pairs]."""
    blocks = (slice(first, first + BLOCK) for first in range(0, max(len(rows), 1), BLOCK))
    return torch.cat([(x[rows[block]] - y[columns[block]]).square().sum(1) for block in blocks])


def _first_of_least(x: torch.Tensor, y: torch.Tensor, squared: torch.Tensor, slack: torch.Tensor) -> torch.Tensor:
    """The column of each row's least distance, the first of equals, from a tile that is rounded."""
    near = squared - slack <= (squared + slack).amin(1, keepdim=True)
    rows, columns = near.nonzero(as_tuple=True)
    exact = torch.full_like(squared, torch.inf)
    exact[rows, columns] = gaps(x, y, rows, columns)
    return exact.argmin(1)
