"""Permutation test of "both sets come from one distribution", by several statistics on the same permutations.

The labels "x" and "y" are dealt out anew to the independent units, and each statistic is compared with what it is under
such deals: p = (1 + k)/(1 + B) for k of B deals at least as large (Phipson and Smyth, "Permutation p-values should
never be zero", 2010). The combined p-value ranks the smallest p of the observed deal among the smallest p of every
deal (Westfall and Young, 1993; as in MMDAgg, Schrab et al., 2023), so trying several statistics costs no level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from ..errors import InputError
from ..extractors.float_precision import ieee_float32
from ..seed import generator
from .gram import DENSE_ROWS, PooledGram, TileKernel, quadratic_forms
from .mmd import median_distance
from .pair import Features, Groups, check_pair, group_index

STATISTICS = ("kid", "rbf", "energy", "fid")
TIE = 1e-8  # values closer than this share of the largest are one value: their order would be rounding


@dataclass(frozen=True)
class PermutationTest:
    """P-values of one test of equal distributions; ``n`` and ``m`` are images, ``groups_x`` and ``groups_y`` units.

    ``values[s]`` is statistic s of the two sets and ``p_values[s]`` its p-value; ``combined`` is the min-p combination,
    the one to decide by. ``permutations`` deals were compared with the observed one; ``exhaustive`` says that they are
    all there are, so that no p-value depends on the seed. ``smallest`` is the least p that this test can give.
    """

    values: Mapping[str, float]
    p_values: Mapping[str, float]
    combined: float
    permutations: int
    exhaustive: bool
    smallest: float
    n: int
    m: int
    groups_x: int
    groups_y: int
    warnings: tuple[str, ...] = ()


def permutation_test(
    x: Features,
    y: Features,
    statistics: Sequence[str] = STATISTICS,
    permutations: int = 999,
    seed: int = 0,
    groups_x: Groups | None = None,
    groups_y: Groups | None = None,
) -> PermutationTest:
    """Test whether ``x [N,D]`` and ``y [M,D]`` come from one distribution, on the device of ``x``.

    What is dealt out: whole groups, rows of one group always together; without groups, rows. Of all G_x + G_y groups
    a random G_x become the first set. Numbers of groups are kept, numbers of rows therefore are not where groups
    differ in size. A label of ``groups_x`` and the same label of ``groups_y`` are two groups. The level is exact
    where, without a gap, groups *with their sizes* are exchangeable; it is not when one side has systematically larger
    groups (five crops of each real photo against single synthetic images): ``warnings`` then says so. Such p-values
    were too large in simulations (1 to 2 % below 0.05 without a gap; ``fid`` none at all); one row per group restores
    the level. Pairs inside a group are left out of every mean of a kernel, as in
    ``metrics.statistics.kid.kid``; the Fréchet distance uses all rows.

    The RBF bandwidth is the median distance of the pooled set, the same for all deals. All statistics come from one
    Gram matrix. ``fid`` costs a singular value decomposition per permutation and leaves the test, with a warning, above
    ``metrics.statistics.gram.DENSE_ROWS`` pooled rows. Where there are no more than ``permutations`` other deals, all
    are tried. Results depend on the seed and the order of the rows as any finite number of random permutations does (a
    standard error of sqrt(p(1 − p)/B)), and on nothing else.

    Args:
        x: features of the first set.
        y: features of the second set.
        statistics: some of ``kid``, ``rbf``, ``energy`` (unbiased squared MMDs) and ``fid`` (Fréchet distance).
        permutations: how many random deals, B.
        seed: decides the deals.
        groups_x: each row's independent unit, as for ``metrics.statistics.kid.kid``.
        groups_y: the same for ``y``.

    Returns:
        A p-value per statistic and the one of all together, with warnings.

    Raises:
        InputError: as ``metrics.statistics.kid.kid``; unknown, repeated or no statistics; fewer than one permutation;
            ``fid`` alone above ``DENSE_ROWS`` rows.
    """
    _check(statistics, permutations)
    x, y = check_pair(x, y)
    index_x, index_y = group_index(groups_x, len(x), "x"), group_index(groups_y, len(y), "y")
    units = int(index_x.max()) + 1, int(index_y.max()) + 1
    chosen, warnings = _affordable(statistics, len(x) + len(y))
    chosen, bandwidth, more = _bandwidth(chosen, x, y)
    warnings += more
    deals, exhaustive = _deals(*units, permutations, seed)
    index = np.concatenate([index_x, units[0] + index_y])
    with torch.inference_mode(), ieee_float32():
        values = _statistics(x, y, chosen, bandwidth, deals[:, index], index)
    p, combined = _p_values(values)
    others = len(deals) - 1
    smallest = (2 if exhaustive and units[0] == units[1] else 1) / (1 + others)  # swapping the sets changes nothing
    warnings += (*_too_few(smallest, others, exhaustive), *_unequal(index_x, index_y))
    return PermutationTest(
        dict(zip(chosen, values[:, 0].tolist(), strict=True)),
        dict(zip(chosen, p.tolist(), strict=True)),
        combined,
        others,
        exhaustive,
        smallest,
        len(x),
        len(y),
        *units,
        warnings,
    )


def _check(statistics: Sequence[str], permutations: int) -> None:
    unknown = [name for name in statistics if name not in STATISTICS]
    if unknown or not statistics or len(set(statistics)) < len(statistics):
        raise InputError(f"statistics = {list(statistics)}. Expected some of {', '.join(STATISTICS)}, each once.")
    if permutations < 1:
        raise InputError(f"permutations = {permutations}. Expected at least 1; 999 is usual.")


def _affordable(statistics: Sequence[str], rows: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The statistics without fid where it would take hours, and a warning in its place."""
    if rows <= DENSE_ROWS or "fid" not in statistics:
        return tuple(statistics), ()
    rest = tuple(name for name in statistics if name != "fid")
    if not rest:
        raise InputError(f"fid cannot be permuted with {rows} rows. Expected at most {DENSE_ROWS} in all, or kid.")
    return rest, (f"fid left the permutation test: {rows} rows, and above {DENSE_ROWS} it would take too long.",)


