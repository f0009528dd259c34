"""Two feature sets that can be compared, and the groups of their rows: the checks that every statistic shares."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch

from ..errors import InputError

Features = torch.Tensor | np.ndarray
Groups = Sequence[Hashable]


def check_pair(x: Features, y: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """Both feature sets as tensors ``[N,D]`` and ``[M,D]`` of one dtype, float32 or float64.

    Args:
        x: features ``[N,D]`` of the set under test.
        y: features ``[M,D]`` of the reference.

    Returns:
        Both tensors, on the device of ``x``.

    Raises:
        InputError: not ``[N,D]`` of float32 or float64, fewer than two rows, different D or devices, NaN or infinite
            features (the rows are named).
    """
    x, y = check_features(x, "x"), check_features(y, "y")
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"x has {x.shape[1]} features per image and y has {y.shape[1]}. "
            "Expected the same extractor for both: extract one of them again."
        )
    if x.device != y.device:
        raise InputError(f"x is on {x.device} and y on {y.device}. Expected one device: y.to({str(x.device)!r}).")
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


def check_features(features: Features, name: str, *, least: int = 2) -> torch.Tensor:
    """One feature set as a tensor ``[N,D]``, float32 or float64, N at least ``least``; ``name`` is for the messages.

    Args:
        features: a tensor or array.
        name: of the argument, for errors.
        least: rows at least.

    Returns:
        The tensor, on the device of ``features``.

    Raises:
        InputError: as ``check_pair``.
    """
    if isinstance(features, np.ndarray):  # torch shares memory only with writable arrays of positive strides
        features = np.require(features, requirements=["C", "W"])
    tensor = torch.as_tensor(features)
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        raise InputError(f"{name} has shape {list(tensor.shape)}. Expected [N,D]: one row of features per image.")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{name} is {tensor.dtype}. Expected float32 or float64.")
    if len(tensor) < least:
        raise InputError(f"{name} has {len(tensor)} row(s). Expected at least {least} images.")
    suspects = torch.nonzero(~torch.isfinite(tensor.sum(1))).flatten().tolist()  # a sum costs a tenth of isfinite
    bad = [row for row in suspects if not torch.isfinite(tensor[row]).all()]
    if bad:
        rows = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
        raise InputError(f"{name} has NaN or infinite features in {len(bad)} row(s): {rows}. Remove or recompute them.")
    return tensor.detach()


def group_index(groups: Groups | None, rows: int, name: str) -> np.ndarray:
    """Each row's group as a number, in order of first appearance: int64 ``[rows]``; None gives every row its own.

    Args:
        groups: the group of each row, or None.
        rows: how many rows there are.
        name: of the argument, for errors.

    Returns:
        Numbers from 0 on.

    Raises:
        InputError: as many groups as rows were expected, or all rows are of one group.
    """
    if groups is None:
        return np.arange(rows)
    if len(groups) != rows:
        raise InputError(f"groups_{name} has {len(groups)} entries for {rows} rows. Expected one group per row.")
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
    if len(numbers) < 2:
        raise InputError(
            f"groups_{name}: all rows are of one group. Expected at least 2 independent groups (photos) on each side."
        )
    return index
