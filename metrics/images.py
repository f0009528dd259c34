"""Reading image sets: a folder or an ImageFolder tree in, keys, labels and ``uint8 [H,W,3]`` sRGB images out.

An item's *key* is its path below the set's root without the suffix. It names the item in every result, and every
random draw about the item comes from it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from .errors import InputError
from .seed import generator

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # the decoders that untrusted bytes may reach
MAX_PIXELS = 64_000_000  # one image in memory stays below 200 MB
MIN_SIDE = 8  # smaller images have no texture to measure or to transfer
_QUIET = threading.Lock()  # warning filters belong to the whole process
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


class ImageError(ValueError):
    """One image cannot be used; the message is one line that names the reason."""


@dataclass(frozen=True)
class Crop:
    """A square region of an image, resized to ``size`` × ``size`` pixels. ``left, top, side`` are source pixels."""

    left: int
    top: int
    side: int
    size: int


@dataclass(frozen=True)
class Item:
    """One image of a set: its key, file, label (None: unlabelled) and group (the photo that a crop comes from).

    ``companions`` maps columns of ``metadata.jsonl`` such as ``mask_file_name`` to file names below the root.
    """

    key: str
    path: Path
    label: str | int | None
    group: str
    crop: Crop | None = None
    companions: Mapping[str, str] = field(default_factory=dict)

    def read(self) -> np.ndarray:
        """The image as ``uint8 [H,W,3]`` sRGB; raises ImageError."""
        image = decode(self.path)
        return image if self.crop is None else cut(image, self.crop)


class ImageSet(Sequence[Item]):
    """Images of one root, in natural key order."""

    def __init__(self, root: Path, items: Sequence[Item], unreadable: Sequence[tuple[str, str]] = ()) -> None:
        self.root, self.items, self.unreadable = root, tuple(items), tuple(unreadable)

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

        A crop's key is ``<photo>#<index>`` and its group is the photo, so that statistics can treat the crops of one
        photo as what they are: not independent. The same (seed, key) gives the same crop anywhere. Images that
        cannot be opened are left out and listed in ``unreadable``.
        """
        items: list[Item] = []
        unreadable = list(self.unreadable)
        for item in self.items:
            try:
                width, height = dimensions(item.path)
            except ImageError as error:
                unreadable.append((item.key, str(error)))
                continue
            for index in range(per_image):
                key = f"{item.key}#{index}"
                box = draw_crop(width, height, size, generator(seed, "crop", key))
                items.append(replace(item, key=key, group=item.key, crop=box))
        return ImageSet(self.root, items, unreadable)


def draw_crop(width: int, height: int, size: int, rng: np.random.Generator) -> Crop:
    """A random square crop of a ``width`` × ``height`` image: side uniform in [½, 1] of the short side."""
    short = min(width, height)
    side = max(MIN_SIDE, round(short * rng.uniform(0.5, 1.0)))
    side = min(side, short)
    left = int(rng.integers(0, width - side + 1))
    top = int(rng.integers(0, height - side + 1))
    return Crop(left, top, side, size)


