"""What a statistic says of a set: a value with its error and what the reader must know, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """One statistic of one set against the reference.

    ``name`` carries its provenance (``kid@efficientnet-lite0``). ``se`` is a jackknife standard error and
    ``low``/``high`` a 95 % confidence interval; all three are None for statistics that have none.
    ``n`` and ``m`` count the images of the set and of the reference. ``p`` is the permutation p-value of the
    hypothesis that both come from one distribution, where it was tested. ``warnings`` are sentences for the reader.
    """

    name: str
    value: float
    se: float | None
    low: float | None
    high: float | None
    n: int
    m: int
    warnings: tuple[str, ...] = ()
    p: float | None = None


@dataclass(frozen=True)
class LowLevel:
    """A property of single images that a person can act on: means of both sets, and the distance of its distributions.

    ``distance`` is Wasserstein-1 between the images' values and, like the means, in ``unit``. ``effect`` is the
    difference of the means in units of the spread among images (1.4826 times the median absolute deviation, root mean
    square of both sets), or of the smallest visible difference where the spread is less. ``se`` is the standard error
    of the difference (None where a side has fewer than two groups). ``sentence`` is None unless the difference is
    visible and beyond its error.
    """

    name: str
    unit: str
    mean: float
    real_mean: float
    distance: float
    effect: float
    se: float | None
    sentence: str | None = None
