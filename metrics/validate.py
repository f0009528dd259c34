"""Does an extractor or a metric keep its contract? Every sentence that comes back names one that it breaks.

For the tests of a package that adds one: ``assert metrics.validate.extractor(load_extractor("mine")) == []``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .features.extraction import FeatureSet
from .statistics.measure import measure
from .statistics.table import METRICS, Metric

NEAR = 1e-4  # of a feature vector's length: what float32 kernels of several batch sizes differ by


def extractor(candidate: Any) -> list[str]:
    """What an extractor breaks of ``__call__(uint8 [N,3,H,W]) -> float32 [N,D]`` and of what an Extractor carries.

    Args:
        candidate: as :func:`metrics.extractors.load_extractor` returns it.

    Returns:
        Sentences, none where it keeps its contract.
    """
    broken = [
        f"{name} is {getattr(candidate, name, None)!r:.60}: expected {what}"
        for name, kind, what in (
            ("name", str, "its name as text"),
            ("fingerprint", str, "a digest of weights and preprocessing as text"),
            ("preprocessing", Mapping, "resize, crop and normalisation in words, by name"),
        )
        if not isinstance(getattr(candidate, name, None), kind) or not getattr(candidate, name)
    ]
    images = _images(3, 40, 56)
    before = images.clone()
    try:
        with untouched_randomness(broken):
            features = candidate(images)
    except Exception as error:
        return [*broken, f"a batch uint8 [3,3,40,56] raises {type(error).__name__}: {error}"]
    if not isinstance(features, torch.Tensor) or features.dtype != torch.float32 or features.ndim != 2:
        return [*broken, f"features are {describe(features)}: expected a tensor float32 [3,D]"]
    if len(features) != 3:
        return [*broken, f"features are {describe(features)}: expected one row per image, 3"]
    return [*broken, *_of_features(candidate, images, before, features)]


def metric(candidate: Any) -> list[str]:
    """What a metric breaks of a pure function of two feature sets, and of what its facts say of it.

    Args:
        candidate: a built-in one of :data:`metrics.statistics.table.METRICS`, or one with a ``function``.

    Returns:
        Sentences, none where it keeps its contract.
    """
    if not isinstance(candidate, Metric):
        return [f"got a {type(candidate).__name__}: expected a metrics.statistics.table.Metric"]
    if candidate.function is None and candidate.name not in METRICS:
        return [f"{candidate.name} has no function: expected one of features [N,D], features [M,D] and a seed"]
    value = _function(candidate)
    near, real, far = _features(0, 0.0), _features(1, 0.0), _features(2, 3.0)
    before, broken = real.clone(), list[str]()
    try:
        with untouched_randomness(broken):
            close, distant = value(near, real, 0), value(far, real, 0)
    except Exception as error:
        return [f"features float32 [60,8] and [60,8] raise {type(error).__name__}: {error}"]
    if not all(isinstance(one, float) and np.isfinite(one) for one in (close, distant)):
        return [*broken, f"gives {close!r} and {distant!r}: expected finite floats"]
    if not torch.equal(before, real):
        broken.append("changes its features: expected a pure function")
    if value(near, real, 0) != close:
        broken.append("gives another number for the same features and seed")
    draws = value(near, real, 1) != close  # subsets or folds, so that the order of the rows matters
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    if not draws and abs(value(near[order], real, 0) - close) > 1e-6 * max(1.0, abs(close)):
        broken.append("depends on the order of the rows")
    if (distant < close) != candidate.higher:
        closer = "higher" if candidate.higher else "lower"
        broken.append(f"is {close:.4g} near the reference and {distant:.4g} far from it: expected {closer} when near")
    return broken


@contextmanager
def untouched_randomness(broken: list[str]) -> Iterator[None]:
    """Add a sentence to ``broken`` where the work draws from a global random state."""
    states: list[Callable[[], Any]] = [
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda: repr(np.random.get_state()),  # noqa: NPY002
        random.getstate,
    ]
    before = [state() for state in states]
    yield
    if [state() for state in states] != before:
        broken.append("draws from a global random state: expected draws from a seed alone")


def describe(value: Any) -> str:
    """``float32 [3,8]`` of a tensor or array, else the type."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')} [{','.join(map(str, value.shape))}]"
    return f"a {type(value).__name__}"


def _of_features(candidate: Any, images: torch.Tensor, before: torch.Tensor, features: torch.Tensor) -> list[str]:
    broken = []
    if not torch.isfinite(features).all():
        return ["features are NaN or infinite"]
    if features.requires_grad:
        broken.append("features require gradients: expected inference")
    if not torch.equal(images, before):
        broken.append("changes its images")
    if not torch.equal(candidate(images), features):
        broken.append("gives other features for the same images")
    single = torch.cat([candidate(images[[index]]) for index in range(3)])
    if (single - features).norm() > NEAR * features.norm():
        broken.append("features depend on the other images of the batch")
    if torch.equal(features[0], features[1]):
        broken.append("gives the same features for different images")
    for odd in (_images(1, 17, 33), _images(1, 300, 90)):
        try:
            if candidate(odd).shape != (1, features.shape[1]):
                broken.append(f"{describe(odd)} gives {describe(candidate(odd))}: expected [1,{features.shape[1]}]")
        except Exception as error:
            broken.append(f"an image {describe(odd)} raises {type(error).__name__}: {error}")
    for wrong in (images.float() / 255, images[0]):
        try:
            candidate(wrong)
            broken.append(f"takes {describe(wrong)}: expected an InputError, images are uint8 [N,3,H,W]")
        except Exception as error:
            if not isinstance(error, ValueError):
                broken.append(f"{describe(wrong)} raises {type(error).__name__}: expected an InputError")
    return broken


def _function(candidate: Metric) -> Callable[[torch.Tensor, torch.Tensor, int], float]:
    if candidate.function is not None:
        return candidate.function
    return lambda x, real, seed: measure(candidate.name, _set(x), _set(real), seed=seed).measurement.value


def _set(features: torch.Tensor) -> FeatureSet:
    keys = tuple(map(str, range(len(features))))
    return FeatureSet(features, keys, (None,) * len(keys), keys, "made", "made", {}, "made")


def _features(seed: int, shift: float) -> torch.Tensor:
    drawn = np.random.default_rng(seed).normal(shift, 1.0, (60, 8))
    return torch.from_numpy(drawn.astype(np.float32))


def _images(count: int, height: int, width: int) -> torch.Tensor:
    drawn = np.random.default_rng(height).integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    return torch.from_numpy(drawn)
