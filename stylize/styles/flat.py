"""Flat images: a clear sky, snow, a black frame. They say nothing of texture, and their mean says all.

Where the content or the style is flat there is no structure to weigh a mean against, and some methods miss it widely:
an amplitude of zero has no phase to scale it along, a median is no mean, the gamut is approached and not reached.
"""

from __future__ import annotations

import torch

FLAT = 8 / 255  # standard deviation of the colours, over the channels, below which an image is flat
TOLERANCE = 4 / 255  # by which the mean of a flat image may be missed
STEPS = 32  # of a shift against the ends of the gamut


def is_flat(mean_square_deviation: torch.Tensor) -> bool:
    """Whether an image whose channels have these variances, ``float [3]``, is flat."""
    return bool(mean_square_deviation.mean() < FLAT**2)


def with_mean(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """``float [1,3,H,W]`` in [0, 1], shifted until every channel's mean is within TOLERANCE of ``target [3]``.

    A channel that is close enough already is not touched. Works in place.

    Returns:
        The argument itself.
    """
    for _ in range(STEPS):
        off = target - image.mean((0, 2, 3))
        excess = off.sign() * (off.abs() - TOLERANCE).clamp_min(0)
        if not excess.any():
            break
        image.add_(excess[:, None, None]).clamp_(0, 1)
    return image
