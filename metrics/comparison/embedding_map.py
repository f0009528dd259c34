"""A map of both sets: every image as a point in the plane, alike images close together. For looking, not for numbers.

``pca`` shows the two directions in which the pooled features spread most: linear, exact, and the same every time. What
lies in other directions does not show; ``explained`` says how much does. ``umap`` (McInnes et al., 2018) shows
neighbourhoods; distances between clusters and their sizes mean nothing in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigh

from ..errors import InputError
from ..registry import unknown
from ..seed import seed_for
from .pair import Features, check_pair

METHODS = ("pca", "umap")
NEIGHBOURS = 15  # of UMAP


@dataclass(frozen=True, eq=False)
class EmbeddingMap:
    """Coordinates ``x [N,2]`` of the synthetic and ``y [M,2]`` of the real images, float64, in the features' order.

    ``explained`` is the share of the pooled variance along either axis (PCA; None for UMAP).
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    method: str
    explained: tuple[float, float] | None


def embedding_map(x: Features, y: Features, method: str = "pca", *, seed: int = 0) -> EmbeddingMap:
    """Map features ``x [N,D]`` and ``y [M,D]`` to the plane.

    The sign of a principal axis is arbitrary; here its largest entry is positive (the first of equals). A second axis
    that does not exist, for D = 1 or features on a line, is 0.

    Args:
        x: features of the synthetic images.
        y: features of the real images.
        method: ``pca``, or ``umap`` where the package ``umap-learn`` is installed.
        seed: of UMAP; PCA has none.

    Raises:
        InputError: as ``metrics.comparison.pair.check_pair``; an unknown method, or UMAP without its package.
    """
    if method not in METHODS:
        raise unknown("map", method, METHODS)
    x, y = check_pair(x, y)
    pooled = torch.cat([x, y]).double()
    points, explained = _pca(pooled) if method == "pca" else (_umap(pooled, seed), None)
    return EmbeddingMap(points[: len(x)], points[len(x) :], method, explained)


def _pca(pooled: torch.Tensor) -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
    """Coordinates along the first two principal axes, and their shares of the variance."""
    centred = (pooled - pooled.mean(0)).cpu().numpy()
    dual = len(centred) < centred.shape[1]  # the smaller of the two Gram matrices has the same two largest eigenvalues
    gram = centred @ centred.T if dual else centred.T @ centred
    last = len(gram) - 1
    variance, vectors = eigh(gram, subset_by_index=(max(last - 1, 0), last))
    variance, vectors, total = variance[::-1], vectors[:, ::-1], float(np.trace(gram))
    real = variance > 1e-12 * total  # directions of rounding alone are none
    axes = (centred.T @ vectors if dual else vectors)[:, real]
    axes /= np.linalg.norm(axes, axis=0)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0)
    points = np.zeros((len(centred), 2))
    points[:, : axes.shape[1]] = centred @ (axes * np.sign(largest))
    shares = [float(part) / total for part in variance[real]] + [0.0, 0.0]
    return points, (shares[0], shares[1])


def _umap(pooled: torch.Tensor, seed: int) -> npt.NDArray[np.float64]:
    if find_spec("umap") is None:
        raise InputError("a UMAP needs the package umap-learn: pip install umap-learn. Or use the map 'pca'.")
    options = {"n_neighbors": min(NEIGHBOURS, len(pooled) - 1), "random_state": seed_for(seed, "umap", "") % 2**32}
    reducer = import_module("umap").UMAP(n_components=2, n_jobs=1, **options)
    return np.asarray(reducer.fit_transform(pooled.cpu().numpy()), dtype=np.float64)
