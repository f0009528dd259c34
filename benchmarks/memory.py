"""Peak memory of a command in a fresh process against the size of its input: flat, or bounded as stated.

python benchmarks/memory.py learn          # more photos: flat but for the statistics, 26 kB per crop
python benchmarks/memory.py learn --most 1000
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def photos(folder: Path, count: int) -> None:
    """Photos of 1024 × 768 px, no two alike."""
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((1024, 768), Image.Resampling.BICUBIC), np.int16)
        grain = rng.normal(0, 6, (768, 1024, 3))
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)


def learn(count: int, folder: Path) -> list[str]:
    """`stylize learn` of ``count`` photos × 8 crops."""
    photos(folder / "photos", count)
    return ["stylize.cli", "learn", str(folder / "photos"), str(folder / "style.safetensors")]


SECTIONS: dict[str, tuple[str, Callable[[int, Path], list[str]], tuple[int, ...]]] = {
    "learn": ("photos", learn, (10, 50, 250, 1000)),
}


def peak(words: list[str]) -> tuple[float, float]:
    """Peak resident memory in bytes, and seconds, of ``python -m MODULE …`` in a process of its own."""
    start = time.monotonic()
    code = f"import sys; sys.argv = {words}; from {words[0]} import main; main()"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * UNIT, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", nargs="*", default=list(SECTIONS), help=", ".join(SECTIONS))
    parser.add_argument("--most", type=int, default=250, help="largest input to try (default 250)")
    options = parser.parse_args()
    for section in options.section:
        unit, command, sizes = SECTIONS[section]
        print(f"{section}: {unit}, peak MB, seconds")
        for size in (size for size in sizes if size <= options.most):
            with tempfile.TemporaryDirectory() as folder:
                bytes_, seconds = peak(command(size, Path(folder)))  # children: the largest so far, so sizes ascend
            print(f"{size:8,} {bytes_ / 1e6:10,.0f} {seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
