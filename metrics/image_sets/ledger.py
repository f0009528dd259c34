"""Who made the real images, and under which licence: of a ledger, of REUSE files, or of the images themselves.

The first of these that names a licence counts:

1. ``ledger.json`` beside the images, in a folder above, or in the zip with them: ``{"schema": 1, "images": [{"file",
   "licence" (SPDX), "author", "source", "title", "sha256"}, ...]}`` with files relative to the ledger's folder. An
   entry counts only while the file's SHA-256 digest is the one it states;
2. ``FILE.license`` beside the file, then ``REUSE.toml`` in the root or a folder above (https://reuse.software/spec);
3. XMP and EXIF in the file, where they name a licence of SPDX or an address of Creative Commons.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError
from ..files import name_of, text_of
from . import spdx
from .decode import ImageError
from .items import BESIDE, ImageSet, Item, content_digest, natural
from .member import location as member_location
from .rights import LARGEST, REUSE, SIDECAR, embedded, of_reuse, of_sidecar
from .spdx import NOASSERTION
from .zip_archive import read, zip_members

SCHEMA = 1
NAME = "ledger.json"
LEVELS = 3  # how many folders upwards a ledger is looked for
NAMED = 20  # photos that an error names

Row = dict[str, str]
Finder = Callable[[Item], Row]


@dataclass(frozen=True)
class Licences:
    """Ledger rows of the photos of a set, each with ``key``.

    ``unasserted`` are rows of those without a known licence: ``licence`` is NOASSERTION, ``sha256`` what lies there,
    and ``rights``, where the file says something, its words.
    """

    rows: tuple[Row, ...]
    unasserted: tuple[Row, ...]

    @property
    def unlicensed(self) -> tuple[str, ...]:
        """Keys of the photos without a known licence."""
        return tuple(row["key"] for row in self.unasserted)

    def without(self, keys: Iterable[str]) -> Licences:
        """The same without some photos."""
        out = set(keys)
        rows, unasserted = (tuple(r for r in some if r["key"] not in out) for some in (self.rows, self.unasserted))
        return Licences(rows, unasserted)

    def header(self) -> dict[str, Any]:
        """As the header of a style or network file holds them; :func:`ledger_rows` is the inverse."""
        return {
            "licences": list(self.rows),
            "unlicensed": list(self.unlicensed),
            "unasserted": list(self.unasserted),
        }


def licences(images: ImageSet) -> Licences:
    """Look up every photo of ``images``; see the module for where."""
    entries, finders = _entries(images.root), (_sidecars(images.root), _reuse(images.root))
    rows: list[Row] = []
    unasserted: list[Row] = []
    photos = {item.location: item for item in images}
    for location in sorted(photos):
        photo = photos[location]
        own, entry = {"key": photo.photo}, entries.get(_place(photo))
        loaded = _loaded(photo)
        digest = None if loaded is None else content_digest(loaded)
        if entry is not None and entry["sha256"] == digest:
            rows.append({**own, **entry})
            continue
        own |= {"file": _file(images.root, photo), "sha256": digest or ""}
        rights = next((found for finder in finders if (found := finder(photo))), None)
        rights = rights or (embedded(loaded) if isinstance(loaded, bytes) else {})
        if "licence" in rights:
            rows.append({"author": "", "source": "", **own, **rights})
        else:
            unasserted.append({**own, **rights, "licence": NOASSERTION})
    return Licences(tuple(rows), tuple(unasserted))


def check_allowed(root: Path, held: Licences, allow: Sequence[str]) -> None:
    """Refuse photos whose licence does not let those use them who may use the ``allow`` licences; empty allows all.

    Raises:
        InputError: there are such photos, which it names; or a licence that SPDX does not know.
    """
    allowed = spdx.names(allow)
    if not allowed:
        return
    refused = [(row["key"], row["licence"]) for row in held.rows if not spdx.satisfied(row["licence"], allowed)]
    refused += [(key, "no licence") for key in held.unlicensed]
    if refused:
        named = [f"{key} ({licence})" for key, licence in sorted(refused, key=lambda one: natural(one[0]))]
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        raise InputError(
            f"{root}: {len(refused)} of {len(held.rows) + len(held.unasserted)} photos are not under "
            f"{' or '.join(sorted(allowed))}: {', '.join(named[:NAMED])}{more}. Remove them, state their licences in "
            f"{NAME}, or allow more with --allow."
        )


def restricted(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """A line per licence among the rows that restricts what may be done with results, with the photos under it."""
    photos: dict[str, list[str]] = {}
    for row in rows:
        photos.setdefault(row["licence"], []).append(row.get("key") or row.get("file", ""))
    lines = []
    for licence, keys in sorted(photos.items()):
        if terms := list(spdx.restrictions(licence)):
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            lines.append(f"{licence} asks for more than a name ({'; '.join(terms)}): {', '.join(keys[:3])}{more}")
    return lines


def ledger_rows(header: Mapping[str, Any]) -> list[Row]:
    """The rows of every photo behind a style or network file, those without a licence too, from its header."""
    without = [{"file": key, "licence": NOASSERTION, "sha256": ""} for key in header["unlicensed"]]  # of older files
    return [*header["licences"], *header.get("unasserted", without)]


def write_ledger(rows: Iterable[Mapping[str, str]]) -> bytes:
    """The bytes of a ``ledger.json`` that repeats these rows; files stay relative to the ledger they come from."""
    images = [{name: text for name, text in row.items() if name != "key"} for row in rows]
    return (json.dumps({"schema": SCHEMA, "images": images}, indent=2, ensure_ascii=False) + "\n").encode()


def _is_zip(root: Path) -> bool:
    return root.suffix.lower() == ".zip" and root.is_file()


def _loaded(item: Item) -> Any:
    """The image as it is stored; None where it cannot be read, or is no file whose rights could be found."""
    if not isinstance(item.content, Path) and BESIDE not in item.location:
        return None
    try:
        return item.load()
    except ImageError:
        return None


def _file(root: Path, item: Item) -> str:
    """The photo's name below the root of its set."""
    if isinstance(item.content, Path):
        path, root = item.content.absolute(), root.absolute()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        return text_of(name) or name
    return item.location.rpartition(BESIDE)[2]


