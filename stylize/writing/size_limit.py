"""How large an image each style method takes: a worker then stays below 2 GB, the program itself included.

``python benchmarks/memory.py`` measures it. What is larger is refused by the size that its header states, before any
pixel is decoded, and so is one image and not the run that fails.
"""

from __future__ import annotations

import numpy as np

from metrics.image_sets.decode import ImageError
from metrics.image_sets.items import Item
from metrics.memory import out_of_memory

from ..styles.methods import stages, style_method


def read_for(item: Item, method: str) -> np.ndarray:
    """The image ``uint8 [H,W,3]`` to be stylised by ``method``.

    Args:
        item: of the input.
        method: one, or several joined by ``+``.

    Returns:
        The image.

    Raises:
        ImageError: as :meth:`metrics.image_sets.items.Item.read`, or too large for the method.
    """
    loaded = item.load()
    width, height = item.dimensions(loaded) if item.crop is None else (item.crop.size, item.crop.size)
    check_size(width, height, method)
    return item.pixels(loaded)


def check_size(width: int, height: int, method: str) -> None:
    """Raises ImageError for an image that is larger than one of the method's stages takes."""
    most = min(style_method(stage).megapixels for stage, _ in stages(method))
    if width * height > most * 1e6:
        raise ImageError(
            f"too large: {width}x{height}, at most {most:g} megapixels for the method {method}; shrink it first"
        )


def failure(error: Exception) -> str | None:
    """Why one image cannot be stylised, if that is all the error says; the others may still be."""
    if isinstance(error, ImageError):
        return str(error)
    if out_of_memory(error):
        return "not enough memory for it; use fewer workers, or shrink it first"
    return None
