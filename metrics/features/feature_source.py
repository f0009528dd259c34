"""Features from anything: a file that holds them, or images to extract them from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..extractors.extractor import Extractor
from ..files import path_text
from ..image_sets.arrays import row_keys
from ..progress import Callback, silent
from .array_file import array_names, read_arrays
from .cache import FeatureCache
from .extraction import FeatureSet, extract
from .statistics_file import holds_statistics

SUFFIXES = (".safetensors", ".npy", ".npz")
UNSTATED = "unstated"


def is_feature_file(source: Any) -> bool:
    """Whether ``source`` names a file of features rather than images."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() in SUFFIXES


def open_features(
    source: Any,
    extractor: Extractor,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    cache: FeatureCache | None = None,
    progress: Callback = silent,
) -> FeatureSet:
    """The features of ``source``: of images by ``extractor``, or as a file or a FeatureSet has them.

    ``source`` is anything that :func:`metrics.image_sets.open.open_images` reads, a FeatureSet, or a file: what
    FeatureSet.save wrote (``.safetensors``), or an array ``[N,D]`` of ``numpy.save`` or ``numpy.savez`` (``features``,
    with optional ``keys``, ``labels`` and ``groups``; or a lone array of any name). A plain array does not say how it
    was made: it can be compared with another plain array of the same width only. Whether features can be compared is
    for :func:`metrics.features.extraction.check_comparable` to say.

    Args:
        source: one of these.
        extractor: of images.
        batch_size: images per forward pass.
        workers: threads that read images; None: one for every processor, at most 8.
        cache: keeps features for the next run.
        progress: called with every step.

    Returns:
        Features ``float32 [N,D]`` with keys, labels and groups.

    Raises:
        InputError: as the readers; features that are not finite, or not ``[N,D]``; statistics instead of features.
    """
    if isinstance(source, FeatureSet):
        return source
    if is_feature_file(source):
        return read_feature_file(Path(source))
    return extract(source, extractor, batch_size=batch_size, workers=workers, cache=cache, progress=progress)


def read_feature_file(path: Path) -> FeatureSet:
    """The features in a file, by its suffix; raises InputError as :func:`open_features`."""
    return FeatureSet.load(path) if path.suffix.lower() == ".safetensors" else read_features(path)


def read_features(path: Path) -> FeatureSet:
    """The feature set in a ``.npy`` or ``.npz`` file; see :func:`open_features`."""
    names = array_names(path)
    if holds_statistics(names):
        raise InputError(
            f"{path}: holds mu and sigma, the statistics of features, not features. Only the Fréchet distance can be "
            "computed from them: metrics.features.statistics_file.read_statistics."
        )
    name = "features" if "features" in names else next(iter(names), "")
    if name != "features" and len(names) != 1:
        raise InputError(f"{path}: holds {', '.join(names) or 'nothing'}. Expected an array named 'features'.")
    arrays = read_arrays(path, (name, "keys", "labels", "groups"))
    features = _checked(path, arrays[name])
    count, width = features.shape
    keys = _column(path, arrays, "keys", count) or tuple(row_keys(count))
    return FeatureSet(
        features,
        keys,
        _column(path, arrays, "labels", count) or (None,) * count,
        _column(path, arrays, "groups", count) or keys,
        UNSTATED,
        f"{UNSTATED}-{width}",
        {"features": f"{width} columns of a plain array"},
        path_text(path),
    )


def _checked(path: Path, array: np.ndarray) -> torch.Tensor:
    if array.ndim != 2 or array.dtype.kind != "f" or not all(array.shape):
        raise InputError(f"{path}: {array.dtype} {list(array.shape)}. Expected features: floats [N,D].")
    with np.errstate(over="ignore"):  # becomes infinite, and is refused
        features = torch.from_numpy(np.array(array, dtype=np.float32))
    bad = (~torch.isfinite(features).all(1)).nonzero().flatten().tolist()
    if bad:
        rows = ", ".join(map(str, bad[:5]))
        raise InputError(f"{path}: {len(bad)} rows hold NaN or infinite values (rows {rows}). Remove them.")
    return features


def _column(path: Path, arrays: dict[str, np.ndarray], name: str, count: int) -> tuple[Any, ...] | None:
    if name not in arrays:
        return None
    values = arrays[name]
    if values.shape != (count,) or values.dtype.kind not in "Ui":
        raise InputError(
            f"{path}: {name} is {values.dtype} {list(values.shape)}. Expected {count} texts or whole numbers."
        )
    return tuple(values.tolist() if name == "labels" else map(str, values.tolist()))
