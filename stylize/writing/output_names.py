"""The names that a run will write, claimed before any work: none is written twice, none is another's, all are legal."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath

from metrics.errors import InputError

METADATA = frozenset(f"metadata.{suffix}" for suffix in ("jsonl", "csv", "parquet"))
RESERVED = METADATA | {"run.json", "ledger.json", "errors.jsonl", ".job", ".job-done"}
FOLDING = sys.platform in ("win32", "darwin")  # where a.png and A.png are one file, but on rare disks
_FORBIDDEN = set('<>:"|?*\\') | {chr(code) for code in range(32)}  # on Windows
_DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{digit}" for name in ("com", "lpt") for digit in range(1, 10))}


def claim(out: Path, results: Iterable[str], companions: Iterable[tuple[str, str]] = ()) -> None:
    """Check every name below ``out`` that a run will write.

    Args:
        out: the folder.
        results: file names of the images, ``/`` between folders.
        companions: (file name, whose it is, in words) of the files that are copied unchanged. Several images may share
            one.

    Raises:
        InputError: two files of one name, a name that the run itself needs, a file where another needs a folder, a name
            outside the folder, or one that the system cannot hold.
    """
    folder = next((place for place in (out, *out.absolute().parents) if place.is_dir()), Path("/"))
    longest, folds = _longest(folder), folds_case(folder)
    owners: dict[str, str] = {}
    for name in results:
        _check(out, name, "", longest)
        _take(owners, out, name, "", folds)
    for name, owner in dict(companions).items():
        _check(out, name, owner, longest)
        _take(owners, out, name, owner, folds)
    folders = {str(folder) for name in owners for folder in PurePosixPath(name).parents}
    for name in owners:
        if name in folders:
            raise InputError(
                f"{out}: {name!r} would be a file and also a folder that holds others. Rename one of the two."
            )


def folds_case(folder: Path) -> bool:
    """Whether files that differ only in case are one file in this folder, as on a memory card under Linux too."""
    if FOLDING:
        return True
    with suppress(OSError):
        for path in islice(folder.iterdir(), 100):
            other = path.with_name(path.name.swapcase())
            with suppress(OSError):
                if other != path:
                    return path.samefile(other)
    return False


def _take(owners: dict[str, str], out: Path, name: str, owner: str, folds: bool) -> None:
    place = unicodedata.normalize("NFC", name.casefold()) if folds else name
    if place not in owners:
        owners[place] = owner
    elif owner and not owners[place]:
        raise InputError(
            f"{out}: {name!r} would be written twice: as a result, and as {owner}, which is copied unchanged. "
            "Move those files into a folder of their own, or choose another suffix for the results: --format jpeg"
        )
    else:
        raise InputError(f"{out}: {name!r} would be written twice, as this disk does not tell case. Rename one file.")


def _check(out: Path, name: str, owner: str, longest: tuple[int, int]) -> None:
    shown = repr(name) if len(name) <= 300 else f"{name[:100]!r}..."
    what = f"{out}: {owner or 'a result'} would be written to {shown}"
    parts = name.split("/")
    if ".." in parts or "" in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
        raise InputError(f"{what}, outside this folder. Expected a relative name without '..' in it.")
    if parts[0].casefold() in RESERVED or parts[-1].casefold() in METADATA:
        raise InputError(f"{what}, a name that the run needs for itself. Rename that file or folder of the input.")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        sizes = []
    if not sizes or "\0" in name:
        raise InputError(f"{what}, which no file can be called. Rename it in the input.")
    if max(sizes) > longest[0] or sum(sizes) + len(sizes) + len(os.fsencode(out)) >= longest[1]:
        raise InputError(
            f"{what}, which is longer than the file system allows ({longest[0]} bytes a name, {longest[1]} a path). "
            "Shorten that name, or the path of the folder."
        )
    if sys.platform == "win32" and any(_illegal(part) for part in parts):
        raise InputError(f"{what}, which is no file name on Windows. Rename it.")


def _illegal(part: str) -> bool:
    return bool(_FORBIDDEN & set(part)) or part[-1] in " ." or part.partition(".")[0].casefold() in _DEVICES


def _longest(folder: Path) -> tuple[int, int]:
    """Bytes of a name and of a path that the file system of the folder can hold."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX"), os.pathconf(folder, "PC_PATH_MAX")
    except (AttributeError, OSError, ValueError):  # Windows
        return 255, 32_000
