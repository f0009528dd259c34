"""Mean and covariance of features in the ``.npz`` layout of pytorch-fid: arrays ``mu`` and ``sigma``."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .decode import one_line
from .errors import InputError

Array = npt.NDArray[np.float64]
MOST = 4 * 2**30  # bytes of one array
ASYMMETRY = 1e-6  # of a covariance, relative to its largest entry: float32 rounding


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` by name, or the one of a ``.npy`` as ``features``; never a pickle.

    Raises:
        InputError: no such file, damaged, an array of Python objects, or one of more than 4 GiB.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Expected arrays that numpy.save or numpy.savez wrote.")
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                return {"features": np.load(file, allow_pickle=False)}
            with zipfile.ZipFile(file) as archive:
                large = next((info.filename for info in archive.infolist() if info.file_size > MOST), None)
            if large:
                raise InputError(f"{path}: the array {large} unpacks to more than {MOST // 2**30} GiB. Split the file.")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: _array(arrays[name], name) for name in arrays.files}
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise many types on damaged files
        unsafe = "no plain array, and pickled Python objects are never loaded, as they could run code"
        why = unsafe if "allow_pickle" in str(error) else one_line(error)
        raise InputError(f"{path}: cannot be read ({why}). Expected arrays of numpy.save or numpy.savez.") from error


def _array(value: Any, name: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):  # numpy hands out the bytes of members that are no arrays
        raise ValueError(f"{name} is no array")
    return value


def read_statistics(path: str | Path) -> tuple[Array, Array]:
    """Mean ``float64 [D]`` and covariance ``float64 [D,D]`` of features, as pytorch-fid's ``--save-stats`` writes.

    The file does not say which extractor it is from, nor from how many images: compare only what was made alike.

    Raises:
        InputError: as ``read_arrays``; no ``mu`` and ``sigma``, shapes that do not match, values that are not finite,
            or a covariance that is not symmetric or has negative variances.
    """
    path = Path(path)
    arrays = read_arrays(path)
    if not holds_statistics(arrays):
        raise InputError(f"{path}: holds {', '.join(arrays) or 'nothing'}. Expected the arrays mu and sigma.")
    mu, sigma = arrays["mu"], arrays["sigma"]
    if mu.dtype.kind != "f" or sigma.dtype.kind != "f" or mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise InputError(
            f"{path}: mu is {mu.dtype} {list(mu.shape)}, sigma {sigma.dtype} {list(sigma.shape)}. "
            "Expected floats [D] and [D,D]."
        )
    mu, sigma = mu.astype(np.float64), sigma.astype(np.float64)
    if not np.isfinite(mu).all() or not np.isfinite(sigma).all():
        raise InputError(f"{path}: mu or sigma holds NaN or infinite values. Compute the statistics again.")
    asymmetry = float(np.abs(sigma - sigma.T).max(initial=0))
    if asymmetry > ASYMMETRY * np.abs(sigma).max(initial=0) or (np.diagonal(sigma) < 0).any():
        raise InputError(
            f"{path}: sigma is no covariance: not symmetric, or negative on its diagonal. Compute it again."
        )
    return mu, (sigma + sigma.T) / 2


def write_statistics(path: str | Path, mu: Array, sigma: Array) -> None:
    """Write mean ``[D]`` and covariance ``[D,D]`` (n − 1 in the denominator) as pytorch-fid and others read them."""
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez_compressed(file, mu=mu, sigma=sigma)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def holds_statistics(arrays: dict[str, np.ndarray]) -> bool:
    """Whether these are the arrays of a statistics file."""
    return {"mu", "sigma"} <= arrays.keys()
