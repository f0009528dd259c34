"""The figure of the leaderboard: what a method closes against what it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 560, 64, 24, 24, 56
STYLE = """<style>
svg{background:#fff;font:13px system-ui,sans-serif}text{fill:#333}.axis{stroke:#ddd}.aim{fill:#1a7f3718}
circle{fill:#5b7fb5}.best{fill:#c2410c}.line{fill:none;stroke:#c2410c;stroke-width:1.5}
</style>"""
Point = tuple[str, float, float]  # name, share closed, share kept


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other point beats in both numbers, the one that keeps most first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (-point[2], -point[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def draw(points: Sequence[Point], aim: tuple[float, float]) -> str:
    """SVG: share closed to the right, share kept upwards; the corner from ``aim`` on is tinted."""
    low, right, bottom = min(kept for _, _, kept in points) - 0.05, WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(closed: float) -> float:
        return LEFT + (right - LEFT) * (closed + 0.15) / 1.15

    def y(kept: float) -> float:
        return TOP + (bottom - TOP) * (1.05 - kept) / (1.05 - low)

    corner = f'width="{right - x(aim[0]):.0f}" height="{y(aim[1]) - TOP:.0f}"'
    drawn = [f'<rect class="aim" x="{x(aim[0]):.0f}" y="{TOP}" {corner}/>', text(right - 8, TOP + 18, "aim", "end")]
    for tick in range(0, 101, 20):
        drawn.append(f'<path class="axis" d="M{x(tick / 100):.0f} {TOP}V{bottom}"/>')
        drawn.append(text(x(tick / 100), bottom + 20, f"{tick} %", "middle"))
    for tick in range(-(-int(100 * low) // 10) * 10, 101, 10):
        drawn.append(f'<path class="axis" d="M{LEFT} {y(tick / 100):.0f}H{right}"/>')
        drawn.append(text(LEFT - 8, y(tick / 100) + 4, f"{tick} %", "end"))
    drawn.append(text((LEFT + right) / 2, HEIGHT - 12, "gap closed", "middle"))
    drawn.append(
        f'<g transform="translate(16 {(TOP + bottom) / 2}) rotate(-90)">{text(0, 0, "labels kept", "middle")}</g>'
    )
    best = frontier(points)
    line = " ".join(f"{x(closed):.1f},{y(kept):.1f}" for _, closed, kept in best)
    drawn.append(f'<polyline class="line" points="{line}"/>')
    for cluster in clustered(points):
        for point in cluster:
            kind = "best" if point in best else "other"
            drawn.append(f'<circle class="{kind}" cx="{x(point[1]):.1f}" cy="{y(point[2]):.1f}" r="4.5"/>')
        name = ", ".join(name for name, _, _ in cluster)
        _, closed, kept = min(cluster, key=lambda point: point[1])
        if x(closed) - 9 - 7 * len(name) < LEFT:
            drawn.append(text(x(closed) - 5, y(kept) + 20, name))
        elif cluster[0] in best:
            drawn.append(text(x(cluster[0][1]) + 9, y(cluster[0][2]) - 5, name))
        else:
            # A long name reaches under its neighbours' names: a line lower.
            drawn.append(text(x(closed) - 9, y(kept) + (13 if len(cluster) == 1 else 28), name, "end"))
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    label = 'role="img" aria-label="Gap closed and labels kept by every style method"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>{STYLE}{"".join(drawn)}</svg>\n'


def clustered(points: Sequence[Point]) -> list[list[Point]]:
    """Points, those of the frontier first, with the later ones that are too close to have labels of their own."""
    best = frontier(points)
    found: list[list[Point]] = []
    for point in [*best, *(point for point in points if point not in best)]:
        near = (c for c in found if abs(c[0][1] - point[1]) < 0.06 and abs(c[0][2] - point[2]) < 0.013)
        home = next(near, None)
        if home is None:
            found.append([point])
        else:
            home.append(point)
    return found


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
