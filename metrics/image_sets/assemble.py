"""From named files to an image set: the rules that folders, archives and lists share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError
from .decode import ImageError
from .file_kinds import HEAD, OTHER, SUFFIXES, is_image_name, passed_over, suffix_of, why_unread
from .items import Content, ImageSet, Item, natural
from .metadata import Metadata, collect, companions, is_metadata

File = Path | Content
Loss = tuple[str, str]
SPLITS = frozenset(["train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation"])


@dataclass(frozen=True)
class Found:
    """The visible files of a root by their names below it, and what else was met there.

    ``losses`` are (name, reason) of what belongs to the set and cannot be had, ``notes`` lines for people, ``hidden``
    counts hidden images.
    """

    files: Mapping[str, File]
    losses: Sequence[Loss] = ()
    notes: Sequence[str] = ()
    hidden: int = 0


def assemble(root: Path, found: Found, kind: str = "folder") -> ImageSet:
    """The image set of all files of a root: images, metadata, companions, and what is neither.

    Returns:
        The images in the order of their keys, with losses and notes.

    Raises:
        InputError: no image, two images of one key, broken metadata, or a label that is neither text nor a number.
    """
    files = found.files
    metadata = read_rows(root, files, files.__contains__)
    beside = companion_names(metadata)
    others = [name for name in files if name not in beside and not is_metadata(name)]
    names = [name for name in others if is_image_name(name)]
    losses, over = _unread(files, [name for name in others if not is_image_name(name)])
    losses += missing_files(metadata, files.__contains__, {name for name, _ in (*found.losses, *losses)})
    notes = [*found.notes, *metadata.notes, *_unlisted(metadata, names), *passed_over(over, found.hidden)]
    if not names:
        raise no_images(root, kind, [*found.losses, *losses], over)
    images = {name: files[name] for name in names}
    return ImageSet(root, items(root, images, metadata.rows, files.get), [*found.losses, *losses], notes)


def items(
    root: Path, images: Mapping[str, File], rows: Mapping[str, Mapping[str, Any]], beside: Callable[[str], File | None]
) -> list[Item]:
    """One item per image, in natural order of the keys; ``beside`` gives companions by their names.

    Returns:
        Items with keys, labels, groups, tags and companions.

    Raises:
        InputError: two images of one key.
    """
    by_key: dict[str, str] = {}
    for name in images:
        key = PurePosixPath(name).with_suffix("").as_posix()
        if key in by_key:
            raise InputError(
                f"{root}: {by_key[key]} and {name} share the key {key!r}. "
                "Keys are paths without suffix and must be unique: rename or remove one of the two."
            )
        by_key[key] = name
    split = splits(by_key)
    return [
        item(root, key, images[by_key[key]], rows.get(by_key[key], {}), beside, split)
        for key in sorted(by_key, key=natural)
    ]


def item(
    root: Path,
    key: str,
    content: File,
    row: Mapping[str, Any],
    beside: Callable[[str], File | None] = lambda name: None,
    split: bool = False,
) -> Item:
    """One item: label and group as its ``row`` has them, else the folder in the key, and the key.

    With ``split`` the first folder in the key is a tag and no label.

    Returns:
        The item.
    """
    label, group = row.get("label"), row.get("group")
    if not isinstance(label, str | int | None):
        raise InputError(f"{root}: the label of {key} is {label!r:.60}. Expected text or a whole number.")
    if not isinstance(group, str | int | float | None):
        raise InputError(f"{root}: the group of {key} is {group!r:.60}. Expected text or a number.")
    first, _, rest = key.partition("/")
    placed = {column: beside(name) for column, name in companions(row).items()}
    return Item(
        key,
        content,
        _folder_label(rest if split else key) if label is None else label,
        key if group is None else str(group),
        metadata={"split": first, **row} if split else row,
        beside={column: file for column, file in placed.items() if file is not None},
    )


def splits(keys: Mapping[str, Any] | Sequence[str]) -> bool:
    """Whether the first folders of the keys are splits of a dataset, such as ``train`` and ``test``, and no others."""
    first = {key.partition("/")[0] if "/" in key else "" for key in keys}
    return bool(first) and {name.lower() for name in first} <= SPLITS


def top_folder(names: Iterable[str], *, by_metadata: bool = False) -> str:
    """``set/`` where a folder was packed with its own name; empty where it was not.

    The one folder that holds everything is a dataset, and no class, if metadata lie in it; and, unless only
    ``by_metadata``, if it holds folders but no images, and is not called as a split.

    Returns:
        The folder with a slash, or ''.
    """
    parts = [name.split("/") for name in names]
    first = {part[0] for part in parts}
    if len(first) != 1 or any(len(part) == 1 for part in parts):
        return ""
    top = first.pop()
    direct = [part[1] for part in parts if len(part) == 2]
    if any(is_metadata(name) for name in direct):
        return f"{top}/"
    packed = not by_metadata and top.lower() not in SPLITS and not any(is_image_name(name) for name in direct)
    return f"{top}/" if packed else ""


def read_rows(root: Path, files: Mapping[str, File], present: Callable[[str], bool]) -> Metadata:
    """The rows of all files of metadata among ``files``; raises InputError for one that cannot be read."""
    return collect({name: _reader(root, name, files[name]) for name in files if is_metadata(name)}, present)


def companion_names(metadata: Metadata) -> set[str]:
    """The names of all companions: none of them is an image of the set."""
    return {name for row in metadata.rows.values() for name in companions(row).values()}


def missing_files(metadata: Metadata, present: Callable[[str], bool], known: set[str]) -> list[Loss]:
    """Rows whose image is not there, but for the images that are ``known`` to be lost."""
    gone = [name for name in metadata.rows if not present(name) and name not in known]
    return [(name, f"{metadata.sources[name]} names it, and there is no such file") for name in gone] + metadata.outside


def no_images(root: Path, kind: str, losses: Sequence[Loss], others: Sequence[str]) -> InputError:
    """The error of a root without a single image; says what is there instead."""
    known = " ".join(sorted(SUFFIXES))
    lost = f" {len(losses)} cannot be read; the first: {': '.join(losses[0])}." if losses else ""
    archives = sorted({suffix_of(name) for name in others} & {".tar", ".zip"})
    hint = f" Name its archives themselves, such as '{root}/*{archives[0]}'." if archives else ""
    return InputError(
        f"{root}: no images found in this {kind} or below it.{lost} Expected files ending in {known}.{hint}"
    )


def _unread(files: Mapping[str, File], names: Sequence[str]) -> tuple[list[Loss], list[str]]:
    """The files that are images of kinds that are not read, with the reason; and those that are no images."""
    lost: list[Loss] = []
    others: list[str] = []
    for name in names:
        why = why_unread(name, b"" if suffix_of(name) in OTHER else _head(files[name]))
        if why is None:
            others.append(name)
        else:
            lost.append((name, why))
    return lost, others


def _head(file: File) -> bytes:
    try:
        if isinstance(file, Path):
            with file.open("rb") as opened:
                return opened.read(HEAD)
        loaded = file.load()
    except (OSError, ImageError):
        return b""
    return loaded[:HEAD] if isinstance(loaded, bytes) else b""


def _reader(root: Path, name: str, file: File) -> Callable[[], tuple[bytes, str]]:
    def read() -> tuple[bytes, str]:
        where = str(file) if isinstance(file, Path) else file.location
        try:
            data = file.read_bytes() if isinstance(file, Path) else file.load()
        except (OSError, ImageError) as error:
            raise InputError(f"{where}: cannot be read ({error}). Repair or remove it.") from error
        assert isinstance(data, bytes)
        return data, where

    return read


def _unlisted(metadata: Metadata, names: Sequence[str]) -> list[str]:
    count = sum(name not in metadata.rows for name in names) if metadata.rows else 0
    return [f"{count} image{'s have' if count > 1 else ' has'} no row in the metadata"] if count else []


def _folder_label(key: str) -> str | None:
    return key.rpartition("/")[0] or None
