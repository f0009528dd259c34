"""Painter of opaque convex leaves: per leaf a row span, per pixel one store, until every pixel is covered.

A leaf is nine integers: a radius and four corners (x, y), in 1/GRID of the side of the image. A positive radius means
the disc around the first corner; 0 means the convex polygon of the corners, in order of increasing angle (a triangle
repeats a corner). A pixel belongs to a leaf if its centre does, borders included. Coordinates are scaled by 2 * size,
so that pixel centres are integers too: every test is exact in 64 bits for sizes up to 8192, on any machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._compiled import compiled

GRID = 1 << 16  # positions along the side of the image


@compiled
def shape_leaves(shape: Any, radius: Any, centre: Any, u: Any, leaves: Any) -> None:
    """Fill ``leaves``, int64 [n,9].

    Args:
        shape: int64 [n]: 0 disc, 1 square, 2 turned square, 3 rectangle, 4 triangle, 5 quadrilateral.
        radius: float64 [n], of the circle on which the corners lie, in sides of the image.
        centre: float64 [n,2], in sides.
        u: float64 [n,4], uniform draws behind the angles of the corners.
        leaves: the result; corners are rounded to 1/GRID, which also hides the last bits of sine and cosine.
    """
    angle = np.empty(4)
    for k in range(len(leaves)):
        leaves[k, 0] = np.int64(np.rint(radius[k] * GRID)) if shape[k] == 0 else 0
        if shape[k] <= 2:
            turn = u[k, 0] if shape[k] == 2 else 0.0
            for c in range(4):
                angle[c] = 2 * np.pi * (turn + (2 * c + 1) / 8)
        elif shape[k] == 3:
            half = np.pi / 2 * u[k, 0]
            angle[0], angle[1], angle[2], angle[3] = half, np.pi - half, np.pi + half, 2 * np.pi - half
        else:
            corners = shape[k] - 1
            for c in range(corners):  # insertion sort
                at = c
                while at > 0 and angle[at - 1] > 2 * np.pi * u[k, c]:
                    angle[at] = angle[at - 1]
                    at -= 1
                angle[at] = 2 * np.pi * u[k, c]
            if corners == 3:
                angle[3] = angle[2]
        for c in range(4):
            reach = 0.0 if shape[k] == 0 else radius[k]
            leaves[k, 1 + 2 * c] = np.int64(np.rint((centre[k, 0] + reach * np.cos(angle[c])) * GRID))
            leaves[k, 2 + 2 * c] = np.int64(np.rint((centre[k, 1] + reach * np.sin(angle[c])) * GRID))


@compiled
def _root(value: int) -> int:
    """The largest integer whose square is at most ``value``."""
    root = int(np.sqrt(float(value)))
    while root * root > value:
        root -= 1
    while (root + 1) * (root + 1) <= value:
        root += 1
    return root


@compiled
def _span(leaf: Any, row: int, size: int) -> Any:
    """First column of the leaf in a row and the one after the last."""
    scale = 2 * size
    y, first, last = (2 * row + 1) * GRID, 0, size - 1
    if leaf[0] > 0:
        dy, radius = y - scale * leaf[2], scale * leaf[0]
        if abs(dy) > radius:
            return 0, 0
        half, x = _root(radius * radius - dy * dy), scale * leaf[1]
        first = max(first, -((half - x + GRID) // (2 * GRID)))
        last = min(last, (x + half - GRID) // (2 * GRID))
        return first, max(first, last + 1)
    for a in range(4):
        b = (a + 1) % 4
        ex, ey = leaf[1 + 2 * b] - leaf[1 + 2 * a], leaf[2 + 2 * b] - leaf[2 + 2 * a]
        # inside: ex (y - ya) - ey (x - xa) >= 0, that is ey x <= bound, at x = (2 column + 1) GRID
        bound = ex * (y - scale * leaf[2 + 2 * a]) + ey * scale * leaf[1 + 2 * a]
        if ey > 0:
            last = min(last, (bound - GRID * ey) // (2 * GRID * ey))
        elif ey < 0:
            first = max(first, -((bound - GRID * ey) // (-2 * GRID * ey)))
        elif bound < 0:
            return 0, 0
    return first, max(first, last + 1)


@compiled
def paint(index: Any, leaves: Any, before: int, uncovered: int) -> Any:
    """Paint leaves over ``index``, int32 [size,size]; 0 is an uncovered pixel.

    Args:
        index: the number of the leaf on top of each pixel, changed in place.
        leaves: int64 [n,9].
        before: leaves painted earlier; these are numbered from ``before + 1``.
        uncovered: pixels that are 0.

    Returns:
        Leaves painted so far in all, and pixels still uncovered; it stops at the first leaf that leaves none.
    """
    size = len(index)
    for k in range(len(leaves)):
        if uncovered == 0:
            return before + k, 0
        leaf = leaves[k]
        if leaf[0] > 0:
            low, high = leaf[2] - leaf[0], leaf[2] + leaf[0]
        else:
            low = min(min(leaf[2], leaf[4]), min(leaf[6], leaf[8]))
            high = max(max(leaf[2], leaf[4]), max(leaf[6], leaf[8]))
        top = max(0, -((GRID - 2 * size * low) // (2 * GRID)))
        bottom = min(size - 1, (2 * size * high - GRID) // (2 * GRID))
        number = np.int32(before + k + 1)
        for row in range(top, bottom + 1):
            first, end = _span(leaf, row, size)
            line = index[row]
            for column in range(first, end):
                uncovered -= line[column] == 0
                line[column] = number
    return before + len(leaves), uncovered
