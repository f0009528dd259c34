"""Images to bytes: PNG by default, JPEG or WebP with a quality."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from metrics.errors import InputError

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


def check_format(name: str, quality: int) -> None:
    """Raises InputError for an unknown format or a quality outside 1..100."""
    if name not in SUFFIXES:
        raise InputError(f"unknown image format {name!r}. Expected one of: {', '.join(SUFFIXES)}.")
    if not 1 <= quality <= 100:
        raise InputError(f"quality {quality}: expected 1 to 100.")


def encode(image: np.ndarray, format: str = "png", quality: int = 90) -> bytes:
    """``uint8 [H,W,3]`` sRGB to the bytes of a file. PNG is lossless and ignores ``quality``."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    if format == "png":
        picture.save(buffer, "PNG", compress_level=2)
    elif format == "jpeg":
        picture.save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2)
    else:
        picture.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()
