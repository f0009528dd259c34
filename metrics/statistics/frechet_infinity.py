"""Fréchet distance extrapolated to infinitely many images (FID-infinity).

Chong and Forsyth, "Effectively Unbiased FID and Inception Score and Where to Find Them" (2020): the bias of the
Fréchet distance of N images is linear in 1/N to first order, so a line through distances at several N meets 1/N = 0 at
the unbiased value.

Deliberate deviations: (1) both sets are drawn at N, so that the bias of the reference goes too; (2) the line starts at
N = 2 D. Below that the bias is no line at all, and the intercept is wrong by more than most gaps; published tools
start at 5 000 or at a tenth of the images whatever D is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import InputError, UndefinedError
from ..seed import generator
from .frechet import frechet
from .pair import Features, check_pair

SIZES = 5  # evenly spaced in 1/N from 2 D to all images


@dataclass(frozen=True, eq=False)
class FrechetInfinity:
    """Intercept (``value``) and ``slope`` of the line value + slope/N through ``distances`` at ``sizes``.

    ``fit_se`` is the standard error of the intercept from the scatter about the line. Draws share images, so it says
    how well the line fits, not how the value would vary with other images.
    """

    value: float
    slope: float
    fit_se: float
    sizes: np.ndarray
    distances: np.ndarray


def frechet_infinity(x: Features, y: Features, *, draws: int = 3, seed: int = 0) -> FrechetInfinity:
    """Fréchet distance of features ``x [N,D]`` and ``y [M,D]`` with the bias of finite samples extrapolated away.

    At each of ``SIZES`` sizes from 2 D to min(N, M), ``draws`` random subsets of both sets without replacement,
    ordinary least squares on 1/N. Small negative values are possible where there is no gap.

    Args:
        x: features ``[N,D]`` of the set under test.
        y: features ``[M,D]`` of the reference.
        draws: subsets at each size.
        seed: decides them.

    Returns:
        The intercept, and the line that was fitted.

    Raises:
        InputError: as ``metrics.statistics.kid.kid``; no draw.
        UndefinedError: fewer than 4 D images on a side (a line needs N to double).
    """
    x, y = check_pair(x, y)
    least, most = 2 * x.shape[1], min(len(x), len(y))
    if most < 2 * least:
        raise UndefinedError(
            f"{len(x)} and {len(y)} images of {x.shape[1]} features. Expected at least 4 D = {2 * least} on each side: "
            "below 2 D the Fréchet distance is not linear in 1/N. Use kid, which has no bias, or fewer features."
        )
    if draws < 1:
        raise InputError(f"draws = {draws}. Expected at least 1; 3 is usual.")
    sizes = np.repeat(np.round(1 / np.linspace(1 / least, 1 / most, SIZES)).astype(np.int64), draws)
    distances = np.array([_drawn(x, y, int(size), seed, f"{size}/{k % draws}") for k, size in enumerate(sizes)])
    return _fit(sizes, distances)


def _drawn(x: torch.Tensor, y: torch.Tensor, size: int, seed: int, key: str) -> float:
    random = generator(seed, "frechet-infinity", key)
    rows, others = (torch.from_numpy(random.permutation(len(f))[:size]).to(f.device) for f in (x, y))
    return frechet(x[rows], y[others]).value


def _fit(sizes: np.ndarray, distances: np.ndarray) -> FrechetInfinity:
    inverse = 1 / sizes
    spread = inverse - inverse.mean()
    slope = float(spread @ distances / (spread @ spread))
    intercept = float(distances.mean() - slope * inverse.mean())
    residuals = distances - intercept - slope * inverse
    variance = residuals @ residuals / (len(sizes) - 2)
    fit_se = float(np.sqrt(variance * (1 / len(sizes) + inverse.mean() ** 2 / (spread @ spread))))
    return FrechetInfinity(intercept, slope, fit_se, sizes, distances)
