"""What ``stylize.Stylize`` costs beyond the style method itself, alone and in a data loader.

Run:  python benchmarks/transform.py        half a minute on two cores
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from metrics import open_images
from stylize import Stylize, learn
from stylize.styles.bank import to_batch

PHOTOS = Path(__file__).parents[1] / "assets/photos/learn"
SIDE, IMAGES = 256, 60


class Noise(Dataset[Any]):
    """Images made when they are asked for."""

    def __init__(self, transform: Callable[[Any], Any] | None) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> Any:
        image = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        return image if self.transform is None else self.transform(image)


def milliseconds(works: list[Callable[[Any], Any]], images: list[Any]) -> list[float]:
    """The median time per image of every work, which take turns."""
    times: list[list[float]] = [[] for _ in works]
    for image in images:
        for work, taken in zip(works, times, strict=True):
            start = time.perf_counter()
            work(image)
            taken.append(1000 * (time.perf_counter() - start))
    return [statistics.median(taken) for taken in times]


def main() -> None:
    """Print a line per method, then one per loader."""
    torch.set_num_threads(1)
    bank = learn(open_images([PHOTOS / "cat.jpg"]), methods=["colour", "texture"], crops=1)  # one style: the same work
    images = [Noise(None)[index] for index in range(IMAGES)]
    for method in ("colour", "texture"):
        stylize = Stylize(bank, method)
        alone, whole = milliseconds(
            [lambda image, m=method: bank.transfer(to_batch(image), ["k"], method=m), stylize],  # type: ignore[misc]
            images,
        )
        print(f"{method}: method {alone:.2f} ms, transform {whole:.2f} ms an image, {whole - alone:+.2f} ms")
    with tempfile.TemporaryDirectory() as folder:
        style = Path(folder) / "style.safetensors"
        bank.save(style)
        for workers, context in ((0, None), (2, "fork"), (2, "spawn")):
            loader = DataLoader(
                Noise(Stylize(style, "colour")), 10, num_workers=workers, multiprocessing_context=context
            )
            start = time.perf_counter()
            count = sum(len(batch) for batch in loader)
            print(f"{workers} workers ({context or 'none'}): {count / (time.perf_counter() - start):.0f} images/s")


if __name__ == "__main__":
    main()
