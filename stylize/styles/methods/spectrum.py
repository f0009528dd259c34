"""Spectrum matching: the colours' joint power at every frequency comes from the style, all phases from the content.

The optimal transport between stationary Gaussian fields (the periodic case of Galerne, Gousseau & Morel, "Random phase
textures", 2011, with the distance of Xia, Ferradans, Peyré & Aujol 2014): colours are moved by :mod:`.colour`, then
Y(f) = A(|f|) X(f), with A the 3×3 map of :mod:`.gaussian_transport` between the cross-spectral densities of content and
style. Densities are means over windowed tiles (Welch 1967).

A pattern has its power at a few edges and little between them, where photos have texture. So first noise is added whose
density is what a typical tile lacks: the geometric mean of the tiles' densities, which a few strong tiles do not lift,
in place of the mean. A style equal to the content lacks nothing and is the identity.

Own choices: that noise; densities are isotropic, in cycles per pixel, a third of an octave apart from LOWEST up, below
which colour alone decides; the map is kept gentle (GAIN); borders by Moisan's periodic component. The style is stored
as densities: no phase of it survives. Cost: 40 ms at 256²; 2 kB a style.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from metrics.seed import generator

from . import colour
from ._steerable import frequencies, periodic_spectrum
from .gaussian_transport import QUANTISATION, transport

Statistics = dict[str, torch.Tensor]

STATISTICS = "spectrum"
TILE = 32  # pixels
TILES = 16  # along a side of large images, about; small ones have overlapping tiles, half a tile apart
LOWEST = 1 / TILE  # cycles per pixel
PER_OCTAVE = 3
KNOTS = 1 + math.ceil(PER_OCTAVE * math.log2(math.sqrt(0.5) / LOWEST))
GAIN = 2.0
BAND = 2**18  # frequencies that are mapped at once: their matrices are nine times as large


def learn(images: torch.Tensor) -> Statistics:
    """Colour distribution and cross-spectral densities.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].

    Returns:
        ``mean`` and ``covariance`` of :mod:`.colour`; ``density`` and ``typical``
        ``float64 [N,KNOTS,3,3]``, variance per unit of frequency area (white noise of variance v has density v).
    """
    tiles = _tile_densities(images)
    return {**colour.learn(images), "density": tiles.mean(1), "typical": _typical(tiles)}


def transfer(images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int]) -> torch.Tensor:
    """Give every image the colour covariance and the cross-spectrum of its style.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: position on the McCann path, 0 (content) to 1 (style).
        seeds: one per image; the noise is drawn from it.

    Returns:
        ``float32 [N,3,H,W]``; may leave [0, 1].
    """
    height, width = images.shape[-2:]
    coloured = colour.transfer(images, style, strength, seeds)
    typical = _typical(_tile_densities(coloured))
    missing = transport(typical, style["typical"], strength, gain=1.0).missing  # nothing is stretched yet
    noise = torch.stack([_white_noise(seed, height, width) for seed in seeds]).to(images.device)
    noisy = coloured + _filtered(torch.fft.rfft2(noise, norm="forward"), missing, width)
    step = transport(_tile_densities(noisy).mean(1), style["density"], strength, gain=GAIN)
    identity = torch.eye(3, dtype=torch.float64, device=images.device)
    return noisy + _filtered(periodic_spectrum(noisy), step.linear - identity, width)


def _tile_densities(images: torch.Tensor) -> torch.Tensor:
    """Cross-spectral densities of overlapping Hann-windowed tiles, ``float64 [N,T,KNOTS,3,3]``."""
    sides = [min(TILE, side) for side in images.shape[-2:]]
    steps = [max(1, tile // 2, side // TILES) for tile, side in zip(sides, images.shape[-2:], strict=True)]
    tiles = images.unfold(2, sides[0], steps[0]).unfold(3, sides[1], steps[1]).flatten(2, 3).transpose(1, 2)
    down, across = (torch.hann_window(n + 2, periodic=False, device=images.device)[1:-1] for n in sides)
    window = down[:, None] * across
    centred = tiles - (tiles * window).sum((-1, -2), keepdim=True) / window.sum()
    spectra = torch.view_as_real(torch.fft.rfft2(centred * window, norm="ortho")).flatten(3, 4)
    power = torch.einsum("ntafc,ntbfc->ntabf", spectra, spectra).double() / window.square().mean()
    return (power @ _averaging(sides[0], sides[1], images.device)).movedim(-1, 2)


def _typical(tiles: torch.Tensor) -> torch.Tensor:
    """The geometric mean of the tiles' power, with the mean of their shapes; never below the rounding of 8 bits."""
    power = tiles.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + QUANTISATION
    return power.log().mean(1).exp() * (tiles / power).mean(1)


@lru_cache(maxsize=4)
def _averaging(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Weights ``float64 [H·(W//2+1),KNOTS]`` averaging around each knot, or between knots that have data."""
    below, inside = (values.flatten().cpu() for values in _places(height, width, device))
    hats = torch.zeros(len(below), KNOTS + 1, dtype=torch.float64)
    hats.scatter_(1, below[:, None], (1 - inside)[:, None]).scatter_(1, below[:, None] + 1, inside[:, None])
    columns = torch.arange(len(below)) % (width // 2 + 1)
    twice = 2.0 - ((columns == 0) | (2 * columns == width)).double()  # f stands for -f too
    sums = (hats * twice[:, None])[:, 1:].numpy()
    held = np.flatnonzero(sums.sum(0) > 1e-6)
    spread = [np.interp(np.arange(KNOTS), held, row) for row in np.eye(len(held))]
    return torch.from_numpy(sums[:, held] / sums[:, held].sum(0) @ np.stack(spread)).to(device)


def _filtered(spectrum: torch.Tensor, matrices: torch.Tensor, width: int) -> torch.Tensor:
    """Images of a spectrum ``[N,3,H,W//2+1]`` times matrices ``[N,KNOTS,3,3]``, linear between knots, 0 below them."""
    height = spectrum.shape[-2]
    below, inside = _places(height, width, spectrum.device)
    padded = F.pad(matrices, (0, 0, 0, 0, 1, 0)).float()
    changed = torch.empty_like(spectrum)
    rows = max(1, BAND // spectrum.shape[-1])
    for top in range(0, height, rows):
        band = slice(top, top + rows)
        knots, share = below[band], inside[band][..., None, None].float()
        at = torch.lerp(padded[:, knots], padded[:, knots + 1], share).to(spectrum.dtype)
        changed[:, :, band] = torch.einsum("nhwab,nbhw->nahw", at, spectrum[:, :, band])
    images: torch.Tensor = torch.fft.irfft2(changed, s=(height, width), norm="forward")
    return images


def _places(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each frequency lies: the knot below it, counted from 1 (0: below all), and the share of the way up."""
    vertical, horizontal = frequencies(height, width, device)
    radius = torch.hypot(vertical, horizontal).double().clamp_min(LOWEST / 2)
    place = (1 + PER_OCTAVE * torch.log2(radius / LOWEST)).clamp(0, KNOTS)
    below = place.long().clamp_max(KNOTS - 1)
    return below, place - below


def _white_noise(seed: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(generator(seed, "spectrum", "").standard_normal((3, height, width), dtype=np.float32))
