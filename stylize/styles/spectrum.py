"""Spectrum matching: the colours' joint power at every frequency comes from the style, all phases from the content.

The optimal transport between stationary Gaussian fields (the periodic case of Galerne, Gousseau & Morel, "Random phase
textures", 2011, with the distance of Xia, Ferradans, Peyré & Aujol 2014): colours are moved by :mod:`.colour`, then
Y(f) = A(|f|) X(f), with A the 3×3 map of :mod:`.gaussian_transport` between the cross-spectral densities of content and
style. Where the content's band is too empty to be stretched, the power still missing is added with random phase.

Own choices: densities are isotropic, in cycles per pixel, a quarter of an octave apart from LOWEST up, below which
colour alone decides; the map is kept gentle (GAIN); borders by Moisan's periodic component. The style is stored as
densities: no phase of it survives. Cost: 25 ms at 256²; 1 kB a style.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from metrics.seed import generator

from . import colour
from ._steerable import frequencies, periodic_spectrum
from .gaussian_transport import transport

Statistics = dict[str, torch.Tensor]

STATISTICS = "spectrum"
LOWEST = 1 / 48  # cycles per pixel
PER_OCTAVE = 4
KNOTS = 1 + math.ceil(PER_OCTAVE * math.log2(math.sqrt(0.5) / LOWEST))
GAIN = 2.0


def learn(images: torch.Tensor) -> Statistics:
    """Colour distribution and cross-spectral densities.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].

    Returns:
        ``mean`` and ``covariance`` of :mod:`.colour`; ``density`` ``float64 [N,KNOTS,3,3]``, variance per unit of
        frequency area (white noise of variance v has density v).
    """
    return {**colour.learn(images), "density": _densities(images)}


def transfer(images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int]) -> torch.Tensor:
    """Give every image the colour covariance and the cross-spectrum of its style.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: position on the McCann path, 0 (content) to 1 (style).
        seeds: one per image; the random phases are drawn from it.

    Returns:
        ``float32 [N,3,H,W]``; may leave [0, 1].
    """
    height, width = images.shape[-2:]
    coloured = colour.transfer(images, style, strength, seeds)
    step = transport(_densities(coloured), style["density"], strength, gain=GAIN)
    identity = torch.eye(3, dtype=torch.float64, device=images.device)
    change = _filtered(periodic_spectrum(coloured), step.linear - identity, width)
    noise = torch.stack([_white_noise(seed, height, width) for seed in seeds]).to(images.device)
    change += _filtered(torch.fft.rfft2(noise, norm="forward"), step.missing, width)
    moved: torch.Tensor = coloured + torch.fft.irfft2(change, s=(height, width), norm="forward")
    return moved


def _densities(images: torch.Tensor) -> torch.Tensor:
    return torch.stack([_density(spectrum, images.shape[-1]) for spectrum in periodic_spectrum(images)])


def _density(spectrum: torch.Tensor, width: int) -> torch.Tensor:
    """Mean cross-power ``[KNOTS,3,3]`` around each knot of ``complex [3,H,W//2+1]``; interpolated where none is."""
    height, columns = spectrum.shape[-2:]
    place, inside = _places(height, width, spectrum.device)
    twice = torch.full((height, columns), 2.0, dtype=torch.float64, device=spectrum.device)  # f stands for -f too
    twice[:, [0, -1] if width % 2 == 0 else [0]] = 1
    knots = torch.cat([place.flatten(), place.flatten() + 1])
    hats = torch.cat([(twice * (1 - inside)).flatten(), (twice * inside).flatten()])
    power = torch.einsum("ahw,bhw->abhw", spectrum, spectrum.conj()).real.double().flatten(0, 1) * (height * width)
    sums = [torch.bincount(knots, hats * part.flatten().repeat(2), KNOTS + 1)[1:].cpu().numpy() for part in power]
    weight = torch.bincount(knots, hats, KNOTS + 1)[1:].cpu().numpy()
    held = np.flatnonzero(weight > 1e-9)
    means = [np.interp(np.arange(KNOTS), held, part[held] / weight[held]) for part in sums]
    return torch.from_numpy(np.stack(means, -1).reshape(KNOTS, 3, 3)).to(spectrum.device)


def _filtered(spectrum: torch.Tensor, matrices: torch.Tensor, width: int) -> torch.Tensor:
    """Colour matrices ``[N,KNOTS,3,3]``, linear between knots and 0 below them, applied to ``[N,3,H,W//2+1]``."""
    place, inside = _places(spectrum.shape[-2], width, spectrum.device)
    padded = torch.nn.functional.pad(matrices, (0, 0, 0, 0, 1, 0)).float()
    at = torch.lerp(padded[:, place], padded[:, place + 1], inside[..., None, None].float())
    return torch.einsum("nhwab,nbhw->nahw", at.to(spectrum.dtype), spectrum)


def _places(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each frequency lies: the knot below it, counted from 1 (0: below all), and the share of the way up."""
    vertical, horizontal = frequencies(height, width, device)
    radius = torch.hypot(vertical, horizontal).double().clamp_min(LOWEST / 2)
    place = (1 + PER_OCTAVE * torch.log2(radius / LOWEST)).clamp(0, KNOTS)
    below = place.long().clamp_max(KNOTS - 1)
    return below, place - below


def _white_noise(seed: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(generator(seed, "spectrum", "").standard_normal((3, height, width), dtype=np.float32))
