"""Precision and recall (Kynkäänniemi et al., 2019), density and coverage (Naeem et al., 2020) of two feature sets.

All four ask whether images of one set lie inside balls around images of the other; a ball reaches to its centre's
k-th nearest neighbour in the centre's own set:

- precision: share of synthetic images inside a ball of a real one (are they plausible?);
- recall: share of real images inside a ball of a synthetic one (is everything there?);
- density: mean number of real balls around a synthetic image, divided by k; 1 without a gap, and may exceed 1;
- coverage: share of real balls that hold a synthetic image; without a gap about 1 − ½ᵏ where both sets are as large.

A point on the boundary counts as inside for precision and recall (≤, as torch-fidelity has it) and as outside for
density and coverage (<, as prdc has it). It matters for copies and duplicates only. Deliberate deviation: where rows
come in groups, such as the crops of a photo, a ball reaches to the k-th nearest *other photo* (its nearest crop), since
crops of one photo lie close together and would make every ball too small; density counts such balls as one a photo.

No error bar: none of these is smooth in the images, and resampling with replacement makes duplicates of distance 0.
Read them against the same numbers for real images of the same size; all four depend on the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .neighbours import gaps, radii, tiles
from .pair import Features, Groups, check_pair, group_index

SMALL = 1000  # images a side below which the values still move visibly with the number of images


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall in [0, 1] of ``n`` synthetic images against ``m`` real ones."""

    precision: float
    recall: float
    k: int
    n: int
    m: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class DensityCoverage:
    """Density (0 and more) and coverage in [0, 1] of ``n`` synthetic images against ``m`` real ones."""

    density: float
    coverage: float
    k: int
    n: int
    m: int
    warnings: tuple[str, ...] = ()


def precision_recall(
    x: Features, y: Features, *, k: int = 3, groups_x: Groups | None = None, groups_y: Groups | None = None
) -> PrecisionRecall:
    """Precision and recall of synthetic features ``x [N,D]`` against real ones ``y [M,D]``, in float64, seedless.

    ``groups_x`` and ``groups_y`` name each row's group, the photo that a crop comes from. Memory is O(BLOCK · (N + M))
    beside the features; values do not depend on the block or on the order of rows.

    Args:
        x: synthetic features ``[N,D]``.
        y: real features ``[M,D]``.
        k: which neighbour bounds the ball around an image.
        groups_x: the group of each row of ``x``; None: every row is its own.
        groups_y: the same for ``y``.

    Returns:
        Both with the number of neighbours behind them.

    Raises:
        InputError: as ``metrics.statistics.pair.check_pair``; or ``k`` or fewer independent images (groups) in a set.
    """
    x, y, index_x, index_y = _checked(x, y, groups_x, groups_y)
    with torch.inference_mode():
        precision, recall = (
            float((_balls_around(points, centres, radii(centres, k, index, name), closed=True) > 0).double().mean())
            for points, centres, index, name in ((x, y, index_y, "y"), (y, x, index_x, "x"))
        )
    return PrecisionRecall(precision, recall, k, len(x), len(y), _warnings(index_x, index_y))


def density_coverage(
    x: Features, y: Features, *, k: int = 5, groups_x: Groups | None = None, groups_y: Groups | None = None
) -> DensityCoverage:
    """Density and coverage of synthetic features ``x [N,D]`` against real ones ``y [M,D]``; as ``precision_recall``.

    Args:
        x: synthetic features ``[N,D]``.
        y: real features ``[M,D]``.
        k: which neighbour bounds the ball around an image.
        groups_x: the group of each row of ``x``; None: every row is its own.
        groups_y: the same for ``y``.

    Returns:
        Both with the number of neighbours behind them.

    Raises:
        InputError: as ``precision_recall``.
    """
    x, y, index_x, index_y = _checked(x, y, groups_x, groups_y)
    with torch.inference_mode():
        reach = radii(y, k, index_y, "y")
        around = float(_balls_around(x, y, reach, closed=False).double().mean())
        coverage = float(_holds_a_point(y, x, reach).double().mean())
    density = around / k * (int(index_y.max()) + 1) / len(y)
    return DensityCoverage(density, coverage, k, len(x), len(y), _warnings(index_x, index_y))


def _checked(
    x: Features, y: Features, groups_x: Groups | None, groups_y: Groups | None
) -> tuple[torch.Tensor, torch.Tensor, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    x, y = check_pair(x, y)
    return x.double(), y.double(), group_index(groups_x, len(x), "x"), group_index(groups_y, len(y), "y")


def _balls_around(points: torch.Tensor, centres: torch.Tensor, reach: torch.Tensor, *, closed: bool) -> torch.Tensor:
    """How many balls of squared radius ``reach`` hold each point: int64 [points]."""
    return torch.cat(
        [
            _inside(points[rows], centres, squared, slack, reach.expand_as(squared), closed=closed).sum(1)
            for rows, squared, slack in tiles(points, centres)
        ]
    )


def _holds_a_point(centres: torch.Tensor, points: torch.Tensor, reach: torch.Tensor) -> torch.Tensor:
    """Whether each open ball holds a point: bool [centres]."""
    return torch.cat(
        [
            _inside(centres[rows], points, squared, slack, reach[rows, None].expand_as(squared), closed=False).any(1)
            for rows, squared, slack in tiles(centres, points)
        ]
    )


def _inside(
    x: torch.Tensor, y: torch.Tensor, squared: torch.Tensor, slack: torch.Tensor, reach: torch.Tensor, *, closed: bool
) -> torch.Tensor:
    """Whether each pair's distance is within reach; pairs within rounding of it are measured again by differences."""
    rows, columns = ((squared - reach).abs() <= slack).nonzero(as_tuple=True)
    squared[rows, columns] = gaps(x, y, rows, columns)
    return squared <= reach if closed else squared < reach


def _warnings(index_x: npt.NDArray[np.int64], index_y: npt.NDArray[np.int64]) -> tuple[str, ...]:
    n, m = (int(index.max()) + 1 for index in (index_x, index_y))
    if min(n, m) >= SMALL:
        return ()
    return (
        f"{n} and {m} independent images: below {SMALL} a side the value depends on the number of images. "
        "Compare it only with values from as many images, such as real against real.",
    )
