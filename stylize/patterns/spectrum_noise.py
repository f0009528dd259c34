"""Spectrum noise: white noise whose Fourier amplitudes are replaced by a random power law; natural images have one too.

The model and its published ranges follow the statistical images of "Learning to See by Looking at Noise" (Baradad et
al., NeurIPS 2021, and their generator). With f in cycles per pixel the amplitude of every channel is

    |F(f_x, f_y)| = 1 / (|f_x|^a + |f_y|^b),   F(0,0) = 0,   a = s + d, b = s - d, s ~ U(0.5, 3.5), d ~ N(0, 0.05)

and the phases are those of independent uniform noise in each channel, whose mean and deviation are kept. The channels
are principal components of a random colour image (3 to 22 random colours in multinomial proportions, blurred by a box
of 1 to 10 pixels): they are turned by its axes, shifted by its mean and stretched so that the extremes of all channels
become 0 and 255. ``colour=True`` also imposes the histograms of the components, ten times in turn with the spectrum.

The published sets have no classes. Here the class is the pair (a, b); the colour image is drawn for each image, as
there, so a mixture of many classes has the law of the published sets. Without ``colour`` the amplitudes of the
components are exactly those above until bytes are rounded; with it the histograms are exact and the spectrum is
approximate, because the histograms come last.

Deliberate deviations:

- Without ``colour`` one pass is made instead of ten: a pass keeps phases and moments, so further ones would change
  nothing but rounding (tested).
- Principal components are taken as such. The original transposes the eigenvectors, so its components are correlated.
- The frequency grid is also centred for odd sizes, and bytes are rounded, not truncated.
- The wavelet marginals that the original can add (WMM) are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy import fft, ndimage

from metrics.errors import InputError
from metrics.seed import generator

from . import _class_checks as checks
from ._plain_numbers import plain_numbers

PASSES = 10  # of spectrum and histograms in turn, with colour
BINS = 256  # of the histograms of the colour model
COLOUR_SIDE = 64  # of the random colour image in pixels, at least; it has the size of the image otherwise


@dataclass(frozen=True)
class SpectrumNoise:
    """One class: a spectrum, with or without colours.

    Attributes:
        seed, class_id: where the class came from; its instances draw from them too.
        exponents: (a, b), across and down, from 0 to 6 each.
        colour: whether the histograms of a random colour image are imposed as well.
    """

    seed: int
    class_id: int
    exponents: tuple[float, float]
    colour: bool

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered: InputError."""
        checks.check_identity(self)
        checks.check_numbers("exponents", self.exponents, 2, 0, 6)
        if type(self.colour) is not bool:
            raise InputError(f"colour is {self.colour!r}; expected true or false.")


Parameters = SpectrumNoise


@plain_numbers
def sample_class(
    seed: int, class_id: int, *, exponents: tuple[float, float] | None = None, colour: bool = False
) -> SpectrumNoise:
    """The class ``class_id`` of the data set ``seed``; exponents that are None are drawn from the published ranges.

    Args:
        seed: of the data set.
        class_id: number of the class, from 0.
        exponents: (a, b), across and down, from 0 to 6 each.
        colour: whether the histograms of a random colour image are imposed as well.

    Returns:
        The class.

    Raises:
        InputError: exponents outside 0 to 6.
    """
    rng = generator(seed, "spectrum-noise class", str(class_id))
    slope, difference = rng.uniform(0.5, 3.5), rng.normal(0, 0.05)
    return SpectrumNoise(seed, class_id, exponents or (slope + difference, slope - difference), colour)


@lru_cache(4)
def amplitude(exponents: tuple[float, float], size: int) -> np.ndarray:
    """The half of the amplitudes that ``rfft2`` uses, of a field of deviation 1: float64 [size,size//2+1]."""
    across, down = np.abs(fft.rfftfreq(size)), np.abs(fft.fftfreq(size))
    with np.errstate(divide="ignore"):
        values: np.ndarray = 1 / (across[None, :] ** exponents[0] + down[:, None] ** exponents[1])
    values[0, 0] = 0
    twice = np.where((across == 0) | (across == 0.5), 1, 2)  # the other half mirrors all columns but these
    return values * (size**2 / math.sqrt((values**2 * twice).sum()))  # Parseval


def white(params: SpectrumNoise, instance: int, size: int) -> np.ndarray:
    """The noise that gives the phases, uniform in [0, 256), float64 [3,size,size]."""
    rng = generator(params.seed, "spectrum-noise phases", f"{params.class_id}/{instance}")
    return 256 * rng.random((3, size, size))


