"""Squared maximum mean discrepancy (MMD) of two feature sets: unbiased, every pair counted once, with an error bar.

Gretton, Borgwardt, Rasch, Schölkopf and Smola, "A Kernel Two-Sample Test" (2012), eq. 3, for any kernel k:

    MMD² = mean of k(x_i, x_j), i ≠ j  +  mean of k(y_i, y_j), i ≠ j  −  2 · mean of k(x_i, y_j).

:func:`rbf` has the Gaussian kernel, :func:`energy` the kernel −|x − y|, and :mod:`metrics.statistics.kid` the cubic
polynomial. All three need the row sums of the kernel matrix and nothing else; they are taken here, tile by tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import InputError, UndefinedError
from ..extractors.float_precision import ieee_float32
from .jackknife import Jackknife, jackknife
from .pair import Features, Groups, check_pair, group_index

BLOCK = 512  # side of the kernel tile in memory: changes the speed, and the result by rounding only
MEDIAN_ROWS = 2000  # the median distance of larger sets is that of this many rows, evenly spaced

Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # rows [A,D] and [B,D] -> values, float64 [A,B]


@dataclass(frozen=True, eq=False)
class Mmd:
    """Squared MMD between ``n`` and ``m`` images; it is unbiased, so it may be negative when there is no gap.

    ``error`` holds the jackknife standard error (``se`` repeats it) and its degrees of freedom. ``loo_x[g]`` and
    ``loo_y[g]`` (float64) are the value with group g of that side left out, groups in order of first appearance;
    NaN where fewer than two images would remain.
    """

    value: float
    error: Jackknife
    n: int
    m: int
    loo_x: np.ndarray
    loo_y: np.ndarray

    @property
    def se(self) -> float | None:
        """Jackknife standard error, or None where ``error.reason`` says that it is undefined."""
        return self.error.se


def rbf(
    x: Features,
    y: Features,
    *,
    groups_x: Groups | None = None,
    groups_y: Groups | None = None,
    bandwidth: float | None = None,
) -> Mmd:
    """Squared MMD with the Gaussian kernel exp(−|x − y|²/(2σ²)) of features ``x [N,D]`` and ``y [M,D]``.

    ``bandwidth`` is σ, by default :func:`median_distance` of these two sets; leave-one-out values keep it. Two
    candidates can be compared only at one σ: pass it. Groups, precision and memory are as for
    ``metrics.statistics.kid.kid``.

    Args:
        x: features ``[N,D]`` of the set under test.
        y: features ``[M,D]`` of the reference.
        groups_x: the group of each row of ``x``; None: every row is its own.
        groups_y: the same for ``y``.
        bandwidth: σ; None: :func:`median_distance` of these two sets.

    Returns:
        The value, its error, and the values with each group left out.

    Raises:
        InputError: as ``metrics.statistics.kid.kid``; a bandwidth that is not above 0, given or found.
    """
    x, y = check_pair(x, y)
    sigma = median_distance(x, y) if bandwidth is None else bandwidth
    if not sigma > 0:
        raise InputError(f"bandwidth = {sigma}. Expected a distance above 0, or None for the median.")
    return mmd(*centred(x, y), lambda a, b: gaussian(squared_distances(a, b), sigma), groups_x, groups_y)


def energy(x: Features, y: Features, *, groups_x: Groups | None = None, groups_y: Groups | None = None) -> Mmd:
    """Energy distance 2·E|x − y| − E|x − x′| − E|y − y′| of features ``x [N,D]`` and ``y [M,D]``.

    Székely and Rizzo, "Energy statistics" (2013); it is the squared MMD with the kernel −|x − y|, here unbiased.
    Groups, precision and memory are as for ``metrics.statistics.kid.kid``.

    Args:
        x: features ``[N,D]`` of the set under test.
        y: features ``[M,D]`` of the reference.
        groups_x: the group of each row of ``x``; None: every row is its own.
        groups_y: the same for ``y``.

    Returns:
        The value, its error, and the values with each group left out.

    Raises:
        InputError: as ``metrics.statistics.kid.kid``.
    """
    x, y = check_pair(x, y)
    return mmd(*centred(x, y), lambda a, b: negative_distance(squared_distances(a, b)), groups_x, groups_y)


def median_distance(x: Features, y: Features) -> float:
    """The median heuristic (Gretton et al., section 8): the median Euclidean distance over pairs of rows of [x; y].

    Every pair of two different rows of the pooled set counts once, be they of one side or of both and of one group
    or of two; of an even number of pairs it is the mean of the middle two. Where N + M exceeds ``MEDIAN_ROWS``, only
    the pooled rows round(linspace(0, N + M − 1, MEDIAN_ROWS)) are used, so that the order of the rows then matters a
    little (about 1 %).

    Args:
        x: features ``[N,D]`` of the set under test.
        y: features ``[M,D]`` of the reference.

    Returns:
        The distance, above 0.

    Raises:
        InputError: as ``metrics.statistics.kid.kid``.
        UndefinedError: half of all distances are 0.
    """
    x, y = centred(*check_pair(x, y))
    total = len(x) + len(y)
    rows = torch.linspace(0, total - 1, min(total, MEDIAN_ROWS), dtype=torch.float64).round().long()
    chosen = torch.cat([x[rows[rows < len(x)]], y[rows[rows >= len(x)] - len(x)]])
    with torch.inference_mode(), ieee_float32():
        squared = squared_distances(chosen, chosen)
        pairs = squared[torch.ones_like(squared, dtype=torch.bool).triu(1)].cpu().numpy()
    median = float(np.median(np.sqrt(pairs)))
    noise = (8 * torch.finfo(chosen.dtype).eps * float(_squares(chosen).median())) ** 0.5  # of the distance of copies
    if median <= noise:
        raise UndefinedError(
            "half of all pairs of images have equal features, up to rounding: the median distance, the kernel's "
            "bandwidth, is 0. Expected mostly different images."
        )
    return median


def paired_difference(a: Mmd, b: Mmd, *, paired_rows: bool) -> tuple[float, Jackknife]:
    """``a.value − b.value`` of two candidates measured against one and the same reference ``y``, and its error.

    Leaving out a group of the reference moves both values together, so the error is far smaller than that of two
    independent distances. ``paired_rows``: group g of one candidate and group g of the other are two versions of one
    image (before and after), and are left out together; otherwise the candidates are independent samples.

    Args:
        a: one candidate.
        b: the other.
        paired_rows: whether their rows are two versions of the same images.

    Returns:
        The difference and its error.

    Raises:
        InputError: the references differ in size, or paired candidates do.
    """
    if len(a.loo_y) != len(b.loo_y) or a.m != b.m:
        raise InputError(
            f"the references have {a.m} and {b.m} images in {len(a.loo_y)} and {len(b.loo_y)} groups. "
            "Expected both candidates to be measured against the same reference."
        )
    if not paired_rows:
        return a.value - b.value, jackknife(a.loo_y - b.loo_y, a.loo_x, b.loo_x)
    if len(a.loo_x) != len(b.loo_x):
        raise InputError(
            f"the candidates have {len(a.loo_x)} and {len(b.loo_x)} groups. "
            "Expected pairs in the same order, or paired_rows=False."
        )
    return a.value - b.value, jackknife(a.loo_y - b.loo_y, a.loo_x - b.loo_x)


def mmd(x: torch.Tensor, y: torch.Tensor, kernel: Kernel, groups_x: Groups | None, groups_y: Groups | None) -> Mmd:
    """The estimate for any symmetric kernel, from tensors that ``check_pair`` has passed.

    A constant may be left out of the kernel or added to it: it cancels in the value and in every leave-one-out value.

    Args:
        x: features ``[N,D]`` of the set under test.
        y: features ``[M,D]`` of the reference.
        kernel: from rows ``[A,D]`` and ``[B,D]`` to values ``[A,B]``.
        groups_x: the group of each row of ``x``; None: every row is its own.
        groups_y: the same for ``y``.

    Returns:
        The value, its error, and the values with each group left out.

    Raises:
        InputError: fewer than two groups, as many groups as rows were expected, or a kernel that overflows.
    """
    index_x, index_y = group_index(groups_x, len(x), "x"), group_index(groups_y, len(y), "y")
    with torch.inference_mode(), ieee_float32():
        own_x, own_y = _own_sums(x, kernel), _own_sums(y, kernel)
        cross_x, cross_y = _cross_sums(x, y, kernel)
        within_x, within_y = _within_sums(x, index_x, kernel), _within_sums(y, index_y, kernel)
    n, m = len(x), len(y)
    mean_x, mean_y = _between(own_x, within_x, index_x), _between(own_y, within_y, index_y)
    mean_xy = cross_x.sum() / (n * m)
    if not np.isfinite([mean_x, mean_y, mean_xy]).all():
        raise InputError("the kernel overflows: features are too large for their dtype. Rescale them or pass float64.")
    value = float(mean_x + mean_y - 2 * mean_xy)
    loo_x = mean_y + _left_out(own_x, cross_x, within_x, index_x, m)
    loo_y = mean_x + _left_out(own_y, cross_y, within_y, index_y, n)
    return Mmd(value, jackknife(loo_x, loo_y), n, m, loo_x, loo_y)


def _left_out(own: np.ndarray, cross: np.ndarray, within: np.ndarray, index: np.ndarray, others: int) -> np.ndarray:
    """The MMD without each group, less the other side's constant term, from the row sums of the kernel."""
    sizes = np.bincount(index)
    rest = len(own) - sizes
    outward = np.bincount(index, own) - within  # from each group to all others
    own_rest = own.sum() - within.sum() - 2 * outward
    pairs_rest = len(own) ** 2 - (sizes**2).sum() - 2 * sizes * rest
    cross_rest = cross.sum() - np.bincount(index, cross)
    with np.errstate(divide="ignore", invalid="ignore"):
        loo = own_rest / pairs_rest - 2 * cross_rest / (rest * others)
    return np.where(pairs_rest > 0, loo, np.nan)


