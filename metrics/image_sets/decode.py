"""Decoding: an image file, or its bytes, to ``uint8 [H,W,3]`` sRGB; every failure is one line that names the reason."""

from __future__ import annotations

import hashlib
import io
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin, UnidentifiedImageError

from .file_kinds import SUFFIXES as SUFFIXES
from .png import SIGNATURE as PNG
from .png import DamagedPng, read_png

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000")  # what untrusted bytes reach
VERSION = 2  # of the rules by which a file becomes pixels; cached features of other rules are not used
MAX_PIXELS = 64_000_000  # one image in memory stays below 200 MB
MAX_BYTES = 512 * 2**20  # of one file
MIN_SIDE = 8  # smaller images have no texture to measure or to transfer
Result = TypeVar("Result")
_QUIET = threading.RLock()  # warning filters belong to the whole process
ORIENTATION = 0x0112
_TURN = Image.Transpose
TURNS = {  # what undoes each orientation
    2: _TURN.FLIP_LEFT_RIGHT,
    3: _TURN.ROTATE_180,
    4: _TURN.FLIP_TOP_BOTTOM,
    5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270,
    7: _TURN.TRANSVERSE,
    8: _TURN.ROTATE_90,
}
SINGLE = ("F", "I", "I;16", "I;16L", "I;16B", "I;16N")  # modes of one channel and more than eight bits
_TWELVE = (
    "samples of 16 bits that use no more than 12 of them, which would be almost black; scale them to 16 bits first"
)
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
# malloc keeps freed blocks of Pillow's usual 16 MiB for every thread that reads
Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]


class ImageError(ValueError):
    """One image cannot be used; the message is one line that names the reason."""


def dimensions(source: Path | bytes) -> tuple[int, int]:
    """Width and height in pixels after EXIF rotation, from what comes before the pixels; raises ImageError."""
    return _despite_warnings(lambda: _dimensions(source))


def decode(source: Path | bytes) -> np.ndarray:
    """An image file, or the bytes of one, as ``uint8 [H,W,3]`` sRGB.

    EXIF orientation is applied, an embedded ICC profile is converted to sRGB (a profile that cannot be parsed is
    ignored, as browsers do), alpha is composited on white, 16-bit and float samples are scaled to 8 bits, and of
    several frames the first is taken. Texts and other data that are not pixels are not looked at.

    Returns:
        ``uint8 [H,W,3]``.

    Raises:
        ImageError: not an image, truncated, unreadable, checksums that do not match, larger than MAX_PIXELS or
            MAX_BYTES, smaller than MIN_SIDE, or samples whose white is not known: integers of 32 bits, or of 16 bits
            that use no more than 12 of them.
    """

    def work() -> np.ndarray:
        opened = _opened(source)
        with opened.image:
            return _pixels(opened.image, opened.bits)

    try:
        return _despite_warnings(work)
    except MemoryError as error:
        raise ImageError("not enough memory to decode it; shrink it first") from error


def pixels(image: Image.Image) -> np.ndarray:
    """A Pillow image as ``uint8 [H,W,3]`` sRGB by the rules of ``decode``; raises ImageError as ``decode`` does."""
    return _despite_warnings(lambda: _pixels(image, 8))


def exif_text(data: bytes, tag: int) -> str:
    """The text of an EXIF tag in the bytes of an image file; empty where there is none. Raises ImageError."""
    return _despite_warnings(lambda: _exif_text(data, tag))


def read_file(path: Path) -> bytes:
    """The bytes of a file of at most MAX_BYTES; raises ImageError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"too large: a file of {status.st_size} bytes, at most {MAX_BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise unreadable(error) from error
    except ValueError as error:  # such as a name with a zero byte in it
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"cannot be opened ({one_line(error)})") from error


def unreadable(error: OSError) -> ImageError:
    """The ImageError for a file that the system does not let be read."""
    if isinstance(error, PermissionError):
        return ImageError("permission denied")
    return ImageError(f"cannot be opened ({one_line(error)})")


def sha256(path: Path) -> str:
    """The file's SHA-256 digest in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Opened:
    """An image whose header was read: its size as it will be decoded, whether EXIF may turn it, bits per sample."""

    image: Image.Image
    width: int
    height: int
    oriented: bool
    bits: int


