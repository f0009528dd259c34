"""Image sets: keys, labels and ``uint8 [H,W,3]`` sRGB images, whatever they are stored in.

An item's *key* is its path below the set's root without the suffix. It names the item in every result, and every
random draw about the item comes from it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import path_text
from ..seed import generator
from .decode import MIN_SIDE, ImageError, check_size, decode, dimensions, read_file
from .file_kinds import SUFFIXES as SUFFIXES
from .metadata import companions, tags

BESIDE = "::"  # parts an archive from the name of a member


@dataclass(frozen=True)
class Crop:
    """A square region of an image, resized to ``size`` × ``size`` pixels. ``left, top, side`` are source pixels."""

    left: int
    top: int
    side: int
    size: int


class Content(Protocol):
    """One image that is no file of its own: a member of an archive, a row of a dataset or of an array.

    ``location`` names it for people. Instances can be loaded by several threads at once, and be pickled.
    """

    @property
    def location(self) -> str:
        """``set.zip::a/b.png`` for a member of an archive."""
        ...

    def load(self) -> bytes | np.ndarray:
        """An encoded image file, or pixels ``uint8 [H,W,3]``; raises ImageError."""
        ...


@dataclass(frozen=True)
class Item:
    """One image of a set: its key, content (a file or else), label (None: unlabelled) and group.

    Images of one ``group`` are not independent: crops of one photo, frames of one video. ``metadata`` is the image's
    row of ``metadata.jsonl`` or the like; ``beside`` are the companions that it names and that are there, by column.
    """

    key: str
    content: Path | Content
    label: str | int | None
    group: str
    crop: Crop | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Path | Content] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The image's file.

        Raises:
            InputError: the image is no file of its own.
        """
        if isinstance(self.content, Path):
            return self.content
        raise InputError(f"{self.location}: not a file of its own. Expected a folder of images: unpack it first.")

    @property
    def location(self) -> str:
        """Where the whole image is, for people and for :func:`read_location`."""
        return path_text(self.content) if isinstance(self.content, Path) else self.content.location

    @property
    def photo(self) -> str:
        """The key of the whole image: of a crop's key the part before its index."""
        return self.key if self.crop is None else self.key.rpartition("#")[0]

    @property
    def companions(self) -> dict[str, str]:
        """Columns of ``metadata.jsonl`` such as ``mask_file_name``, and the file names below the root in them."""
        return companions(self.metadata)

    @property
    def tags(self) -> dict[str, str]:
        """What the metadata says about the image in single words or numbers, such as ``weather: rain``."""
        return tags(self.metadata)

    def load_companion(self, column: str) -> bytes:
        """The bytes of the companion that the metadata names in ``column``; raises ImageError."""
        file = self.beside.get(column)
        if file is None:
            raise ImageError(
                f"its companion {self.companions[column]!r} is missing, or hidden, or lies outside the set"
            )
        try:
            loaded = read_file(file) if isinstance(file, Path) else file.load()
        except ImageError as error:
            raise ImageError(f"its companion {self.companions[column]!r}: {error}") from error
        assert isinstance(loaded, bytes)
        return loaded

    def load(self) -> bytes | np.ndarray:
        """The whole image as it is stored: an encoded file, or pixels ``uint8 [H,W,3]``; raises ImageError."""
        return read_file(self.content) if isinstance(self.content, Path) else self.content.load()

    def pixels(self, loaded: bytes | np.ndarray) -> np.ndarray:
        """The image as ``uint8 [H,W,3]`` sRGB from what ``load`` gave; raises ImageError."""
        if isinstance(loaded, bytes):
            image = decode(loaded)
        else:
            check_size(loaded.shape[1], loaded.shape[0])
            image = loaded
        return image if self.crop is None else cut(image, self.crop)

    def read(self) -> np.ndarray:
        """The image as ``uint8 [H,W,3]`` sRGB; raises ImageError."""
        return self.pixels(self.load())

    def dimensions(self, loaded: bytes | np.ndarray | None = None) -> tuple[int, int]:
        """Width and height of the whole image in pixels, upright, of what ``load`` gave if given; raises ImageError."""
        loaded = self.load() if loaded is None else loaded
        if isinstance(loaded, np.ndarray):
            check_size(loaded.shape[1], loaded.shape[0])
            return loaded.shape[1], loaded.shape[0]
        return dimensions(loaded)

    def digest(self) -> str:
        """SHA-256 of the whole image as it is stored, in hexadecimal; raises ImageError."""
        return content_digest(self.load())


