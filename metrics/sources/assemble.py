"""From named images to an image set: the rules that folders, archives and lists share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..decode import SUFFIXES
from ..errors import InputError
from ..images import Content, ImageSet, Item, natural
from ..metadata import companions


def is_image_name(name: str) -> bool:
    """Whether a name below the root is that of a visible image file."""
    parts = name.split("/")
    return not any(part.startswith(".") for part in parts) and PurePosixPath(name).suffix.lower() in SUFFIXES


def assemble(
    root: Path, contents: Mapping[str, Path | Content], rows: Mapping[str, Mapping[str, Any]], kind: str = "folder"
) -> ImageSet:
    """The image set of ``contents`` (file name below the root to image) and the ``rows`` of its metadata.

    Raises:
        InputError: no image, two images of one key, or a label that is neither text nor a whole number.
    """
    beside = {name for row in rows.values() for name in companions(row).values()}
    by_key: dict[str, str] = {}
    for name in contents:
        if name in beside:
            continue
        key = PurePosixPath(name).with_suffix("").as_posix()
        if key in by_key:
            raise InputError(
                f"{root}: {by_key[key]} and {name} share the key {key!r}. "
                "Keys are paths without suffix and must be unique: rename or remove one of the two."
            )
        by_key[key] = name
    if not by_key:
        known = " ".join(sorted(SUFFIXES))
        raise InputError(f"{root}: no images found in this {kind} or below it. Expected files ending in {known}.")
    return ImageSet(
        root, [item(root, key, contents[by_key[key]], rows.get(by_key[key], {})) for key in sorted(by_key, key=natural)]
    )


def item(root: Path, key: str, content: Path | Content, row: Mapping[str, Any]) -> Item:
    """One item: label and group as its ``row`` has them, else the folder in the key, and the key."""
    label, group = row.get("label"), row.get("group")
    if not isinstance(label, str | int | None):
        raise InputError(f"{root}: the label of {key} is {label!r:.60}. Expected text or a whole number.")
    if not isinstance(group, str | int | float | None):
        raise InputError(f"{root}: the group of {key} is {group!r:.60}. Expected text or a number.")
    return Item(
        key,
        content,
        _folder_label(key) if label is None else label,
        key if group is None else str(group),
        metadata=row,
    )


def _folder_label(key: str) -> str | None:
    return key.rpartition("/")[0] or None
