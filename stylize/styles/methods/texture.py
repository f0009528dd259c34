"""Patch transport completed by a Gaussian texture: what the content cannot be stretched to is synthesised.

A smooth content has no fine detail to amplify, so a linear map, however good, leaves it smooth. Here the map of
:mod:`.patches` is kept gentle (gain 2), and at each level the patch covariance that it leaves missing is added as a
stationary Gaussian texture: white noise through one 3×3 colour filter per image, the middle rows of the symmetric
square root of that covariance. The colours of a pixel then have exactly the missing covariance, neighbours nearly so.
Such textures carry second-order statistics of a photo and none of its pixels (van Wijk 1991; Galerne, Gousseau & Morel
2011). Own combination; a style equal to the content
leaves nothing missing and is the identity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from metrics.seed import generator

from . import patches
from .gaussian_transport import Transport
from .patches import LEVELS, PATCH, Statistics

STATISTICS = "patches"
GAIN = 2.0


def transfer(
    images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int], *, levels: int = len(LEVELS)
) -> torch.Tensor:
    """Give every image the patch statistics of its style, synthesising what stretching cannot reach.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: position on the McCann path, 0 (content) to 1 (style).
        seeds: one per image; the texture is drawn from it.
        levels: how many of the scales take part, the finest first.

    Returns:
        ``float32 [N,3,H,W]``; may leave [0, 1].
    """

    def add_texture(moved: torch.Tensor, step: Transport, factor: int) -> torch.Tensor:
        filters = step.missing.view(-1, 3, PATCH, PATCH, 3, PATCH, PATCH)[:, :, PATCH // 2, PATCH // 2]
        for image, seed, own in zip(moved, seeds, filters.float(), strict=True):
            image += patches.convolved(_white_noise(seed, factor, moved)[None], own)[0]
        return moved

    return patches.by_level(images, style, strength, GAIN, add_texture, levels)


def _white_noise(seed: int, factor: int, like: torch.Tensor) -> torch.Tensor:
    height, width = (side + PATCH - 1 for side in like.shape[-2:])
    noise = generator(seed, "texture", str(factor)).standard_normal((3, height, width), dtype=np.float32)
    return torch.from_numpy(noise).to(like.device)
