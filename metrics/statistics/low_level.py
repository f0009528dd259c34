"""Low-level differences that a person can act on: brightness, contrast, colour, spectrum, sharpness, edges.

Every image gives one number per measure, in a unit of its own; the two sets are then compared number by number, and a
difference that stands out of its error is said in a sentence.

Scale. Detail depends on how large an image is seen, so all images are measured at one: the central square of each is
reduced to ``side`` × ``side`` pixels (antialiased bicubic, in floating point), where ``side`` is the shortest side in
both sets, at most SIDE (:func:`common_side`). No image is enlarged, since that would make it look blurred. Spectrum
and sharpness leave out the finest octave, which the reduction itself shapes. A crop that shows half of a photo is still
seen at twice the scale: cut crops of both sets alike.

Brightness and colour are CIELAB under D65 (lightness L* 0 to 100; a* green to red and b* blue to yellow, about −100 to
100; chroma is the distance from grey). Gradients and spectrum are those of L*.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.stats import wasserstein_distance

from ..errors import InputError
from .jackknife import interval, jackknife
from .measurement import LowLevel
from .pair import Groups, group_index

Array = npt.NDArray[np.float64]
SIDE = 256  # pixels: images are compared at this size, or at the shortest side if that is smaller
LEAST_SIDE = 16  # smaller images have no spectrum to fit
FINEST = 0.25  # cycles per pixel: half of what pixels can hold; the spectrum is fitted up to here
STEP = 10.0  # L*: the smallest step between two areas that counts as an edge
ROUNDING = (100 / 255) ** 2 / 12  # variance of L* from rounding to 8 bits: what a flat image has
LEVEL = 0.95  # probability that no sentence appears where there is no gap

_TO_XYZ = np.array(  # linear sRGB (IEC 61966-2-1) to XYZ, each relative to the white of D65, 2°
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
) / np.array([[0.95047], [1.0], [1.08883]])


@dataclass(frozen=True)
class Measure:
    """One property of an image: unit, the smallest difference worth a word, and the words."""

    name: str
    unit: str
    visible: float
    more: str
    less: str
    says: str  # "mean chroma {} against {}"


MEASURES = (
    Measure("brightness", "L*", 1.0, "are brighter", "are darker", "mean L* {:z.1f} against {:z.1f}"),
    Measure("contrast", "L*", 1.0, "have more contrast", "have less contrast", "spread of L* {:z.1f} against {:z.1f}"),
    Measure(
        "saturation", "chroma", 1.0, "are more saturated", "are less saturated", "mean chroma {:z.1f} against {:z.1f}"
    ),
    Measure("red-green", "a*", 1.0, "are redder", "are greener", "mean a* {:z.1f} against {:z.1f}"),
    Measure("yellow-blue", "b*", 1.0, "are yellower", "are bluer", "mean b* {:z.1f} against {:z.1f}"),
    Measure(
        "colour variety",
        "a*b*",
        1.0,
        "vary more in colour",
        "vary less in colour",
        "spread of a*b* {:z.1f} against {:z.1f}",
    ),
    Measure(
        "spectrum slope",
        "log power / log frequency",
        0.1,
        "have more fine detail for their coarse shapes",
        "have less fine detail for their coarse shapes",
        "spectrum slope {:z.2f} against {:z.2f}",
    ),
    Measure("sharpness", "ratio", 0.05, "are sharper", "are blurrier", "sharpness {:z.2f} against {:z.2f}"),
    Measure(
        "edge density", "%", 1.0, "have more edges", "have fewer edges", "{:z.1f} % of the pixels against {:z.1f} %"
    ),
)


def common_side(sizes: Iterable[tuple[int, int]]) -> int:
    """The side at which images of these sizes (two numbers each, any order) can be compared: the shortest, or SIDE.

    Returns:
        Side in pixels.

    Raises:
        InputError: no image, or one with a side below LEAST_SIDE.
    """
    side = min((min(size) for size in sizes), default=0)
    if side < LEAST_SIDE:
        raise InputError(f"the shortest side is {side} px. Expected images of at least {LEAST_SIDE} px.")
    return min(side, SIDE)


def measure_low_level(images: Iterable[npt.NDArray[np.uint8]], *, side: int = SIDE) -> dict[str, Array]:
    """Every measure of MEASURES for images ``uint8 [H,W,3]`` sRGB of any sizes: name -> float64 ``[N]``.

    - brightness, red-green, yellow-blue: mean L*, a*, b*; saturation: mean chroma.
    - contrast: standard deviation of L*; colour variety: root of the summed variances of a* and b*.
    - spectrum slope: of log power over log frequency, radial means, octaves weighted alike, from 2 cycles per image
      to FINEST. About −2 for photos (Field, 1987), 0 for white noise and for flat images.
    - sharpness: root mean square gradient at scale 1 px over that at 2 px (Gaussian derivatives). 1 for gradual
      changes, 1.41 for sharp straight edges, more for fine texture, 4 for white noise; whatever the contrast.
    - edge density: percentage of pixels whose gradient at 1 px is that of a step of STEP L* or more.

    Pass the ``side`` that :func:`common_side` gives for *both* sets; images are read one at a time.

    Args:
        images: images ``uint8 [H,W,3]``, read one at a time.
        side: in pixels, that of :func:`common_side` for both sets.

    Returns:
        By measure, a value per image.

    Raises:
        InputError: something else than an image, a side below LEAST_SIDE, or an image smaller than ``side``.
    """
    if side < LEAST_SIDE:
        raise InputError(f"side = {side}: expected {LEAST_SIDE} pixels or more.")
    rows = [_measured(_square(image, side, index)) for index, image in enumerate(images)]
    table = np.array(rows, dtype=np.float64).reshape(-1, len(MEASURES))
    return {measure.name: table[:, column] for column, measure in enumerate(MEASURES)}


def low_level_gaps(
    synthetic: Mapping[str, Array],
    real: Mapping[str, Array],
    *,
    groups_synthetic: Groups | None = None,
    groups_real: Groups | None = None,
) -> tuple[LowLevel, ...]:
    """The gap in every measure between two sets as :func:`measure_low_level` returns them, largest effect first.

    Groups name each image's photo, as for ``metrics.statistics.kid.kid``. A sentence needs a Student interval of the
    difference that excludes 0 at a level which is LEVEL for all measures together (Bonferroni), and a visible
    difference.

    Args:
        synthetic: measures of the set under test.
        real: measures of the reference.
        groups_synthetic: the photo or scene of each image; None: every image is its own.
        groups_real: the same for the reference.

    Returns:
        A gap per measure; those worth a sentence have one.

    Raises:
        InputError: fewer than two images or groups on a side, other measures or lengths, NaN or infinity.
    """
    a, b = _checked(synthetic, "synthetic"), _checked(real, "real")
    index_a = group_index(groups_synthetic, a.shape[1], "synthetic")
    index_b = group_index(groups_real, b.shape[1], "real")
    gaps = [_gap(measure, a[row], b[row], index_a, index_b) for row, measure in enumerate(MEASURES)]
    return tuple(sorted(gaps, key=lambda gap: -abs(gap.effect)))


def _checked(values: Mapping[str, Array], name: str) -> Array:
    """All measures as one table: float64 [measures, images]."""
    names = [measure.name for measure in MEASURES]
    if set(values) != set(names):
        raise InputError(f"{name} has the measures {sorted(values)}. Expected those of measure_low_level: {names}.")
    if len({len(values[key]) for key in names}) > 1:
        raise InputError(f"{name} has measures of different lengths. Expected one value per image.")
    table = np.array([values[key] for key in names], dtype=np.float64)
    if table.shape[1] < 2:
        raise InputError(f"{name} has {table.shape[1]} image(s). Expected at least 2.")
    if not np.isfinite(table).all():
        bad = np.flatnonzero(~np.isfinite(table).all(0)).tolist()
        raise InputError(f"{name} has NaN or infinite values for the images {bad[:10]}. Measure them again.")
    return table


def _gap(
    measure: Measure, a: Array, b: Array, index_a: npt.NDArray[np.int64], index_b: npt.NDArray[np.int64]
) -> LowLevel:
    mean, real_mean = float(a.mean()), float(b.mean())
    difference = mean - real_mean
    error = jackknife(_means_left_out(a, index_a) - real_mean, mean - _means_left_out(b, index_b))
    found = interval(difference, error, 1 - (1 - LEVEL) / len(MEASURES))
    resolved = found is not None and (found[0] > 0 or found[1] < 0)
    spread = math.hypot(_spread(a), _spread(b)) / math.sqrt(2)
    sentence = None
    if resolved and abs(difference) >= measure.visible:
        how = measure.more if difference > 0 else measure.less
        sentence = f"The synthetic images {how}: {measure.says.format(mean, real_mean)}."
    return LowLevel(
        measure.name,
        measure.unit,
        mean,
        real_mean,
        float(wasserstein_distance(a, b)),
        difference / max(spread, measure.visible),
        error.se,
        sentence,
    )


def _means_left_out(values: Array, index: npt.NDArray[np.int64]) -> Array:
    """The mean without each group."""
    return np.asarray((values.sum() - np.bincount(index, values)) / (len(values) - np.bincount(index)))


def _spread(values: Array) -> float:
    """Standard deviation from the median absolute deviation, as for a Gaussian."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _square(image: npt.NDArray[np.uint8], side: int, index: int) -> npt.NDArray[np.float32]:
    """The central square at ``side`` × ``side`` pixels: float32 [side,side,3] in [0,1]."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"image {index} is {image.dtype} {list(image.shape)}. Expected uint8 [H,W,3].")
    height, width = image.shape[:2]
    short = min(height, width)
    if short < side:
        raise InputError(f"image {index} is {width} x {height} px. Measure both sets with side={short} or less.")
    top, left = (height - short) // 2, (width - short) // 2
    square = np.divide(image[top : top + short, left : left + short], 255, dtype=np.float32)
    if short == side:
        return square
    pixels = torch.from_numpy(square).permute(2, 0, 1)[None]
    reduced = torch.nn.functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp_(0, 1)
    return np.asarray(reduced[0].permute(1, 2, 0).numpy(), dtype=np.float32)


def _measured(rgb: npt.NDArray[np.float32]) -> list[float]:
    """All measures of one image, in the order of MEASURES."""
    lightness, a, b = lab(rgb)
    fine, coarse = (_gradient_energy(lightness, sigma) for sigma in (1.0, 2.0))
    floor = ROUNDING / (4 * math.pi)  # what rounding to 8 bits adds at 1 px: flat images have 1, not 0/0
    steep = STEP / math.sqrt(2 * math.pi)  # peak gradient of a step, blurred with sigma 1
    return [
        float(lightness.mean()),
        float(lightness.std()),
        float(np.hypot(a, b).mean()),
        float(a.mean()),
        float(b.mean()),
        math.hypot(float(a.std()), float(b.std())),
        _spectrum_slope(lightness),
        math.sqrt((float(fine.mean()) + floor) / (float(coarse.mean()) + floor)),
        100 * float((fine >= steep**2).mean()),
    ]


def lab(rgb: npt.NDArray[np.floating]) -> Array:
    """CIELAB of sRGB values in [0,1], ``[...,3]``: float64 ``[3,...]``, white D65, 2° observer."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0.04045) + 0.055) / 1.055) ** 2.4)
    xyz = np.moveaxis(linear @ _TO_XYZ.T, -1, 0)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _gradient_energy(lightness: Array, sigma: float) -> Array:
    """Squared gradient magnitude of the image blurred with ``sigma`` pixels."""
    down, right = (ndimage.gaussian_filter(lightness, sigma, order=order) for order in ((1, 0), (0, 1)))
    return np.asarray(down * down + right * right)


def _spectrum_slope(lightness: Array) -> float:
    """Slope of log radial mean power over log frequency; rounding noise bounds the power from below."""
    side = len(lightness)
    window = np.hanning(side + 2)[1:-1]
    window = np.outer(window, window)
    weighted = (lightness * window).sum() / window.sum()
    power = np.abs(np.fft.rfft2((lightness - weighted) * window)) ** 2 + ROUNDING * (window * window).sum()
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) * side
    ring = np.rint(radius).astype(int).ravel()
    rings = np.arange(2, int(FINEST * side) + 1)
    mean = (np.bincount(ring, power.ravel()) / np.bincount(ring))[rings]
    weights = 1 / np.sqrt(rings)  # polyfit squares them: each octave weighs the same
    return float(np.polyfit(np.log(rings), np.log(mean), 1, w=weights)[0])