def _entries(root: Path) -> dict[str, Row]:
    """Ledger rows by the place of their photo."""
    if _is_zip(root):
        members = zip_members(root)
        if (name := _packed(members, NAME)) is None:
            return {}
        place = member_location(root, name.removesuffix(NAME))
        return _parsed(read(members[name]), members[name].location, place.__add__)
    if (path := _find(root, NAME, b'"sha256"')) is None:
        return {}
    folder = path.parent
    return _parsed(path.read_bytes(), str(path), lambda file: str((folder / name_of(file)).resolve()))


def _sidecars(root: Path) -> Finder:
    """What the ``.license`` file beside a photo says."""
    members = zip_members(root) if _is_zip(root) else {}

    def find(item: Item) -> Row:
        if isinstance(item.content, Path):
            path = item.content.with_name(item.content.name + SIDECAR)
            try:
                if not path.is_file():
                    return {}
                with path.open("rb") as file:
                    return of_sidecar(file.read(LARGEST))
            except OSError:  # also a name that is too long for a suffix
                return {}
        member = members.get(item.location.rpartition(BESIDE)[2] + SIDECAR)
        return {} if member is None else of_sidecar(read(member))

    return find


def _reuse(root: Path) -> Finder:
    """What the set's ``REUSE.toml`` says about a photo."""
    if _is_zip(root):
        members = zip_members(root)
        if (name := _packed(members, REUSE)) is None:
            return lambda item: {}
        look_up, folder = of_reuse(read(members[name]), members[name].location), name.removesuffix(REUSE)
        return lambda item: look_up(item.location.rpartition(BESIDE)[2].removeprefix(folder))
    if (path := _find(root, REUSE, b"SPDX-License-Identifier")) is None:
        return lambda item: {}
    look_up, base = of_reuse(path.read_bytes(), str(path)), path.parent

    def find(item: Item) -> Row:
        if not isinstance(item.content, Path):
            return {}
        file = item.content.parent.resolve() / item.content.name
        return look_up(file.relative_to(base).as_posix()) if file.is_relative_to(base) else {}

    return find


def _packed(members: Mapping[str, Any], name: str) -> str | None:
    """The member of this name in the root of an archive, or in the one folder that was packed with its own name."""
    tops = {member.split("/")[0] for member in members}
    inside = str(PurePosixPath(*tops, name)) if len(tops) == 1 else name
    return next((found for found in (name, inside) if found in members), None)


def _place(item: Item) -> str:
    return str(item.content.resolve()) if isinstance(item.content, Path) else item.location


def _find(root: Path, name: str, mark: bytes) -> Path | None:
    """The file in the root, or the nearest above it that is one of ours by a mark: up there it may be anybody's."""
    inside, *above = [folder / name for folder in [root.resolve(), *root.resolve().parents][:LEVELS]]
    if inside.is_file():
        return inside
    return next((path for path in above if path.is_file() and mark in path.read_bytes()), None)


def _parsed(data: bytes, where: str, place: Callable[[str], str]) -> dict[str, Row]:
    try:
        document = json.loads(data.decode("utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']!r}, expected {SCHEMA}")
        return {
            place(row["file"]): {str(name): str(text) for name, text in row.items()}
            for row in document["images"]
            if row["sha256"] and row["licence"] and str(row["licence"]).upper() not in (NOASSERTION, "NONE")
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{where}: not a licence ledger ({type(error).__name__}: {error}). Expected "
            '{"schema": 1, "images": [{"file", "licence", "author", "source", "sha256"}, ...]}; repair or remove it.'
        ) from error
