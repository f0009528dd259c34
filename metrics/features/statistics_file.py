"""Mean and covariance of features in the ``.npz`` layout of pytorch-fid: arrays ``mu`` and ``sigma``.

What ``domain-gap stats`` writes also says of how many ``images`` they are, and which were ``skipped``: readers of the
two arrays are not disturbed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .array_file import array_names, read_arrays, write_arrays

Array = npt.NDArray[np.float64]
ASYMMETRY = 1e-6  # of a covariance, relative to its largest entry: float32 rounding


def read_statistics(path: str | Path) -> tuple[Array, Array]:
    """Mean ``float64 [D]`` and covariance ``float64 [D,D]`` of features, as pytorch-fid's ``--save-stats`` writes.

    The file does not say which extractor it is from: compare only what was made alike.

    Returns:
        Both in float64.

    Raises:
        InputError: as ``read_arrays``; no ``mu`` and ``sigma``, shapes that do not match, values that are not finite,
            or a covariance that is not symmetric or has negative variances.
    """
    path = Path(path)
    names = array_names(path)
    if not holds_statistics(names):
        raise InputError(f"{path}: holds {', '.join(names) or 'nothing'}. Expected the arrays mu and sigma.")
    arrays = read_arrays(path, ("mu", "sigma"))
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


def read_skipped(path: str | Path) -> tuple[tuple[str, str], ...]:
    """(Key, reason) of every image that is not in the statistics, where the file says so.

    Returns:
        Pairs; none where the file does not say.

    Raises:
        InputError: as ``read_arrays``.
    """
    rows = read_arrays(Path(path), ("skipped",)).get("skipped", np.empty((0, 2), "U"))
    if rows.ndim != 2 or rows.shape[1] != 2 or rows.dtype.kind != "U":
        raise InputError(f"{path}: skipped is {rows.dtype} {list(rows.shape)}. Expected texts [K,2]: key and reason.")
    return tuple((str(key), str(reason)) for key, reason in rows)


def write_statistics(
    path: str | Path, mu: Array, sigma: Array, *, images: int | None = None, skipped: Sequence[tuple[str, str]] = ()
) -> None:
    """Write mean ``[D]`` and covariance ``[D,D]`` (n − 1 in the denominator) as pytorch-fid and others read them.

    Args:
        path: the file, ``.npz``; equal statistics give equal bytes.
        mu: the mean.
        sigma: the covariance.
        images: of how many rows they are.
        skipped: (key, reason) of every image that could not be had.

    Raises:
        OSError: the file cannot be written.
    """
    facts = {} if images is None else {"images": np.array(images), "skipped": _texts(skipped)}
    write_arrays(Path(path), {"mu": mu, "sigma": sigma, **facts})


def holds_statistics(names: Collection[str]) -> bool:
    """Whether these are the arrays of a statistics file."""
    return {"mu", "sigma"} <= set(names)


def _texts(rows: Sequence[tuple[str, str]]) -> npt.NDArray[np.str_]:
    shown = [[text.encode("utf-8", "backslashreplace").decode() for text in row] for row in rows]
    return np.array(shown, dtype=np.str_).reshape(-1, 2)
