"""Marginals of Laplacian-pyramid subbands: the heavy tails that a Gaussian texture lacks.

Heeger & Bergen, "Pyramid-based texture analysis/synthesis" (1995), with the pyramid of Burt & Adelson (1983) in place
of the steerable one and, for each band and channel, a table of quantiles in place of a histogram. Equal values stay
equal (their mid-rank is moved), so flat areas stay flat.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

DEPTH = 4  # octaves of detail; the remainder is the last band
KNOTS = 128  # quantiles of a band, closer together towards the tails, the extremes included
SAMPLE = 16384  # pixels of a band that its quantiles are taken from
STEP = 1 / 2040  # an eighth of a grey level: smaller differences are rounding, and count as equal
LIMIT = 8.0  # largest value of a band: images lie in [0, 1], recoloured ones not far from it


def pyramid(image: torch.Tensor) -> list[torch.Tensor]:
    """DEPTH detail bands, fine to coarse, and the remainder, of ``float32 [3,H,W]``; :func:`collapsed` is its inverse.

    Sides are halved and rounded up, so that every size has all bands.

    Returns:
        The bands and the remainder, each ``float32 [3,h,w]``.
    """
    bands = []
    for _ in range(DEPTH):
        smaller = F.interpolate(
            image[None], [-(-side // 2) for side in image.shape[-2:]], mode="bilinear", antialias=True
        )[0]
        bands.append(image - _enlarged(smaller, image.shape[-2:]))
        image = smaller
    return [*bands, image]


def collapsed(bands: list[torch.Tensor]) -> torch.Tensor:
    """The image that :func:`pyramid` took apart."""
    image = bands[-1]
    for band in reversed(bands[:-1]):
        image = band + _enlarged(image, band.shape[-2:])
    return image


def quantiles(band: torch.Tensor) -> torch.Tensor:
    """Quantiles ``float32 [3,KNOTS]`` of every channel of a band ``float32 [3,h,w]``, at :func:`levels`."""
    values = _rounded(band.flatten(1))
    values = values[:, :: max(1, values.shape[1] // SAMPLE)].sort().values
    position = levels(band.device) * (values.shape[1] - 1)
    below = position.floor().long().clamp_max(max(values.shape[1] - 2, 0))
    above = (below + 1).clamp_max(values.shape[1] - 1)
    return torch.lerp(values[:, below], values[:, above], position - below)


def matched(band: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The monotone map that gives every channel of ``float32 [3,h,w]`` the quantiles ``target [3,KNOTS]``.

    It is tabulated at every multiple of STEP that the band reaches; values beyond ±LIMIT count as ±LIMIT.

    Returns:
        ``float32 [3,h,w]``.
    """
    codes = (band.flatten(1) / STEP).round().clamp(-LIMIT / STEP, LIMIT / STEP).long()
    lowest, highest = int(codes.min()), int(codes.max())
    values = torch.arange(lowest, highest + 1, device=band.device).float() * STEP
    table = _mapped(values.expand(len(codes), -1).contiguous(), quantiles(band), target)
    return table.gather(1, codes - lowest).view_as(band)


def _mapped(values: torch.Tensor, own: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """From quantiles ``own`` to quantiles ``target``, both ``[3,KNOTS]``, by rank, of ``[3,V]`` values."""
    level = levels(own.device)
    first = torch.searchsorted(own, values)
    last = torch.searchsorted(own, values, right=True)
    left, right = (first - 1).clamp_min(0), first.clamp_max(KNOTS - 1)
    low, high = own.gather(1, left), own.gather(1, right)
    between = torch.lerp(level[left], level[right], (values - low) / (high - low).clamp_min(1e-9))
    middle = (level[right] + level[(last - 1).clamp_min(0)]) / 2
    rank = torch.where(last > first, middle, between)
    position = torch.acos(1 - 2 * rank.clamp(0, 1)) * ((KNOTS - 1) / torch.pi)
    below = position.floor().long().clamp_max(KNOTS - 2)
    return torch.lerp(target.gather(1, below), target.gather(1, below + 1), position - below)


def levels(device: torch.device | None = None) -> torch.Tensor:
    """The KNOTS probabilities, 0 to 1, of the quantiles."""
    return (1 - torch.cos(torch.linspace(0, torch.pi, KNOTS, device=device))) / 2


def _rounded(values: torch.Tensor) -> torch.Tensor:
    return (values / STEP).round() * STEP


def _enlarged(image: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
