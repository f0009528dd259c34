"""The Gram matrix of two pooled feature sets, from which every statistic of both can be computed.

The rows of [x; y] are centred at their common mean μ first: z = x − μ. Distances are those of the z, covariances too,
and the plain dot products come back exactly as xᵢ·xⱼ = zᵢ·zⱼ + lᵢ + lⱼ with lᵢ = μ·zᵢ + |μ|²/2. So one matrix serves
kernels of dot products, kernels of distances and the Fréchet distance, none with rounding that grows with the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from .kid import cubic_of_dots
from .mmd import blocks, centred, from_dots, gaussian, negative_distance

DENSE_ROWS = 2000  # up to this many pooled rows the matrix is held, in float64; beyond, tiles in the features' dtype

Tile = tuple[slice, slice, torch.Tensor]
TileKernel = Callable[[slice, slice, torch.Tensor], torch.Tensor]  # rows, columns, zᵢ·zⱼ -> kernel values


class PooledGram:
    """Dot products of the centred rows of ``x [N,D]`` and ``y [M,D]`` (tensors that ``check_pair`` has passed).

    ``dense`` is the float64 ``[N+M,N+M]`` matrix of zᵢ·zⱼ, or None above ``DENSE_ROWS`` rows, where tiles are computed
    when they are asked for and memory stays O(BLOCK²) beyond the features.
    """

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        small = len(x) + len(y) <= DENSE_ROWS
        if small:
            x, y = x.double(), y.double()
        self._rows = torch.cat(centred(x, y))
        mean = (x[0] - self._rows[0]).double()
        parts = [_norms(self._rows[rows], mean) for rows in blocks(len(self._rows))]
        self._squares = torch.cat([squares for squares, _ in parts])
        self._lift = torch.cat([along for _, along in parts]) + mean.square().sum() / 2
        self.dense = self._rows @ self._rows.T if small else None

    def __len__(self) -> int:
        return len(self._rows)

    def tiles(self) -> Iterator[Tile]:
        """Tiles on and above the diagonal: their row and column slices and zᵢ·zⱼ, float64."""
        for rows in blocks(len(self)):
            for columns in blocks(len(self), rows.start):
                if self.dense is None:
                    yield rows, columns, (self._rows[rows] @ self._rows[columns].T).double()
                else:
                    yield rows, columns, self.dense[rows, columns]

    def cubic(self, rows: slice, columns: slice, dots: torch.Tensor) -> torch.Tensor:
        """The kernel of ``metrics.statistics.kid``."""
        plain = dots + self._lift[rows, None] + self._lift[columns]
        return cubic_of_dots(plain, self._rows.shape[1])

    def gaussian(self, sigma: float) -> TileKernel:
        """The kernel of ``metrics.statistics.mmd.rbf``."""
        return lambda rows, columns, dots: gaussian(self._squared(rows, columns, dots), sigma)

    def negative_distance(self, rows: slice, columns: slice, dots: torch.Tensor) -> torch.Tensor:
        """The kernel of ``metrics.statistics.mmd.energy``."""
        return negative_distance(self._squared(rows, columns, dots))

    def _squared(self, rows: slice, columns: slice, dots: torch.Tensor) -> torch.Tensor:
        return from_dots(dots.clone(), self._squares[rows], self._squares[columns])


def _norms(rows: torch.Tensor, mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """|z|² and μ·z of some rows, in float64."""
    exact = rows.double()
    return exact.square().sum(1), exact @ mean


def quadratic_forms(
    gram: PooledGram, kernels: Mapping[str, TileKernel], members: torch.Tensor, groups: np.ndarray
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """For each kernel K, with pairs inside a group set to 0: wᵀKw of every column w, and the row sums of K.

    ``members`` is 0/1, float64 ``[N+M,B]``; ``groups`` numbers the group of each row. Every tile is made once and
    serves all kernels and all columns by one matrix product each. Returns float64 ``[B]`` and ``[N+M]`` per kernel.

    Returns:
        Per kernel, forms ``float64 [B]`` and row sums ``float64 [N+M]``.
    """
    index = torch.from_numpy(groups).to(members.device)
    single = len(np.unique(groups)) == len(groups)
    forms = {name: torch.zeros_like(members[0]) for name in kernels}
    sums = {name: torch.zeros_like(members[:, 0]) for name in kernels}
    for rows, columns, dots in gram.tiles():
        diagonal = rows == columns
        inside = index[rows, None] == index[columns] if diagonal or not single else None
        for name, kernel in kernels.items():
            tile = kernel(rows, columns, dots)
            if inside is not None:
                tile = tile.masked_fill_(inside, 0.0)
            form = (tile @ members[columns]).mul_(members[rows]).sum(0)
            forms[name] += form if diagonal else 2 * form
            sums[name][rows] += tile.sum(1)
            if not diagonal:
                sums[name][columns] += tile.sum(0)
    return {name: (forms[name], sums[name]) for name in kernels}
