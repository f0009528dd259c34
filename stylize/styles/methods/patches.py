"""Multi-scale affine optimal transport of patches, applied as one small convolution per level.

At each level of an image pyramid, coarse to fine, the 3×3 colour patches (27 numbers) of the content are moved by the
Gaussian optimal-transport map to the patch statistics of the style, and overlapping results are averaged. That
averaging makes the whole step one linear shift-invariant 5×5 colour filter, which is how it is computed here: filter
K[a, b, d] = p⁻² Σ_i A[(a, i), (b, i + d)] over the patch offsets i. Affine patch transport was found equal in result to
semi-discrete patch transport (Galerne, Leclaire & Rabin 2018; Houdard et al. 2021) at a fraction of its cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from .gaussian_transport import Transport, transport

Statistics = dict[str, torch.Tensor]

STATISTICS = "patches"
PATCH = 3
LEVELS = (4, 2, 1)  # reduction factors, coarse to fine
GAIN = 5.0
GRID = 128
POSITIONS = 2**18  # reached where one side is four times the other
BAND = 2**18  # pixels that are convolved at once


def learn(images: torch.Tensor) -> Statistics:
    """Mean and covariance of every image's patches at every level.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1], sides of at least 4 px.

    Returns:
        per level f in LEVELS ``mean/f`` ``float64 [N,27]`` and ``covariance/f`` ``float64 [N,27,27]``.
    """
    style: Statistics = {}
    for factor in LEVELS:
        mean, covariance = patch_statistics(reduced(images, factor))
        style |= {f"mean/{factor}": mean, f"covariance/{factor}": covariance}
    return style


def transfer(
    images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int], *, levels: int = len(LEVELS)
) -> torch.Tensor:
    """Give every image the patch statistics of its style, level by level.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: position on the McCann path, 0 (content) to 1 (style).
        seeds: one per image; nothing is drawn here.
        levels: how many of the scales take part, the finest first.

    Returns:
        ``float32 [N,3,H,W]``; may leave [0, 1].
    """
    return by_level(images, style, strength, GAIN, lambda moved, step, factor: moved, levels)


def by_level(
    images: torch.Tensor,
    style: Statistics,
    strength: float,
    gain: float,
    finish: Callable[[torch.Tensor, Transport, int], torch.Tensor],
    levels: int,
) -> torch.Tensor:
    """Move the patches of the finest ``levels``, coarse to fine; ``finish(moved, step, factor)`` completes a level.

    It may change ``moved`` in place, and so does this: large images stay within the memory that is stated for them.

    Returns:
        The images, changed.
    """
    result = images
    for factor in LEVELS[-levels:]:
        level = reduced(result, factor)
        own_mean, own_covariance = patch_statistics(level)
        step = transport(own_covariance, style[f"covariance/{factor}"], strength, gain=gain)
        moved = _move(level, step.linear, own_mean, torch.lerp(own_mean, style[f"mean/{factor}"], strength))
        change = _enlarged(finish(moved, step, factor).sub_(level), images.shape[-2:])
        result = change.add_(result)
    return result


def patch_statistics(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean ``float64 [N,27]`` and covariance ``float64 [N,27,27]`` of the 3×3 patches of ``float [N,3,H,W]`` images.

    Large images are sampled on a grid of at least GRID positions along the short side, and of long strips at most
    POSITIONS in all, so memory stays bounded.

    Returns:
        Mean and covariance.
    """
    height, width = images.shape[-2:]
    stride = max(1, min(height, width) // GRID, math.isqrt(height * width // POSITIONS))
    patches = F.unfold(_padded(images, PATCH // 2), PATCH, stride=stride).double()
    mean = patches.mean(-1)
    return mean, patches @ patches.mT / patches.shape[-1] - mean[..., None] * mean[..., None, :]


def reduced(images: torch.Tensor, factor: int) -> torch.Tensor:
    """The images, antialiased and ``factor`` times smaller."""
    if factor == 1:
        return images
    size = [max(1, round(side / factor)) for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def _enlarged(images: torch.Tensor, size: torch.Size) -> torch.Tensor:
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def _move(images: torch.Tensor, linear: torch.Tensor, mean: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    shift = (target - (linear @ mean[..., None])[..., 0]).view(-1, 3, PATCH * PATCH).mean(-1)
    filters, shift = overlap_filters(linear).float(), shift.float()
    padded = _padded(images, PATCH - 1)
    # One convolution per image: faster than a grouped one, and the sums do not depend on the batch size.
    return torch.cat([convolved(padded[i : i + 1], filters[i], shift[i]) for i in range(len(images))])


def convolved(padded: torch.Tensor, filters: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
    """``F.conv2d`` of one image ``[1,3,h,w]``, band by band: inside it, three channels take the room of sixteen."""
    around = filters.shape[-1] - 1
    height, width = (side - around for side in padded.shape[-2:])
    rows = max(1, BAND // width)
    result = padded.new_empty(1, len(filters), height, width)
    for top in range(0, height, rows):
        result[..., top : top + rows, :] = F.conv2d(padded[..., top : top + rows + around, :], filters, shift)
    return result


def overlap_filters(linear: torch.Tensor) -> torch.Tensor:
    """The colour filters that equal mapping every patch and averaging the overlaps.

    Args:
        linear: maps of patches, ``[N,27,27]``.

    Returns:
        ``[N,3,3,5,5]``: output channel, input channel, rows, columns.
    """
    p = PATCH
    blocks = linear.view(-1, 3, p, p, 3, p, p)
    filters = linear.new_zeros(linear.shape[0], 3, 3, 2 * p - 1, 2 * p - 1)
    for row in range(p):
        for column in range(p):  # the output pixel is this element of the patch
            top, left = p - 1 - row, p - 1 - column
            filters[..., top : top + p, left : left + p] += blocks[:, :, row, column]
    return filters / (p * p)


def _padded(images: torch.Tensor, width: int) -> torch.Tensor:
    mode = "reflect" if min(images.shape[-2:]) > width else "replicate"
    return F.pad(images, (width, width, width, width), mode=mode)
