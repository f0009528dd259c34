"""What of the raw images survives in their results: structure on pairs of images, labels on pairs of features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..features.extraction import FeatureSet
from ..image_sets.decode import ImageError
from ..image_sets.items import ImageSet
from ..progress import Callback, counted
from ..spread import spread
from ..statistics.jackknife import Jackknife, interval
from .gap_report import Kept
from .label_probe import label_probe
from .structure import edge_f_score, gradient_correlation

PAIRS = 200  # pairs of images measured, spread evenly over the set
MEASURES = ("gradient-correlation", "edge-f-score")


def structure_kept(before: ImageSet, after: ImageSet, keys: Sequence[str], progress: Callback) -> tuple[Kept, ...]:
    """Mean and standard error over PAIRS of ``keys`` of every structure measure; unreadable pairs are left out."""
    contents, results = ({item.key: item for item in images} for images in (before, after))
    chosen = spread(len(keys), PAIRS)
    values: list[tuple[float, float]] = []
    unlike = 0
    for index in counted(chosen, "structure", progress):
        key = keys[index]
        try:
            content, result = contents[key].read(), results[key].read()
        except ImageError:  # read for its features, and gone since
            continue
        if content.shape == result.shape:
            values.append((gradient_correlation(content, result), edge_f_score(content, result)))
        else:
            unlike += 1
    warnings = (f"{unlike} pairs of images of different size were left out.",) if unlike else ()
    columns = np.array(values).reshape(-1, len(MEASURES)).T
    return tuple(_mean(name, column, warnings) for name, column in zip(MEASURES, columns, strict=True))


def labels_kept(before: FeatureSet, after: FeatureSet, seed: int) -> tuple[Kept, ...]:
    """The label probe; nothing where the raw images have no two labels."""
    if len({label for label in before.labels if label is not None}) < 2:
        return ()
    name = f"label-probe@{before.extractor}"
    try:
        probe = label_probe(after, before, seed=seed)
    except InputError as error:
        return (Kept(name, math.nan, None, None, None, 0, {}, (str(error),)),)
    facts = {
        "accuracy before": probe.before,
        "accuracy after": probe.after,
        "chance": probe.chance,
        "classes": float(probe.classes),
    }
    return (
        _kept(name, probe.value, probe.se, probe.n, facts, _probe_warnings(probe.left_out, probe.before, probe.chance)),
    )


def _probe_warnings(left_out: int, accuracy: float, chance: float) -> tuple[str, ...]:
    found = []
    if left_out:
        found.append(f"{left_out} images without a label, or of a class with too few images, were left out.")
    if accuracy < 1.5 * chance and accuracy < (1 + chance) / 2:
        found.append(f"A linear probe reads little from the raw images ({accuracy:.0%}, chance {chance:.0%}).")
    return tuple(found)


def _mean(name: str, values: np.ndarray, warnings: tuple[str, ...]) -> Kept:
    if len(values) < 2:
        return Kept(name, math.nan, None, None, None, len(values), {}, (*warnings, "Fewer than two pairs to measure."))
    return _kept(
        name, float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))), len(values), {}, warnings
    )


def _kept(name: str, value: float, se: float, n: int, facts: dict[str, float], warnings: tuple[str, ...]) -> Kept:
    low, high = interval(value, Jackknife(se, n - 1)) or (None, None)
    return Kept(name, value, se, low, high, n, facts, warnings)
