"""The style file: safetensors with one JSON header. Reading checks the container; the bank checks what it holds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from metrics.errors import InputError
from metrics.files import write_atomically

FORMAT = "reverse-stylize style bank"
VERSION = 1
MAX_BYTES = 2 * 2**30
MAX_HEADER = 100_000_000  # what safetensors accepts
DTYPES = {"F64": torch.float64, "F32": torch.float32, "U8": torch.uint8}  # of statistics, as safetensors names them
Entries = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
Check = Callable[[dict[str, Any], Entries], None]
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


def read(path: Path, check: Check) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a file that :func:`write` wrote.

    Args:
        path: the file.
        check: raises InputError for a header and entries (dtype and shape by name) that do not belong together. It is
            called before anything is read that the file can make large.

    Returns:
        Header and tensors, on the CPU.

    Raises:
        InputError: missing, not safetensors, not a style file, of another version, with a damaged header, or larger
            than MAX_BYTES.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such style file. Make one with: stylize learn PHOTOS {path}")
    if path.stat().st_size > MAX_BYTES + MAX_HEADER:  # before it is mapped into memory
        raise _too_large(path, path.stat().st_size)
    try:
        with safe_open(path, "pt") as file:
            header = _checked_header(path, file.metadata() or {})
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            entries = {name: (DTYPES[one.get_dtype()], tuple(one.get_shape())) for name, one in slices.items()}
            check(header, entries)
            check_bytes(path, entries)
            return header, {name: file.get_tensor(name) for name in entries}
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a style file ({error}). Expected the output of: stylize learn PHOTOS STYLE.safetensors"
        ) from error


def check_bytes(where: Path, entries: Entries) -> None:
    """Raises InputError for statistics that take more than MAX_BYTES, which every worker holds."""
    size = sum(dtype.itemsize * math.prod(shape) for dtype, shape in entries.values())
    if size > MAX_BYTES:
        raise _too_large(where, size)


def _too_large(where: Path, size: int) -> InputError:
    return InputError(
        f"{where}: its styles take {size / 2**30:.1f} GiB, at most {MAX_BYTES / 2**30:g} GiB expected. "
        "Learn from fewer photos, fewer --crops or fewer methods."
    )


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
