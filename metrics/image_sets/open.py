"""The image set of a source of any kind: the choice among the readers, one kind per file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import name_of
from . import arrays, hugging_face, torch_dataset
from .decode import ImageError, decode
from .file_kinds import SUFFIXES
from .file_list import expand, open_files, open_list, open_pattern
from .folder import open_folder
from .items import BESIDE, Content, ImageSet
from .member import Stamp, stamp
from .tar_shards import open_tars, tar_members
from .zip_archive import open_zip, zip_members

KINDS = (
    "a folder of images, a .zip, WebDataset .tar shards, a .txt with one path per line, a glob pattern, a Hugging Face "
    "dataset, paths, uint8 images [N,3,H,W], or a torch Dataset"
)


def open_images(source: Any) -> ImageSet:
    """The image set of a source of any kind.

    ====================================  ==========================================================================
    source                                keys and labels
    ====================================  ==========================================================================
    folder, searched recursively          path below the root without suffix; label from ``metadata.jsonl``, else
                                          the parent folder below the root, else None; ``train``, ``test`` and
                                          other splits as first folders are the tag ``split``, no labels
    ``.zip``                              as the folder that was packed, with or without its own name
    WebDataset ``.tar``, a glob or a      sample key; label from ``.cls`` or ``.json``, else the folder in the key
    brace pattern of shards
    ``.txt`` with one path per line,      as a folder: the list's own, the pattern's fixed part, or what all paths
    glob pattern, sequence of paths       have in common
    Hugging Face dataset: a folder of     row number; column ``label``
    ``save_to_disk``, or the object
    ``uint8 [N,3,H,W]`` or ``[N,H,W,3]``  row number; no labels
    torch ``Dataset`` or ``DataLoader``   index; label if it yields pairs
    ====================================  ==========================================================================

    ``metadata.jsonl``, ``.csv`` and ``.parquet`` are read in the root and in every folder below it. The masks and other
    companions that they name in a column ending in ``_file_name`` are no images of the set. The column ``group`` (a
    video, a scene, a source photo) becomes the item's group; single values in other columns its tags. Hidden files
    are passed over. What belongs to the set and cannot be read is in its ``losses``, what else is there in its
    ``notes``. Archives are data from strangers: nothing is unpacked to disk, and
    unsafe names, links, bombs and encryption are refused.

    Args:
        source: one of the table.

    Returns:
        The images in the order of their keys; none is decoded yet.

    Raises:
        InputError: missing, empty or broken source, one of a kind that is not known, or two images with one key.
    """
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


def read_location(text: str) -> np.ndarray:
    """The image that an item's ``location`` names, as ``uint8 [H,W,3]`` sRGB: a file, or a member of a zip or tar.

    Returns:
        ``uint8 [H,W,3]``.

    Raises:
        ImageError: as ``decode``; no such file or member; or the image was in memory and is not a file.
    """
    whole, (archive, parted, name) = Path(name_of(text)), text.partition(BESIDE)
    return decode(read_member(Path(name_of(archive)), name)) if parted and not whole.exists() else decode(whole)


def read_member(archive: Path, name: str) -> bytes:
    """The bytes of the member that a location names; raises ImageError."""
    if archive.suffix.lower() not in (".zip", ".tar"):
        raise ImageError("not a file: the image was part of a dataset or of an array in memory")
    try:
        members = _members(archive, stamp(archive.stat()))
        loaded = members[name].load()
    except KeyError as error:
        raise ImageError(f"no member {name!r} in {archive}") from error
    except OSError as error:
        raise ImageError("the archive is gone") from error
    except InputError as error:
        raise ImageError(str(error)) from error
    assert isinstance(loaded, bytes)
    return loaded


@lru_cache(maxsize=4)
def _members(archive: Path, at: Stamp) -> dict[str, Content]:
    return dict(zip_members(archive) if archive.suffix.lower() == ".zip" else tar_members(archive))
