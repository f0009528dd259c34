"""Thumbnails of a report's examples, as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..gap_report import Example
from ..images import Crop, ImageError, cut, decode

SIDE = 256  # pixels of a thumbnail's longer side
ROWS = 24  # examples shown; with SIDE it bounds the page
QUALITY = 82
SMALL = 128  # below it, pixels are shown as squares when enlarged


@dataclass(frozen=True)
class Thumb:
    """One cell: ``uri`` is a data URI of ``width`` × ``height`` pixels, or None with the reason in ``note``."""

    column: str
    uri: str | None = None
    width: int = 0
    height: int = 0
    note: str = ""

    @property
    def small(self) -> bool:
        """Whether the thumbnail has so few pixels that enlarging it must not blur it."""
        return max(self.width, self.height) < SMALL


def grid(examples: tuple[Example, ...]) -> list[tuple[str, list[Thumb]]]:
    """(key, cells) of the first ROWS examples; a column that no example fills is left out."""
    shown = examples[:ROWS]
    columns = [name for name in ("content", "style", "result") if any(getattr(example, name) for example in shown)]
    return [(example.key, [_cell(example, column) for column in columns]) for example in shown]


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
    if path is None:
        return Thumb(column, note="none")
    try:
        image = decode(Path(path))
        if column == "style" and example.style_box is not None:
            image = _region(image, example.style_box)
    except ImageError as error:
        return Thumb(column, note=f"cannot be shown: {_reason(Path(path), error)}")
    return shown(column, thumbnail(image))


def _region(image: np.ndarray, box: tuple[int, int, int]) -> np.ndarray:
    left, top, side = box
    height, width = image.shape[:2]
    if left < 0 or top < 0 or side < 1 or left + side > width or top + side > height:
        raise ImageError(f"the style box {box} lies outside the photo of {width}x{height}")
    return cut(image, Crop(left, top, side, min(side, SIDE)))


def _reason(path: Path, error: ImageError) -> str:
    try:
        return str(error) if path.exists() else "the file is gone"
    except (OSError, ValueError):  # a name that no file can have
        return str(error)


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0 if max(image.size) < SMALL else 2, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
