"""The licence ledger of real images: ``ledger.json`` beside them, in a folder above, or in the zip with them.

``{"schema": 1, "images": [{"file", "licence" (SPDX id), "author", "source", "title", "sha256"}, ...]}`` with files
relative to the ledger's folder. An entry counts only while the file's SHA-256 digest is the one it states.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .images import BESIDE, ImageError, ImageSet, Item
from .sources.zip_archive import read, zip_members

SCHEMA = 1
NAME = "ledger.json"
LEVELS = 3  # how many folders upwards a ledger is looked for


@dataclass(frozen=True)
class Licences:
    """Ledger rows of the photos of a set, each with ``key``; and the keys of the photos without a valid row."""

    rows: tuple[dict[str, str], ...]
    unlicensed: tuple[str, ...]


def licences(images: ImageSet) -> Licences:
    """Look up every photo of ``images`` in the nearest ledger; without one, every photo is unlicensed."""
    entries = _entries(images.root)
    rows: list[dict[str, str]] = []
    unlicensed: list[str] = []
    photos = {item.location: item for item in images}
    for location in sorted(photos):
        photo = photos[location]
        entry = entries.get(_place(photo))
        if entry is None or entry["sha256"] != _digest(photo):
            unlicensed.append(photo.photo)
        else:
            rows.append({"key": photo.photo, **entry})
    return Licences(tuple(rows), tuple(unlicensed))


def write_ledger(rows: Iterable[dict[str, str]]) -> bytes:
    """The bytes of a ``ledger.json`` that repeats these rows; files stay relative to the ledger they come from."""
    images = [{name: text for name, text in row.items() if name != "key"} for row in rows]
    return (json.dumps({"schema": SCHEMA, "images": images}, indent=2, ensure_ascii=False) + "\n").encode()


def _entries(root: Path) -> dict[str, dict[str, str]]:
    """Ledger rows by the place of their photo."""
    if root.suffix.lower() == ".zip" and root.is_file():
        ledger = zip_members(root).get(NAME)
        return {} if ledger is None else _parsed(read(ledger), ledger.location, f"{root}{BESIDE}".__add__)
    if (path := _find(root)) is None:
        return {}
    folder = path.parent
    return _parsed(path.read_bytes(), str(path), lambda file: str((folder / file).resolve()))


def _place(item: Item) -> str:
    return str(item.content.resolve()) if isinstance(item.content, Path) else item.location


def _digest(item: Item) -> str | None:
    try:
        return item.digest()
    except ImageError:
        return None


def _find(root: Path) -> Path | None:
    """The ledger in the root, or the nearest above it; a ``ledger.json`` up there may be somebody else's."""
    inside, *above = [folder / NAME for folder in [root.resolve(), *root.resolve().parents][:LEVELS]]
    if inside.is_file():
        return inside
    return next((path for path in above if path.is_file() and b'"sha256"' in path.read_bytes()), None)


def _parsed(data: bytes, where: str, place: Callable[[str], str]) -> dict[str, dict[str, str]]:
    try:
        document = json.loads(data.decode("utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']!r}, expected {SCHEMA}")
        return {
            place(row["file"]): {str(name): str(text) for name, text in row.items()}
            for row in document["images"]
            if row["sha256"] and row["licence"]
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{where}: not a licence ledger ({type(error).__name__}: {error}). Expected "
            '{"schema": 1, "images": [{"file", "licence", "author", "source", "sha256"}, ...]}; repair or remove it.'
        ) from error