def _bandwidth(
    names: tuple[str, ...], x: torch.Tensor, y: torch.Tensor
) -> tuple[tuple[str, ...], float, tuple[str, ...]]:
    """The statistics, the median distance, and a warning where that is 0 and rbf leaves the others."""
    if "rbf" not in names:
        return names, 0.0, ()
    try:
        return names, median_distance(x, y), ()
    except InputError:
        rest = tuple(name for name in names if name != "rbf")
        if not rest:
            raise
        return rest, 0.0, ("rbf left the permutation test: half of all pairs of images have equal features.",)


def _deals(units_x: int, units_y: int, permutations: int, seed: int) -> tuple[np.ndarray, bool]:
    """Which units are in the first set: bool [1 + B, units], the observed deal first; and whether these are all."""
    units = units_x + units_y
    if math.comb(units, units_x) <= permutations + 1:
        deals = np.zeros((math.comb(units, units_x), units), dtype=bool)
        for deal, members in zip(deals, combinations(range(units), units_x), strict=True):
            deal[list(members)] = True
        return deals, True
    observed = np.tile(np.arange(units) < units_x, (permutations + 1, 1))
    observed[1:] = generator(seed, "permutation", "deals").permuted(observed[1:], axis=1)
    return observed, False


def _statistics(
    x: torch.Tensor, y: torch.Tensor, names: Sequence[str], bandwidth: float, deals: np.ndarray, index: np.ndarray
) -> np.ndarray:
    """Every statistic under every deal of rows (bool [1 + B, N + M]): float64 [statistics, 1 + B]."""
    gram = PooledGram(x, y)
    members = torch.from_numpy(deals.T.astype(np.float64)).to(x.device)
    kernels: dict[str, TileKernel] = {"kid": gram.cubic, "energy": gram.negative_distance}
    if "rbf" in names:
        kernels["rbf"] = gram.gaussian(bandwidth)
    forms = quadratic_forms(gram, {name: kernels[name] for name in names if name != "fid"}, members, index)
    sizes = torch.from_numpy(np.bincount(index).astype(np.float64)[index]).to(x.device)
    values = {name: _mmd(members, sizes, *form) for name, form in forms.items()}
    if "fid" in names and gram.dense is not None:
        values["fid"] = _frechet(gram.dense, members, deals)
    found = np.stack([values[name].cpu().numpy() for name in names])
    if not np.isfinite(found).all():
        raise InputError("the kernel overflows: features are too large for their dtype. Rescale them or pass float64.")
    return found