def _between(own: np.ndarray, within: np.ndarray, index: np.ndarray) -> float:
    """The mean of the kernel over pairs of rows of different groups."""
    pairs = len(own) ** 2 - (np.bincount(index) ** 2).sum()
    return float((own.sum() - within.sum()) / pairs)


def _own_sums(x: torch.Tensor, kernel: Kernel) -> np.ndarray:
    """Sums over j ≠ i of k(x_i, x_j), float64 [N]; only tiles on and above the diagonal are computed."""
    sums = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for rows in blocks(len(x)):
        tile = kernel(x[rows], x[rows])
        tile.diagonal().zero_()
        sums[rows] += tile.sum(1)
        for columns in blocks(len(x), rows.stop):
            tile = kernel(x[rows], x[columns])
            sums[rows] += tile.sum(1)
            sums[columns] += tile.sum(0)
    return sums.cpu().numpy()


def _cross_sums(x: torch.Tensor, y: torch.Tensor, kernel: Kernel) -> tuple[np.ndarray, np.ndarray]:
    """Row and column sums of k(x_i, y_j), float64 [N] and [M]."""
    row_sums = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    column_sums = torch.zeros(len(y), dtype=torch.float64, device=x.device)
    for rows in blocks(len(x)):
        for columns in blocks(len(y)):
            tile = kernel(x[rows], y[columns])
            row_sums[rows] += tile.sum(1)
            column_sums[columns] += tile.sum(0)
    return row_sums.cpu().numpy(), column_sums.cpu().numpy()


