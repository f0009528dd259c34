"""Groups of rows that are not independent, such as the crops of one photo, as numbers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from .errors import InputError

Groups = Sequence[Hashable]


def group_index(groups: Groups | None, rows: int, name: str) -> npt.NDArray[np.int64]:
    """Each row's group as a number, in order of first appearance: int64 ``[rows]``; None: every row is its own.

    Raises:
        InputError: ``groups`` has another length; the message calls it ``groups_<name>``.
    """
    if groups is None:
        return np.arange(rows)
    if len(groups) != rows:
        raise InputError(f"groups_{name} has {len(groups)} entries for {rows} rows. Expected one group per row.")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
