"""Colour for a scalar pattern: random smooth palettes in OKLab on the rank-equalised field, with a slight relief.

Own design (the sources give no colour rule that suits a plain scalar field). Inside and outside of the pattern get a
palette each, so neither is a flat ground. Ranks spread the palette evenly over the pixels whatever the field's
distribution. Double-precision work only builds tables that are rounded to float32; a pixel then depends on
comparisons, table look-ups and elementwise float32 arithmetic, which are the same on every machine.
"""

from __future__ import annotations

import math

import numpy as np

LEVELS = 1024
BAND = 64  # rows that are coloured at once
MAX_CHROMA = 0.16  # OKLab chroma; the most saturated sRGB colours lie near 0.3, natural images mostly below 0.1
_CODES = np.linspace(0, 1, 4096) ** 2  # linear light at equal steps of its square root
_ENCODE = (255 * np.where(_CODES <= 0.0031308, 12.92 * _CODES, 1.055 * _CODES ** (1 / 2.4) - 0.055) + 0.5).astype(
    np.uint8
)


def linear_rgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """OKLab [N] each to linear sRGB, float32 [N,3] clipped to [0,1] (B. Ottosson, "A perceptual color space", 2020)."""
    l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    rgb = (
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
    )
    return np.clip(np.stack(rgb, 1), 0, 1).astype(np.float32)


def palette(rng: np.random.Generator) -> np.ndarray:
    """A smooth random colour ramp, linear sRGB float32 [LEVELS,3]: 3 to 6 knots, wandering hue, free lightness."""
    knots = int(rng.integers(3, 7))
    place = np.concatenate([[0.0], np.sort(rng.uniform(0, 1, knots - 2)), [1.0]])
    lightness = rng.uniform(0.12, 0.95, knots)
    hue = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, 0.7, knots))
    chroma = rng.uniform(0, MAX_CHROMA) * rng.uniform(0.3, 1, knots)
    along = np.linspace(0, 1, LEVELS) * rng.integers(1, 4)
    along = 1 - np.abs(along % 2 - 1)  # up to three passes, there and back
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    return linear_rgb(*(np.interp(along, place, knot) for knot in (lightness, a, b)))


def ranks(field: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Share of the values ``among`` [N] that lie below each value of ``field``, float32 in [0,1]."""
    if among.size == 0:
        return np.zeros(field.shape, np.float32)
    below = np.searchsorted(np.sort(among), field.ravel())
    return (below / among.size).astype(np.float32).reshape(field.shape)


def shade(coverage: np.ndarray, magnitude: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour a pattern: coverage and magnitude, float32 [H,W] -> uint8 [H,W,3] sRGB.

    Both palettes are mixed in linear light by the coverage; the slope of the ranks along a random direction then
    brightens or darkens by at most the relief's strength, and a soft ramp over the frame stands for uneven light.

    Returns:
        ``uint8 [H,W,3]``.
    """
    inside = coverage >= 0.5
    inner, outer = np.ones_like(magnitude), np.zeros_like(magnitude)
    inner[coverage > 0] = ranks(magnitude[coverage > 0], magnitude[inside])
    outer[coverage < 1] = ranks(magnitude[coverage < 1], magnitude[~inside])
    palettes = [palette(rng) for _ in range(2)]
    light = relief(np.where(inside, inner, 1 + outer), rng)
    image = np.empty((*coverage.shape, 3), np.uint8)
    for top in range(0, len(image), BAND):
        rows = slice(top, top + BAND)
        levels = ((ranked[rows] * (LEVELS - 1)).astype(np.intp) for ranked in (inner, outer))
        inner_rgb, outer_rgb = (colours[level] for colours, level in zip(palettes, levels, strict=True))
        rgb = outer_rgb + coverage[rows, :, None] * (inner_rgb - outer_rgb)
        image[rows] = encode(rgb * light[rows, :, None])
    return image


def relief(height: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light factor, float32 [H,W] around 1, of a height field under a random light."""
    strength, ramp = rng.uniform(0, 0.5), rng.uniform(0, 0.5)
    turn, tilt = rng.uniform(0, 2 * math.pi, 2)
    down, across = np.gradient(height)
    slope = (across * np.float32(math.cos(turn)) + down * np.float32(math.sin(turn))) * np.float32(len(height) / 16)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in height.shape)
    frame = np.float32(ramp * math.sin(tilt)) * y[:, None] + np.float32(ramp * math.cos(tilt)) * x
    light: np.ndarray = (1 + np.float32(strength) * slope / (1 + np.abs(slope))) * (1 + frame)
    return light


def encode(rgb: np.ndarray) -> np.ndarray:
    """Linear sRGB float32 to uint8 sRGB, by a table over the square root (which IEEE 754 rounds exactly)."""
    root = np.sqrt(np.clip(rgb, 0, 1, dtype=np.float32))
    codes: np.ndarray = _ENCODE[(root * np.float32(len(_ENCODE) - 1) + np.float32(0.5)).astype(np.intp)]
    return codes
