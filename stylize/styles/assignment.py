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

from .gaussian_transport import square_root
from .patches import patch_statistics, reduced

BLOCK = 1024  # contents assigned together: bounds the cubic cost of the solver


def descriptor(images: torch.Tensor) -> torch.Tensor:
    """Vectors ``float32 [N,756]`` whose squared Euclidean distances are the transport costs of ``float [N,3,H,W]``."""
    mean, covariance = patch_statistics(reduced(images, 2))
    return torch.cat([mean, square_root(covariance).flatten(1)], 1).float()


def assign(contents: np.ndarray, styles: np.ndarray) -> np.ndarray:
    """The style index of every content, balanced within blocks of BLOCK contents.

    Args:
        contents: descriptors ``float [N,D]``, in the set's key order.
        styles: descriptors ``float [M,D]``.

    Returns:
        ``int64 [N]`` in [0, M).
    """
    blocks = [contents[start : start + BLOCK] for start in range(0, len(contents), BLOCK)]
    return np.concatenate([_assign_block(cdist(block, styles, "sqeuclidean")) for block in blocks])


def _assign_block(cost: np.ndarray) -> np.ndarray:
    """Balanced assignment as a square problem: each style has ⌊N/M⌋ seats that must be taken and one that may be.

    Dummy contents fill the optional seats that stay empty; a prohibitive cost keeps them off the others.
    """
    contents, styles = cost.shape
    least, rest = divmod(contents, styles)
    seats = np.repeat(np.arange(styles), least + (rest > 0))
    optional = np.arange(len(seats)) % (least + 1) == least if rest else np.zeros(len(seats), bool)
    dummies = np.where(optional, 0.0, 1.0 + cost.sum())
    square = np.vstack([cost[:, seats], np.tile(dummies, (len(seats) - contents, 1))])
    taken = linear_sum_assignment(square)[1][:contents]
    return np.asarray(seats[taken], dtype=np.int64)
