"""The chaos game: x <- A_k x + b_k with k drawn at random, many points at a time, and ways to draw them.

The published scripts follow one orbit point by point. Here T points are the steps of ``chains`` independent orbits:
point n is step n // chains of orbit n % chains. One chain is the published game; many chains (the default) let a CPU
or a GPU work on them at once and have the same limit, the attractor's own measure. Chain 0 begins at the start point
and shows its way to the attractor, as the published orbits do; the others first take ``BURN_IN`` unseen steps.

Which map a step takes is a hash of (key, n), so any point can be drawn anywhere and in any order. The arithmetic is a
fixed sequence of IEEE 754 double-precision additions, multiplications and divisions for each point alone; minima,
maxima and counts do not depend on their order. ``_chaos_game_torch`` does the same operations and gets the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from metrics.errors import InputError

from ._compiled import compiled

CHAINS = 128
BURN_IN = 128
REACH = 1e100  # a point farther out than this, or not finite, is left out: its orbit diverges
PAD = 6  # pixels left free at each side; fewer below 192 px
GREY = 127
HUES = 128  # points after which the colours of a coloured drawing repeat

u64 = np.uint64
GOLDEN, MIX_1, MIX_2 = u64(0x9E3779B97F4A7C15), u64(0xBF58476D1CE4E5B9), u64(0x94D049BB133111EB)
BURN_KEY = u64(0x5851F42D4C957F2D)  # sets the unseen steps' draws apart
S27, S30, S31, S32, LOW = u64(27), u64(30), u64(31), u64(32), u64(0xFFFFFFFF)
MASKS = u64(511)  # the 3 x 3 masks that are not empty


class System(NamedTuple):
    """An iterated function system.

    maps: float64 [M,D,D+1], rows (A | b) of x <- A x + b.
    thresholds: int64 [M-1]; map k is taken when k of them are <= a draw from [0, 2^32).
    """

    maps: np.ndarray
    thresholds: np.ndarray


def system(maps: Any, chances: Sequence[float] | None = None) -> System:
    """The system of ``maps`` [M,D,D+1] with the given chances, or chances proportional to |det A| (all papers' rule).

    Returns:
        Maps and thresholds.

    Raises:
        InputError: no map has a determinant other than zero.
    """
    array = np.ascontiguousarray(maps, dtype=np.float64)
    weights = np.array(determinants(array) if chances is None else chances, dtype=np.float64)
    running = np.cumsum(weights)
    if not running[-1] > 0:
        raise InputError("every map of the system is singular (determinant 0); expected at least one that is not.")
    return System(array, np.floor(running[:-1] / running[-1] * 2.0**32).astype(np.int64))


def determinants(maps: np.ndarray) -> np.ndarray:
    """|det A| of each map, float64 [M], by the expansion of the first row (the same rounding on any machine)."""
    a = maps[:, :, :-1]
    if a.shape[1] == 2:
        return np.asarray(np.abs(a[:, 0, 0] * a[:, 1, 1] - a[:, 0, 1] * a[:, 1, 0]))
    minors = [a[:, 1, i] * a[:, 2, j] - a[:, 1, j] * a[:, 2, i] for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.asarray(np.abs(a[:, 0, 0] * minors[0] - a[:, 0, 1] * minors[1] + a[:, 0, 2] * minors[2]))


def orbit(game: System, key: int, points: int, *, start: Sequence[float] | None = None, single: bool = False) -> Any:
    """``points`` points of the chaos game, float64 [D,points]; the first one is ``start`` (default: the origin).

    ``single`` plays the published game: all points belong to one orbit.

    Returns:
        Coordinates ``float64 [D,points]``.
    """
    count, dimensions = game.maps.shape[:2]
    out = np.empty((dimensions, points))
    first = np.zeros(dimensions) if start is None else np.array(start, dtype=np.float64)
    walk = _orbit_2d if dimensions == 2 else _orbit_3d
    walk(game.maps.reshape(count, -1), game.thresholds, first, u64(key), single, out)
    return out


@compiled
def _mix(key: Any, n: Any) -> Any:
    """64 well-mixed bits of a key and a counter (the finaliser of SplitMix64)."""
    v = key + (u64(n) + u64(1)) * GOLDEN
    v = (v ^ (v >> S30)) * MIX_1
    v = (v ^ (v >> S27)) * MIX_2
    return v ^ (v >> S31)


@compiled
def _pick(key: Any, first: int, thresholds: Any, k: Any) -> None:
    """The maps that the steps ``first``, ``first + 1``, ... take, into k, int64 [CHAINS]."""
    draw = np.empty(CHAINS, np.int64)
    for i in range(CHAINS):
        draw[i] = _mix(key, first + i) >> S32
        k[i] = 0
    for threshold in thresholds:
        for i in range(CHAINS):
            k[i] += draw[i] >= threshold


@compiled
def _orbit_2d(maps: Any, thresholds: Any, start: Any, key: Any, single: bool, out: Any) -> None:
    points = out.shape[1]
    x, y, k = np.full(CHAINS, start[0]), np.full(CHAINS, start[1]), np.empty(CHAINS, np.int64)
    a, b, c, d, e, f = maps.T
    if not single:
        for n in range(BURN_IN):
            _pick(key ^ BURN_KEY, n * CHAINS, thresholds, k)
            _step_2d(a, b, c, d, e, f, k, x, y)
        x[0], y[0] = start[0], start[1]
    u, v = start[0], start[1]
    for n in range(0, points, CHAINS):
        _pick(key, n, thresholds, k)
        if single:
            for i in range(CHAINS):
                x[i], y[i], j = u, v, k[i]
                u, v = a[j] * u + b[j] * v + c[j], d[j] * u + e[j] * v + f[j]
        last = min(CHAINS, points - n)
        out[0, n : n + last], out[1, n : n + last] = x[:last], y[:last]
        if not single:
            _step_2d(a, b, c, d, e, f, k, x, y)


@compiled
def _step_2d(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, k: Any, x: Any, y: Any) -> None:
    for i in range(CHAINS):
        j, u, v = k[i], x[i], y[i]
        x[i], y[i] = a[j] * u + b[j] * v + c[j], d[j] * u + e[j] * v + f[j]


@compiled
def _orbit_3d(maps: Any, thresholds: Any, start: Any, key: Any, single: bool, out: Any) -> None:
    points = out.shape[1]
    at, k = np.empty((3, CHAINS)), np.empty(CHAINS, np.int64)
    x, y, z = at
    x[:], y[:], z[:] = start[0], start[1], start[2]
    if not single:
        for n in range(BURN_IN):
            _pick(key ^ BURN_KEY, n * CHAINS, thresholds, k)
            for i in range(CHAINS):
                x[i], y[i], z[i] = _step_3d(maps, k[i], x[i], y[i], z[i])
        x[0], y[0], z[0] = start[0], start[1], start[2]
    u, v, w = start[0], start[1], start[2]
    for n in range(0, points, CHAINS):
        _pick(key, n, thresholds, k)
        if single:
            for i in range(CHAINS):
                x[i], y[i], z[i] = u, v, w
                u, v, w = _step_3d(maps, k[i], u, v, w)
        last = min(CHAINS, points - n)
        out[:, n : n + last] = at[:, :last]
        if not single:
            for i in range(CHAINS):
                x[i], y[i], z[i] = _step_3d(maps, k[i], x[i], y[i], z[i])


@compiled
def _step_3d(m: Any, j: Any, x: Any, y: Any, z: Any) -> Any:
    return (
        m[j, 0] * x + m[j, 1] * y + m[j, 2] * z + m[j, 3],
        m[j, 4] * x + m[j, 5] * y + m[j, 6] * z + m[j, 7],
        m[j, 8] * x + m[j, 9] * y + m[j, 10] * z + m[j, 11],
    )


@compiled
def bounds(points: Any) -> Any:
    """Least and greatest coordinates, float64 [D,2], of the points within ``REACH``; (inf, -inf) if there is none."""
    out = np.empty((points.shape[0], 2))
    inside = np.ones(points.shape[1], np.bool_)
    for axis in range(points.shape[0]):
        for n in range(points.shape[1]):
            inside[n] &= abs(points[axis, n]) <= REACH
    for axis in range(points.shape[0]):
        least, greatest = np.inf, -np.inf
        for n in range(points.shape[1]):
            if inside[n]:
                least, greatest = min(least, points[axis, n]), max(greatest, points[axis, n])
        out[axis, 0], out[axis, 1] = least, greatest
    return out


def pad(size: int) -> int:
    """Pixels left free at each side: 6 as published, fewer for small images, never fewer than a patch needs."""
    return max(2, min(PAD, size // 32))


def pixels(points: np.ndarray, size: int) -> np.ndarray:
    """The pixel (row * size + column, int64 [T]; -1: none) of each point, the bounding box stretched over the image.

    x and y are scaled on their own to size - 2 pad pixels and truncated; y points up.

    Returns:
        Cells of the points, ``int64 [T]``.
    """
    box, free = bounds(points), pad(size)
    return cast(np.ndarray, place(points, box[:, 0], slope(size - 2 * free, box[:, 1] - box[:, 0]), free, size))


def slope(span: float, extent: np.ndarray) -> np.ndarray:
    """Pixels per unit that stretch each extent over ``span`` pixels; 0 for an empty extent."""
    return np.where(extent > 0, span / np.where(extent > 0, extent, 1.0), 0.0)


@compiled
def place(points: Any, origin: Any, scale: Any, free: int, size: int) -> Any:
    """The pixel of each point of the plane; -1 left of or below ``origin``, or outside the image."""
    out = np.empty(points.shape[1], np.int64)
    room, left, bottom, x_scale, y_scale = size - free, origin[0], origin[1], scale[0], scale[1]
    for n in range(points.shape[1]):
        out[n] = -1
        across, up = (points[0, n] - left) * x_scale, (points[1, n] - bottom) * y_scale
        if 0 <= across < room and 0 <= up < room:  # not so for NaN
            out[n] = (size - 1 - free - np.int64(up)) * size + free + np.int64(across)
    return out


@compiled
def hits(where: Any, size: int) -> Any:
    """How many points fall on each pixel, int64 [size,size]."""
    out = np.zeros(size * size, np.int64)
    for at in where:
        if at >= 0:
            out[at] += 1
    return out.reshape(size, size)


def fill(points: np.ndarray, size: int) -> float:
    """Filling rate: share of the size x size pixels that hold a point."""
    return float(np.count_nonzero(hits(pixels(points, size), size))) / size**2


@compiled
def paint_points(where: Any, hues: int, size: int) -> Any:
    """Draw points as single pixels, uint8 [size,size]: 0, or 1 + n % hues of the last point n there."""
    out = np.zeros(size * size, np.uint8)
    for n in range(len(where)):
        if where[n] >= 0:
            out[where[n]] = 1 + n % hues
    return out.reshape(size, size)


@compiled
def paint_patches(where: Any, key: Any, hues: int, size: int) -> Any:
    """Draw each point as an opaque 3 x 3 patch, a random one of the 511 that are not empty; empty cells wipe out.

    uint8 [size,size] as in ``paint_points``. Points lie at least one pixel inside the image.

    Returns:
        The image.
    """
    out = np.zeros(size * size, np.uint8)
    for n in range(len(where)):
        if where[n] >= 0:
            mask = u64(1) + (((_mix(key, n) & LOW) * MASKS) >> S32)
            ink = u64(1 + n % hues)
            corner = where[n] - size - 1
            for row in range(3):
                for column in range(3):
                    out[corner + row * size + column] = np.uint8((mask & u64(1)) * ink)
                    mask >>= u64(1)
    return out.reshape(size, size)


@compiled
def tint(index: Any, colours: Any) -> Any:
    """``colours[index]``: uint8 [H,W], uint8 [K,3] -> uint8 [H,W,3]."""
    out = np.empty((index.shape[0], index.shape[1], 3), np.uint8)
    for i in range(index.shape[0]):
        for j in range(index.shape[1]):
            colour = colours[index[i, j]]
            out[i, j, 0], out[i, j, 1], out[i, j, 2] = colour[0], colour[1], colour[2]
    return out
