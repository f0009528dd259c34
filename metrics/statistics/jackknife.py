"""Jackknife standard errors and Student intervals from leave-one-out values.

A statistic of several independent samples (the images of A, the images of B, ...) is recomputed with each image, or
each group of images, of each sample left out. The spread of those values gives the standard error. Any smooth
function of statistics works the same way: apply it to their leave-one-out values. For the gap closed
``1 - (A - F) / (R - F)``, where A, R and F are distances to one shared reference::

    closed = lambda a, r, f: 1 - (a - f) / (r - f)
    error = jackknife(
        closed(A.loo_x, R.value, F.value),  # leave out an image of the set under test
        closed(A.value, R.loo_x, F.value),  # ... of the raw set
        closed(A.value, R.value, F.loo_x),  # ... of the floor set
        closed(A.loo_y, R.loo_y, F.loo_y),  # ... of the reference, which moves all three together
    )
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit


@dataclass(frozen=True)
class Jackknife:
    """A standard error with its degrees of freedom; both None where undefined, and then ``reason`` says why."""

    se: float | None
    dof: float | None
    reason: str | None = None


def jackknife(*leave_one_out: npt.ArrayLike) -> Jackknife:
    """Standard error of a statistic of independent samples, one leave-one-out array (``[groups]``) per sample.

    The variance is the sum over samples of ``(g - 1)/g * sum((loo - mean(loo))**2)``, g the number of groups (Arvesen,
    "Jackknifing U-statistics", 1969, for several samples). Groups are the independent units; their sizes may differ.
    The degrees of freedom are Welch and Satterthwaite's for a sum of variances that have g - 1 each: never fewer
    than the smallest sample's, and close to those of the sample that contributes most.

    Undefined, never silently zero, when a sample has fewer than two groups or a leave-one-out value is not finite.

    Returns:
        Standard error and degrees of freedom, or why there are none.
    """
    variances: list[float] = []
    for index, values in enumerate(leave_one_out, 1):
        loo = np.asarray(values, dtype=np.float64).ravel()
        if loo.size < 2:
            return Jackknife(None, None, f"sample {index} has {loo.size} independent group; a standard error needs two")
        if not np.isfinite(loo).all():
            return Jackknife(None, None, f"sample {index} is too small to leave a group out")
        variances.append(float((loo.size - 1) * loo.var()))
    variance = math.fsum(variances)
    spread = math.fsum(v * v / (np.size(loo) - 1) for v, loo in zip(variances, leave_one_out, strict=True))
    dof = variance * variance / spread if spread > 0 else float(min(np.size(loo) for loo in leave_one_out) - 1)
    return Jackknife(math.sqrt(variance), dof)


def interval(value: float, error: Jackknife, level: float = 0.95) -> tuple[float, float] | None:
    """Two-sided Student confidence interval ``value ± t * se``, or None where the error is undefined."""
    if error.se is None or error.dof is None:
        return None
    half = float(stdtrit(error.dof, 0.5 + level / 2)) * error.se
    return value - half, value + half
