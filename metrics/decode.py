"""Decoding: an image file, or its bytes, to ``uint8 [H,W,3]`` sRGB; every failure is one line that names the reason."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # the decoders that untrusted bytes may reach
VERSION = 1  # of the rules by which a file becomes pixels; cached features of other rules are not used
MAX_PIXELS = 64_000_000  # one image in memory stays below 200 MB
MIN_SIDE = 8  # smaller images have no texture to measure or to transfer
_QUIET = threading.Lock()  # warning filters belong to the whole process
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


class ImageError(ValueError):
    """One image cannot be used; the message is one line that names the reason."""


def dimensions(source: Path | bytes) -> tuple[int, int]:
    """Width and height in pixels after EXIF rotation, from the file's header alone; raises ImageError."""
    with _opened(source) as image:
        check_size(image.width, image.height)
        try:
            swapped = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        except Exception as error:  # a PNG's EXIF may come after its pixels, damaged in as many ways as they
            raise ImageError(f"damaged image data ({one_line(error)})") from error
        return (image.height, image.width) if swapped else (image.width, image.height)


def decode(source: Path | bytes) -> np.ndarray:
    """An image file, or the bytes of one, as ``uint8 [H,W,3]`` sRGB.

    EXIF orientation is applied, an embedded ICC profile is converted to sRGB (a profile that cannot be parsed is
    ignored, as browsers do), alpha is composited on white, 16-bit and float samples are scaled to 8 bits, and of
    several frames the first is taken.

    Raises:
        ImageError: not an image, truncated, unreadable, larger than MAX_PIXELS or smaller than MIN_SIDE.
    """
    with _opened(source) as image:
        return pixels(image)


def pixels(image: Image.Image) -> np.ndarray:
    """A Pillow image as ``uint8 [H,W,3]`` sRGB by the rules of ``decode``; raises ImageError as ``decode`` does."""
    check_size(image.width, image.height)
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
        rgb = _to_srgb(upright)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on damaged data
        raise ImageError(f"damaged image data ({one_line(error)})") from error
    return np.array(rgb, dtype=np.uint8)


def read_file(path: Path) -> bytes:
    """The bytes of a file; raises ImageError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(error) from error


def unreadable(error: OSError) -> ImageError:
    """The ImageError for a file that the system does not let be read."""
    if isinstance(error, PermissionError):
        return ImageError("permission denied")
    return ImageError(f"cannot be opened ({one_line(error)})")


def sha256(path: Path) -> str:
    """The file's SHA-256 digest in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _opened(source: Path | bytes) -> Image.Image:
    try:
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) == 0:
            raise ImageError("empty file (0 bytes)")
        with _QUIET, warnings.catch_warnings():  # of Pillow's own size limit; ours is lower and an error
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"too large: more than {MAX_PIXELS // 1_000_000} megapixels; shrink it first") from error
    except UnidentifiedImageError as error:
        raise ImageError("not an image that can be decoded") from error
    except PermissionError as error:
        raise unreadable(error) from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"cannot be opened ({one_line(error)})") from error


def check_size(width: int, height: int) -> None:
    """Raises ImageError for an image that is too large or too small."""
    if width * height > MAX_PIXELS:
        raise ImageError(f"too large: {width}x{height}, at most {MAX_PIXELS // 1_000_000} megapixels; shrink it first")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"too small: {width}x{height}, at least {MIN_SIDE}x{MIN_SIDE} expected")


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bit(image)
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    rgb = _apply_profile(image, profile)
    if alpha is None:
        return rgb
    rgb = rgb.convert("RGBA")
    rgb.putalpha(alpha)
    white = Image.new("RGBA", rgb.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgb).convert("RGB")


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return cast("Image.Image", ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB"))
    except (ImageCms.PyCMSError, OSError, ValueError):  # damaged profile, or one for another colour space
        return image.convert("RGB")


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Single-channel images of 16 or 32 bits: integers are 16-bit samples, floats lie in [0, 1]."""
    values = np.asarray(image, dtype=np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise ImageError(f"mode {image.mode}: samples outside [0, {top:g}]; convert it to 8 or 16 bits first")
    return Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8))


def one_line(error: BaseException) -> str:
    """The first line of an error's message, cut at 120 characters."""
    return (str(error) or type(error).__name__).splitlines()[0][:120]
