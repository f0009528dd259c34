"""Nearest-neighbour style transfer: every feature of the content becomes the style feature that is most like it.

Kolkin, Kucera, Paris, Sýkora, Shechtman & Shakhnarovich, "Neural neighbor style transfer" (2022), reduced: an encoder's
features are matched by centred cosine similarity, pixels are optimised towards the matches as coefficients of a
Laplacian pyramid, and the result is matched again, ROUNDS times.

Deviations. Each tap is matched by itself in every round, not only in the last. The distance to a match is squared
error over the style's variance, not cosine, so that colour and contrast come along without a final colour transfer.
L-BFGS takes the steps, on all scales at once. The bank cannot hold a style's whole feature map: it holds GRID×GRID
vectors per tap, taken on a regular grid, without rotated copies.

Cost: ROUNDS × STEPS passes of the encoder, about 1.7 CPU seconds per image of any size. The bank holds 180 kB per
style: feature vectors, each of them a summary of some pixels' surroundings. The result recombines such features and
copies no pixels, but it may come close to a small piece of the photo: audit it. A style equal to the content is not the
identity. Content without any structure gets one feature everywhere and stays flat: ``nnst+texture`` fills it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F

from .gatys import RANGE_WEIGHT, encoder, minimised, outside, seen

Statistics = dict[str, torch.Tensor]

STATISTICS = "nnst"
__all__ = ["STATISTICS", "encoder", "learn", "transfer"]
TAPS = (0, 2, 3, 4)  # of EfficientNet-Lite0: tap 1 sees what tap 0 sees
GRID = 16
ROUNDS = 3
STEPS = 10


def learn(images: torch.Tensor) -> Statistics:
    """Features of every image at GRID×GRID positions, nearest ones where a tap is smaller or larger.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].

    Returns:
        per tap t in TAPS ``features/t`` ``float32 [N,256,C]``.
    """
    with torch.no_grad():
        taps = _taps(images)
    sampled = (F.interpolate(tap, size=(GRID, GRID), mode="nearest-exact") for tap in taps)
    return {f"features/{t}": tap.flatten(2).mT.contiguous() for t, tap in zip(TAPS, sampled, strict=True)}


def transfer(images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int]) -> torch.Tensor:
    """Rebuild every image from features of its style.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: the targets' position on the line from the content's features, 0, to the matched ones, 1.
        seeds: one per image; nothing is drawn here.

    Returns:
        ``float32 [N,3,H,W]``; may leave [0, 1] slightly.
    """
    if strength == 0:
        return images
    rows = ([style[f"features/{t}"][i] for t in TAPS] for i in range(len(images)))
    return torch.cat([_transfer_one(image[None], row, strength) for image, row in zip(images, rows, strict=True)])


def matched(features: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """For each of ``features`` ``[P,C]`` the one of ``style`` ``[Q,C]`` with the largest centred cosine similarity.

    Both sets are centred on their own mean before they are compared.

    Returns:
        ``[P,C]``.
    """
    own, other = (F.normalize(vectors - vectors.mean(0), dim=1) for vectors in (features, style))
    return style[(own @ other.mT).argmax(1)]


def _transfer_one(image: torch.Tensor, style: Sequence[torch.Tensor], strength: float) -> torch.Tensor:
    with torch.no_grad():
        content = [_vectors(tap) for tap in _taps(image)]
    scales = [vectors.var(0).mean().clamp_min(1e-6) for vectors in style]
    result = image
    for _ in range(ROUNDS):
        with torch.no_grad():
            found = [matched(_vectors(tap), vectors) for tap, vectors in zip(_taps(result), style, strict=True)]
        targets = [torch.lerp(own, match, strength) for own, match in zip(content, found, strict=True)]
        result = minimised(result, partial(_distance, targets=targets, scales=scales), STEPS)
    return result


def _distance(images: torch.Tensor, targets: Sequence[torch.Tensor], scales: Sequence[torch.Tensor]) -> torch.Tensor:
    parts = [
        (_vectors(tap) - target).square().mean() / scale
        for tap, target, scale in zip(_taps(images), targets, scales, strict=True)
    ]
    return torch.stack(parts).sum() + RANGE_WEIGHT * outside(images)


def _taps(images: torch.Tensor) -> list[torch.Tensor]:
    taps = seen(images)
    return [taps[t] for t in TAPS]


def _vectors(tap: torch.Tensor) -> torch.Tensor:
    """``[1,C,H,W]`` to ``[H·W,C]``."""
    return tap[0].flatten(1).mT
