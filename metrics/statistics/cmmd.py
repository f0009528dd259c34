"""CMMD: squared MMD with a wide Gaussian kernel on features of unit length, published for CLIP embeddings.

Jayasumana et al., "Rethinking FID" (2024): k(x, y) = exp(−|x − y|²/(2σ²)), σ = 10, on normalised rows, times 1000.

Two things to know before reading it. The published estimate (``published``) is biased: it counts every image as its
own neighbour and so has a floor, without any gap, of about 0.27 at 30 images a side and 0.08 at 100 (768 features);
models differ by 0.5 to 0.7. ``value`` leaves those pairs out and is unbiased. And with σ = 10 the kernel is nearly
linear on unit vectors, so the value is 10 · |difference of the two mean vectors|² within 0.5 %: it sees a shift of the
mean direction, and hardly a change of spread or of tails. Any other extractor than CLIP gives another scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import UndefinedError
from .mmd import Mmd, blocks, mmd, squared_distances
from .pair import Features, Groups, check_pair

SIGMA = 10.0
SCALE = 1000.0


@dataclass(frozen=True, eq=False)
class Cmmd:
    """CMMD between ``n`` and ``m`` images, times 1000.

    ``value`` is the unbiased estimate, which may be negative, ``se`` its jackknife standard error (None: undefined)
    and ``published`` the biased estimate of the paper. ``mmd`` is the unscaled estimate with all that a jackknife of
    a function of it needs.
    """

    value: float
    se: float | None
    published: float
    n: int
    m: int
    mmd: Mmd
    warnings: tuple[str, ...] = ()


def cmmd(x: Features, y: Features, *, groups_x: Groups | None = None, groups_y: Groups | None = None) -> Cmmd:
    """CMMD of features ``x [N,D]`` and ``y [M,D]``, in float64. Groups are as for ``metrics.statistics.kid.kid``.

    Args:
        x: features ``[N,D]`` of the set under test.
        y: features ``[M,D]`` of the reference.
        groups_x: the group of each row of ``x``; None: every row is its own.
        groups_y: the same for ``y``.

    Returns:
        The unbiased value with its error, and the published one.

    Raises:
        InputError: as ``metrics.statistics.kid.kid``; or a row of zeros, which has no direction.
    """
    x, y = check_pair(x, y)
    x, y = _normalised(x, "x"), _normalised(y, "y")
    found = mmd(x, y, _kernel, groups_x, groups_y)
    with torch.inference_mode():
        published = SCALE * (_mean(x, x) + _mean(y, y) - 2 * _mean(x, y))
    value, se = SCALE * found.value, None if found.se is None else SCALE * found.se
    return Cmmd(value, se, published, found.n, found.m, found, _warnings(value, published))


def _normalised(x: torch.Tensor, name: str) -> torch.Tensor:
    x = x.double()
    lengths = x.square().sum(1, keepdim=True).sqrt()
    empty = torch.nonzero(lengths[:, 0] == 0).flatten().tolist()
    if empty:
        raise UndefinedError(
            f"{name} has rows of zeros, which have no direction: {empty[:10]}. Remove or recompute them."
        )
    return x / lengths


def _kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """exp(−d²/(2σ²)) − 1: the constant cancels, and with it the rounding of values that are all close to 1."""
    return squared_distances(x, y).mul_(-0.5 / SIGMA**2).expm1_()


def _mean(x: torch.Tensor, y: torch.Tensor) -> float:
    return sum(float(_kernel(x[rows], y).sum()) for rows in blocks(len(x))) / (len(x) * len(y))


def _warnings(value: float, published: float) -> tuple[str, ...]:
    if published - value <= 0.1 * abs(published):
        return ()
    return (
        f"The published, biased CMMD reads {published:.3g}, of which {published - value:.3g} is its floor at this "
        f"number of images: use the unbiased {value:.3g}.",
    )
