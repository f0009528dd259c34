"""The four iterated-function families beside the published way: one orbit in plain Python, one PIL paste per point.

Run:      python benchmarks/iterated_functions.py

Times are CPU seconds of one thread, except for the data set of ``one-fractal`` (wall seconds of a process per core).
The plain loops are our own re-statement of the published programs' method, on the same maps and number of points.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from stylize.patterns import _chaos_game as game
from stylize.patterns import exfractaldb, fractal_svd, fractaldb, one_fractal

SIZE, MARGIN = 512, 6
CORES = os.cpu_count() or 1
CLASSES = 1000  # of the one-fractal data set


def seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Median CPU seconds of ``work`` after one run that warms up."""
    if repeats > 1:
        work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times))


def plain_orbit(maps: list[list[float]], chances: list[float], points: int) -> list[tuple[float, ...]]:
    """One orbit from the origin in Python numbers; a map is found by walking along the cumulative chances."""
    rng = random.Random(100)
    x = y = z = 0.0
    seen: list[tuple[float, ...]] = []
    for _ in range(points):
        draw, chosen, total = rng.random(), 0, chances[0]
        while draw > total and chosen < len(maps) - 1:
            chosen += 1
            total += chances[chosen]
        if len(maps[0]) == 6:
            seen.append((x, y))
            a, b, c, d, e, f = maps[chosen]
            x, y = a * x + b * y + c, d * x + e * y + f
        else:
            seen.append((x, y, z))
            a, b, c, d, e, f, g, h, i, j, k, l = maps[chosen]
            x, y, z = a * x + b * y + c * z + d, e * x + f * y + g * z + h, i * x + j * y + k * z + l
    return seen


def plain_image(seen: list[tuple[float, ...]]) -> Image.Image:
    """Stretch the points over the image and paste a random one of 511 ready 3 x 3 patches for each with PIL."""
    rng = random.Random(0)
    patches = []
    for bits in range(1, 512):
        patch = Image.new("L", (3, 3))
        patch.putdata([game.GREY * (bits >> cell & 1) for cell in range(9)])
        patches.append(patch)
    low_x, high_x = min(p[0] for p in seen), max(p[0] for p in seen)
    low_y, high_y = min(p[1] for p in seen), max(p[1] for p in seen)
    image = Image.new("L", (SIZE, SIZE))
    for x, y in seen:
        column = MARGIN + int((x - low_x) / (high_x - low_x) * (SIZE - 2 * MARGIN))
        row = MARGIN + int((y - low_y) / (high_y - low_y) * (SIZE - 2 * MARGIN))
        image.paste(patches[rng.randrange(511)], (column - 1, row - 1))
    return image


def plain_view(seen: list[tuple[float, ...]], side: int = 224) -> Image.Image:
    """Scale and centre the cloud and project each point from distance 4 with a field of view of 45 degrees."""
    low, high = min(map(min, seen)), max(map(max, seen))
    cloud = [[2 * (v - low) / (high - low) - 1 for v in p] for p in seen]
    mean = [sum(p[axis] for p in cloud) / len(cloud) for axis in range(3)]
    image = Image.new("L", (side, side))
    for p in cloud:
        x, y, z = (v - m for v, m in zip(p, mean, strict=True))
        column, row = (int((v * exfractaldb.FOCAL / (4 - z) + 1) * side / 2) for v in (x, -y))
        if 0 <= column < side and 0 <= row < side:
            image.putpixel((column, row), 255)
    return image


def chances(maps: np.ndarray) -> list[float]:
    dets = game.determinants(maps)
    return [float(v) for v in dets / dets.sum()]


def one_class(class_id: int) -> int:
    """Sample and render one class of the one-fractal data set; the sum of its pixels."""
    return int(one_fractal.render(one_fractal.sample_class(0, class_id), 0, SIZE).sum())


