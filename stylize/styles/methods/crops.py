"""Region fill with real pixels: the level sets of the content, each filled with a shifted copy of one photo.

**This method copies by design.** It is the baseline that a method which copies nothing has to reach, and no more: the
result consists of the photo's own pixels, so the photo's licence applies to every image, a model trained on them learns
the photo, and a copy audit flags them. Nothing but the drawing of the regions is left of the content.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from metrics.seed import generator

from ._texton import blurred
from .regions import REGIONS, level_sets

Statistics = dict[str, torch.Tensor]

STATISTICS = "crops"
SIDE = 128
CYCLES = 128.0  # regions are cut after a blur of side / CYCLES pixels: specks hold no recognisable piece of a photo


def learn(images: torch.Tensor) -> Statistics:
    """The images themselves, resized.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].

    Returns:
        ``pixels`` ``uint8 [N,3,128,128]``.
    """
    small = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return {"pixels": (small.clamp(0, 1) * 255).round().to(torch.uint8)}


def transfer(images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int]) -> torch.Tensor:
    """Fill the regions of every image with copies of its photo.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: opacity of the copies, 0 (content) to 1 (copies alone).
        seeds: one per image; a region's shift and reflection of the photo are drawn from it.

    Returns:
        ``float32 [N,3,H,W]`` in [0, 1].
    """
    photos = F.interpolate(
        style["pixels"].float() / 255, size=images.shape[-2:], mode="bilinear", antialias=True, align_corners=False
    )
    filled = [_filled(image, photo, seed) for image, photo, seed in zip(images, photos, seeds, strict=True)]
    return torch.lerp(images, torch.stack(filled), strength)


def _filled(image: torch.Tensor, photo: torch.Tensor, seed: int) -> torch.Tensor:
    rng = generator(seed, "crops", "")
    copies = []
    for _ in range(REGIONS):
        down, right = (int(rng.integers(side)) for side in image.shape[-2:])
        mirrored = photo.flip(-1) if rng.integers(2) else photo
        copies.append(_shifted(mirrored, down, right))
    regions = level_sets(blurred(image, min(image.shape[-2:]) / CYCLES))
    return torch.stack(copies, 1).gather(1, regions.expand(3, 1, -1, -1)).squeeze(1)


def _shifted(photo: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Moved over a plane of reflected copies, which has no seams."""
    height, width = photo.shape[-2:]
    plane = torch.cat([photo, photo.flip(-1)], -1)
    plane = torch.cat([plane, plane.flip(-2)], -2)
    return plane[:, down : down + height, right : right + width].clone()
