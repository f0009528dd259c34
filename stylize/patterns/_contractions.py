"""Contracting affine maps of the plane, drawn by their singular values (Anderson & Farrell 2022, section 3.2)."""

from __future__ import annotations

import math

import numpy as np


def draw_maps(rng: np.random.Generator, count: int, alpha: float) -> np.ndarray:
    """``count`` random contractions with sigma-factor ``alpha``, float64 [count,2,3].

    Numbers are rounded to 12 digits, so that no machine's sine makes a difference.

    Returns:
        The maps.
    """
    maps = np.empty((count, 2, 3))
    for one, pair in zip(maps, singular_values(rng, count, alpha), strict=True):
        left, right = rng.uniform(-math.pi, math.pi, 2).tolist()
        signs = rng.choice([-1.0, 1.0], (2, 2))
        one[:, :2] = (rotation(left) * signs[0] * pair) @ (rotation(right) * signs[1])
        one[:, 2] = rng.uniform(-1, 1, 2)
    return maps.round(12)


def rotation(angle: float) -> np.ndarray:
    """The rotation by ``angle``, float64 [2,2]."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def singular_values(rng: np.random.Generator, count: int, alpha: float) -> np.ndarray:
    """Pairs 1 >= s1 >= s2 >= 0, float64 [count,2], with sum(s1 + 2 s2) = alpha, 0 < alpha < 3 count.

    Map by map, each value uniform in what leaves the rest solvable: ``left`` is the budget, ``need`` what of it this
    map must take because the later ones can take no more than 3 each.

    Returns:
        The pairs.
    """
    pairs = np.empty((count, 2))
    left, need = alpha, alpha - 3 * (count - 1)
    for pair in pairs[:-1]:
        pair[0] = rng.uniform(max(0.0, need / 3), min(1.0, left))
        left, need = left - pair[0], need - pair[0]
        pair[1] = rng.uniform(max(0.0, need / 2), min(pair[0], left / 2))
        left, need = left - 2 * pair[1], need - 2 * pair[1] + 3
    pairs[-1, 1] = rng.uniform(max(0.0, (left - 1) / 2), left / 3)
    pairs[-1, 0] = left - 2 * pairs[-1, 1]
    return pairs


def largest_singular_value(a: np.ndarray) -> float:
    """Of a 2 x 2 matrix, by the closed form."""
    half = float((a * a).sum()) / 2
    det = float(a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0])
    return math.sqrt(half + math.sqrt(max(half * half - det * det, 0.0)))


def fixed_point(one: np.ndarray) -> tuple[float, float]:
    """The point that a map (A | b) keeps: (I - A)^-1 b, by Cramer's rule."""
    (a, b, c), (d, e, f) = one.tolist()
    det = (1 - a) * (1 - e) - b * d
    return ((1 - e) * c + b * f) / det, (d * c + (1 - a) * f) / det