class ImageSet(Sequence[Item]):
    """Images of one root, in natural key order.

    ``root`` is a folder or archive, or a description in parentheses of images in memory. ``losses`` lists
    (key or name, reason) of every image that belongs to the set and cannot be had: damaged, dangling, without
    permission, cut off, named in the metadata and missing, of a kind that is not read. Whoever uses the set counts
    them like an image that fails when it is read. ``notes`` are lines about what was passed over and is no image.
    """

    def __init__(
        self,
        root: Path,
        items: Sequence[Item],
        losses: Sequence[tuple[str, str]] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.root, self.items, self.losses, self.notes = root, tuple(items), tuple(losses), tuple(notes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @property
    def labels(self) -> list[str | int | None]:
        """The items' labels, in order."""
        return [item.label for item in self.items]

    def crops(self, per_image: int, size: int, seed: int = 0) -> ImageSet:
        """Square crops of every image: side uniform in [½, 1] of the short side, resized to ``size`` px.

        A crop's key is ``<photo>#<index>`` and its group is the photo's (the photo itself unless the metadata name a
        larger one), so that statistics can treat the crops of one photo as what they are: not independent. The same
        (seed, key) gives the same crop anywhere. Images that cannot be opened are left out and listed in
        ``losses``.

        Args:
            per_image: crops of every image.
            size: side of a crop in pixels, after resizing.
            seed: decides them.

        Returns:
            The crops; nothing is cut before they are read.
        """
        items: list[Item] = []
        losses = list(self.losses)
        for item in self.items:
            try:
                width, height = item.dimensions()
            except ImageError as error:
                losses.append((item.key, str(error)))
                continue
            for index in range(per_image):
                key = f"{item.key}#{index}"
                box = draw_crop(width, height, size, generator(seed, "crop", key))
                items.append(replace(item, key=key, crop=box))
        return ImageSet(self.root, items, losses, self.notes)


def content_digest(loaded: bytes | np.ndarray) -> str:
    """SHA-256, in hexadecimal, of an encoded image, or of the shape and the values of pixels."""
    if isinstance(loaded, bytes):
        return hashlib.sha256(loaded).hexdigest()
    digest = hashlib.sha256(f"pixels {loaded.dtype} {loaded.shape}".encode())
    digest.update(np.ascontiguousarray(loaded).data)
    return digest.hexdigest()


def draw_crop(width: int, height: int, size: int, rng: np.random.Generator) -> Crop:
    """A random square crop of a ``width`` × ``height`` image: side uniform in [½, 1] of the short side."""
    short = min(width, height)
    side = max(MIN_SIDE, round(short * rng.uniform(0.5, 1.0)))
    side = min(side, short)
    left = int(rng.integers(0, width - side + 1))
    top = int(rng.integers(0, height - side + 1))
    return Crop(left, top, side, size)


def cut(image: np.ndarray, crop: Crop) -> np.ndarray:
    """The region of ``image`` (``uint8 [H,W,3]``), resized with an antialiasing Lanczos filter.

    Args:
        image: ``uint8 [H,W,3]``.
        crop: the region, and the side it is resized to.

    Returns:
        ``uint8 [size,size,3]``.

    Raises:
        ImageError: the region is not inside the image.
    """
    height, width = image.shape[:2]
    if min(crop.left, crop.top) < 0 or crop.left + crop.side > width or crop.top + crop.side > height:
        raise ImageError(f"{crop} lies outside the image of {width}x{height}: has the file changed?")
    region = image[crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    if region.shape[:2] == (crop.size, crop.size):
        return np.ascontiguousarray(region)
    return np.array(Image.fromarray(region).resize((crop.size, crop.size), Image.Resampling.LANCZOS))


def natural(text: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key that puts ``class2`` before ``class10``; different texts have different keys."""
    parts = [part for part in re.split(r"([0-9]+)", text) if part]
    return (*((0, int(part)) if part[0] in "0123456789" else (1, part) for part in parts), (2, text))
