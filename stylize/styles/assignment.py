"""Which content gets which style: balanced optimal transport between a set of contents and a bank of styles.

Every style is used equally often (⌊N/M⌋ or ⌈N/M⌉ times among N contents), and the total cost is least. The cost of a
pair is the squared Wasserstein-2 distance between Gaussians fitted to 3×3 colour patches at half resolution, computed
as |m − m'|² + ‖S^½ − S'^½‖²_F. Deviation: that is the Bures distance where the covariances commute and an upper bound
elsewhere, and it turns a pair's eigenvalue problem into a difference of two vectors.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from .methods.gaussian_transport import square_root
from .methods.patches import PATCH, patch_statistics, reduced

BLOCK = 1024  # contents assigned together: bounds the cubic cost of the solver


def descriptor(images: torch.Tensor) -> torch.Tensor:
    """Vectors ``float32 [N,756]`` whose squared Euclidean distances are the transport costs of ``float [N,3,H,W]``."""
    mean, covariance = patch_statistics(reduced(images, 2))
    return torch.cat([mean, square_root(covariance).flatten(1)], 1).float()


def colours(descriptors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the channels, each ``[N,3]``, from what :func:`descriptor` returns."""
    side = 3 * PATCH * PATCH
    mean, roots = descriptors[:, :side], descriptors[:, side:].view(-1, side, side)
    mean, variance = (values.view(-1, 3, PATCH * PATCH).mean(-1) for values in (mean, roots.square().sum(-1)))
    return mean, variance


def costs(contents: np.ndarray, styles: np.ndarray) -> np.ndarray:
    """The cost ``float64 [N,M]`` of every pair, from descriptors ``float [N,D]`` and ``float [M,D]``."""
    found: np.ndarray = cdist(contents, styles, "sqeuclidean")
    return found


def assign(costs: np.ndarray) -> np.ndarray:
    """The style index of every content: least total cost within blocks of BLOCK contents, balanced over all.

    Args:
        costs: ``float64 [N,M]``, see :func:`costs`, contents in the set's key order.

    Returns:
        ``int64 [N]`` in [0, M).
    """
    styles = costs.shape[1]
    used = np.zeros(styles, dtype=np.int64)
    chosen: list[np.ndarray] = []
    for start in range(0, len(costs), BLOCK):
        chosen.append(_assign_block(costs[start : start + BLOCK], used))
        used += np.bincount(chosen[-1], minlength=styles)
    return np.concatenate(chosen)


def _assign_block(cost: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Balanced assignment as a square problem, given how often each style was used before.

    With T contents so far, a style must reach ⌊T/M⌋ uses and may reach ⌈T/M⌉: that many seats it has left. Dummy
    contents fill the optional seats that stay empty; a prohibitive cost keeps them off the others.

    Returns:
        A style per content of the block.
    """
    contents, styles = cost.shape
    total = contents + int(used.sum())
    must, may = total // styles, -(-total // styles)
    seats = np.repeat(np.arange(styles), may - used)
    seat_number = np.concatenate([np.arange(before, may) for before in used])
    dummies = np.where(seat_number >= must, 0.0, 1.0 + cost.sum())
    square = np.vstack([cost[:, seats], np.tile(dummies, (len(seats) - contents, 1))])
    taken = linear_sum_assignment(square)[1][:contents]
    return np.asarray(seats[taken], dtype=np.int64)
