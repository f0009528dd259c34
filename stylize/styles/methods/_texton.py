"""Texton noise: small kernels whose convolution with white noise has the autocovariance of a photo's detail.

White noise convolved with a photo is its Gaussian texture (van Wijk 1991; asymptotic discrete spot noise of Galerne,
Gousseau & Morel 2011), and only the autocovariance of the photo matters. A kernel of zero phase has the same one and
its energy at the origin (the canonical texton, Desolneux, Moisan & Ronsin 2012), so that a fixed window holds it and
nothing is left of the photo's shapes (Galerne, Leclaire & Moisan, "Texton noise", 2017).

Deviations: a kernel describes only the detail, the photo minus its Gaussian blur, because the large scales of a photo
are layout and not texture. There is one kernel per principal colour axis of the detail, each with white noise of its
own, which leaves out covariances between axes at a distance. The spectrum is smoothed by a Gaussian lag window
(Blackman & Tukey 1958), without which a fifth of a kernel's energy is noise spread over the image. The noise is
Gaussian and not a sparse point process.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

SIDE = 63  # of the kernel: odd, so that it has a centre
CYCLES = 32.0  # detail is what a blur of side / CYCLES pixels takes away
LAG = 10.0  # standard deviation of the lag window, pixels
WIDEST = 8.0  # largest such blur in pixels: detail must fit the kernel


def texton(detail: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    """The kernels ``float32 [3,SIDE,SIDE]`` along ``axes [3,3]`` (in columns) of ``detail``, ``float [3,H,W]``."""
    turned = (axes.T.double() @ detail.flatten(1).double()).view_as(detail)
    turned = _mirrored(turned - turned.mean((-2, -1), keepdim=True))
    size = turned.shape[-2:]
    covariance = torch.fft.irfft2(torch.fft.rfft2(turned).abs().square() / size.numel(), s=size)
    down, right = (torch.fft.fftfreq(side, 1 / side, dtype=torch.float64, device=detail.device) for side in size)
    window = torch.exp(-0.5 * (down[:, None].square() + right.square()) / LAG**2)
    amplitude = torch.fft.rfft2(covariance * window).real.clamp_min(0).sqrt()
    whole = torch.fft.irfft2(amplitude, s=size)
    return torch.roll(whole, (SIDE // 2, SIDE // 2), (-2, -1))[:, :SIDE, :SIDE].float()


def noise(kernels: torch.Tensor, axes: torch.Tensor, height: int, width: int, rng: np.random.Generator) -> torch.Tensor:
    """A stationary Gaussian field ``float32 [3,height,width]`` of mean 0, in RGB.

    It is cut out of a periodic field of at least SIDE pixels a side.

    Returns:
        The field.
    """
    size = (max(height, SIDE), max(width, SIDE))
    white = torch.from_numpy(rng.standard_normal((3, *size), dtype=np.float32)).to(kernels.device)
    field = torch.fft.irfft2(torch.fft.rfft2(white) * torch.fft.rfft2(kernels, s=size), s=size)
    rgb: torch.Tensor = (axes @ field.flatten(1)).view_as(field)[:, :height, :width]
    return rgb


def detail_of(image: torch.Tensor) -> torch.Tensor:
    """``float [3,H,W]`` minus its Gaussian blur of side / CYCLES pixels."""
    return image - blurred(image, min(WIDEST, min(image.shape[-2:]) / CYCLES))


def blurred(image: torch.Tensor, deviation: float) -> torch.Tensor:
    """``float [C,H,W]`` through a Gaussian of ``deviation`` pixels, the borders repeated."""
    radius = max(1, math.ceil(3 * deviation))
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    weights = torch.exp(-0.5 * (offsets / deviation) ** 2)
    weights = weights / weights.sum()
    padded = F.pad(image[None], (radius, radius, radius, radius), mode="replicate")[0].unsqueeze(1)
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1)).squeeze(1)


def _mirrored(image: torch.Tensor) -> torch.Tensor:
    """Doubled by reflection until the kernel fits: no photo is too small to have one."""
    while min(image.shape[-2:]) < SIDE:
        image = torch.cat([image, image.flip(-1)], -1)
        image = torch.cat([image, image.flip(-2)], -2)
    return image
