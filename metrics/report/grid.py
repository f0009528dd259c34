"""Thumbnails of a report's images, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..comparison.gap_report import Example, Explained
from ..image_sets.decode import ImageError
from ..image_sets.items import BESIDE, Crop, cut
from ..image_sets.open import read_location

SIDE = 256  # pixels of a thumbnail's longer side
ROWS = 24  # examples shown; with LARGEST it bounds the page
EXPLAINED = 12  # images shown of each list that explains the gap
QUALITIES, LARGEST = (82, 60, 40, 20), 32_000  # the first JPEG quality that needs at most so many bytes
SMALL = 128  # below it, pixels are shown as squares when enlarged


@dataclass(frozen=True)
class Thumb:
    """One cell: ``uri`` is a data URI of ``width`` × ``height`` pixels, or None with the reason in ``note``.

    ``role`` and ``key`` say which point of the map it is; both are empty for images that are none.
    """

    column: str
    uri: str | None = None
    width: int = 0
    height: int = 0
    note: str = ""
    role: str = ""
    key: str = ""

    @property
    def small(self) -> bool:
        """Whether the thumbnail has so few pixels that enlarging it must not blur it."""
        return max(self.width, self.height) < SMALL


def grid(examples: tuple[Example, ...]) -> list[tuple[str, list[Thumb]]]:
    """(key, cells) of the first ROWS examples; a column that no example fills is left out."""
    shown = examples[:ROWS]
    columns = [name for name in ("content", "style", "result") if any(getattr(example, name) for example in shown)]
    return [(example.key, [_cell(example, column) for column in columns]) for example in shown]


def explained(images: Sequence[Explained], role: str) -> list[tuple[Explained, Thumb, Thumb]]:
    """The first EXPLAINED images of a list, each with its nearest neighbour; ``role`` is the set of the list."""
    small = cache(_small)  # neighbours repeat, and large photos decode slowly
    other = "real" if role == "after" else "after"
    names = {"after": "synthetic", "real": "real"}
    return [
        (
            image,
            _thumb(names[role], image.file, image.box, role, image.key, small),
            _thumb(f"nearest {names[other]}", image.neighbour_file, image.neighbour_box, other, image.neighbour, small),
        )
        for image in images[:EXPLAINED]
    ]


def thumbnail(image: np.ndarray) -> Image.Image:
    """``uint8 [H,W,3]``, shrunk so that the longer side is at most SIDE pixels; never enlarged."""
    small = Image.fromarray(image)
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return small


def shown(column: str, image: Image.Image) -> Thumb:
    """A cell that shows this image as it is."""
    return Thumb(column, _data_uri(image), image.width, image.height)


def _cell(example: Example, column: str) -> Thumb:
    path: str | None = getattr(example, column)
    if column == "result":
        return _thumb(column, path, role="after", key=example.key)
    return _thumb(column, path, example.style_box if column == "style" else None)


def _thumb(
    column: str,
    path: str | None,
    box: tuple[int, int, int] | None = None,
    role: str = "",
    key: str = "",
    small: Callable[[str, tuple[int, int, int] | None], tuple[str, int, int]] | None = None,
) -> Thumb:
    if not path:
        return Thumb(column, note="none")
    try:
        uri, width, height = (small or _small)(path, box)
    except ImageError as error:
        return Thumb(column, note=f"cannot be shown: {_reason(path, error)}")
    return Thumb(column, uri, width, height, role=role, key=key)


def _small(path: str, box: tuple[int, int, int] | None) -> tuple[str, int, int]:
    """Data URI, width and height of the square ``box`` (left, top, side) of an image, or of all of it."""
    whole = read_location(path)
    image = thumbnail(whole if box is None else _region(whole, box))
    return _data_uri(image), image.width, image.height


def _region(image: np.ndarray, box: tuple[int, int, int]) -> np.ndarray:
    left, top, side = box
    height, width = image.shape[:2]
    if left < 0 or top < 0 or side < 1 or left + side > width or top + side > height:
        raise ImageError(f"the box {box} lies outside the photo of {width}x{height}")
    return cut(image, Crop(left, top, side, min(side, SIDE)))


def _reason(path: str, error: ImageError) -> str:
    try:
        there = Path(path).exists() or Path(path.partition(BESIDE)[0]).exists()
        return str(error) if there else "the file is gone"
    except (OSError, ValueError):  # a name that no file can have
        return str(error)


def _data_uri(image: Image.Image) -> str:
    for quality in QUALITIES:
        buffer = io.BytesIO()
        subsampling = 0 if max(image.size) < SMALL else 2
        image.save(buffer, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
        if buffer.tell() <= LARGEST:
            break
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
