"""A map of both sets: every image as a point in the plane, alike images close together. For looking, not for numbers.

Principal components show the two directions in which the pooled features spread most: linear, exact, and the same every
time. What lies in other directions does not show; ``explained`` says how much does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigh

from ..statistics.pair import Features, check_pair


@dataclass(frozen=True, eq=False)
class EmbeddingMap:
    """Coordinates ``x [N,2]`` of the synthetic and ``y [M,2]`` of the real images, float64, in the features' order.

    ``explained`` is the share of the pooled variance along either axis.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    explained: tuple[float, float]


def embedding_map(x: Features, y: Features) -> EmbeddingMap:
    """Map features ``x [N,D]`` and ``y [M,D]`` to the plane.

    The sign of a principal axis is arbitrary; here its largest entry is positive (the first of equals). A second axis
    that does not exist, for D = 1 or features on a line, is 0.

    Args:
        x: features of the synthetic images.
        y: features of the real images.

    Returns:
        Coordinates of both sets, and the share of variance that they show.

    Raises:
        InputError: as ``metrics.statistics.pair.check_pair``.
    """
    x, y = check_pair(x, y)
    pooled = torch.cat([x, y]).double()
    points, explained = _principal_components(pooled)
    return EmbeddingMap(points[: len(x)], points[len(x) :], explained)


def _principal_components(pooled: torch.Tensor) -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
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