def _within_sums(x: torch.Tensor, index: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Per group, the sum of the kernel over ordered pairs of different rows inside the group, float64 [groups]."""
    sizes = np.bincount(index)
    sums = np.zeros(len(sizes))
    rows_by_group = np.split(np.argsort(index, kind="stable"), np.cumsum(sizes)[:-1])
    for group in np.flatnonzero(sizes > 1):
        sums[group] = _own_sums(x[torch.from_numpy(rows_by_group[group]).to(x.device)], kernel).sum()
    return sums


def blocks(rows: int, start: int = 0) -> Iterator[slice]:
    """Consecutive slices of at most ``BLOCK`` rows."""
    return (slice(first, min(first + BLOCK, rows)) for first in range(start, rows, BLOCK))


def centred(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sets less the mean of [x; y]: the same distances, without what rounding does to large dot products."""
    total = x.sum(0, dtype=torch.float64) + y.sum(0, dtype=torch.float64)
    mean = (total / (len(x) + len(y))).to(x.dtype)
    return x - mean, y - mean


def squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """|x_i − y_j|², float64 [A,B]: dot products in the features' dtype, the rest in float64."""
    return from_dots((x @ y.T).double(), _squares(x), _squares(y))


def from_dots(dots: torch.Tensor, squares_x: torch.Tensor, squares_y: torch.Tensor) -> torch.Tensor:
    """|x_i − y_j|² from x_i·y_j [A,B] (overwritten), |x_i|² [A] and |y_j|² [B], all float64."""
    return dots.mul_(-2).add_(squares_x[:, None]).add_(squares_y).clamp_(min=0)


def gaussian(squared: torch.Tensor, sigma: float) -> torch.Tensor:
    """exp(−d²/(2σ²)) from squared distances (overwritten)."""
    return squared.mul_(-0.5 / sigma**2).exp_()


def negative_distance(squared: torch.Tensor) -> torch.Tensor:
    """−d from squared distances (overwritten)."""
    return squared.sqrt_().neg_()


def _squares(x: torch.Tensor) -> torch.Tensor:
    return x.double().square().sum(1)
