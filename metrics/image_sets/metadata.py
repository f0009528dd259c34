"""Metadata of the Hugging Face ``imagefolder`` layout: one row per image, which its column ``file_name`` names.

A file ``metadata.jsonl``, ``metadata.csv`` or ``metadata.parquet`` may lie in the root and in every folder below it;
its names are relative to its own folder. Where two name one image, the nearer one counts.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import InputError
from .decode import one_line

NAME = "metadata.jsonl"
NAMES = (NAME, "metadata.csv", "metadata.parquet")
OWN = ("file_name", "label", "group")  # columns that are no tags
BESIDE = "_file_name"  # ends the name of a column that names a companion
Row = dict[str, Any]


@dataclass
class Metadata:
    """Rows by the name of their image below the root, and what was odd about them.

    ``rows`` name companions below the root, too. ``sources`` says where each row comes from. ``outside`` are names
    that lead out of the root, with their reason; ``notes`` are lines for people.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    outside: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def is_metadata(name: str) -> bool:
    """Whether a name below the root is that of a file of metadata."""
    return name.rpartition("/")[2] in NAMES


def read_metadata(root: Path) -> dict[str, Row]:
    """The rows of ``metadata.jsonl`` in a folder by their ``file_name`` as it is; empty when the file does not exist.

    Returns:
        Rows by name.

    Raises:
        InputError: a line is not a JSON object with a ``file_name``.
    """
    path = root / NAME
    return {str(row["file_name"]): row for row in _parse_lines(path.read_bytes(), str(path))} if path.is_file() else {}


def collect(files: Mapping[str, Callable[[], tuple[bytes, str]]], present: Callable[[str], bool]) -> Metadata:
    """Merge the files of metadata of a set.

    Args:
        files: by the metadata file's name below the root, what gives its bytes and its place for people.
        present: whether a name below the root is that of a file of the set.

    Returns:
        Rows by the name of their image, and what was odd about them.

    Raises:
        InputError: a file that cannot be parsed, or two in one folder.
    """
    merged = Metadata()
    folders: dict[str, str] = {}
    for name in sorted(files, key=lambda name: (name.count("/"), name)):  # the nearer ones last
        folder, _, base = name.rpartition("/")
        data, where = files[name]()
        if folder in folders:
            raise InputError(f"{where}: there is also {folders[folder]} in this folder. Remove one of the two.")
        folders[folder] = base
        rows = _PARSERS[base](data, where)
        if rows is None:
            merged.notes.append(f"{where}: no column 'file_name', so it was passed over")
        else:
            _merge(merged, rows, folder, where, present)
    return merged


def normalised(name: str, folder: str = "") -> str | None:
    r"""A name in the metadata of ``folder`` as a name below the root, as Hugging Face datasets reads it.

    ``./a.png``, ``b/../a.png`` and ``.\a.png`` are ``a.png``. None for an absolute name or one that leaves the root.

    Returns:
        The name with forward slashes, or None.
    """
    text = name.replace("\\", "/")
    if text.startswith("/") or re.match(r"[A-Za-z]:", text):
        return None
    text = posixpath.normpath(posixpath.join(folder, text))
    return None if text == "." or text.split("/")[0] == ".." else text


def companions(row: Mapping[str, Any]) -> dict[str, str]:
    """The files that a row names beside its image, by column: ``mask_file_name`` and the like; empty cells name none.

    ``file_name`` itself is no companion.

    Returns:
        Names by column.
    """
    return {
        column: str(value)
        for column, value in row.items()
        if column.endswith(BESIDE) and value is not None and str(value) != ""
    }


def tags(row: Mapping[str, Any]) -> dict[str, str]:
    """The columns with a single text, number or truth value that are not the name, label, group or a companion.

    A number that is none (NaN), as an empty cell of a data frame is written, is no tag.

    Returns:
        Texts by column.
    """
    beside = companions(row)
    return {
        name: str(value)
        for name, value in row.items()
        if name not in OWN and name not in beside and isinstance(value, str | int | float) and value == value
    }