def cut(image: np.ndarray, crop: Crop) -> np.ndarray:
    """The region of ``image`` (``uint8 [H,W,3]``), resized with an antialiasing Lanczos filter."""
    region = image[crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    if region.shape[:2] == (crop.size, crop.size):
        return np.ascontiguousarray(region)
    return np.array(Image.fromarray(region).resize((crop.size, crop.size), Image.Resampling.LANCZOS))


def open_images(root: str | Path) -> ImageSet:
    """The image set of a folder, searched recursively.

    Hidden files and folders are passed over, and so are the masks and other companions that ``metadata.jsonl`` names
    in a column ending in ``_file_name``. The label is the one ``metadata.jsonl`` (Hugging Face ``imagefolder``:
    keys ``file_name`` and ``label``) gives, else the item's parent folder below the root, else None.

    Raises:
        InputError: the folder is missing, is no folder, holds no image, or two files share one key.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: no such folder. Expected a folder of images ({_suffix_list()}).")
    if not root.is_dir():
        raise InputError(f"{root}: not a folder. Expected a folder of images; got a {root.suffix or 'plain'} file.")
    metadata = read_metadata(root)
    beside = {name for row in metadata.values() for name in companions(row).values()}
    paths = [path for path in _image_paths(root) if path.relative_to(root).as_posix() not in beside]
    if not paths:
        raise InputError(
            f"{root}: no images found in this folder or below it. Expected files ending in {_suffix_list()}."
        )
    for path in paths:
        if not _is_unicode(path.name):
            raise InputError(f"{root}: the file name {os.fsencode(path.name)!r} is not valid UTF-8. Rename it.")
    by_key: dict[str, Path] = {}
    for path in paths:
        key = path.relative_to(root).with_suffix("").as_posix()
        if key in by_key:
            raise InputError(
                f"{root}: {by_key[key].name} and {path.name} share the key {key!r}. "
                "Keys are paths without suffix and must be unique: rename or remove one of the two."
            )
        by_key[key] = path
    items = []
    for key in sorted(by_key, key=natural):
        row = metadata.get(by_key[key].relative_to(root).as_posix(), {})
        label = row.get("label")
        label = _folder_label(key) if label is None else label
        items.append(Item(key, by_key[key], label, key, companions=companions(row)))
    return ImageSet(root, items)


def natural(text: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key that puts ``class2`` before ``class10``; different texts have different keys."""
    parts = [part for part in re.split(r"([0-9]+)", text) if part]
    return (*((0, int(part)) if part[0] in "0123456789" else (1, part) for part in parts), (2, text))


def dimensions(path: Path) -> tuple[int, int]:
    """Width and height in pixels after EXIF rotation, from the file's header alone; raises ImageError."""
    with _opened(path) as image:
        _check_size(image)
        swapped = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if swapped else (image.width, image.height)


def decode(source: Path | bytes) -> np.ndarray:
    """An image file as ``uint8 [H,W,3]`` sRGB.

    EXIF orientation is applied, an embedded ICC profile is converted to sRGB (a profile that cannot be parsed is
    ignored, as browsers do), alpha is composited on white, 16-bit and float samples are scaled to 8 bits, and of
    several frames the first is taken.

    Raises:
        ImageError: not an image, truncated, unreadable, larger than MAX_PIXELS or smaller than MIN_SIDE.
    """
    with _opened(source) as image:
        _check_size(image)
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
            rgb = _to_srgb(upright)
        except ImageError:
            raise
        except Exception as error:  # Pillow's decoders raise many types on damaged data
            raise ImageError(f"damaged image data ({_one_line(error)})") from error
        return np.array(rgb, dtype=np.uint8)


def sha256(path: Path) -> str:
    """The file's SHA-256 digest in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _image_paths(root: Path) -> list[Path]:
    """Visible image files below ``root``; links to folders are followed, loops of them only once round."""
    paths: list[Path] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(folder, name) for name in files if _is_image_name(name) and Path(folder, name).is_file()]
    return paths


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _folder_label(key: str) -> str | None:
    parent = Path(key).parent.as_posix()
    return None if parent == "." else parent


def read_metadata(root: Path) -> dict[str, dict[str, Any]]:
    """The rows of ``metadata.jsonl`` by their ``file_name``; empty when the file does not exist.

    Raises:
        InputError: a line is not a JSON object with a ``file_name``.
    """
    path = root / "metadata.jsonl"
    if not path.is_file():
        return {}
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows[str(row["file_name"])] = row
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path}:{number}: expected one JSON object with a 'file_name' per line, got {line[:60]!r}. "
                "Repair or remove this file."
            ) from error
    return rows


def companions(row: Mapping[str, Any]) -> dict[str, str]:
    """The files that a row of ``metadata.jsonl`` names beside its image, by column: ``mask_file_name`` and the like."""
    return {name: str(value) for name, value in row.items() if name.endswith("_file_name") and value is not None}


def _opened(source: Path | bytes) -> Image.Image:
    try:
        if isinstance(source, Path) and source.stat().st_size == 0:
            raise ImageError("empty file (0 bytes)")
        with _QUIET, warnings.catch_warnings():  # of Pillow's own size limit; ours is lower and an error
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"too large: more than {MAX_PIXELS // 1_000_000} megapixels; shrink it first") from error
    except UnidentifiedImageError as error:
        raise ImageError("not an image that can be decoded") from error
    except PermissionError as error:
        raise ImageError("permission denied") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"cannot be opened ({_one_line(error)})") from error


def _check_size(image: Image.Image) -> None:
    width, height = image.size
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


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]


def _suffix_list() -> str:
    return " ".join(sorted(SUFFIXES))
