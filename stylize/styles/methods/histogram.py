"""Histogram matching: every colour channel gets the value distribution of the style's channel.

The monotone map of least displacement between two distributions on a line, T = Q_s ∘ F_x, with F_x the content's
cumulative distribution and Q_s the style's quantile function (Gonzalez & Woods, "Digital Image Processing";
Reinhard et al. 2001 is its Gaussian case). Channels are treated one by one in gamma-encoded sRGB, so colours may appear
that the style does not have. It is the baseline that users know, and its maps on a line serve other methods.

Deviations from scikit-image's ``match_histograms``: quantiles are kept at KNOTS levels (which makes them storable), and
equal values take the middle of their ranks instead of the upper end (which makes a style equal to the content the
identity, and splits no flat area). Cost: 3 ms at 256².
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

Statistics = dict[str, torch.Tensor]

STATISTICS = "histogram"
KNOTS = 256
SAMPLE = 16384  # values, at least, from which quantiles are read
BINS = 4096  # of the value range, to which they are exact
CELLS = 1024  # of the value range, between which a map is linear


def learn(images: torch.Tensor) -> Statistics:
    """Quantiles of every image's channels.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].

    Returns:
        ``quantiles`` ``float32 [N,3,KNOTS]``.
    """
    return {"quantiles": quantiles(images.flatten(2), KNOTS)}


def transfer(images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int]) -> torch.Tensor:
    """Give every channel the value distribution of its style.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: position on the McCann path, 0 (content) to 1 (style).
        seeds: one per image; nothing is drawn here.

    Returns:
        ``float32 [N,3,H,W]``, within the range of content and style.
    """
    values = images.flatten(2)
    source = quantiles(values, KNOTS)
    change = displacement(values, source, middle_ranks(source, style["quantiles"]))
    return (values + strength * change).view_as(images)


def quantiles(values: torch.Tensor, knots: int) -> torch.Tensor:
    """Quantiles of ``float [...,P]`` at ``knots`` levels (1 − cos πt)/2, t in [0, 1]: dense where tails are.

    Read from a histogram of BINS bins between the extremes of every n-th value, SAMPLE of them or more, in O(P).

    Returns:
        ``float32 [...,knots]``, ascending, from the least to the largest value read.
    """
    rows = values.reshape(-1, values.shape[-1])
    rows = rows[:, :: max(1, rows.shape[-1] // SAMPLE - 1) | 1]  # odd: no column of an image is left out
    low, high = rows.aminmax(dim=-1, keepdim=True)
    width = (high - low) / BINS
    bins = ((rows - low) / width.clamp_min(1e-30)).long().clamp_(0, BINS - 1)
    offset = torch.arange(len(rows), device=rows.device)[:, None] * BINS
    counts = torch.bincount((bins + offset).flatten(), minlength=len(rows) * BINS).view(-1, BINS)
    reached = counts.cumsum(-1).double() / rows.shape[-1]
    levels = _levels(knots, rows.device).expand(len(rows), -1).contiguous()
    index = torch.searchsorted(reached, levels).clamp_max(BINS - 1)
    share = counts.gather(-1, index).double() / rows.shape[-1]
    inside = ((levels - reached.gather(-1, index)) / share.clamp_min(1e-30) + 1).clamp(0, 1)
    found = low + width * (index + inside).float()
    found[:, :1], found[:, -1:] = low, high
    return found.float().view(*values.shape[:-1], knots)


def middle_ranks(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The target quantiles that the source quantiles ``[...,K]`` go to, equal ones to the middle of their levels."""
    knots = source.shape[-1]
    levels = _levels(knots, source.device)
    tolerance = 2 * (source[..., -1:] - source[..., :1]) / BINS
    first = torch.searchsorted(source, source - tolerance)
    last = torch.searchsorted(source, source + tolerance, right=True) - 1
    level = (levels[first] + levels[last]) / 2
    place = torch.arccos(1 - 2 * level) / math.pi * (knots - 1)
    left = place.long().clamp(0, knots - 2)
    return torch.lerp(target.gather(-1, left), target.gather(-1, left + 1), (place - left).float())


def limited(source: torch.Tensor, target: torch.Tensor, gain: float) -> torch.Tensor:
    """Target quantiles ``[...,K]`` whose slope against the source's is bent into [1/gain, gain].

    No tie is split, and the mean of the target is kept. A source that spans less than one 8-bit level holds rounding
    rather than detail: its gain falls to 1, so that repeated maps leave flat areas flat.

    Returns:
        Quantiles ``[...,K]``.
    """
    step, wanted = source.diff(dim=-1), target.diff(dim=-1)
    span = source[..., -1:] - source[..., :1]
    gains = 1 + (gain - 1) * span / (span + 1 / 255)
    bent = torch.cumsum(torch.minimum(torch.maximum(wanted, step / gains), step * gains), -1)
    bent = torch.cat([torch.zeros_like(bent[..., :1]), bent], -1)
    return bent + ((target - bent) * _weights(source)).sum(-1, keepdim=True)


def displacement(values: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """How far the map from quantiles ``source`` to ``target`` ``[...,K]`` moves ``values`` ``float32 [...,P]``.

    Linear between CELLS cells of the source's range, constant outside it; exactly 0 where both are equal.

    Returns:
        ``float32 [...,P]``, to be added.
    """
    low, high = source[..., :1], source[..., -1:]
    places = torch.linspace(0, 1, CELLS + 1, device=source.device)
    grid = low + (high - low) * places
    right = torch.searchsorted(source, grid).clamp(1, source.shape[-1] - 1)
    before, after = source.gather(-1, right - 1), source.gather(-1, right)
    inside = ((grid - before) / (after - before).clamp_min(1e-30)).clamp(0, 1)
    moved = target - source
    table = torch.lerp(moved.gather(-1, right - 1), moved.gather(-1, right), inside)
    scale = CELLS / (high - low).clamp_min(1e-30)
    found = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    each = (whole.reshape(-1, whole.shape[-1]) for whole in (found, values, low, scale, table))
    for row, line, lowest, cells_per_value, entries in zip(*each, strict=True):  # one at a time: indices take 8 bytes
        place = ((line - lowest) * cells_per_value).clamp_(0, CELLS)
        cell = place.long().clamp_(max=CELLS - 1)
        row[:] = torch.lerp(entries[cell], entries[cell + 1], place - cell)
    return found


def _levels(knots: int, device: torch.device) -> torch.Tensor:
    return (1 - torch.cos(torch.linspace(0, math.pi, knots, dtype=torch.float64, device=device))) / 2


def _weights(source: torch.Tensor) -> torch.Tensor:
    """The share of the distribution around each knot: trapezoidal, sums to 1."""
    gaps = _levels(source.shape[-1], source.device).diff() / 2
    zero = gaps.new_zeros(1)
    return (torch.cat([gaps, zero]) + torch.cat([zero, gaps])).to(source.dtype)
