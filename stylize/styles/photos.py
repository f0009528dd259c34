"""The photos that styles are learnt from: each is read once for all of its crops, and whatever is lost is listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from metrics.errors import MAX_ERRORS, InputError
from metrics.image_sets.decode import ImageError
from metrics.image_sets.items import ImageSet, Item

SHOWN = 3  # copies that a note names


def without_copies(photos: ImageSet) -> ImageSet:
    """The photos without byte-identical copies of earlier ones, which a note names.

    A photo that is given twice is still one photo, and its style would count double.

    Returns:
        The set itself where it has no copies.
    """
    first: dict[str, str] = {}
    copies: list[str] = []
    kept: list[Item] = []
    for item in photos:
        try:
            original = first.setdefault(item.digest(), item.key)
            if original != item.key:
                item.read()  # equal ones that are damaged are losses, every one of them
        except ImageError:
            original = item.key
        if original == item.key:
            kept.append(item)
        else:
            copies.append(f"{item.key} = {original}")
    if not copies:
        return photos
    more = f" and {len(copies) - SHOWN} more" if len(copies) > SHOWN else ""
    note = f"byte-identical photos count once: {', '.join(copies[:SHOWN])}{more}"
    return ImageSet(photos.root, kept, photos.losses, [*photos.notes, note])


class PhotoCrops:
    """The crops of every photo of a set that can be read: iterate it, then ask for the ``losses``.

    Args:
        photos: the photos.
        crops: square crops per photo.
        size: side of a crop in pixels.
        seed: decides the crops.
        max_errors: how many photos may be lost.
    """

    def __init__(self, photos: ImageSet, crops: int, size: int, seed: int, max_errors: int = MAX_ERRORS) -> None:
        self._root, self._photos, self._most = photos.root, len(photos) + len(photos.losses), max_errors
        self._cropped = photos.crops(crops, size, seed)
        self.losses = dict(self._cropped.losses)  # photos that cannot be had, and why

    def __len__(self) -> int:
        """How many crops there are at most."""
        return len(self._cropped)

    def __iter__(self) -> Iterator[tuple[Item, np.ndarray]]:
        """Crops with their pixels ``uint8 [size,size,3]``.

        Yields:
            Item and pixels of every crop that can be read.

        Raises:
            InputError: more than ``max_errors`` photos are lost, or all.
        """
        check_losses(self._root, self.losses, self._most)
        some = False
        for photo, crops in groupby(self._cropped, key=lambda item: item.photo):
            items = list(crops)
            try:
                pixels = replace(items[0], crop=None).read()
                pieces = [(item, item.pixels(pixels)) for item in items]
            except ImageError as error:
                self.losses[photo] = str(error)
                check_losses(self._root, self.losses, self._most)
                continue
            some = True
            yield from pieces
        if not some:
            first = ": ".join(next(iter(self.losses.items())))
            raise InputError(f"{self._root}: none of {self._photos} photos can be read; the first: {first}.")


def check_losses(root: Path, losses: Mapping[str, str], most: int) -> None:
    """Raises InputError if more than ``most`` images of ``root`` are lost."""
    if len(losses) > most:
        first = ": ".join(next(iter(losses.items())))
        raise InputError(
            f"{root}: {len(losses)} images cannot be read (at most {most} allowed); the first: {first}. "
            "Repair or remove them, or repeat the command with a larger --max-errors."
        )
