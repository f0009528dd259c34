"""Arrays of ``numpy.save`` and ``numpy.savez``: only what is asked for is read, within bounds, and never a pickle."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import InputError
from ..files import write_atomically
from ..image_sets.decode import one_line

MOST = 4 * 2**30  # bytes of all arrays that are read
LONE = "features"  # what the array of a .npy file is called
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every member: equal arrays give equal bytes
_UNSAFE = "no plain array, and pickled Python objects are never loaded, as they could run code"


def array_names(path: Path) -> list[str]:
    """The names of the arrays in a ``.npz``, or ``features`` for a ``.npy``.

    Returns:
        Names in the order of the file.

    Raises:
        InputError: no such file, or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Expected arrays that numpy.save or numpy.savez wrote.")
    try:
        if not zipfile.is_zipfile(path):
            return [LONE]
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except Exception as error:  # zipfile raises many types on damaged files
        raise _unreadable(path, error) from error


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays of these names, of those that are in the file; sizes are compared before anything is allocated.

    Args:
        path: an ``.npy`` or ``.npz`` file.
        names: of the arrays that are wanted.

    Returns:
        By name, arrays as they are stored.

    Raises:
        InputError: no such file, damaged, an array of Python objects, or arrays of more than 4 GiB in all.
    """
    wanted = [name for name in array_names(path) if name in set(names)]
    try:
        with path.open("rb") as file:
            packed = zipfile.is_zipfile(file)
            file.seek(0)
            if not packed:
                _take(path, LONE, file, path.stat().st_size, 0)
                file.seek(0)
                return {LONE: np.load(file, allow_pickle=False)}
            with zipfile.ZipFile(file) as archive:
                total = 0
                for name in wanted:
                    info = _member(archive, name)
                    with archive.open(info) as member:
                        total = _take(path, name, member, info.file_size, total)
                return {name: _read(archive, name) for name in wanted}
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise many types on damaged files
        raise _unreadable(path, error) from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed ``.npz``; equal arrays give equal bytes.

    Raises:
        OSError: the file cannot be written.
    """
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
    write_atomically(path, data.getvalue())


def _take(path: Path, name: str, file: IO[bytes], size: int, before: int) -> int:
    """The bytes of all arrays up to this one, by their headers."""
    needed = _needed(file, name, size)
    if before + needed > MOST:
        raise InputError(
            f"{path}: with those before it, the array {name}.npy unpacks to more than {MOST // 2**30} GiB. "
            "Split the file."
        )
    return before + needed


def _needed(file: IO[bytes], name: str, size: int) -> int:
    """The bytes of the array whose file starts here and has ``size`` bytes, from its header."""
    magic = file.read(np.lib.format.MAGIC_LEN)
    if magic[:6] != np.lib.format.MAGIC_PREFIX:
        if magic[:1] == b"\x80":
            raise ValueError(_UNSAFE)
        raise ValueError(f"{name} is no array")
    readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    if magic[6] not in readers:
        raise ValueError(f"{name} has fields")  # whose names need version 3 of the format
    shape, _, dtype = readers[magic[6]](file)
    if dtype.hasobject:
        raise ValueError(_UNSAFE)
    needed = int(np.prod([int(side) for side in shape], dtype=object)) * dtype.itemsize
    if file.tell() + needed > size:
        raise ValueError(f"{name} asks for {needed} bytes and has {size - file.tell()}")
    return needed


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    return archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.NameToInfo else name)


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(_member(archive, name)) as member:
        array: Any = np.lib.format.read_array(member, allow_pickle=False)
        member.read(1)  # the end, where the checksum is compared
        return np.asarray(array)


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read ({one_line(error)}). Expected arrays of numpy.save or numpy.savez.")
