"""Labelled images for ``pretrain_classifier.py``: patterns, folders, Fashion-MNIST in colour, few shots of a set."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _fashion import CLASSES, STYLES, paint, photos
from _presets import RANDAUG
from _training import read
from PIL import Image
from timm.data import create_transform
from torch.utils.data import Dataset
from torchvision.transforms import v2

from metrics import open_images
from metrics.errors import InputError
from metrics.image_sets.items import Item
from metrics.seed import generator
from stylize.patterns import known_families
from stylize.patterns.dataset import MultiInstanceDataset, PatternDataset


class Images(Dataset):
    """(image, class number) by timm's transforms; for ``dino`` two views. Pixels of small sets stay in memory."""

    def __init__(self, items: Sequence[Item], classes: Sequence[str], options: Any, train: bool = False) -> None:
        self.items, self.kept, self.room = items, {}, 2**28
        self.number = {label: index for index, label in enumerate(classes)}
        self.transform = transform(options, train)
        self.least = options.size if train and options.crop == "random" else 1

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = self.kept.get(index)
        if pixels is None:
            pixels = read(self.items[index])
            if min(pixels.shape[:2]) < self.least:
                sides = "x".join(map(str, pixels.shape[1::-1]))
                raise InputError(f"{self.items[index].location}: {sides} px, too small to crop. Lower --size.")
            if self.room > pixels.nbytes:
                self.kept[index], self.room = pixels, self.room - pixels.nbytes
        return self.transform(Image.fromarray(pixels)), self.number[str(self.items[index].label)]


@dataclass(frozen=True)
class Twice:
    """Two draws of a transform, [2,3,H,W]."""

    view: Callable[[Image.Image], torch.Tensor]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.stack([self.view(image), self.view(image)])


def transform(options: Any, train: bool) -> Any:
    scale = {"mean": options.mean, "std": options.std}
    if not train:
        return create_transform(options.size, crop_pct=1.0, **scale)
    strong = RANDAUG if options.objective == "dino" else options.augment
    chances = {"hflip": options.hflip, "vflip": options.vflip, "re_prob": options.erase, "re_mode": "pixel"}
    jitter = 0.4 if strong else None
    made = create_transform(
        options.size,
        is_training=True,
        auto_augment=strong,
        color_jitter=jitter,
        scale=options.scale,
        **chances,
        **scale,
    )
    for operation in (one for step in made.transforms for one in getattr(step, "ops", ())):
        operation.magnitude_max = 9.9  # at 10 it posterizes to 0 bits, which Pillow refuses
    if options.crop == "random":
        made.transforms[0] = v2.RandomCrop(options.size)
    return Twice(made) if options.objective == "dino" else made


def training_set(options: argparse.Namespace) -> tuple[Dataset, list[str]]:
    drawn = {"size": round(options.size * 8 / 7), "seed": options.seed, "transform": transform(options, True)}
    if options.objective == "multi":
        if options.source != "fractal-svd":
            raise InputError(
                f"--objective multi with {options.source}. Expected fractal-svd, whose images can be layered."
            )
        data = MultiInstanceDataset(options.classes, options.classes * options.per_class, **drawn)
        return data, [str(index) for index in range(options.classes)]
    if options.source in known_families() or options.source.endswith(".json"):
        count = None if options.source.endswith(".json") else options.classes
        data = PatternDataset(options.source, count, options.per_class, **drawn)
        classes = data.classes
    else:
        items = list(open_images(options.source))
        classes = sorted({str(item.label) for item in items})
        data = Images(items, classes, options, train=True)
    if options.objective == "supervised" and len(classes) < 2:
        raise InputError(f"{options.source}: {len(classes)} class. Expected two or more, or --objective dino.")
    return data, classes


def real_sets(source: str | Path, options: Any) -> tuple[list[Item], list[Item], list[str]]:
    """Training items (``--shots`` per class by seed), test items and classes of SOURCE."""
    if str(source) == "fashion-mnist":
        items, test = fashion("train"), fashion("t10k")
    else:
        folders = [Path(source, part) for part in ("train", "test")]
        if not all(folder.is_dir() for folder in folders):
            raise InputError(f"{source}: expected a folder with train and test, each with a folder per class.")
        items, test = (list(open_images(folder)) for folder in folders)
    classes = sorted({str(item.label) for item in items})
    if len(classes) < 2 or {str(item.label) for item in test} != set(classes):
        theirs = sorted({str(item.label) for item in test})
        raise InputError(f"{source}: train has the classes {classes}, test {theirs}. Expected the same, at least two.")
    return few(items, options.shots, options.seed), test, classes


def few(items: list[Item], shots: int, seed: int) -> list[Item]:
    """``shots`` items of each class by seed; 0: all."""
    if not shots:
        return items
    by_class: dict[str, list[Item]] = {}
    for item in items:
        by_class.setdefault(str(item.label), []).append(item)
    short = {label: len(own) for label, own in by_class.items() if len(own) < shots}
    if short:
        raise InputError(f"--shots {shots}: too few training images in {short}.")
    draws = {label: generator(seed, "shots", label).permutation(len(own))[:shots] for label, own in by_class.items()}
    return [by_class[label][index] for label in sorted(by_class) for index in draws[label]]


@lru_cache
def fashion(part: str) -> list[Item]:
    """Fashion-MNIST painted in colour, 32 px: every photo in a style of its own, whatever its class."""
    grey, labels = photos(part)
    keys = [f"{part}/{index}" for index in range(len(grey))]
    return [
        Item(key, Painted(image, key), CLASSES[label], key)
        for key, image, label in zip(keys, grey, labels, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Painted:
    """A grey photo, uint8 [28,28], painted when it is read; its key decides how."""

    grey: np.ndarray
    location: str

    def load(self) -> np.ndarray:
        """The painting, uint8 [32,32,3]."""
        rng = generator(0, "paint", self.location)
        style = list(STYLES.values())[rng.integers(len(STYLES))]
        return paint(self.grey[None], style, rng)[0]
