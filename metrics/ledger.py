"""The licence ledger of real images: ``ledger.json`` beside them, or in a folder above.

``{"schema": 1, "images": [{"file", "licence" (SPDX id), "author", "source", "title", "sha256"}, ...]}`` with files
relative to the ledger's folder. An entry counts only while the file's SHA-256 digest is the one it states.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .images import ImageSet, sha256

SCHEMA = 1
LEVELS = 3  # how many folders upwards a ledger is looked for


@dataclass(frozen=True)
class Licences:
    """Ledger rows of the photos of a set, each with ``key``; and the keys of the photos without a valid row."""

    rows: tuple[dict[str, str], ...]
    unlicensed: tuple[str, ...]


def licences(images: ImageSet) -> Licences:
    """Look up every photo of ``images`` in the nearest ledger; without one, every photo is unlicensed."""
    path = _find(images.root)
    entries = {} if path is None else _read(path)
    rows: list[dict[str, str]] = []
    unlicensed: list[str] = []
    for photo in sorted({item.path for item in images}):
        key = photo.relative_to(images.root).with_suffix("").as_posix()
        entry = entries.get(photo.resolve())
        if entry is None or entry["sha256"] != sha256(photo):
            unlicensed.append(key)
        else:
            rows.append({"key": key, **entry})
    return Licences(tuple(rows), tuple(unlicensed))


def write_ledger(rows: Iterable[dict[str, str]]) -> bytes:
    """The bytes of a ``ledger.json`` that repeats these rows; files stay relative to the ledger they come from."""
    images = [{name: text for name, text in row.items() if name != "key"} for row in rows]
    return (json.dumps({"schema": SCHEMA, "images": images}, indent=2, ensure_ascii=False) + "\n").encode()


def _find(root: Path) -> Path | None:
    """The ledger in the root, or the nearest above it; a ``ledger.json`` up there may be somebody else's."""
    inside, *above = [folder / "ledger.json" for folder in [root.resolve(), *root.resolve().parents][:LEVELS]]
    if inside.is_file():
        return inside
    return next((path for path in above if path.is_file() and b'"sha256"' in path.read_bytes()), None)


def _read(path: Path) -> dict[Path, dict[str, str]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']!r}, expected {SCHEMA}")
        return {
            (path.parent / row["file"]).resolve(): {str(name): str(text) for name, text in row.items()}
            for row in document["images"]
            if row["sha256"] and row["licence"]
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a licence ledger ({type(error).__name__}: {error}). Expected "
            '{"schema": 1, "images": [{"file", "licence", "author", "source", "sha256"}, ...]}; repair or remove it.'
        ) from error
