"""Stacks of growing noisy polygons: the shared drawing of the families rcdb, visual-atom and seg-contours.

A stack starts as an ellipse of q vertices at the angles t_v = 2 pi v / q and grows K times. At each growth every vertex
moves, independently in x and y, and the closed polygon is drawn over what is there:

    x_v += cos t_v (advance + sin(n1 t_v)/2 + sin(n2 t_v)/2 - noise P(u)),    y_v likewise with sin t_v and another u,

where P is one-dimensional Perlin noise and u ~ U(0, 10000) is drawn anew for every vertex, so P(u) is independent
noise: mean 0, standard deviation 0.329, range +-0.952. P is that of the package ``noise`` 1.2.2, which the published
scripts call (measured there: 0.3288 over 10^6 draws). Half of its gradients are -1, the others spread over 1 to 8.

Lines are one pixel wide without anti-aliasing: Bresenham's with Pillow's choices (coordinates cut towards zero,
midpoints rounded to the far side), so equal coordinates give Pillow's pixels. The published canvas has 512 pixels a
side. Other sizes scale the geometry and keep the line at one pixel; the scripts would crop instead.

The same pixels on any machine: coordinates are integers in units of 2^-16 px, steps are correctly rounded float32
products, u is on a grid of 2^16 points and comes from a hash of (key, growth, vertex); cosines and sines are rounded to
float32, which hides the last bit in which C libraries differ. Sums of integers do not depend on their order, so the
torch path (``_contours_torch``) gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from metrics.errors import InputError

from ._class_checks import check_number
from ._compiled import compiled

P = TypeVar("P")

CANVAS = 512  # side of the published images, in pixels: the unit of every length
UNIT = 1 << 16  # fixed-point steps in a pixel of that canvas
MAX_SIZE = 8192
MAX_VERTICES, MAX_POLYGONS = 4096, 500  # with the other bounds, no coordinate leaves 2^31 / UNIT = 32768 px
MIN_INK = 0.005  # share of the canvas that a stack in its middle must touch; a disc of radius 20 px has as much
MAX_DRAWS = 1000  # nearly all draws are kept, so this bound only ends a search that cannot succeed
PERIOD = 10_000  # of the uniform argument of the noise
# The last hexadecimal digit of each entry of the permutation of K. Perlin, "Improving Noise" (SIGGRAPH 2002).
_PERLIN = (
    "709baf3d9f052971c47e5e83505a7e6478ab0a5eecbb53b09118d587e4d8b84fa576b0b6d2e73f5ac356c9c97e5846f6"
    "19f118091c4b092984724cf644d6da30492acb5a636ef254feb3f0a16dcaf7a57882ca36d95b7bc9167d32cef1082908"
    "a614b221e20cf321131b9efb106f57ad84c0392df46eacdde23d883d03e27dc4"
)
_GRADIENTS = np.array([-1.0 if d & 8 else (d & 7) + 1.0 for d in (int(digit, 16) for digit in _PERLIN)])

i32, i64, u16, u32 = np.int32, np.int64, np.uint16, np.uint32
MULTIPLIERS = 0x9E3779B1, 0x7FEB352D, 0x846CA68B  # of the hash; the last two are C. Wellons's lowbias32
_M0, _M1, _M2 = map(u32, MULTIPLIERS)
HALF = np.float32(0.5)


class Stack(NamedTuple):
    """One stack of polygons; lengths in pixels of the 512-pixel canvas.

    advance and noise are the mean step and the factor of the noise, waves = (n1, n2), radius and centre are (x, y),
    key names the stack's noise (64 bits).
    """

    vertices: int
    polygons: int
    advance: float
    noise: float
    radius: tuple[float, float]
    centre: tuple[float, float]
    key: int
    waves: tuple[int, int] = (0, 0)


def perlin(u: np.ndarray) -> np.ndarray:
    """One-dimensional Perlin noise of float64 arguments, as ``noise.pnoise1`` (which works in float32)."""
    cell = np.floor(u).astype(np.int64)
    x = u - cell
    left, right = _GRADIENTS[cell & 255] * x, _GRADIENTS[cell + 1 & 255] * (x - 1)
    noise: np.ndarray = 0.4 * (left + x * x * x * (x * (x * 6 - 15) + 10) * (right - left))
    return noise


NOISE = perlin(PERIOD * (np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.float32)


@lru_cache(maxsize=64)
def trigonometry(vertices: int) -> np.ndarray:
    """Cosines and sines of the vertices' angles, float32 [2,q]."""
    angles = 2 * math.pi * np.arange(vertices) / vertices
    table = np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=64)
