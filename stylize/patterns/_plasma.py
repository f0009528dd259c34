"""A coloured diamond-square plasma, HSV tables and a small blur: what surrounds the fractals of ``fractal_svd``.

Additions, divisions and integer sums only; sines, powers and the like occur at most in tables of rounded numbers.
"""

from __future__ import annotations

import colorsys
import math
from typing import Any

import numpy as np

from ._chaos_game import tint
from ._compiled import compiled

BLUR_UNIT = 256  # weight of the pixel itself
CHANNELS = (  # of the plasma: ranges of scale and shift of hue, saturation and value (Anderson & Farrell 2022)
    ((0.25, 1.0), (0.0, 1.0)),
    ((0.1, 0.3), (0.4, 0.6)),
    ((0.3, 0.6), (0.4, 0.6)),
)


def hsv_table(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """HSV colours, float64 [K] each in [0,1], as uint8 [K,3]."""
    rows = np.stack([hue, saturation, value], 1).tolist()
    colours = [colorsys.hsv_to_rgb(*hsv) for hsv in rows]
    return np.array(np.rint(np.array(colours) * 255), dtype=np.uint8)


def plasma(rng: np.random.Generator, size: int) -> np.ndarray:
    """A coloured diamond-square field, uint8 [size,size,3]; a larger size adds levels to the same field."""
    decay, ramp = rng.uniform(0.4, 0.8), np.linspace(0, 1, 256)
    channels = [rng.uniform(*scale) * ramp + rng.uniform(*shift) for scale, shift in CHANNELS]
    field, level = rng.uniform(-1, 1, (2, 2)), 1.0
    while len(field) < size:
        level *= decay
        field = subdivide(field, level, rng)
    field = field[:size, :size]
    field = (field - field.min()) / (field.max() - field.min())
    colours = hsv_table(channels[0] % 1, np.clip(channels[1], 0, 1), np.clip(channels[2], 0, 1))
    return np.asarray(tint(np.rint(field * 255).astype(np.uint8), colours))


def subdivide(field: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """One step of diamond-square: [n,n] -> [2n-1,2n-1], new points = mean of their neighbours + noise."""
    n = len(field)
    out = rng.uniform(-level, level, (2 * n - 1, 2 * n - 1))
    out[::2, ::2] = field
    middle = out[1::2, 1::2]
    middle += (field[:-1, :-1] + field[1:, :-1] + field[:-1, 1:] + field[1:, 1:]) * 0.25
    for new, old, centre in ((out[::2, 1::2], field, middle), (out[1::2, ::2].T, field.T, middle.T)):
        total = old[:, :-1] + old[:, 1:]
        total[1:] += centre
        total[:-1] += centre
        neighbours = np.full((n, 1), 4.0)
        neighbours[[0, -1]] = 3.0
        new += total / neighbours
    return out


def blur_weight(rng: np.random.Generator) -> int:
    """Weight of a neighbour against ``BLUR_UNIT`` of the pixel itself; 0, no blur, for half of the draws."""
    on, sigma = rng.uniform() < 0.5, rng.uniform(0.5, 1)
    return round(BLUR_UNIT * math.exp(-0.5 / sigma**2)) if on else 0


def blur(image: np.ndarray, weight: int) -> np.ndarray:
    """3 x 3 blur with the integer weights (w, unit, w) along each axis, edges repeated; uint8 [H,W,3], in integers."""
    return image if weight == 0 else np.asarray(_blur(image, weight))


@compiled
def _blur(image: Any, weight: int) -> Any:
    height, width, _ = image.shape
    out = np.empty_like(image)
    unit = (BLUR_UNIT + 2 * weight) ** 2
    rows = np.empty((width, 3), np.int64)
    for i in range(height):
        above, below = max(i - 1, 0), min(i + 1, height - 1)
        for j in range(width):
            for c in range(3):
                ends = np.int64(image[above, j, c]) + np.int64(image[below, j, c])
                rows[j, c] = BLUR_UNIT * np.int64(image[i, j, c]) + weight * ends
        for j in range(width):
            left, right = max(j - 1, 0), min(j + 1, width - 1)
            for c in range(3):
                total = BLUR_UNIT * rows[j, c] + weight * (rows[left, c] + rows[right, c])
                out[i, j, c] = (total + unit // 2) // unit
    return out


@compiled
def paste(image: Any, drawn: Any, colours: Any, top: int, left: int) -> None:
    """Draw a layer (0: nothing, k: colour k - 1; int64 [side,side]) into ``image``; what lies outside is cut off."""
    for i in range(max(-top, 0), min(len(drawn), len(image) - top)):
        for j in range(max(-left, 0), min(len(drawn), len(image) - left)):
            if drawn[i, j] > 0:
                for c in range(3):
                    image[top + i, left + j, c] = colours[drawn[i, j] - 1, c]
