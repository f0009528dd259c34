"""Image sets in memory: ``uint8`` tensors ``[N,3,H,W]`` and arrays ``[N,H,W,3]``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from .decode import MIN_SIDE, ImageError, pixels
from .items import BESIDE, ImageSet, Item


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image in memory, ``uint8 [H,W,3]``; ``location`` names it for people."""

    image: np.ndarray
    location: str = f"(memory){BESIDE}image"

    def load(self) -> np.ndarray:
        """The pixels."""
        return self.image


def is_array(source: Any) -> bool:
    """Whether ``source`` is a NumPy array or a tensor."""
    torch = sys.modules.get("torch")  # no tensor exists where torch was not imported
    return isinstance(source, np.ndarray) or (torch is not None and isinstance(source, torch.Tensor))


def open_array(source: Any) -> ImageSet:
    """The images of ``uint8 [N,3,H,W]`` or ``[N,H,W,3]``; keys are row numbers.

    Returns:
        An item per image.

    Raises:
        InputError: another shape or dtype, no image, or images smaller than 8 pixels.
    """
    array = as_array(source)
    check_dtype(array, "images")
    if array.ndim != 4 or 3 not in (array.shape[1], array.shape[3]) or min(array.shape[1:3]) < 3 or not len(array):
        raise InputError(f"got an array of shape {list(array.shape)}. Expected images: uint8 [N,3,H,W] or [N,H,W,3].")
    if array.shape[3] != 3:
        array = array.transpose(0, 2, 3, 1)
    if min(array.shape[1:3]) < MIN_SIDE:
        raise InputError(f"got images of {array.shape[2]}x{array.shape[1]}. Expected at least {MIN_SIDE}x{MIN_SIDE}.")
    return in_memory(f"({len(array)} images in memory)", array)


def in_memory(name: str, images: Any) -> ImageSet:
    """The image set of arrays ``uint8 [H,W,3]``; keys are row numbers."""
    keys = row_keys(len(images))
    items = [
        Item(key, Pixels(image, f"{name}{BESIDE}{key}"), None, key) for key, image in zip(keys, images, strict=True)
    ]
    return ImageSet(Path(name), items)


def row_keys(count: int) -> list[str]:
    """``000000``, ``000001`` and so on: at least six digits."""
    width = max(6, len(str(count - 1)))
    return [f"{index:0{width}d}" for index in range(count)]


def as_array(value: Any) -> np.ndarray:
    """A NumPy array of a tensor or an array."""
    return np.asarray(value if isinstance(value, np.ndarray) else value.detach().cpu())


def check_dtype(array: np.ndarray, what: str) -> None:
    """Raises InputError unless ``uint8``: values of another type could be scaled or normalised in any way."""
    if array.dtype != np.uint8:
        raise InputError(
            f"got {array.dtype} {what}, which could be scaled or normalised in any way. Expected uint8 sRGB in 0..255: "
            "leave out ToTensor and Normalize, or use torchvision.transforms.PILToTensor."
        )


def one_image(value: Any) -> np.ndarray:
    """A Pillow image, or ``uint8 [3,H,W]``, ``[1,H,W]``, ``[H,W,3]`` or ``[H,W]``, as ``uint8 [H,W,3]``.

    Returns:
        ``uint8 [H,W,3]``.

    Raises:
        InputError: another dtype.
        ImageError: another shape; or as :func:`metrics.image_sets.decode.pixels`.
    """
    if isinstance(value, Image.Image):
        return pixels(value)
    if not is_array(value):
        raise InputError(f"got a {type(value).__name__} as image. Expected a Pillow image or uint8 [3,H,W].")
    array = as_array(value)
    check_dtype(array, "images")
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or not (array.shape[0] in (1, 3) or array.shape[2] == 3):
        raise ImageError(f"an array of shape {list(array.shape)}, expected [3,H,W], [1,H,W], [H,W,3] or [H,W]")
    if array.shape[0] in (1, 3):
        array = array.transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
