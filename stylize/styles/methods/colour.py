"""Monge–Kantorovich colour transfer: the linear map of least colour change between two colour distributions.

Pitié & Kokaram, "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer", CVMP 2007.
Per image y = A(x − m_x) + m_s with the 3×3 map A of :mod:`.gaussian_transport`, in gamma-encoded sRGB. Cost: O(pixels).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .gaussian_transport import transport

Statistics = dict[str, torch.Tensor]

STATISTICS = "colour"


def learn(images: torch.Tensor) -> Statistics:
    """Mean and covariance of every image's colours.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].

    Returns:
        ``mean`` ``float64 [N,3]`` and ``covariance`` ``float64 [N,3,3]``.
    """
    centred = images.flatten(2).to(torch.float64, copy=True)
    mean = centred.mean(-1)
    centred -= mean[..., None]
    return {"mean": mean, "covariance": centred @ centred.mT / centred.shape[-1]}


def transfer(images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int]) -> torch.Tensor:
    """Give every image the colour mean and covariance of its style.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: position on the McCann path, 0 (content) to 1 (style).
        seeds: one per image; nothing is drawn here.

    Returns:
        ``float32 [N,3,H,W]``; may leave [0, 1].
    """
    own = learn(images)
    linear = transport(own["covariance"], style["covariance"], strength).linear
    mean = torch.lerp(own["mean"], style["mean"], strength)
    shift = mean - (linear @ own["mean"][..., None])[..., 0]
    mapped = (linear.float() @ images.flatten(2)).add_(shift.float()[..., None])
    return mapped.view_as(images)
