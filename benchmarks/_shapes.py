"""Rendered shapes: a synthetic set that is no fractal, with the kind of shape as label."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from metrics.seed import generator

KINDS = ("disc", "box", "triangle", "star", "ring", "cross", "bar", "moon", "hexagon", "wedge")


def write_shapes(out: Path, per_kind: int, size: int, seed: int) -> None:
    """Write ``out/<kind>/<number>.png``: one to four flat shapes of one kind over a plain gradient."""
    for kind in KINDS:
        (out / kind).mkdir(parents=True, exist_ok=True)
        for number in range(per_kind):
            _scene(kind, size, generator(seed, "shapes", f"{kind}/{number}")).save(out / kind / f"{number:04d}.png")


def _scene(kind: str, size: int, rng: np.random.Generator) -> Image.Image:
    big = 2 * size  # drawn twice as large and reduced: smooth edges
    top, bottom = rng.integers(30, 226, (2, 3))
    ramp = np.linspace(0, 1, big)[:, None, None]
    image = Image.fromarray(np.broadcast_to(top + (bottom - top) * ramp, (big, big, 3)).round().astype(np.uint8))
    for _ in range(int(rng.integers(1, 5))):
        colour = tuple(rng.integers(20, 236, 3).tolist())
        x, y = rng.uniform(0.2, 0.8, 2) * big
        _draw(ImageDraw.Draw(image), kind, x, y, rng.uniform(0.12, 0.3) * big, rng.uniform(0, 2 * math.pi), colour)
    return image.resize((size, size), Image.Resampling.BOX)


def _draw(
    pen: ImageDraw.ImageDraw, kind: str, x: float, y: float, r: float, turn: float, colour: tuple[int, ...]
) -> None:
    def ring(corners: int, radii: tuple[float, ...] = (1.0,), start: float = 0.0) -> list[tuple[float, float]]:
        angles = [turn + start + 2 * math.pi * i / corners for i in range(corners)]
        return [
            (x + r * radii[i % len(radii)] * math.cos(a), y + r * radii[i % len(radii)] * math.sin(a))
            for i, a in enumerate(angles)
        ]

    box = (x - r, y - r, x + r, y + r)
    degrees = math.degrees(turn)
    if kind == "disc":
        pen.ellipse(box, fill=colour)
    elif kind == "ring":
        pen.ellipse(box, outline=colour, width=max(2, round(r / 3)))
    elif kind == "moon":
        pen.chord(box, degrees, degrees + 200, fill=colour)
    elif kind == "wedge":
        pen.pieslice(box, degrees, degrees + 80, fill=colour)
    elif kind == "bar":
        end = (x + r * math.cos(turn), y + r * math.sin(turn))
        pen.line([(2 * x - end[0], 2 * y - end[1]), end], fill=colour, width=max(2, round(r / 4)))
    elif kind == "star":
        pen.polygon(ring(10, (1.0, 0.4)), fill=colour)
    elif kind == "cross":
        pen.polygon(ring(12, (1.0, 1.0, 0.35)), fill=colour)
    else:
        pen.polygon(ring({"box": 4, "triangle": 3, "hexagon": 6}[kind]), fill=colour)
