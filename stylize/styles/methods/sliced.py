"""Sliced optimal transport of patches: the values along many directions of patch space get the style's distribution.

Rabin, Peyré, Delon & Bernot, "Wasserstein barycenter and its application to texture mixing" (2011); on patches as in
Elnekave & Weiss, "Generating natural images with direct patch distributions matching" (2022). They descend a loss; here
each step is closed-form: with an orthonormal basis W of the 3×3 colour patches, D = T(W P) − W P moves every patch
along every direction by the monotone map T of one line, and overlapping patches Wᵀ D are averaged: two convolutions.
Levels of :mod:`.patches`, coarse to fine, BASES random bases at each; the directions are fixed, so that a style is
their quantiles.

Deviation: the maps' slopes are bent into [1/GAIN, GAIN], as in :mod:`.pyramid`. Cost: 130 ms at 256²; 83 kB a style.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from metrics.seed import generator

from .histogram import displacement, limited, quantiles
from .patches import LEVELS, PATCH, _enlarged, _padded, reduced

Statistics = dict[str, torch.Tensor]

STATISTICS = "sliced"
BASES = 2
KNOTS = 128
GAIN = 5.0
SIZE = 3 * PATCH * PATCH


def learn(images: torch.Tensor) -> Statistics:
    """Quantiles of every image's patches along the directions, at every level.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1], sides of at least 4 px.

    Returns:
        per level f in LEVELS ``quantiles/f`` ``float32 [N,BASES,27,KNOTS]``.
    """
    return {f"quantiles/{factor}": _level_quantiles(reduced(images, factor)) for factor in LEVELS}


def transfer(
    images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int], *, levels: int = len(LEVELS)
) -> torch.Tensor:
    """Give every image the patch distribution of its style along the directions, level by level.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: position on the McCann path of every step, 0 (content) to 1 (style).
        seeds: one per image; nothing is drawn here.
        levels: how many of the scales take part, the finest first.

    Returns:
        ``float32 [N,3,H,W]``; may leave [0, 1].
    """
    result = images
    for factor in LEVELS[-levels:]:
        level = moved = reduced(result, factor)
        for basis, target in zip(_bases(images.device), style[f"quantiles/{factor}"].unbind(1), strict=True):
            moved = moved + strength * _step(moved, basis, target)
        result = result + _enlarged(moved - level, images.shape[-2:])
    return result


def _level_quantiles(level: torch.Tensor) -> torch.Tensor:
    return torch.stack([quantiles(_projected(level, basis).flatten(2), KNOTS) for basis in _bases(level.device)], 1)


def _step(images: torch.Tensor, basis: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean over overlapping patches of their moves towards the target quantiles ``[N,27,KNOTS]``."""
    values = _projected(images, basis)
    flat = values.flatten(2)
    source = quantiles(flat, KNOTS)
    moves = displacement(flat, source, limited(source, target, GAIN)).view_as(values)
    spread = basis.transpose(0, 1).flip(-2, -1)  # a transposed convolution, which CUDA would sum in any order
    return F.conv2d(moves, spread) / PATCH**2


def _projected(images: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Every patch that touches the image, along every direction: ``[N,27,H+2,W+2]``."""
    return F.conv2d(_padded(images, PATCH - 1), basis)


@lru_cache(maxsize=2)
def _bases(device: torch.device) -> tuple[torch.Tensor, ...]:
    """BASES orthonormal bases of patch space as filters ``float32 [27,3,PATCH,PATCH]``, the same on any machine."""
    drawn = [generator(0, "sliced", str(i)).standard_normal((SIZE, SIZE)) for i in range(BASES)]
    factors = [np.linalg.qr(d) for d in drawn]
    turned = [(q * np.sign(np.diag(r))).T.reshape(SIZE, 3, PATCH, PATCH) for q, r in factors]
    return tuple(torch.from_numpy(basis.copy()).float().to(device) for basis in turned)
