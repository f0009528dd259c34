"""Every metric's facts, once: what it is called, how it is written, and what kind of number it is. Imports no torch.

A package adds a metric through the entry point ``reverse_stylize.metrics``, whose name is the metric's and whose object
is a :class:`Metric` with a ``function``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from ..registry import find, known

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Metric:
    """What is known of a metric without measuring anything.

    Attributes:
        name: as on the command line and in budgets: ``kid``.
        label: as people read it: ``KID``.
        distance: 0, or a bias above it, where there is no gap; so there is a *gap closed*. Else it is a score.
        unbiased: its mean over samples of one distribution is 0.
        squared: a squared distance, whose law is skewed.
        higher: closer to real when higher.
        share: lies between 0 and about 1, so that three digits say enough.
        factor: what papers multiply it by.
        function: of a metric from another package: features ``float32 [N,D]`` of a set and ``[M,D]`` of the reference,
            and a seed, to a number. Built-in metrics, which have error bars, are in ``metrics.statistics.measure``.
    """

    name: str
    label: str
    distance: bool = False
    unbiased: bool = False
    squared: bool = False
    higher: bool = False
    share: bool = False
    factor: float = 1.0
    function: Callable[[torch.Tensor, torch.Tensor, int], float] | None = None


METRICS = {
    metric.name: metric
    for metric in (
        Metric("kid", "KID", distance=True, unbiased=True, squared=True, factor=1000.0),
        Metric("kid-subsets", "KID of random subsets", distance=True, unbiased=True, squared=True, factor=1000.0),
        Metric("fid", "FID", distance=True),
        Metric("fid-infinity", "FID extrapolated", distance=True),
        Metric("rbf", "RBF MMD", distance=True, unbiased=True, squared=True, factor=1000.0),
        Metric("energy", "energy distance", distance=True, unbiased=True, squared=True),
        Metric("cmmd", "CMMD", distance=True, unbiased=True, squared=True),
        Metric("sliced-wasserstein", "sliced Wasserstein", distance=True),
        Metric("precision", "precision", higher=True, share=True),
        Metric("recall", "recall", higher=True, share=True),
        Metric("density", "density", higher=True, share=True),
        Metric("coverage", "coverage", higher=True, share=True),
        Metric("c2st", "C2ST AUC", share=True),
    )
}
DEFAULT_METRICS = ("kid", "fid")  # measured unless others are asked for


def known_metrics() -> tuple[str, ...]:
    """The names of all metrics, those of installed packages included."""
    return known("metrics", METRICS)


def metric(name: str) -> Metric:
    """The facts of a metric; ``kid@efficientnet-lite0`` is ``kid``.

    Returns:
        The facts.

    Raises:
        InputError: unknown name (near names are suggested), or a package's metric that breaks the contract.
    """
    kind = name.partition("@")[0]
    found = find("metric", "metrics", METRICS, kind)
    if not isinstance(found, Metric) or found.name != kind or (found.function is None and kind not in METRICS):
        raise InputError(
            f"metric {kind!r} of another package: got {found!r:.80}. Expected a metrics.statistics.table.Metric of "
            "that name with a function; metrics.validate.metric says what is missing."
        )
    return found