def _merge(merged: Metadata, rows: list[Row], folder: str, where: str, present: Callable[[str], bool]) -> None:
    names = [_place(row["file_name"], folder, present) for row in rows]
    if folder and rows and not any(name is not None and present(name) for name in names):
        merged.notes.append(f"{where}: names no file below {folder}, so it was passed over")
        return
    twice = unlabelled = 0
    relabelled: list[str] = []
    seen: set[str] = set()
    for row, name in zip(rows, names, strict=True):
        if name is None:
            merged.outside.append((str(row["file_name"]), f"{where} names it, and it is not a file below the root"))
            continue
        row = {column: _cell(column, value) for column, value in row.items()}
        if name in seen:
            twice += 1
            relabelled += [name] if row.get("label") != merged.rows[name].get("label") else []
        unlabelled += "label" in row and row["label"] in (None, "")
        seen.add(name)
        beside = {column: _place(value, folder, present) or value for column, value in companions(row).items()}
        merged.rows[name] = {**row, **beside, "file_name": name}
        merged.sources[name] = where
    missing = sum(not present(name) for name in seen)
    counts = [
        (missing, "rows without a file"),
        (twice, "further rows for a file that has one, of which the last counts"),
        (len(relabelled), f"of them change a label, the first that of {relabelled[0]}" if relabelled else ""),
    ]
    odd = [f"{count} {what}" for count, what in [*counts, (unlabelled, "rows without a label")] if count]
    if odd:
        merged.notes.append(f"{where}: {', '.join(odd)}")


def _cell(column: str, value: Any) -> Any:
    """What a data frame with empty cells has made of a column, undone: NaN is no value, a label 3.0 is 3."""
    if not isinstance(value, float):
        return value
    if value != value:
        return None
    return int(value) if column == "label" and value.is_integer() else value


def _place(name: Any, folder: str, present: Callable[[str], bool]) -> str | None:
    """The name below the root; a backslash parts folders unless a file has it in its name."""
    text = str(name)
    exact = posixpath.join(folder, text)
    return exact if "\\" in text and present(exact) else normalised(text, folder)


def _parse_lines(data: bytes, where: str) -> list[Row]:
    """JSON lines; every one must be an object with a ``file_name``."""
    rows: list[Row] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            row["file_name"] = str(row["file_name"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{where}:{number}: expected one JSON object with a 'file_name' per line, got {line[:60]!r}. "
                "Repair or remove this file."
            ) from error
        rows.append(row)
    return rows


def _parse_csv(data: bytes, where: str) -> list[Row] | None:
    """Comma-separated values with a header; columns of numbers become such. None without a column of file names."""
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where}: not a CSV file in UTF-8 ({one_line(error)}). Repair or remove it.") from error
    if "file_name" not in (reader.fieldnames or ()):
        return None
    for number, row in enumerate(rows, 2):
        if None in row or not row["file_name"]:
            fault = "more cells than the header" if None in row else "no file_name"
            raise InputError(f"{where}: row {number} has {fault}. Repair it.")
    for column in reader.fieldnames or ():
        if column != "file_name" and not column.endswith(BESIDE):
            for row, value in zip(rows, _typed([row[column] for row in rows]), strict=True):
                row[column] = value
    return rows


def _typed(cells: list[str | None]) -> list[Any]:
    """Cells of one column as whole numbers or numbers, where all that are not empty are; an empty one is None."""
    texts = [cell for cell in cells if cell]
    kind: Callable[[str], Any] = str
    if texts and all(re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", cell) for cell in texts):
        kind = int
    elif texts and all(re.fullmatch(r"-?[0-9]+\.[0-9]*([eE][+-]?[0-9]+)?", cell) for cell in texts):
        kind = float
    return [kind(cell) if cell else None for cell in cells]


def _parse_parquet(data: bytes, where: str) -> list[Row] | None:
    try:
        parquet, types = import_module("pyarrow.parquet"), import_module("pyarrow.types")
    except ImportError as error:
        raise InputError(
            f"{where}: the package pyarrow, which reads it, is missing. "
            "Install it: pip install 'reverse-stylize[datasets]'"
        ) from error
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        kept = [
            one.name for one in file.schema_arrow if not (types.is_binary(one.type) or types.is_large_binary(one.type))
        ]
        if "file_name" not in kept:
            return None
        rows = json.loads(json.dumps(file.read(columns=kept).to_pylist(), default=str))
    except Exception as error:  # pyarrow raises many types on damaged files
        raise InputError(f"{where}: not a readable Parquet file ({one_line(error)}). Write it again.") from error
    if any(not row["file_name"] for row in rows):
        raise InputError(f"{where}: a row has no file_name. Repair it.")
    return [dict(row) for row in rows]


_PARSERS: dict[str, Callable[[bytes, str], list[Row] | None]] = dict(
    zip(NAMES, (_parse_lines, _parse_csv, _parse_parquet), strict=True)
)