def _dimensions(source: Path | bytes) -> tuple[int, int]:
    opened = _opened(source)
    with opened.image as image:
        check_size(opened.width, opened.height)
        swapped = opened.oriented and _orientation(image) in (5, 6, 7, 8)
        return (opened.height, opened.width) if swapped else (opened.width, opened.height)


def _pixels(image: Image.Image, bits: int) -> np.ndarray:
    """As ``pixels``; ``bits`` of a sample in the file, of which Pillow may have kept eight."""
    check_size(image.width, image.height)
    try:
        image.load()
        rgb = np.array(_to_srgb(_upright(image), bits), dtype=np.uint8)
    except (ImageError, MemoryError, Warning):
        raise
    except Exception as error:  # Pillow's decoders raise many types on damaged data
        raise ImageError(f"damaged image data ({one_line(error)})") from error
    if bits == 16 and image.mode not in SINGLE and 0 < rgb.max() < 16:
        raise ImageError(_TWELVE)
    return rgb


def _orientation(image: Image.Image) -> int:
    """What EXIF or XMP say, 1 to 8; 1 where they are damaged, which does not make the pixels worse."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Warning:
        raise
    except Exception:  # as many types as there are tags
        return 1
    return value if isinstance(value, int) else 1


def _exif_text(data: bytes, tag: int) -> str:
    opened = _opened(data)
    with opened.image as image:
        if not opened.oriented and image.format != "TIFF":  # a PNG without EXIF, which would be searched to its end
            return ""
        try:
            value = image.getexif().get(tag)
        except Warning:
            raise
        except Exception:  # as many types as there are tags
            return ""
    return value.replace("\0", " ").strip() if isinstance(value, str) else ""


def _upright(image: Image.Image) -> Image.Image:
    """The decoded image turned as EXIF says; a TIFF has been turned by Pillow."""
    turn = None if isinstance(image, TiffImagePlugin.TiffImageFile) else TURNS.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = image.info
    return turned


def _opened(source: Path | bytes) -> _Opened:
    data = source if isinstance(source, bytes) else read_file(source)
    if not data:
        raise ImageError("empty file (0 bytes)")
    if data.startswith(PNG):
        return _opened_png(data)
    if data.startswith(b"\xff\xd8") and _ends_in_zeros(data):
        raise ImageError("damaged image data (its end is overwritten with zeros)")
    image = _open(data, (*FORMATS, "TGA") if _is_tga(data) else FORMATS)
    # Pillow turns TIFFs by itself, and says the size that they will then have.
    depth = image.tag_v2.get(258) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    bits = max(depth) if isinstance(depth, tuple) else depth
    return _Opened(image, image.width, image.height, image.format != "TIFF", bits if isinstance(bits, int) else 8)


def _opened_png(data: bytes) -> _Opened:
    try:
        png = read_png(data)
    except DamagedPng as error:
        raise ImageError(f"damaged image data ({error})") from error
    image = _open(png.data, ("PNG",))
    if png.profile is not None:
        image.info["icc_profile"] = png.profile
    return _Opened(image, image.width, image.height, png.oriented, png.bits)


def _open(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    try:
        with _QUIET, warnings.catch_warnings():  # of Pillow's own size limit; ours is lower and an error
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise ImageError(f"too large: more than {MAX_PIXELS // 1_000_000} megapixels; shrink it first") from error
    except UnidentifiedImageError as error:
        raise ImageError("not an image that can be decoded") from error
    except (MemoryError, Warning):
        raise
    except Exception as error:  # as its decoders, Pillow's readers of headers raise many types: AVIF a RuntimeError
        raise ImageError(f"cannot be opened ({one_line(error)})") from error


def _despite_warnings(work: Callable[[], Result]) -> Result:
    """What ``work`` returns, also where warnings are errors: Pillow warns of damaged EXIF, whose pixels are sound."""
    try:
        return work()
    except Warning:
        with _quiet():
            return work()


@contextmanager
def _quiet() -> Iterator[None]:
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_tga(data: bytes) -> bool:
    """TGA has no signature: its header must be plausible, and the pixels must be there."""
    if len(data) < 19:
        return False
    palette, kind, bits = data[1], data[2], data[16]
    width, height = int.from_bytes(data[12:14], "little"), int.from_bytes(data[14:16], "little")
    known = palette in (0, 1) and kind in (1, 2, 3, 9, 10, 11) and bits in (8, 16, 24, 32) and width * height > 0
    return known and (kind > 3 or len(data) >= 18 + data[0] + width * height * bits // 8)


def _ends_in_zeros(data: bytes) -> bool:
    """Whether the scan of a JPEG has no end and the file ends in zeros, as after a write that was never finished."""
    return data.endswith(bytes(32)) and data.rfind(b"\xff\xda") > data.rfind(b"\xff\xd9")


def check_size(width: int, height: int) -> None:
    """Raises ImageError for an image that is too large or too small."""
    if width * height > MAX_PIXELS:
        raise ImageError(f"too large: {width}x{height}, at most {MAX_PIXELS // 1_000_000} megapixels; shrink it first")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"too small: {width}x{height}, at least {MIN_SIDE}x{MIN_SIDE} expected")


def _to_srgb(image: Image.Image, bits: int) -> Image.Image:
    profile, transparent = image.info.get("icc_profile"), image.info.get("transparency")
    alpha = None
    if image.mode in SINGLE:
        alpha = _opaque(np.asarray(image), transparent)
        image = _to_eight_bit(image, bits)
    elif transparent is not None and image.mode in ("1", "L", "RGB"):
        alpha = _opaque(
            np.asarray(image.convert("L") if image.mode == "1" else image), _in_eight_bits(transparent, bits)
        )
        image.info.pop("transparency")
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or transparent is not None:
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


def _opaque(values: np.ndarray, transparent: Any) -> Image.Image | None:
    """The alpha of an image of which one value, or one colour, is transparent; None where none is."""
    if transparent is None or isinstance(transparent, bytes):
        return None
    same = values == np.asarray(transparent)
    return Image.fromarray(np.where(same.all(-1) if values.ndim == 3 else same, 0, 255).astype(np.uint8))


def _in_eight_bits(transparent: Any, bits: int) -> Any:
    """A PNG states its transparent value in the bits of the file; Pillow gives pixels in eight."""
    if isinstance(transparent, bytes):
        return transparent
    values = np.asarray(transparent)
    return values >> 8 if bits == 16 else values * 255 // (2**bits - 1) if bits < 8 else values


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return cast("Image.Image", ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB"))
    except (ImageCms.PyCMSError, OSError, ValueError):  # damaged profile, or one for another colour space
        return image.convert("RGB")


def _to_eight_bit(image: Image.Image, bits: int) -> Image.Image:
    """Single-channel images of 16 or 32 bits: integers are 16-bit samples, floats lie in [0, 1]."""
    values = np.asarray(image, dtype=np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if bits == 32 and image.mode != "F":
        raise ImageError("integer samples of 32 bits, whose white is not known; convert it to 8 or 16 bits first")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise ImageError(f"mode {image.mode}: samples outside [0, {top:g}]; convert it to 8 or 16 bits first")
    if image.mode != "F" and 0 < values.max() < 4096:
        raise ImageError(_TWELVE)
    return Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8))


def one_line(error: BaseException) -> str:
    """The first line of an error's message, cut at 120 characters."""
    return (str(error) or type(error).__name__).splitlines()[0][:120]
