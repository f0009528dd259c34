"""The names that a run will write, claimed before any work: none is written twice, none is another's, all are legal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from metrics.errors import InputError

RESERVED = frozenset({"run.json", "ledger.json", "errors.jsonl", ".job", ".job-done"}) | {
    f"metadata.{suffix}" for suffix in ("jsonl", "csv", "parquet")
}
FOLDING = sys.platform in ("win32", "darwin")  # file systems on which a.png and A.png are one file
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
    longest = _longest(out)
    owners: dict[str, str] = {}
    for name in results:
        _take(owners, out, name, "", longest)
    for name, owner in dict(companions).items():
        _take(owners, out, name, owner, longest)
    folders = {str(folder) for name in owners for folder in PurePosixPath(name).parents}
    for name in owners:
        if name in folders:
            raise InputError(
                f"{out}: {name!r} would be a file and also a folder that holds others. Rename one of the two."
            )


def _take(owners: dict[str, str], out: Path, name: str, owner: str, longest: tuple[int, int]) -> None:
    _check(out, name, owner, longest)
    place = name.casefold() if FOLDING else name
    if place in owners:
        if owner:
            raise InputError(
                f"{out}: {name!r} would be written twice: as a result, and as {owner}, which is copied unchanged. "
                "Move those files into a folder of their own, or choose another suffix for the results: --format jpeg"
            )
        raise InputError(
            f"{out}: {name!r} would be written twice, as this system does not tell case. Rename one image."
        )
    owners[place] = owner


def _check(out: Path, name: str, owner: str, longest: tuple[int, int]) -> None:
    what = f"{owner or 'a result'} would be written to {name!r}"
    parts = name.split("/")
    if ".." in parts or "" in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
        raise InputError(f"{out}: {what}, outside this folder. Expected a relative name without '..' in it.")
    if parts[0].casefold() in RESERVED:
        raise InputError(
            f"{out}: {what}, a name that the run needs for itself. Rename that file or folder of the input."
        )
    if any(len(part.encode()) > longest[0] for part in parts) or len(os.fsencode(out / name)) >= longest[1]:
        raise InputError(
            f"{out}: {what}, which is longer than the file system allows ({longest[0]} bytes a name, {longest[1]} a "
            "path). Shorten that name, or the path of the folder."
        )
    if sys.platform == "win32" and any(_illegal(part) for part in parts):
        raise InputError(f"{out}: {what}, which is no file name on Windows. Rename it.")


def _illegal(part: str) -> bool:
    return bool(_FORBIDDEN & set(part)) or part[-1] in " ." or part.partition(".")[0].casefold() in _DEVICES


def _longest(out: Path) -> tuple[int, int]:
    """Bytes of a name and of a path that the file system of ``out`` can hold."""
    folder = next((place for place in (out, *out.absolute().parents) if place.is_dir()), Path("/"))
    try:
        return os.pathconf(folder, "PC_NAME_MAX"), os.pathconf(folder, "PC_PATH_MAX")
    except (AttributeError, OSError, ValueError):  # Windows
        return 255, 32_000