def factors(vertices: int) -> np.ndarray:
    """The cosines and sines in fixed point, float32 [2,q]."""
    return trigonometry(vertices) * np.float32(UNIT)


def advances(stack: Stack) -> np.ndarray:
    """The step of each vertex before noise, float32 [q]."""
    return cast(np.ndarray, _advances(trigonometry(stack.vertices)[1], float(stack.advance), *stack.waves))


def start(stack: Stack) -> np.ndarray:
    """The ellipse before the first growth, int32 [2,q] in fixed point around the centre."""
    return cast(np.ndarray, _ellipse(trigonometry(stack.vertices), *map(float, stack.radius)))


def draw(stacks: Sequence[Stack], size: int, values: np.ndarray) -> np.ndarray:
    """Draw stacks over each other, [size,size] of the dtype of ``values`` (uint8 or uint16).

    Args:
        stacks: drawn in this order.
        size: side, 8 to 8192 pixels.
        values: of the background and of each polygon in the order of drawing, [1 + all polygons].

    Returns:
        The canvas.

    Raises:
        InputError: a size out of range.
    """
    check_number("size", size, int, 8, MAX_SIZE)
    canvas = np.full((size, size), values[0])
    first = 1
    for stack in stacks:
        add(canvas, stack, values[first:])
        first += stack.polygons
    return canvas


def add(canvas: np.ndarray, stack: Stack, values: np.ndarray) -> np.ndarray:
    """Draw one stack with a value for each polygon; its last polygon's pixels, int32 [2,q+1], first = last."""
    low, high = u32(stack.key & 0xFFFFFFFF), u32(stack.key >> 32)
    centre = np.array([int(at * UNIT) for at in stack.centre])
    pixels = np.empty((2, stack.vertices + 1), i32)
    motion = start(stack), centre, factors(stack.vertices), advances(stack), np.float32(stack.noise), NOISE, low, high
    _stack(canvas.reshape(-1), canvas.shape[1], values[: stack.polygons], pixels, *motion)
    return pixels


def ordinals(stacks: Sequence[Stack]) -> np.ndarray:
    """Values that number the polygons from 1; 0 is the background. uint16."""
    return np.arange(1 + sum(stack.polygons for stack in stacks), dtype=u16)


def three_channels(grey: np.ndarray) -> np.ndarray:
    """A grey image uint8 [H,W] as uint8 [H,W,3]."""
    image = np.empty((*grey.shape, 3), np.uint8)
    _interleave(np.ascontiguousarray(grey).reshape(-1), image.reshape(-1))
    return image


def vertex_count(rng: np.random.Generator, most: int) -> int:
    """The published draw of q: floor(Exp(mean 100)), again until 3 <= q <= most."""
    while not 3 <= (q := int(rng.exponential(100))) <= most:
        pass
    return q


def search(candidate: Callable[[int], tuple[P, Stack]], min_ink: float, what: str) -> P:
    """The first candidate whose stack touches ``min_ink`` of the canvas; ``candidate(draws)`` makes the next.

    Returns:
        The candidate.

    Raises:
        InputError: none of 1000 did; ``what`` says of what.
    """
    check_number("min_ink", min_ink, float, 0, 1)
    for draws in range(1, MAX_DRAWS + 1):
        params, stack = candidate(draws)
        if min_ink == 0 or ink(stack) >= min_ink:
            return params
    raise InputError(
        f"{what}: 0 of {MAX_DRAWS} draws touch {min_ink:.3g} of the canvas (acceptance 0 %; 87 to 99 % is usual "
        f"at {MIN_INK}). Lower min_ink (default {MIN_INK}; 0 keeps the first draw)."
    )


def ink(stack: Stack) -> float:
    """Share of the published canvas that a stack touches when its centre is the canvas's."""
    values = np.append(0, np.ones(stack.polygons)).astype(np.uint8)
    return float(draw([stack._replace(centre=(CANVAS / 2, CANVAS / 2))], CANVAS, values).mean())


def check_pair(name: str, values: Any, least: float, most: float, kind: type = int) -> None:
    """Check two values in a tuple."""
    if not isinstance(values, tuple) or len(values) != 2:
        raise InputError(f"{name} is {values!r}; expected a tuple of 2 numbers.")
    for value in values:
        check_number(name, value, kind, least, most)


@compiled
def _ellipse(trig: Any, radius_x: Any, radius_y: Any) -> Any:
    points = np.empty(trig.shape, i32)
    for v in range(trig.shape[1]):
        points[0, v] = i32(np.floor(trig[0, v] * (radius_x * UNIT) + 0.5))
        points[1, v] = i32(np.floor(trig[1, v] * (radius_y * UNIT) + 0.5))
    return points


