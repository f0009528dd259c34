"""The images of a bridged transfer: both sets, checked before any training; the few shots; mixed batches."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2

from metrics import open_images
from metrics.errors import InputError
from metrics.image_sets.decode import ImageError
from metrics.image_sets.items import Item
from metrics.seed import generator, seed_for


@dataclass
class Splits:
    """Real items: training pool, validation pool and test; all classes in one order. ``digest``: of both sets."""

    classes: list[str]
    pool: dict[str, list[Item]]
    test: list[Item]
    digest: str = ""


def read_sets(options: argparse.Namespace) -> tuple[list[Item], Splits]:
    """Every check that can be made before any training."""
    synthetic = list(open_images(options.synthetic))
    halves = [options.real / name for name in ("train", "test")]
    if all(half.is_dir() for half in halves):
        pool, test = (by_class(list(open_images(half))) for half in halves)
    else:
        pool, test = {}, {}
        for label, items in by_class(list(open_images(options.real))).items():
            order = generator(0, "test", label).permutation(len(items))
            half = len(items) // 2
            test[label], pool[label] = [items[i] for i in order[:half]], [items[i] for i in order[half:]]
    classes = sorted(pool)
    if len(classes) < 2 or set(test) != set(pool):
        raise InputError(
            f"{options.real}: classes {classes} to learn, {sorted(test)} to test. Expected the same, >= 2."
        )
    ours = set(by_class(synthetic))
    if ours != set(classes) and not options.other_classes:
        only = f"only synthetic: {sorted(ours - set(classes))}; only real: {sorted(set(classes) - ours)}"
        raise InputError(f"the classes differ ({only}). Rename folders, or pass --other-classes, which needs +reinit.")
    needed = max(options.shots, 1) + options.validation
    short = {label: len(items) for label, items in pool.items() if len(items) < needed}
    if short:
        wanted = f"{options.shots} shots and {options.validation} for validation need {needed} images per class"
        raise InputError(f"{options.real}: {wanted}; too few: {short}. Lower --shots or --validation.")
    splits = Splits(classes, pool, [item for label in classes for item in test[label][: options.test]])
    splits.digest = check_images(synthetic, splits)
    return synthetic, splits


def check_images(synthetic: Sequence[Item], splits: Splits) -> str:
    """A digest of all images; raises InputError for a file that is none and for a test image among the synthetic."""
    real = [item for label in splits.classes for item in splits.pool[label]]
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(decoded_digest, [*synthetic, *real, *splits.test]))
    shown = dict(zip(digests, synthetic, strict=False))
    for digest, item in zip(digests[-len(splits.test) :], splits.test, strict=True):
        if digest in shown:
            raise InputError(f"{shown[digest].location} is the test image {item.location}. Remove one of them.")
    rows = [f"{item.label} {digest}" for item, digest in zip([*synthetic, *real, *splits.test], digests, strict=True)]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def decoded_digest(item: Item) -> str:
    try:
        item.read()
        return item.digest()
    except ImageError as error:
        raise InputError(f"{item.location}: {error}. Repair or remove this image.") from error


def by_class(items: Sequence[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        if item.label is None:
            raise InputError(f"{item.key}: no label. Expected one folder per class.")
        found.setdefault(str(item.label), []).append(item)
    return found


def few_shot(splits: Splits, seed: int, options: argparse.Namespace) -> tuple[list[Item], list[Item]]:
    """The real images to train on and those to stop by, disjoint, drawn per seed."""
    train, validation = [], []
    for label in splits.classes:
        order = [splits.pool[label][i] for i in generator(seed, "shots", label).permutation(len(splits.pool[label]))]
        validation += order[: options.validation]
        train += order[options.validation :][: options.shots or None]
    return train, validation


Scale = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation that the network expects


class Images(Dataset):
    """(image, class number) of items, augmented for training or as they are."""

    def __init__(self, items: Sequence[Item], classes: Sequence[str], scale: Scale, size: int, augment: bool) -> None:
        self.items, self.number = items, {label: number for number, label in enumerate(classes)}
        shape = [v2.RandomResizedCrop(size, (0.5, 1.0), antialias=True), v2.RandomHorizontalFlip()]
        whole = [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
        last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(*scale)]
        self.transform = v2.Compose([*(shape if augment else whole), *last])

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        item = self.items[index]
        return self.transform(torch.from_numpy(item.read()).permute(2, 0, 1)), self.number[str(item.label)]


class Batches:
    """A batch of (index, seed of its augmentation) per step, so that workers and processes change no draw.

    ``ratio`` of it is from the first ``sizes[0]`` items; both parts go in epochs.
    """

    def __init__(self, steps: int, batch_size: int, sizes: tuple[int, int], ratio: float, seed: int) -> None:
        self.steps, self.batch_size, self.drop_last = steps, batch_size, True
        self.sizes, self.ratio, self.seed = sizes, ratio, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = generator(self.seed, "batches", f"{self.sizes} {self.ratio}")
        first = self._stream(0, self.sizes[0], generator(self.seed, "epochs", "synthetic"))
        second = self._stream(self.sizes[0], self.sizes[1], generator(self.seed, "epochs", "real"))
        for step in range(self.steps):
            seeds = [seed_for(self.seed, "augment", f"{step} {place}") for place in range(self.batch_size)]
            draws = zip(rng.random(self.batch_size), seeds, strict=True)
            yield [(next(first if draw < self.ratio else second), seed) for draw, seed in draws]

    @staticmethod
    def _stream(start: int, size: int, rng: np.random.Generator) -> Iterator[int]:
        while True:
            yield from (start + rng.permutation(size)).tolist()


def held_out(items: Sequence[Item], seed: int) -> tuple[list[Item], list[Item]]:
    """A tenth of the synthetic images to stop stage 1 by, and the others."""
    order = generator(seed, "held out", "synthetic").permutation(len(items))
    count = max(1, len(items) // 10)
    return [items[i] for i in order[:count]], [items[i] for i in order[count:]]
