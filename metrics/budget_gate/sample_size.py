"""How many more images would decide what an error bar leaves open."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtri

from .estimate import Estimate

POWER = 0.8  # the numbers decide in four of five cases, if the value stays as it is
CHEAP = (
    20.0  # images of the set are made, not taken: ask for real photos only when this many times as many would not do
)
MOST = 1e7


@dataclass(frozen=True)
class More:
    """So many more images of the set and more independent real photos."""

    images: int
    reals: int


def more_images(estimate: Estimate, distance: float, quantile: float) -> More | None:
    """What it takes for a bound at ``quantile`` standard errors to clear a limit that is ``distance`` away.

    The standard error must shrink to distance / (quantile + z), z the normal quantile of POWER. Its parts shrink as
    one over the images of the set and one over the real photos; what is left (a baseline's own images) stays. More
    images of the set alone where that suffices, else more real photos alone, else both alike. None where nothing
    below MOST would do.

    Args:
        estimate: the number and its error.
        distance: from the number to the limit.
        quantile: standard errors from the number to its bound.

    Returns:
        How many more of either, or None.
    """
    if estimate.se is None or not estimate.se > 0 or not math.isfinite(distance):
        return None
    target = (abs(distance) / (quantile + float(ndtri(POWER)))) ** 2
    total = estimate.se**2
    own, reference = estimate.set_variance, estimate.reference_variance
    if own is None or reference is None:
        return _grown(estimate, total, 0.0, target)
    fixed = max(0.0, total - own - reference)
    alone = _growth(own, target - reference - fixed)
    if alone <= CHEAP:
        return _more(estimate, alone, 1.0)
    photos = _growth(reference, target - own - fixed)
    if photos <= CHEAP:
        return _more(estimate, 1.0, photos)
    return _grown(estimate, own + reference, fixed, target)


def _grown(estimate: Estimate, variance: float, fixed: float, target: float) -> More | None:
    growth = _growth(variance, target - fixed)
    return _more(estimate, growth, growth)


def _growth(variance: float, allowed: float) -> float:
    """The factor on a sample that brings its part of the variance down to ``allowed``."""
    return max(1.0, variance / allowed) if allowed > 0 else math.inf


def _more(estimate: Estimate, images: float, reals: float) -> More | None:
    counts = (images - 1) * estimate.images, (reals - 1) * estimate.reals
    if not max(counts) < MOST:
        return None
    return More(*(math.ceil(count - 1e-9) for count in counts))