def shape_spectrum(channels: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The phases of float64 [C,size,size] with the amplitudes ``target``: mean 0, deviation 1 in each channel."""
    waves = fft.rfft2(channels)
    waves *= target / np.maximum(np.abs(waves), 1e-200)
    field: np.ndarray = fft.irfft2(waves, channels.shape[1:], overwrite_x=True)
    return field


class Colours(NamedTuple):
    """Principal components of a random colour image.

    axes: float64 [3,3], a component per column; mean: float64 [3], levels 0 to 255.
    pixels: float64 [3,N], its pixels minus the mean.
    """

    axes: np.ndarray
    mean: np.ndarray
    pixels: np.ndarray


def draw_colours(params: SpectrumNoise, instance: int, size: int) -> Colours:
    """The colour image of one instance."""
    rng = generator(params.seed, "spectrum-noise colours", f"{params.class_id}/{instance}")
    side, count = max(size, COLOUR_SIDE), int(rng.integers(3, 23))
    share = 0.001 + rng.random(count)
    pixels = rng.multinomial(side * side, share / share.sum())
    colours = rng.integers(0, 256, (3, count)).astype(np.float64)
    image = colours[:, np.repeat(np.arange(count), pixels)].reshape(3, side, side)
    box = int(rng.integers(1, 11))
    image = ndimage.uniform_filter(image, (1, box, box), mode="reflect")
    flat = np.floor((image - image.min()) * (255 / (image.max() - image.min()))).reshape(3, -1)
    mean = flat.mean(1)
    flat -= mean[:, None]
    axes = np.linalg.eigh(flat @ flat.T)[1]
    axes *= np.where(axes.sum(0) < 0, -1, 1)  # the sign of an eigenvector is free: fix it
    return Colours(axes, mean, flat)


def histograms(colours: Colours) -> tuple[np.ndarray, np.ndarray]:
    """The cumulated histogram of each component and its bin centres, float64 [3,256] each."""
    levels, values = np.empty((2, 3, BINS))
    for k, component in enumerate(colours.axes.T @ colours.pixels):
        histogram, edges = np.histogram(component, BINS)
        levels[k], values[k] = np.cumsum(histogram) / len(component), (edges[1:] + edges[:-1]) / 2
    return levels, values


def quantiles(colours: Colours, count: int) -> np.ndarray:
    """The sorted values of ``count`` pixels that have these histograms, float64 [3,count]: quantile k/count."""
    at = np.arange(1, count + 1) / count
    return np.stack([np.interp(at, *part) for part in zip(*histograms(colours), strict=True)])


def impose_histograms(channels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Replace the k-th smallest value of each channel, float64 [3,H,W], by the k-th of ``values``, [3,H*W]."""
    order = channels.reshape(len(channels), -1).argsort(1)
    matched = np.empty_like(values)
    np.put_along_axis(matched, order, values, 1)
    return matched.reshape(channels.shape)


@plain_numbers
def render(params: SpectrumNoise, instance: int, size: int) -> np.ndarray:
    """One image, uint8 [size,size,3] sRGB.

    Every byte is rounded from double-precision arithmetic, so FFTs that round differently agree but for a pixel in
    some 10^9.

    Args:
        params: the class.
        instance: number of the image within the class.
        size: side of the images in pixels.

    Returns:
        The image.

    Raises:
        InputError: a size outside 8 to 8192.
    """
    checks.check_size(size)
    target, colours = amplitude(params.exponents, size), draw_colours(params, instance, size)
    noise = white(params, instance, size)
    if params.colour:
        channels, values = noise, quantiles(colours, size * size)
        for _ in range(PASSES):
            channels = impose_histograms(shape_spectrum(channels, target), values)
    else:
        mean, deviation = noise.mean((1, 2), keepdims=True), noise.std((1, 2), keepdims=True)
        channels = shape_spectrum(noise, target) * deviation + mean
    return _bytes(np.einsum("rc,chw->rhw", colours.axes, channels) + colours.mean[:, None, None])


def _bytes(channels: np.ndarray) -> np.ndarray:
    """Stretch float64 [3,H,W] to uint8 [H,W,3]."""
    low, high = channels.min(), channels.max()
    image: np.ndarray = np.rint((channels - low) * (255 / (high - low))).astype(np.uint8)
    return np.ascontiguousarray(image.transpose(1, 2, 0))


@plain_numbers
def render_torch(
    params: SpectrumNoise, instances: Sequence[int], size: int, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """The images of several instances, uint8 [N,3,size,size] on ``device``; the phases are drawn on the CPU.

    The same formulas in double precision: the same bytes as ``render`` but for a pixel in some 10^9.

    Args:
        params: the class.
        instances: numbers of the images within the class.
        size: side of the images in pixels.
        device: where to draw, e.g. ``cuda``.

    Returns:
        The images.
    """
    checks.check_size(size)
    if not instances:
        return torch.empty(0, 3, size, size, dtype=torch.uint8, device=device)
    target = torch.from_numpy(amplitude(params.exponents, size)).to(device)
    models = [draw_colours(params, k, size) for k in instances]
    noise = torch.from_numpy(np.stack([white(params, k, size) for k in instances])).to(device)
    if params.colour:
        channels = noise
        values = torch.from_numpy(np.stack([quantiles(model, size * size) for model in models])).to(device)
        for _ in range(PASSES):
            order = _shape_spectrum(channels, target).flatten(2).argsort(2)
            channels = torch.empty_like(values).scatter_(2, order, values).view(noise.shape)
    else:
        deviation, middle = torch.std_mean(noise, (2, 3), correction=0, keepdim=True)
        channels = _shape_spectrum(noise, target) * deviation + middle
    axes, mean = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*(m[:2] for m in models), strict=True))
    channels = torch.einsum("nrc,nchw->nrhw", axes, channels) + mean[:, :, None, None]
    low, high = (channels.flatten(1).amin(1), channels.flatten(1).amax(1))
    low, high = low.view(-1, 1, 1, 1), high.view(-1, 1, 1, 1)
    return ((channels - low) * (255 / (high - low))).round().to(torch.uint8)


def _shape_spectrum(channels: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """``shape_spectrum`` of float64 [N,3,size,size]."""
    waves = torch.fft.rfft2(channels)
    field: torch.Tensor = torch.fft.irfft2(waves * (target / waves.abs().clamp(min=1e-200)), channels.shape[2:])
    return field
