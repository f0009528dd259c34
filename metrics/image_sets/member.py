"""Members of archives: what is refused in archives from strangers, and how a member is located."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import InputError
from ..files import path_text
from .decode import ImageError
from .items import BESIDE

LARGEST = 256 * 2**20  # bytes of one member, unpacked
PLAIN = 16 * 2**20  # below it, a member may shrink as much as it likes
RATIO = 100  # above PLAIN, no more than this: photos hardly shrink
Stamp = tuple[int, int]


def safe_name(archive: Path, name: str) -> str:
    """The name of a member without a leading ``./``.

    Returns:
        The name, relative and inside the archive.

    Raises:
        InputError: no name, an absolute name, or one with ``..``, backslashes or control characters.
    """
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts or re.search(r"[\\\x00-\x1f]|^[A-Za-z]:", name):
        raise InputError(
            f"{archive}: the member {name!r} has an unsafe name. Expected relative names with '/' and without '..'; "
            "nothing was read from this archive."
        )
    return "/".join(part for part in parts if part not in ("", "."))


def check_size(archive: Path, name: str, size: int, packed: int) -> None:
    """Raises InputError for a member too large to unpack in memory, or one that unpacks to far more than it takes."""
    if size > LARGEST:
        raise InputError(
            f"{archive}: the member {name!r} has {size} bytes unpacked, more than {LARGEST // 2**20} MiB. Remove it."
        )
    if size > PLAIN and size > RATIO * packed:
        raise InputError(
            f"{archive}: the member {name!r} unpacks from {packed} to {size} bytes, over {RATIO}-fold: a zip bomb. "
            "Remove it, or store images in a format that compresses them (PNG, JPEG)."
        )


def refused_kind(archive: Path, name: str, kind: str) -> InputError:
    """The error for a member that is neither a file nor a folder."""
    return InputError(
        f"{archive}: the member {name!r} is a {kind}. Expected files and folders only; nothing was read from it."
    )


def location(archive: Path, name: str) -> str:
    """How people and reports name a member."""
    return f"{path_text(archive)}{BESIDE}{name}"


def stamp(status: os.stat_result) -> Stamp:
    """What changes when an archive does."""
    return status.st_size, status.st_mtime_ns


def check_stamp(status: os.stat_result, expected: Stamp) -> None:
    """Raises ImageError if the archive is not the one that was opened."""
    if stamp(status) != expected:
        raise ImageError("its archive has changed since it was opened")
