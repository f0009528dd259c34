"""A few of many, spread evenly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def spread(size: int, most: int) -> npt.NDArray[np.int64]:
    """At most ``most`` of the indices 0 to ``size`` - 1, rising, the first and the last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(np.int64))
