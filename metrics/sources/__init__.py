"""Readers of image sets, one kind of source per file, and the choice among them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..decode import SUFFIXES
from ..errors import InputError
from ..images import ImageSet
from . import arrays, hugging_face, torch_dataset
from .file_list import expand, open_files, open_list, open_pattern
from .folder import open_folder
from .tar_shards import open_tars
from .zip_archive import open_zip

KINDS = (
    "a folder of images, a .zip, WebDataset .tar shards, a .txt with one path per line, a glob pattern, a Hugging Face "
    "dataset, paths, uint8 images [N,3,H,W], or a torch Dataset"
)


def open_source(source: Any) -> ImageSet:
    """See :func:`metrics.images.open_images`."""
    if isinstance(source, ImageSet):
        return source
    if isinstance(source, str | Path):
        return _open_path(source)
    if arrays.is_array(source):
        return arrays.open_array(source)
    if hugging_face.is_dataset(source):
        return hugging_face.open_dataset(source)
    if "torch" in sys.modules and torch_dataset.is_dataset(source):
        return torch_dataset.open_dataset(source)
    if isinstance(source, Sequence) and all(isinstance(path, str | Path) for path in source):
        return _open_paths([Path(path) for path in source], None)
    raise InputError(f"got a {type(source).__name__}. Expected {KINDS}.")


def _open_path(source: str | Path) -> ImageSet:
    if not str(source).strip():
        raise InputError(f"got an empty path: an unset variable? Expected {KINDS}.")
    path = Path(source)
    if path.is_dir():
        return hugging_face.open_saved(path) if hugging_face.is_saved(path) else open_folder(path)
    if path.exists():
        return _open_file(path)
    expanded = expand(str(source))
    if expanded is None:
        raise InputError(f"{path}: no such folder or file. Expected {KINDS}.")
    if all(found.suffix.lower() == ".tar" for found in expanded):
        return open_tars(expanded, path)
    return open_pattern(str(source), expanded)


def _open_paths(paths: list[Path], root: Path | None) -> ImageSet:
    if paths and all(path.suffix.lower() == ".tar" for path in paths):
        return open_tars(paths, root or Path(f"({len(paths)} tar files)"))
    return open_files(paths, root)


def _open_file(path: Path) -> ImageSet:
    name = path.name.lower()
    if name.endswith(".zip"):
        return open_zip(path)
    if name.endswith((".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")):
        return open_tars([path], path)
    if name.endswith(".txt"):
        return open_list(path)
    if path.suffix.lower() in SUFFIXES:
        raise InputError(f"{path}: one image, not a folder. Expected {KINDS}.")
    raise InputError(f"{path}: not a folder, and a {path.suffix or 'plain'} file is no image set. Expected {KINDS}.")
