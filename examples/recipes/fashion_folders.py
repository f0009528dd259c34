"""Fashion-MNIST in one style as an ImageFolder with ``train`` and ``test``: the real images of the bridged transfer.

apt-get install dataset-fashion-mnist
python fashion_folders.py aurora real --train 24 --test 100
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _fashion import CLASSES, HELD_OUT, STYLES, paint, photos
from PIL import Image

from metrics.errors import InputError
from metrics.seed import generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("style", choices=[*HELD_OUT, *STYLES], help="the first two were never shown to the tiny model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=24, help="images per class, of the 60,000")
    parser.add_argument("--test", type=int, default=100, help="images per class, of the 10,000")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        raise InputError(f"{options.out}: not empty. Name a new folder.")
    style = {**STYLES, **HELD_OUT}[options.style]
    for part, name, count in (("train", "train", options.train), ("t10k", "test", options.test)):
        grey, labels = photos(part)
        for number, label in enumerate(CLASSES):
            rng = generator(options.seed, name, label)
            rows = rng.permutation(np.flatnonzero(labels == number))[:count]
            folder = options.out / name / label
            folder.mkdir(parents=True)
            for row, image in zip(rows, paint(grey[rows], style, rng), strict=True):
                Image.fromarray(image).save(folder / f"{row:05d}.png")
    print(options.out)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"fashion_folders.py: {error}") from error
