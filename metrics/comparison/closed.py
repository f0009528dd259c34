"""How much of the gap was closed, and how far a set moved: differences of distances to one shared reference."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ..statistics.jackknife import Jackknife, interval, jackknife
from ..statistics.measure import Measured
from ..statistics.measurement import Measurement
from ..statistics.mmd import Mmd, paired_difference


def gap_closed(before: Measured, after: Measured, floor: Measured, *, paired: bool) -> Measurement:
    """Gap closed = 1 − (after − floor) / (before − floor), with a jackknife that knows what the distances share.

    Leaving out a real image moves all three distances together. ``paired``: before and after are two versions of the
    same images, which are then left out together. No error bar where a distance has none.

    Args:
        before: of the raw images.
        after: of the results.
        floor: of other real images.
        paired: whether the results are versions of the raw images, row by row.

    Returns:
        The share, with its error where every distance has one.
    """
    own, b, f = after.measurement, before.measurement.value, floor.measurement.value
    bare = replace(own, se=None, low=None, high=None, p=None, warnings=())
    if b <= f:
        note = "There is no gap to close: the raw set is already at the floor."
        return replace(bare, value=math.nan, warnings=(note,))
    value = _share(own.value, b, f)
    if after.mmd is None or before.mmd is None:
        note = "No error bar. Fréchet distances grow as sets shrink, so a floor from fewer images reads too high."
        return replace(bare, value=value, warnings=(note,) if own.name.startswith("fid@") else ("No error bar.",))
    error = _closed_error(before.mmd, after.mmd, floor.mmd, f, paired)
    low, high = interval(value, error) or (None, None)
    return replace(bare, value=value, se=error.se, low=low, high=high)


def change(before: Measured, after: Measured, *, paired: bool) -> Measurement:
    """After − before, with the standard error of a difference that shares its reference (and its contents)."""
    own = after.measurement
    bare = replace(own, se=None, low=None, high=None, p=None, warnings=())
    if after.mmd is None or before.mmd is None:
        return replace(bare, value=own.value - before.measurement.value, warnings=("No error bar.",))
    difference, error = paired_difference(after.mmd, before.mmd, paired_rows=paired)
    low, high = interval(difference, error) or (None, None)
    return replace(bare, value=difference, se=error.se, low=low, high=high)


def _share(after: Any, before: Any, floor: Any) -> Any:
    return 1 - (after - floor) / (before - floor)


def _closed_error(before: Mmd, after: Mmd, floor: Mmd | None, floor_value: float, paired: bool) -> Jackknife:
    reference = _share(after.loo_y, before.loo_y, floor_value if floor is None else floor.loo_y)
    if paired:
        samples = [reference, _share(after.loo_x, before.loo_x, floor_value)]
    else:
        samples = [
            reference,
            _share(after.loo_x, before.value, floor_value),
            _share(after.value, before.loo_x, floor_value),
        ]
    return jackknife(*samples, *([] if floor is None else [_share(after.value, before.value, floor.loo_x)]))
