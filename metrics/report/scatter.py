"""Where the images lie on the map of both sets, in the units of an SVG view box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..comparison.gap_report import GapReport, Point
from .chart import FARTHEST

POINTS = 2000  # points drawn; with it, the page is bounded
WIDTH, LOWEST, HIGHEST = 1000.0, 400.0, 640.0  # of the view box; its height follows the points
MARGIN = 24.0


@dataclass(frozen=True)
class Dot:
    """One image; ``named`` when it is among the images that explain the gap."""

    role: str
    key: str
    x: float
    y: float
    named: bool


@dataclass(frozen=True)
class Scatter:
    """The dots, real ones first, in a view box of WIDTH × ``height``; ``left_out`` counts the points thinned away."""

    dots: tuple[Dot, ...]
    height: float
    left_out: int


def scatter(report: GapReport) -> Scatter | None:
    """The map, with one scale for both axes; None without a finite point.

    At most POINTS are drawn, evenly thinned; images that explain the gap are always among them.

    Args:
        report: of ``compare``.

    Returns:
        The dots in their view box, or None.
    """
    points = [point for point in report.points if abs(point.x) <= FARTHEST and abs(point.y) <= FARTHEST]
    if not points:
        return None
    named = {("after", e.key) for e in report.most_synthetic} | {("real", e.key) for e in report.least_covered}
    kept = _thinned(points, named)
    left, right = min(point.x for point in kept), max(point.x for point in kept)
    low, high = min(point.y for point in kept), max(point.y for point in kept)
    room = WIDTH - 2 * MARGIN
    scale = min(room / max(right - left, 1e-12), (HIGHEST - 2 * MARGIN) / max(high - low, 1e-12))
    height = max(LOWEST, scale * (high - low) + 2 * MARGIN)

    def placed(point: Point) -> Dot:
        x = WIDTH / 2 + scale * (point.x - (left + right) / 2)
        y = height / 2 - scale * (point.y - (low + high) / 2)
        return Dot(point.role, point.key, round(x, 1), round(y, 1), (point.role, point.key) in named)

    dots = sorted(map(placed, kept), key=lambda dot: (dot.named, dot.role != "real"))
    return Scatter(tuple(dots), round(height, 1), len(points) - len(kept))


def _thinned(points: Sequence[Point], named: set[tuple[str, str]]) -> list[Point]:
    """At most POINTS of them in their order: the named ones, and every k-th of the others."""
    if len(points) <= POINTS:
        return list(points)
    first = [point for point in points if (point.role, point.key) in named][:POINTS]
    others = [point for point in points if (point.role, point.key) not in named]
    room = POINTS - len(first)
    return first + [others[index * len(others) // room] for index in range(room)]
