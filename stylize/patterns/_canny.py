"""Canny edges (J. Canny, "A Computational Approach to Edge Detection", PAMI 1986): blur, gradient, ridge, hysteresis.

SciPy has the filters but not the detector. The conventions are those of scikit-image, whose result the tests compare:
the Gaussian blur is normalised by the part of its support that lies inside, the gradient is Sobel's, a ridge pixel is
at least as steep as the two points one pixel up and down its gradient (linear interpolation), the outermost pixels
are no edges, and thresholds are quantiles of the gradient over the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from ._compiled import compiled


def canny(grey: np.ndarray, sigma: float, low: float, high: float) -> np.ndarray:
    """Edges of a grey image.

    Args:
        grey: float64 [H,W], any unit.
        sigma: of the blur, in pixels.
        low: quantile of the gradient's modulus that a ridge must reach, in [0,1].
        high: quantile that a connected edge must reach somewhere, at least ``low``.

    Returns:
        bool [H,W]; no edge at all where the image is constant.
    """
    inside = ndimage.gaussian_filter(np.ones_like(grey), sigma, mode="constant")
    smooth = ndimage.gaussian_filter(grey, sigma, mode="constant") / inside
    down, across = ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1)
    steep = np.hypot(down, across)
    least, strong = np.quantile(steep, [low, high])
    ridge = np.zeros(grey.shape, np.bool_)
    _ridges(down, across, steep, max(least, 1e-9 * (np.abs(grey).max() + 1e-300)), ridge)
    parts, count = ndimage.label(ridge, np.ones((3, 3)))
    kept = np.zeros(count + 1, np.bool_)
    kept[parts[ridge & (steep >= strong)]] = True
    edges: np.ndarray = kept[parts]
    return edges


@compiled
def _ridges(down: Any, across: Any, steep: Any, least: float, ridge: Any) -> None:
    """Mark in ``ridge`` the inner pixels, at least ``least`` steep, that are maximal along their gradient."""
    height, width = steep.shape
    for i in range(1, height - 1):
        for j in range(1, width - 1):
            here = steep[i, j]
            if here < least:
                continue
            y, x = down[i, j], across[i, j]
            di, dj = 1 if y >= 0 else -1, 1 if x >= 0 else -1
            if abs(y) > abs(x):
                w, si, sj = abs(x) / abs(y), di, 0
            else:
                w, si, sj = abs(y) / abs(x), 0, dj
            ahead = steep[i + di, j + dj] * w + steep[i + si, j + sj] * (1 - w)
            behind = steep[i - di, j - dj] * w + steep[i - si, j - sj] * (1 - w)
            ridge[i, j] = here >= ahead and here >= behind
