"""The contour families beside a plain restatement of the published loops: Python lists, math, random and Pillow.

Run:      python benchmarks/contours.py
Compare:  pip install --no-deps --target /tmp/noise noise==1.2.2
          PYTHONPATH=/tmp/noise python benchmarks/contours.py

The restatement draws the very stacks that ``place`` gives; it takes its noise from the package ``noise`` 1.2.2 as the
published scripts do, or from a Python version of it (slower) where that is not installed. One thread each; CPU seconds,
since they do not depend on what else the machine runs. No image is written to disk on either side.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from stylize.patterns import _contours as contours
from stylize.patterns import rcdb, seg_contours, visual_atom

SIZE, CLASSES, REPEATS = 512, 40, 15


def python_noise(u: float) -> float:
    """One-dimensional Perlin noise in plain Python."""
    cell = math.floor(u)
    x = u - cell
    left = contours._GRADIENTS[cell & 255] * x
    right = contours._GRADIENTS[cell + 1 & 255] * (x - 1)
    return 0.4 * (left + x * x * x * (x * (x * 6 - 15) + 10) * (right - left))


def published_noise() -> tuple[Callable[[float], float], str]:
    try:
        from noise import pnoise1
    except ImportError:
        return python_noise, "noise restated in Python (slower than the package)"
    return pnoise1, "noise from the package noise"


def loops(stacks: Sequence[contours.Stack], greys: np.ndarray, noise: Callable[[float], float]) -> Image.Image:
    """Draw stacks as the published scripts do, one vertex and one line at a time."""
    image = Image.new("RGB", (SIZE, SIZE), (int(greys[0]),) * 3)
    pen, number = ImageDraw.Draw(image), 0
    for stack in stacks:
        q, waves = stack.vertices, any(stack.waves)
        angle = 2 * math.pi / q
        x = [math.cos(angle * v) * stack.radius[0] + stack.centre[0] for v in range(q)]
        y = [math.sin(angle * v) * stack.radius[1] + stack.centre[1] for v in range(q)]
        for _ in range(stack.polygons):
            number += 1
            steps: list[list[float]] = [[], []]
            for axis in steps:
                for v in range(q):
                    step = stack.advance - stack.noise * noise(random.uniform(0, 10000))
                    if waves:
                        step += 0.5 * math.sin(angle * v * stack.waves[0]) + 0.5 * math.sin(angle * v * stack.waves[1])
                    axis.append(step)
            for v in range(q):
                x[v] += math.cos(angle * v) * steps[0][v]
                y[v] += math.sin(angle * v) * steps[1][v]
            grey = int(greys[number])
            for v in range(q):
                w = (v + 1) % q
                pen.line((x[v], y[v], x[w], y[w]), fill=(grey, grey, grey), width=1)
    return image


def seconds(work: Callable[[], Any], repeats: int = 1) -> float:
    """CPU seconds of this process for one call, the least of the repeats: others on the machine only add to it."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def compare(name: str, family: ModuleType, classes: Sequence[Any], noise: Callable[[float], float]) -> None:
    """Print both sides over instance 0 of the same classes."""
    family.render(classes[0], 0, SIZE)
    placed = [family.place(params, 0)[:2] for params in classes]
    vertices = sum(s.vertices * s.polygons for stacks, _ in placed for s in stacks) / len(classes)
    plain = sum(seconds(lambda p=p: loops(*p, noise), 3) for p in placed) / len(classes)
    ours = sum(seconds(lambda p=p: family.render(p, 0, SIZE), REPEATS) for p in classes) / len(classes)
    batch = sum(seconds(lambda p=p: family.render_torch(p, [0], SIZE), 3) for p in classes[:4]) / 4
    again = sum(seconds(lambda p=p: family.render(p, 0, SIZE), REPEATS) for p in classes[:4]) / 4
    print(
        f"{name:13s} {vertices:9.0f} moves/image   loops {1e3 * plain:7.1f} ms {1 / plain:6.1f} images/s   "
        f"ours {1e3 * ours:6.2f} ms {1 / ours:6.0f} images/s   ratio {plain / ours:5.0f}   "
        f"{1e9 * ours / vertices:5.1f} ns/move   torch on one CPU thread {batch / again:4.0f} times ours"
    )


def floor(name: str, family: ModuleType, classes: Sequence[Any]) -> None:
    """Print where the time of an image goes, in microseconds, each part run on its own."""
    parts = dict.fromkeys(("random draws", "canvas", "growth", "lines", "three channels"), 0.0)
    for params in classes:
        (stack,), greys = family.place(params, 0)[:2]
        outside = stack._replace(centre=(5000.0, 5000.0))  # no line is drawn
        canvas = contours.draw([stack], SIZE, greys)
        works: list[Callable[[], Any]] = [
            lambda p=params: family.place(p, 0),
            lambda c=canvas: np.full_like(c, 0),
            lambda s=outside, g=greys: contours.draw([s], SIZE, g),
            lambda s=stack, g=greys: contours.draw([s], SIZE, g),
            lambda c=canvas: contours.three_channels(c),
        ]
        place, blank, grown, drawn, channels = (seconds(work, REPEATS) for work in works)
        for part, took in zip(parts, (place, blank, grown - blank, drawn - grown, channels), strict=True):
            parts[part] += 1e6 * took / len(classes)
    print(f"{name:13s} microseconds per image: " + ", ".join(f"{part} {took:.0f}" for part, took in parts.items()))


def main() -> None:
    torch.set_num_threads(1)
    noise, where = published_noise()
    print(f"{SIZE} x {SIZE}, instance 0 of {CLASSES} classes (4 label sets for seg-contours); {where}")
    for name, family in (("rcdb", rcdb), ("visual-atom", visual_atom)):
        classes = [family.sample_class(0, c) for c in range(CLASSES)]
        compare(name, family, classes, noise)
        floor(name, family, classes)
    compare("seg-contours", seg_contours, [seg_contours.sample_class(0, c, categories=40) for c in range(4)], noise)
    print(
        "Least work: growth is a hash of 10 integer operations, 2 table reads and 10 float operations for the two "
        "coordinates of a vertex; a line of n pixels is n scattered stores of 8 instructions and one loop whose end no "
        "processor foresees; three channels are 0.8 MB written."
    )


if __name__ == "__main__":
    main()
