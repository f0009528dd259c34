"""Sliced Wasserstein distance of two feature sets: the mean over random directions of a one-dimensional distance.

Rabin et al., "Wasserstein barycenter and its application to texture mixing" (2011); Bonneel et al. (2015):

    SW₂² = mean over directions θ of W₂²(θ·x, θ·y),        W₂² = ∫₀¹ (F_x⁻¹(q) − F_y⁻¹(q))² dq

The integral is exact for sets of any sizes: both quantile functions are steps, of width 1/N and 1/M.

The estimate is too high where images are few, since two samples of one distribution never coincide: without a gap it
falls only like 1/N. Read it against its null, the same number for real images against real images of the same size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import InputError
from ..seed import generator
from .pair import Features, check_pair

PROJECTIONS = 512
BLOCK = 64  # projections in memory at a time: changes the speed only


@dataclass(frozen=True)
class SlicedWasserstein:
    """Sliced Wasserstein distance between ``n`` and ``m`` images.

    ``value`` is the root, SW₂, in units of the features; ``squared`` is SW₂². ``projection_se`` is the standard error
    of ``squared`` from having ``projections`` directions instead of all, given these images. It says nothing about
    other images, so it is no error bar of the gap.
    """

    value: float
    squared: float
    projection_se: float
    projections: int
    n: int
    m: int


def sliced_wasserstein(x: Features, y: Features, *, projections: int = PROJECTIONS, seed: int = 0) -> SlicedWasserstein:
    """Sliced W₂ of features ``x [N,D]`` and ``y [M,D]`` in float64, along directions that ``seed`` decides.

    The directions depend on ``seed``, D and ``projections`` only, so values of one D are compared along the same ones.

    Args:
        x: features ``[N,D]`` of the set under test.
        y: features ``[M,D]`` of the reference.
        projections: how many directions.
        seed: decides them.

    Returns:
        The distance and its square, with the error that comes from having so few directions.

    Raises:
        InputError: as ``metrics.statistics.pair.check_pair``; or fewer than two projections.
    """
    x, y = check_pair(x, y)
    if projections < 2:
        raise InputError(f"projections = {projections}. Expected 2 or more; {PROJECTIONS} are usual.")
    directions = torch.from_numpy(random_directions(x.shape[1], projections, seed)).to(x.device)
    with torch.inference_mode():
        squared = along(x.double(), y.double(), directions)
    mean = float(squared.mean())
    return SlicedWasserstein(
        math.sqrt(mean), mean, float(squared.std()) / math.sqrt(projections), projections, len(x), len(y)
    )


def random_directions(d: int, count: int, seed: int) -> np.ndarray:
    """``count`` unit vectors, uniform on the sphere: float64 ``[count,D]``."""
    directions = generator(seed, "sliced-wasserstein", str(d)).standard_normal((count, d))
    return np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True))


def along(x: torch.Tensor, y: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """W₂² of the float64 sets ``x [N,D]`` and ``y [M,D]`` along each of ``directions [P,D]``: float64 [P]."""
    weights, index_x, index_y = (part.to(x.device) for part in _coupling(len(x), len(y)))
    centre = y.mean(0)  # large offsets would cost digits
    found = []
    for first in range(0, len(directions), BLOCK):
        block = directions[first : first + BLOCK]
        sorted_x, sorted_y = (((rows - centre) @ block.T).sort(0).values for rows in (x, y))
        found.append(weights @ (sorted_x[index_x] - sorted_y[index_y]).square())
    return torch.cat(found)


def _coupling(n: int, m: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The pieces on which both quantile functions are constant: widths (sum 1) and the ranks in x and in y.

    Breakpoints i/N and j/M are counted in whole units of 1/(N·M), so that equal ones coincide.

    Returns:
        Widths and ranks, ``[P]`` each.
    """
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    starts = np.concatenate([[0], ends[:-1]])
    return torch.from_numpy((ends - starts) / (n * m)), torch.from_numpy(starts // m), torch.from_numpy(starts // n)
