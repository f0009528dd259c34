"""Fréchet distance between sources of any kind, published statistics (``.npz`` of pytorch-fid) included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..extractors.extractor import Extractor
from ..features.array_file import array_names
from ..features.cache import FeatureCache
from ..features.extraction import FeatureSet, check_comparable
from ..features.feature_source import is_feature_file, open_features, read_feature_file
from ..features.statistics_file import holds_statistics, read_skipped, read_statistics
from .frechet import frechet, frechet_from_statistics

Statistics = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def frechet_of_sources(
    a: Any,
    b: Any,
    extractor: Extractor | None,
    *,
    batch_size: int = 32,
    cache: FeatureCache | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> float:
    """Fréchet distance of two sources: images, features, or a file of ``mu`` and ``sigma``.

    A statistics file does not say which network it is from: that ``extractor`` is the same one is for the caller to
    know, and only the number of features is checked. It may be None where both are files. Between two sets of features
    the distance is exact at any size. ``tell`` gets a line about every image that took no part, and about what was
    passed over.

    Args:
        a: one source.
        b: the other.
        extractor: of images, where a source holds such.
        batch_size: images per forward pass.
        cache: keeps features for the next run.
        tell: called with lines for people.

    Returns:
        The distance.

    Raises:
        InputError: as the readers; other numbers of features, or features of another extractor.
    """
    sides = [_read(source, extractor, batch_size, cache, tell) for source in (a, b)]
    if all(isinstance(side, FeatureSet) for side in sides):
        x, y = sides
        assert isinstance(x, FeatureSet) and isinstance(y, FeatureSet)
        check_comparable(x, y)
        return frechet(x.features, y.features).value
    (mu1, sigma1), (mu2, sigma2) = (mean_and_covariance(side) for side in sides)
    if len(mu1) != len(mu2):
        raise InputError(
            f"{a} has {len(mu1)} features per image and {b} has {len(mu2)}. Expected the network behind the "
            "statistics: --extractor inception for pytorch-fid's."
        )
    return frechet_from_statistics(mu1, sigma1, mu2, sigma2)


def mean_and_covariance(side: FeatureSet | Statistics) -> Statistics:
    """Mean ``float64 [D]`` and covariance ``float64 [D,D]``, N − 1 in the denominator; InputError below two images."""
    if not isinstance(side, FeatureSet):
        return side
    if len(side) < 2:
        raise InputError(f"{side.root}: {len(side)} readable image(s). A covariance needs at least 2.")
    values = side.features.double().numpy()
    return values.mean(0), np.cov(values, rowvar=False)


def _read(
    source: Any,
    extractor: Extractor | None,
    batch_size: int,
    cache: FeatureCache | None,
    tell: Callable[[str], None],
) -> FeatureSet | Statistics:
    archive = isinstance(source, str | Path) and Path(source).suffix.lower() == ".npz"
    if archive and holds_statistics(array_names(Path(source))):
        side: FeatureSet | Statistics = read_statistics(source)
        skipped, notes = read_skipped(source), tuple[str, ...]()
    else:
        if is_feature_file(source):
            features = read_feature_file(Path(source))
        else:
            assert extractor is not None
            features = open_features(source, extractor, batch_size=batch_size, cache=cache)
        side, skipped, notes = features, features.skipped, features.notes
    for line in (*notes, *(f"skipped {key}: {reason}" for key, reason in skipped)):
        tell(line)
    return side