def _mmd(members: torch.Tensor, sizes: torch.Tensor, form: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """Unbiased squared MMD of every deal from wᵀKw and the row sums of K, in which pairs inside groups are 0."""
    total, outward = sums.sum(), sums @ members
    n, pairs_n = members.sum(0), sizes @ members  # the sum over rows of the size of their group: pairs inside groups
    m, pairs_m = len(sums) - n, sizes.sum() - pairs_n
    within_y = total - 2 * outward + form
    return form / (n * n - pairs_n) + within_y / (m * m - pairs_m) - 2 * (outward - form) / (n * m)


def _frechet(gram: torch.Tensor, members: torch.Tensor, deals: np.ndarray) -> torch.Tensor:
    """Fréchet distance of every deal: means and traces from sums over the Gram matrix, the rest by singular values."""
    form = (gram @ members).mul_(members).sum(0)
    outward, squares = gram.sum(1) @ members, gram.diagonal() @ members
    n = members.sum(0)
    m = len(gram) - n
    cross, form_y = outward - form, gram.sum() - 2 * outward + form
    shift = form / n**2 + form_y / m**2 - 2 * cross / (n * m)
    traces = (squares - form / n) / (n - 1) + (gram.trace() - squares - form_y / m) / (m - 1)
    nuclear = torch.stack([_nuclear(gram, torch.from_numpy(deal).to(gram.device)) for deal in deals])
    return (shift + traces - 2 * nuclear / ((n - 1) * (m - 1)).sqrt()).clamp_(min=0)


def _nuclear(gram: torch.Tensor, deal: torch.Tensor) -> torch.Tensor:
    """Sum of the singular values of the cross-Gram of both sets, each centred."""
    cross = gram[deal][:, ~deal]
    cross = cross - cross.mean(0)
    singular: torch.Tensor = torch.linalg.svdvals(cross - cross.mean(1, keepdim=True))
    return singular.sum()


def _p_values(values: np.ndarray) -> tuple[np.ndarray, float]:
    """P-values of the observed deal, column 0, and the min-p combination."""
    deals = values.shape[1]
    least = values - TIE * np.abs(values).max(1, keepdims=True)
    reached = [deals - np.searchsorted(np.sort(row), floor) for row, floor in zip(values, least, strict=True)]
    best = np.min(reached, axis=0)
    return np.array([counts[0] for counts in reached]) / deals, float(np.mean(best <= best[0]))


def _too_few(smallest: float, others: int, exhaustive: bool) -> tuple[str, ...]:
    if smallest <= 0.05:
        return ()
    why = "ways to deal out the groups: add groups (photos)" if exhaustive else "permutations: ask for at least 99"
    return (f"No p-value below {smallest:.2g} is possible with {others + exhaustive} {why}.",)


def _unequal(index_x: np.ndarray, index_y: np.ndarray) -> tuple[str, ...]:
    """Group sizes that tell the sides apart by themselves."""
    mean_x, mean_y = len(index_x) / (index_x.max() + 1), len(index_y) / (index_y.max() + 1)
    if max(mean_x, mean_y) < 1.5 * min(mean_x, mean_y):
        return ()
    return (
        f"Groups of the first set have {mean_x:.3g} rows on average and those of the second {mean_y:.3g}: p-values are "
        "approximate, mostly too large, because such groups are not interchangeable. Exact: one row per group.",
    )