@compiled
def _advances(sin: Any, advance: Any, n1: Any, n2: Any) -> Any:
    q = len(sin)
    steps = np.empty(q, np.float32)
    for v in range(q):
        step = advance
        if n1:
            step += 0.5 * sin[n1 * v % q]
        if n2:
            step += 0.5 * sin[n2 * v % q]
        steps[v] = step
    return steps


@compiled
def _hash(bits: Any, counter: Any, low: Any, high: Any) -> None:
    """32 random bits for every vertex."""
    for v in range(len(bits)):
        h = u32(u32(u32(counter + u32(v)) * _M0) ^ low)
        h = u32(u32(h ^ (h >> u32(16))) * _M1)
        h = u32(u32(h ^ (h >> u32(15)) ^ high) * _M2)
        bits[v] = h ^ (h >> u32(16))


@compiled
def _move(at: Any, factor: Any, advance: Any, noise: Any, drawn: Any, centre: Any, size: Any, pixels: Any) -> None:
    """Grow one coordinate of every vertex; its pixels, cut towards zero, with the first again to close the polygon."""
    for v in range(len(at)):
        at[v] += i32(np.floor(factor[v] * (advance[v] - drawn[v] * noise) + HALF))
        place = (i64(at[v]) + centre) * i64(size)
        pixels[v] = i32(place >> 25) if place >= 0 else i32(-(-place >> 25))
    pixels[-1] = pixels[0]


@compiled
def _beyond(x: Any, y: Any, size: Any) -> Any:
    """A bit for each side of the canvas that a pixel lies beyond."""
    return (x < 0) | (x >= size) << 1 | (y < 0) << 2 | (y >= size) << 3


@compiled
def _span(at: Any, direction: Any, size: Any) -> Any:
    """The steps n from which and before which ``at`` + n ``direction`` lies on the canvas."""
    return (-at, size - at) if direction > 0 else (at - size + 1, at + 1)


@compiled
def outline(canvas: Any, size: Any, pixels: Any, value: Any) -> None:
    """Draw the chain of lines through ``pixels``, int32 [2,n], with a value into the flat canvas.

    Pixel i of Bresenham's line lies floor(i minor / major + 1/2) to the side. The slope in units of 2^-40, rounded up,
    gives that exactly for i < 2^19, and no pixel waits for the one before.
    """
    x1, y1 = i64(pixels[0, 0]), i64(pixels[1, 0])
    beyond1 = _beyond(x1, y1, size)
    for v in range(1, pixels.shape[1]):
        x, y, beyond = x1, y1, beyond1
        x1, y1 = i64(pixels[0, v]), i64(pixels[1, v])
        beyond1 = _beyond(x1, y1, size)
        if beyond & beyond1:
            continue
        right, down = (1 if x1 > x else -1), (1 if y1 > y else -1)
        dx, dy = int(abs(x1 - x)), int(abs(y1 - y))
        first, last = 0, max(dx, dy, 1)
        slope = (min(dx, dy) << 40) // last + 1
        side = i64(1 << 39)
        if beyond | beyond1:
            columns, rows = _span(x, right, size), _span(y, down, size)
            major, minor = (columns, rows) if dx > dy else (rows, columns)
            first = max(first, major[0], -((side - (minor[0] << 40)) // slope))
            last = min(last, major[1], ((minor[1] << 40) - side - 1) // slope + 1)
        a, b = (right, down * size) if dx > dy else (down * size, right)
        at = y * size + x + first * a
        side += first * slope
        for _ in range(last - first):
            canvas[at + (side >> 40) * b] = value
            side += slope
            at += a


@compiled
def _stack(
    canvas: Any, size: int, values: Any, pixels: Any,
    points: Any, centre: Any, factors: Any, advance: Any, noise: Any, table: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    """Grow and draw; ``points``, int32 [2,q], and ``pixels`` end as the last polygon's."""
    q = points.shape[1]
    bits, drawn = np.empty(q, np.uint32), np.empty((2, q), np.float32)
    for k in range(len(values)):
        _hash(bits, u32(k * q), low, high)
        for v in range(q):
            drawn[0, v], drawn[1, v] = table[bits[v] & u32(0xFFFF)], table[bits[v] >> u32(16)]
        for axis in range(2):
            _move(points[axis], factors[axis], advance, noise, drawn[axis], centre[axis], size, pixels[axis])
        outline(canvas, size, pixels, values[k])


@compiled
def _interleave(grey: Any, image: Any) -> None:
    for at in range(len(grey)):
        image[3 * at] = grey[at]
        image[3 * at + 1] = grey[at]
        image[3 * at + 2] = grey[at]
