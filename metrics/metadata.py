"""``metadata.jsonl`` of the Hugging Face ``imagefolder`` layout: one JSON object per image, named by ``file_name``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import InputError

NAME = "metadata.jsonl"
OWN = ("file_name", "label", "group")  # columns that are no tags


def read_metadata(root: Path) -> dict[str, dict[str, Any]]:
    """The rows of ``metadata.jsonl`` in a folder by their ``file_name``; empty when the file does not exist.

    Raises:
        InputError: a line is not a JSON object with a ``file_name``.
    """
    path = root / NAME
    return parse_metadata(path.read_bytes(), str(path)) if path.is_file() else {}


def parse_metadata(data: bytes, where: str) -> dict[str, dict[str, Any]]:
    """The rows in the bytes of a ``metadata.jsonl`` by their ``file_name``; raises InputError as ``read_metadata``."""
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows[str(row["file_name"])] = row
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{where}:{number}: expected one JSON object with a 'file_name' per line, got {line[:60]!r}. "
                "Repair or remove this file."
            ) from error
    return rows


def companions(row: Mapping[str, Any]) -> dict[str, str]:
    """The files that a row of ``metadata.jsonl`` names beside its image, by column: ``mask_file_name`` and the like."""
    return {name: str(value) for name, value in row.items() if name.endswith("_file_name") and value is not None}


def tags(row: Mapping[str, Any]) -> dict[str, str]:
    """The columns with a single text, number or truth value that are not the name, label, group or a companion."""
    beside = companions(row)
    return {
        name: str(value)
        for name, value in row.items()
        if name not in OWN and name not in beside and isinstance(value, str | int | float)
    }
