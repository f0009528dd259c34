"""The style file: safetensors with one JSON header. Reading checks the container; the bank checks what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from metrics.errors import InputError
from metrics.files import write_atomically

FORMAT = "reverse-stylize style bank"
VERSION = 1
HEADER = {
    "sources": list,
    "licences": list,
    "unlicensed": list,
    "skipped": dict,
    "seed": int,
    "crops": int,
    "size": int,
}


def write(path: Path, header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write header and tensors; equal ones give equal bytes."""
    text = json.dumps({**header, "version": VERSION}, sort_keys=True)
    # One entry of metadata: safetensors keeps no order of several.
    write_atomically(path, save({name: t.contiguous() for name, t in tensors.items()}, {FORMAT: text}))


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a file that :func:`write` wrote.

    Raises:
        InputError: missing, not safetensors, not a style file, of another version, or with a damaged header.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such style file. Make one with: stylize learn PHOTOS {path}")
    try:
        with safe_open(path, "pt") as file:
            header = _checked_header(path, file.metadata() or {})
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a style file ({error}). Expected the output of: stylize learn PHOTOS STYLE.safetensors"
        ) from error


def _checked_header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if FORMAT not in metadata:
        raise InputError(
            f"{path}: a safetensors file, but not a style bank. "
            "Expected the output of: stylize learn PHOTOS STYLE.safetensors"
        )
    header: dict[str, Any] = json.loads(metadata[FORMAT])
    version = header.pop("version", None)
    if version != VERSION:
        raise InputError(
            f"{path}: style bank of version {version}; this program reads version {VERSION}. "
            f"Learn it again: stylize learn PHOTOS {path}"
        )
    for name, kind in HEADER.items():
        if not isinstance(header.get(name), kind):
            raise InputError(
                f"{path}: damaged style bank: header entry {name!r} is not a {kind.__name__}. Learn it again."
            )
    for name in ("licences", "unasserted"):
        if not all(isinstance(row, dict) and row.get("licence") for row in header.get(name, [])):
            raise InputError(f"{path}: damaged style bank: header entry {name!r} is no ledger. Learn it again.")
    if not header["sources"] or not all(isinstance(source, dict) for source in header["sources"]):
        raise InputError(f"{path}: damaged style bank: no list of sources in its header. Learn it again.")
    return header