def main() -> None:
    params = fractaldb.sample_class(0, 0)
    maps = np.array(params.maps).reshape(-1, 2, 3)
    ours = seconds(lambda: fractaldb.render(params, 0, SIZE))
    weighted = seconds(lambda: [fractaldb.render(params, i, SIZE) for i in range(25)]) / 25
    plain = seconds(lambda: plain_image(plain_orbit([list(m) for m in params.maps], chances(maps), params.points)), 1)
    print(
        f"fractaldb    {SIZE} px, {params.points} points: {1 / ours:6.1f} images/s, plain loop {1 / plain:.3f}: ",
        end="",
    )
    print(f"{plain / ours:.0f} times (with the instance filter {plain / weighted:.0f} times)")
    floor(params, maps)

    search = seconds(lambda: [fractaldb.sample_class(1, c) for c in range(20)], 1) / 20
    draws = np.mean([fractaldb.sample_class(1, c).draws for c in range(20)])
    rows = [list(m) for m in params.maps]
    candidate = seconds(lambda: plain_orbit(rows, chances(maps), fractaldb.POINTS), 1)
    print(
        f"             class search {search * 1e3:.1f} ms ({draws:.0f} draws); plain orbits {candidate * draws:.0f} s:",
        end="",
    )
    print(f" {candidate * draws / search:.0f} times")

    solid = exfractaldb.sample_class(0, 0)
    ours = seconds(lambda: [exfractaldb.render(solid, i, 224) for i in range(20)]) / 20
    cubes = np.array(solid.maps).reshape(-1, 3, 4)
    rows = [list(m) for m in solid.maps]
    plain = seconds(lambda: plain_orbit(rows, chances(cubes), solid.points))
    view = seconds(lambda: plain_view(plain_orbit(rows, chances(cubes), solid.points)))
    search = seconds(lambda: [exfractaldb.sample_class(1, c) for c in range(20)], 1) / 20
    draws = np.mean([exfractaldb.sample_class(1, c).draws for c in range(20)])
    print(
        f"exfractaldb  224 px, {solid.points} points: {1 / ours:6.1f} images/s, plain loop {1 / view:.1f}: ",
        end="",
    )
    print(f"{view / ours:.0f} times; class search {search * 1e3:.1f} ms, {plain * draws / search:.0f} times")

    picture = fractal_svd.sample_class(0, 0)
    ours = seconds(lambda: [fractal_svd.render(picture, i, 224) for i in range(20)]) / 20
    many = seconds(lambda: [fractal_svd.render_many(0, i, 1000, 224) for i in range(20)]) / 20
    flat = np.array(picture.maps).reshape(-1, 2, 3)
    plain = seconds(lambda: plain_orbit([list(m) for m in picture.maps], chances(flat), picture.points), 1)
    print(
        f"fractal-svd  224 px, {picture.points} points: {1 / ours:6.1f} images/s ({1 / many:.1f} of 1 to 5 fractals); ",
        end="",
    )
    print(f"plain orbit alone {1 / plain:.2f}: {plain / ours:.0f} times")

    with ProcessPoolExecutor(CORES) as pool:
        list(pool.map(one_class, range(CORES)))
        start = time.perf_counter()
        list(pool.map(one_class, range(CLASSES), chunksize=25))
        took = time.perf_counter() - start
    print(f"one-fractal  {CLASSES} classes sampled and rendered at {SIZE} px on {CORES} cores: {took:.1f} s wall")


def floor(params: fractaldb.FractalDB, maps: np.ndarray) -> None:
    """Where the time of an image goes, per point, beside the arithmetic that a step cannot do without."""
    system, key = game.system(maps), fractaldb.orbit_key(0)
    points = game.orbit(system, key, params.points)
    where = game.pixels(points, SIZE)
    parts = {
        "orbit": lambda: game.orbit(system, key, params.points),
        "bounds and pixels": lambda: game.pixels(points, SIZE),
        "patches": lambda: game.paint_patches(where, game.u64(1), 1, SIZE),
    }
    shares = ", ".join(f"{name} {seconds(work) / params.points * 1e9:.1f} ns" for name, work in parts.items())
    print(f"             per point: {shares}. Least work: 2 hashes of 2 multiplications, 4 multiply-adds, 9 stores")


if __name__ == "__main__":
    main()
