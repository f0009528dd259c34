"""Peak memory of fresh processes, against photos, images and pixels, beside what is stated: 2 GB a process.

Run:  python benchmarks/memory.py            about ten minutes on two cores
      python benchmarks/memory.py render     one part: learn, apply, compare, audit, pixels or render

Every row is a process of its own with one thread; the program itself takes 0.6 to 0.9 GB of it. The last rows of
``pixels`` are the largest images that ``stylize.writing.size_limit`` lets a method have. Renders are measured at a
quarter and half of the largest side and continued to it, in proportion to the pixels.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

BUDGET = 2000  # MB of a process
PHOTO = Path(__file__).parents[1] / "assets/photos/learn/cat.jpg"
PARTS = ("learn", "apply", "compare", "audit", "pixels", "render")


def fill(folder: Path, count: int, width: int, height: int) -> Path:
    """A folder of ``count`` images of blocks of random colours."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        blocks = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        Image.fromarray(blocks.repeat(16, 0).repeat(16, 1)[:height, :width]).save(folder / f"{number}.png")
    return folder


def learn_photos(photos: Path, style: Path, crops: str, *methods: str) -> None:
    """Learn a style."""
    from stylize.styles.bank import learn

    learn(photos, methods=methods, crops=int(crops), size=128).save(style)


def apply(style: Path, images: Path, method: str) -> None:
    """Stylise a folder; every image must succeed."""
    from stylize.writing.apply import apply

    with tempfile.TemporaryDirectory() as out:
        last = apply(style, images, out, method=method, strength=0.75)
    assert last.failed == 0, last


def compare(synthetic: Path, real: Path) -> None:
    """The default report of two folders."""
    from metrics import compare

    compare(synthetic, real)


def audit(results: Path, photos: Path) -> None:
    """The default audit of two folders."""
    from metrics import audit

    audit(results, photos)


def render(family: str, side: str) -> None:
    """One image of a family, encoded."""
    from stylize.patterns import load_family, render_with_mask
    from stylize.patterns.dataset import resolve_classes
    from stylize.writing.encode import encode

    module = load_family(resolve_classes(family, 1, {})[0])
    options = {"photo": str(PHOTO)} if family == "one-image" else {}
    encode(render_with_mask(module, module.sample_class(0, 0, **options), 0, int(side))[0])


def peak(task: str, *arguments: str | Path) -> float:
    """MB of a fresh process that does a task of this module."""
    command = [sys.executable, __file__, "--task", task, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{task} {arguments}: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.split()[-1])


def say(what: str, megabytes: float) -> None:
    """One row of the table."""
    print(f"{what:<46}{megabytes:>7.0f} MB {'' if megabytes < BUDGET else '  ABOVE THE BUDGET'}", flush=True)


def numbers(part: str, folder: Path) -> Iterator[tuple[str, float]]:
    """Peaks against the number of photos or images."""
    photos, style = fill(folder / "photos", 4, 160, 160), folder / "style.safetensors"
    if part == "learn":
        for count in (10, 100, 1000):
            many = fill(folder / f"photos-{count}", count, 160, 160)
            yield f"learn: {count} photos, 8 crops", peak("learn_photos", many, style, "8", "colour", "texture")
        return
    large = fill(folder / "large", 8, 8000, 8000) if part in ("compare", "audit") else folder
    if part == "audit":
        yield "audit: 8 images of 64 megapixels", peak("audit", large, photos)
        return
    peak("learn_photos", photos, style, "1", "texture")
    for count in (100, 1000):
        images = fill(folder / f"images-{count}", count, 64, 64)
        work = ("apply", style, images, "texture") if part == "apply" else ("compare", images, photos)
        yield f"{part}: {count} images", peak(*work)
    if part == "compare":
        yield "compare: 8 images of 64 megapixels", peak("compare", large, photos)


def pixels(folder: Path) -> Iterator[tuple[str, float]]:
    """Peaks of apply against megapixels: the presets, then every method at its limit."""
    from stylize.styles import PRESETS
    from stylize.styles.methods import METHODS

    photos = fill(folder / "photos", 4, 160, 160)
    presets = [(name, method, size) for name, (method, _) in PRESETS.items() for size in (1.0, 4.0)]
    for name, method, size in [*presets, *(("limit", name, method.megapixels) for name, method in METHODS.items())]:
        width = 1000 if size < 2 else 2000
        style = folder / f"{method}.safetensors"
        peak("learn_photos", photos, style, "1", method)
        images = fill(folder / f"{size}", 1, width, int(size * 1e6) // width)
        yield f"apply: {name}, {method}, {size:g} megapixels", peak("apply", style, images, method)


def renders() -> Iterator[tuple[str, float]]:
    """Peaks of every family at its largest side, continued from smaller ones."""
    from stylize.patterns import FAMILIES
    from stylize.writing.render import MAX_SIDE, SIDES

    for family in FAMILIES:
        side = SIDES.get(family, MAX_SIDE)
        quarter, half = (peak("render", family, str(side // part)) for part in (4, 2))
        yield f"render: {family}, {side} x {side}", quarter + 5 * (half - quarter)  # pixels: 1/16, 1/4, 1


def main(parts: list[str]) -> None:
    """Print the table of these parts."""
    for part in parts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rows = pixels(folder) if part == "pixels" else renders() if part == "render" else numbers(part, folder)
            for what, megabytes in rows:
                say(what, megabytes)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--task"]:
        globals()[sys.argv[2]](*sys.argv[3:])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6)
    else:
        main(sys.argv[1:] or list(PARTS))
