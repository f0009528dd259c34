"""Moiré: two gratings of concentric rings beat against each other and against the pixel grid.

    product:  I(x) = 1/2 + 1/2 cos(2 pi f_1 |x - c_1|) cos(2 pi f_2 |x - c_2|)
    sum:      I(x) = 1/2 + 1/4 (cos(2 pi f_1 |x - c_1|) + cos(2 pi f_2 |x - c_2|))

stretched to 0 and 255, grey. MoireDB (arXiv 2502.01490) and MoireMix (arXiv 2603.25109) build interference fringes
from sums and products of sines and cosines, as images to mix into training images; their equations and ranges were
not available to us, so this form and every range below are our own and match no published statistic:

- a class is the pair of frequencies, in cycles per pixel, and how the gratings combine;
- f_1 is log-uniform in [1/32, 1/2], the highest frequency that pixels can hold, and f_2 = f_1 u with u in [0.8, 1.25],
  held at 1/2: close frequencies give slow beats, those near 1/2 also beat against the pixels;
- an instance moves the centres, uniform in [-1/4, 5/4] of the side.

Each pixel is a fixed sequence of correctly rounded double-precision operations with a polynomial for the cosine: the
same bits on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from metrics.registry import unknown
from metrics.seed import generator

from . import _class_checks as checks
from ._compiled import compiled, inlined
from ._plain_numbers import plain_numbers

COMBINE = ("product", "sum")
ROUND = 1.5 * 2.0**52  # adding and subtracting it rounds a double below 2^51 to the nearest integer


@dataclass(frozen=True)
class Moire:
    """One class: two frequencies and how their gratings combine.

    Attributes:
        seed, class_id: where the class came from; its instances draw from them too.
        frequencies: (f_1, f_2), cycles per pixel, from 0.001 to 4; above 1/2 they alias.
        combine: "product" or "sum".
    """

    seed: int
    class_id: int
    frequencies: tuple[float, float]
    combine: str

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered: InputError."""
        checks.check_identity(self)
        checks.check_numbers("frequencies", self.frequencies, 2, 0.001, 4)
        if self.combine not in COMBINE:
            raise unknown("combination of gratings", str(self.combine), COMBINE)


Parameters = Moire


@plain_numbers
def sample_class(
    seed: int, class_id: int, *, frequencies: tuple[float, float] | None = None, combine: str | None = None
) -> Moire:
    """The class ``class_id`` of the data set ``seed``; what is None is drawn (module docstring).

    Args:
        seed: of the data set.
        class_id: number of the class, from 0.
        frequencies: cycles per pixel of the two gratings.
        combine: "product" or "sum".

    Returns:
        The class.

    Raises:
        InputError: frequencies outside 0.001 to 4, or an unknown combination.
    """
    rng = generator(seed, "moire class", str(class_id))
    first = math.exp(rng.uniform(math.log(1 / 32), math.log(1 / 2)))
    second = min(first * math.exp(rng.uniform(-1, 1) * math.log(1.25)), 0.5)
    drawn = COMBINE[int(rng.integers(2))]
    return Moire(seed, class_id, frequencies or (first, second), drawn if combine is None else combine)


def centres(params: Moire, instance: int) -> np.ndarray:
    """The centres of the two gratings, (x, y) in sides of the image, float64 [2,2]."""
    rng = generator(params.seed, "moire centres", f"{params.class_id}/{instance}")
    return rng.uniform(-0.25, 1.25, (2, 2))


@inlined
def _cosine(turns: float) -> float:
    """cos(2 pi t) by the Taylor series of sin(pi/2 - ...) at |angle| <= pi/2; measured error below 1e-15."""
    part = turns - ((turns + ROUND) - ROUND)  # in [-1/2, 1/2]
    angle = 6.283185307179586 * (0.25 - abs(part))  # cos(2 pi p) = sin(pi/2 - 2 pi |p|), in [-pi/2, pi/2]
    q = angle * angle
    series = 1 / 51090942171709440000.0
    series = series * -q + 1 / 121645100408832000.0
    series = series * -q + 1 / 355687428096000.0
    series = series * -q + 1 / 1307674368000.0
    series = series * -q + 1 / 6227020800.0
    series = series * -q + 1 / 39916800.0
    series = series * -q + 1 / 362880.0
    series = series * -q + 1 / 5040.0
    series = series * -q + 1 / 120.0
    series = series * -q + 1 / 6.0
    series = series * -q + 1.0
    return angle * series


@compiled
def interfere(first: float, second: float, centre: Any, product: bool, out: Any) -> None:
    """Fill float64 [size,size] with the product or the sum of the gratings; ``centre`` [2,2] is in pixels."""
    size = len(out)
    for i in range(size):
        v, w = i + 0.5 - centre[0, 1], i + 0.5 - centre[1, 1]
        v2, w2 = v * v, w * w
        for j in range(size):
            x, y = j + 0.5 - centre[0, 0], j + 0.5 - centre[1, 0]
            a = _cosine(first * np.sqrt(x * x + v2))
            b = _cosine(second * np.sqrt(y * y + w2))
            out[i, j] = a * b if product else a + b


@plain_numbers
def render(params: Moire, instance: int, size: int) -> np.ndarray:
    """One image, uint8 [size,size,3], grey.

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
    waves = np.empty((size, size))
    interfere(*params.frequencies, centres(params, instance) * size, params.combine == "product", waves)
    low, high = waves.min(), waves.max()
    grey = np.rint((waves - low) * (255 / (high - low))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2)


@plain_numbers
def render_torch(
    params: Moire, instances: Sequence[int], size: int, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """The images of several instances, uint8 [N,3,size,size] on ``device``.

    The formula with the library's own cosine in double precision: the bytes of ``render`` but for a pixel in some 10^9.

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
    centre = torch.from_numpy(np.stack([centres(params, k) for k in instances]) * size).to(device)
    at = torch.arange(size, dtype=torch.float64, device=device) + 0.5
    gratings = []
    for k, frequency in enumerate(params.frequencies):
        x, y = at.view(1, 1, -1) - centre[:, k, 0].view(-1, 1, 1), at.view(1, -1, 1) - centre[:, k, 1].view(-1, 1, 1)
        turns = frequency * (x * x + y * y).sqrt()
        gratings.append(torch.cos(2 * math.pi * (turns - turns.round())))
    waves = gratings[0] * gratings[1] if params.combine == "product" else gratings[0] + gratings[1]
    low, high = waves.amin((1, 2), keepdim=True), waves.amax((1, 2), keepdim=True)
    grey = ((waves - low) * (255 / (high - low))).round().to(torch.uint8)
    return grey[:, None].repeat(1, 3, 1, 1)
