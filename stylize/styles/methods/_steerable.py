"""Steerable pyramid in the Fourier domain: an image as a sum of bands of four orientations at octaves of scale.

Simoncelli & Freeman, "The steerable pyramid: a flexible architecture for multi-scale derivative computation" (ICIP
1995), with the raised-cosine filters of Portilla & Simoncelli (2000): high-pass residual, HEIGHT octaves of
ORIENTATIONS third-derivative bands, low-pass residual. The squared filters add up to 1 at every frequency, so analysis
is a tight frame and its adjoint reconstructs exactly.

Coefficients are in units of the image's values at every level. Frequencies are in cycles per pixel, and a level is kept
on the smallest grid that its band fits, so any height and width works, odd ones too. The image counts as periodic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

HEIGHT = 5
ORIENTATIONS = 4
BANDS = 1 + HEIGHT * ORIENTATIONS + 1


def periodic_spectrum(images: torch.Tensor) -> torch.Tensor:
    """The spectrum of the images' periodic components: without the cross that opposite borders would draw.

    Moisan, "Periodic plus smooth image decomposition" (2011). What is left out is smooth inside the image.

    Args:
        images: ``float32 [N,C,H,W]``.

    Returns:
        ``complex64 [N,C,H,W//2+1]``, coefficients per pixel: the first is the mean.
    """
    height, width = images.shape[-2:]
    rows, columns = images[..., -1, :] - images[..., 0, :], images[..., :, -1] - images[..., :, 0]
    jumps = torch.zeros_like(images)
    jumps[..., 0, :] += rows
    jumps[..., -1, :] -= rows
    jumps[..., :, 0] += columns
    jumps[..., :, -1] -= columns
    vertical, horizontal = frequencies(height, width, images.device)
    laplacian = 2 * torch.cos(2 * math.pi * vertical) + 2 * torch.cos(2 * math.pi * horizontal) - 4
    laplacian[0, 0] = 1
    smooth = torch.fft.rfft2(jumps, norm="forward") / laplacian
    smooth[..., 0, 0] = 0
    periodic: torch.Tensor = torch.fft.rfft2(images, norm="forward") - smooth
    return periodic


def frequencies(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertical ``[H,1]`` and horizontal ``[1,W//2+1]`` frequencies of ``rfft2``, cycles per pixel."""
    return torch.fft.fftfreq(height, device=device)[:, None], torch.fft.rfftfreq(width, device=device)[None]


class Level(NamedTuple):
    """Frequency responses ``turn`` × ``masks`` ``float32 [B,rows,columns//2+1]`` on a grid of rows × columns pixels."""

    masks: torch.Tensor
    turn: complex
    rows: int
    columns: int


def analyse(spectrum: torch.Tensor, width: int) -> list[torch.Tensor]:
    """The bands of images given by their spectrum, fine to coarse.

    Args:
        spectrum: ``complex64 [N,C,H,W//2+1]``, coefficients per pixel.
        width: W, which the spectrum alone does not tell.

    Returns:
        high-pass ``float32 [N,C,1,H,W]``, then per octave ``[N,C,ORIENTATIONS,h,w]``, then low-pass ``[N,C,1,h,w]``.
    """
    bands = []
    for level in levels(spectrum.shape[-2], width, spectrum.device):
        part = _cropped(spectrum, level, width) * level.turn
        bands.append(torch.fft.irfft2(part.unsqueeze(-3) * level.masks, s=level[2:], norm="forward"))
    return bands


def synthesise(bands: Sequence[torch.Tensor], height: int, width: int) -> torch.Tensor:
    """The images ``float32 [N,C,H,W]`` whose bands :func:`analyse` gives; its adjoint for the bands of no image."""
    first = bands[0]
    spectrum = torch.zeros(*first.shape[:2], height, width // 2 + 1, dtype=torch.complex64, device=first.device)
    for band, level in zip(bands, levels(height, width, first.device), strict=True):
        part = (torch.fft.rfft2(band, norm="forward") * level.masks).sum(-3) * level.turn.conjugate()
        _add(spectrum, part, level)
    images: torch.Tensor = torch.fft.irfft2(spectrum, s=(height, width), norm="forward")
    return images


@lru_cache(maxsize=2)
def levels(height: int, width: int, device: torch.device) -> tuple[Level, ...]:
    """High-pass residual, octaves fine to coarse, low-pass residual; squared masks add up to 1."""
    vertical, horizontal = frequencies(height, width, device)
    radius = torch.hypot(vertical, horizontal)
    angle = torch.atan2(vertical, horizontal.expand_as(radius))
    made = [Level(_high(radius, 0.5)[None], 1, height, width)]
    for octave in range(HEIGHT):
        grid = _grid(height, width, octave)
        r, a = (_cropped(values, grid, width) for values in (radius, angle))
        radial = _low(r, 0.5 / 2**octave) * _high(r, 0.25 / 2**octave)
        made.append(grid._replace(masks=radial * _oriented(a), turn=1j))
    grid = _grid(height, width, HEIGHT)
    return (*made, grid._replace(masks=_low(_cropped(radius, grid, width), 0.5 / 2**HEIGHT)[None]))


def _low(radius: torch.Tensor, edge: float) -> torch.Tensor:
    """1 up to half the edge, 0 from the edge on; a cosine of the octave between."""
    return torch.cos(math.pi / 2 * (1 + torch.log2((radius / edge).clamp(0.5, 1))))


def _high(radius: torch.Tensor, edge: float) -> torch.Tensor:
    return torch.sin(math.pi / 2 * (1 + torch.log2((radius / edge).clamp(0.5, 1))))


def _oriented(angle: torch.Tensor) -> torch.Tensor:
    """cos³ lobes ``[ORIENTATIONS,...]`` whose squares add up to 1."""
    turns = torch.arange(ORIENTATIONS, device=angle.device)[:, None, None] * (math.pi / ORIENTATIONS)
    return torch.cos(angle - turns) ** 3 * (2 / math.sqrt(5))


def _grid(height: int, width: int, octave: int) -> Level:
    """The smallest even grid for frequencies below 1 / 2^(octave+1), or the image's own if that is no larger."""
    rows, columns = (min(side, 2 * math.ceil(side / 2 ** (octave + 1))) for side in (height, width))
    return Level(torch.empty(0), 1, rows, columns)


def _cropped(spectrum: torch.Tensor, level: Level, width: int) -> torch.Tensor:
    if level.columns < width:
        spectrum = spectrum[..., : level.columns // 2 + 1]
    if level.rows < spectrum.shape[-2]:
        half = level.rows // 2
        spectrum = torch.cat([spectrum[..., :half, :], spectrum[..., -half:, :]], -2)
    return spectrum


def _add(spectrum: torch.Tensor, part: torch.Tensor, level: Level) -> None:
    """Add a part on the grid of a level in place."""
    upper, columns = -(-level.rows // 2), part.shape[-1]
    spectrum[..., :upper, :columns] += part[..., :upper, :]
    spectrum[..., spectrum.shape[-2] - (level.rows - upper) :, :columns] += part[..., upper:, :]
