import math
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
import torch

import metrics.statistics.gram
import metrics.statistics.mmd
import metrics.statistics.permutation
from metrics.errors import InputError
from metrics.statistics.frechet import frechet
from metrics.statistics.kid import kid
from metrics.statistics.mmd import energy, median_distance, rbf
from metrics.statistics.permutation import STATISTICS, permutation_test

PAIR = [  # 64/48/16 of the golden values in tests/test_metrics_kid.py and tests/test_metrics_frechet.py
    ("kid", -0.072620622627865),
    ("fid", 0.797795082931),
]


def waves(n, d, a, b, s, t):
    """Deterministic features without a random generator."""
    i, j = np.arange(n)[:, None], np.arange(d)[None]
    return s * np.sin(a * (i + 1) * np.sqrt(j + 1) + b * j) + t


def pair(n, m, d):
    return waves(n, d, 0.37, 1.13, 1.0, 0.5), waves(m, d, 0.53, 0.71, 1.2, 0.6)


def direct(x, y, groups_x=None, groups_y=None, sigma=None):
    groups = {"groups_x": groups_x, "groups_y": groups_y}
    return {
        "kid": kid(x, y, **groups).value,
        "rbf": rbf(x, y, **groups, bandwidth=sigma).value,
        "energy": energy(x, y, **groups).value,
        "fid": frechet(x, y).value,
    }


def exhaustive_reference(x, y, groups_x, groups_y):
    """Every deal of the groups by hand, each statistic by its own function: p-values and the min-p combination."""
    z = np.concatenate([x, y])
    labels = [("x", g) for g in groups_x] + [("y", g) for g in groups_y]
    units = list(dict.fromkeys(labels))
    sigma = median_distance(x, y)
    rows = []
    for members in combinations(units, len(set(groups_x))):
        first = np.array([label in members for label in labels])
        ours = [label for label, inside in zip(labels, first, strict=True) if inside]
        theirs = [label for label, inside in zip(labels, first, strict=True) if not inside]
        rows.append(list(direct(z[first], z[~first], ours, theirs, sigma).values()))
    values = np.array(rows)
    p = np.array([[np.mean(column >= v - 1e-10) for v in column] for column in values.T])
    best = p.min(0)
    return (
        dict(zip(STATISTICS, values[0], strict=True)),
        dict(zip(STATISTICS, p[:, 0], strict=True)),
        np.mean(best <= best[0]),
    )


@pytest.mark.parametrize(("name", "expected"), PAIR)
def test_golden_values(name, expected):
    assert permutation_test(*pair(64, 48, 16), permutations=1).values[name] == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_all_deals_of_few_groups_equal_the_slow_reference(shift):
    x, y = pair(9, 8, 5)
    y = y + shift
    groups_x, groups_y = list("aabccddde"), list("aabbbccd")  # labels of the two sides are not related
    result = permutation_test(x, y, groups_x=groups_x, groups_y=groups_y)
    values, p, combined = exhaustive_reference(x, y, groups_x, groups_y)
    assert result.exhaustive
    assert result.permutations == math.comb(9, 5) - 1
    assert result.values == pytest.approx(values, abs=1e-11)
    assert result.p_values == pytest.approx(p, abs=1e-12)
    assert result.combined == pytest.approx(combined, abs=1e-12)
    assert (result.groups_x, result.groups_y, result.n, result.m) == (5, 4, 9, 8)
    assert result.smallest == 1 / 126


def test_swapping_the_sets_is_a_tie_of_the_observed_deal():
    """With as many groups on both sides the mirrored deal has the same values, but for rounding, and must count."""
    x, y = pair(12, 12, 4)
    groups = [i // 3 for i in range(12)]
    result = permutation_test(x, y + 9.0, groups_x=groups, groups_y=groups)
    assert result.p_values == dict.fromkeys(STATISTICS, 2 / 70)
    assert result.combined == result.smallest == 2 / 70
    assert result.warnings == ()


def test_equal_rows_give_p_value_one():
    x = np.ones((12, 3))
    result = permutation_test(x, x, ("kid", "energy", "fid"), permutations=50)
    assert list(result.p_values.values()) == [1.0, 1.0, 1.0]
    assert result.combined == 1.0


def test_without_a_median_distance_rbf_leaves_the_others():
    x = np.ones((12, 3))
    result = permutation_test(x, x, permutations=50)
    assert set(result.p_values) == {"kid", "energy", "fid"}
    assert result.warnings == ("rbf left the permutation test: half of all pairs of images have equal features.",)
    with pytest.raises(InputError, match=r"the kernel's bandwidth, is 0"):
        permutation_test(x, x, ("rbf",), permutations=50)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dense", [True, False])
def test_does_not_depend_on_blocks_or_on_holding_the_matrix(monkeypatch, dtype, dense):
    x, y = (f.astype(dtype) for f in pair(40, 31, 8))
    names = STATISTICS if dense else STATISTICS[:3]
    groups = [i % 25 for i in range(40)]
    whole = permutation_test(x, y, names, 99, groups_x=groups)
    monkeypatch.setattr(metrics.statistics.mmd, "BLOCK", 9)
    if not dense:
        monkeypatch.setattr(metrics.statistics.gram, "DENSE_ROWS", 10)
    tiled = permutation_test(x, y, names, 99, groups_x=groups)
    tolerance = 1e-6 if dtype == np.float32 and not dense else 1e-12
    assert tiled.values == pytest.approx(whole.values, abs=tolerance)
    assert tiled.p_values == whole.p_values
    assert tiled.combined == whole.combined
    own = direct(x, y, groups, None)
    expected = {name: own[name] for name in names}
    assert whole.values == pytest.approx(expected, abs=1e-6 if dtype == np.float32 else 1e-12)


def test_a_large_common_mean_costs_no_accuracy():
    x, y = pair(40, 31, 8)
    near, far = (permutation_test(x + t, y + t, permutations=99) for t in (0, 1e4))
    for name in ("rbf", "energy", "fid"):
        assert far.values[name] == pytest.approx(near.values[name], rel=1e-6, abs=1e-9)
        assert far.p_values[name] == near.p_values[name]


def test_the_seed_decides_and_nothing_else_does():
    x, y = pair(30, 25, 6)
    torch.manual_seed(1)
    one = permutation_test(x, y + 0.2, permutations=99, seed=3)
    assert permutation_test(x, y + 0.2, permutations=99, seed=3) == one
    assert permutation_test(x, y + 0.2, permutations=99, seed=4) != one


def crops(rng, photos, each, d=4):
    features = np.repeat(rng.standard_normal((photos, d)), each, 0) + 0.5 * rng.standard_normal((photos * each, d))
    return features, [i // each for i in range(photos * each)]


def null_p_values(trials, permutations, grouped):
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        if grouped:
            (x, groups_x), (y, groups_y) = crops(rng, 8, 3), crops(rng, 9, 3)
        else:
            (x, y), groups_x, groups_y = (rng.standard_normal((n, 4)) for n in (20, 16)), None, None
        result = permutation_test(x, y, STATISTICS, permutations, seed, groups_x, groups_y)
        yield [*result.p_values.values(), result.combined]


@pytest.mark.parametrize("grouped", [False, True])
def test_size_without_a_gap(grouped):
    """Rejections at 0.05 stay below the 99.9 % quantile of a true size 0.05, min-p included, and above its mirror."""
    trials = 300
    p = np.array(list(null_p_values(trials, 39, grouped)))
    rejected = (p <= 0.05).sum(0)
    low, high = scipy.stats.binom.ppf([0.001, 0.999], trials, 0.05)
    assert (rejected <= high).all()
    assert (rejected[:4] >= low).all()


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
def test_p_values_are_uniform_without_a_gap(grouped):
    trials, deals = 1500, 40
    p = np.array(list(null_p_values(trials, deals - 1, grouped)))
    for column in p.T[:4]:  # no ties in continuous statistics: uniform on 1/40 ... 40/40
        counts = np.bincount(np.rint(column * deals).astype(int), minlength=deals + 1)[1:]
        assert scipy.stats.chisquare(counts).pvalue > 0.001
    for alpha in (0.05, 0.1, 0.25, 0.5):
        assert np.sum(p[:, 4] <= alpha) <= scipy.stats.binom.ppf(0.999, trials, alpha)


def test_ignoring_groups_rejects_equal_distributions():
    """Crops of few photos: what the option is for."""
    wrong = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        (x, _), (y, _) = crops(rng, 6, 6), crops(rng, 6, 6)
        wrong.append(permutation_test(x, y, ("kid", "energy"), 39).combined)
    assert np.mean(np.array(wrong) <= 0.05) > 0.5


def test_the_combination_finds_what_any_of_its_statistics_finds():
    """A wider spread is seen by RBF and hardly by KID; a shift by KID. Both p-values of the combination are small."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 20))
    for y in (1.4 * rng.standard_normal((60, 20)), rng.standard_normal((60, 20)) + 0.5):
        assert permutation_test(x, y, permutations=199).combined < 0.05


def test_too_few_groups_or_permutations_are_told():
    x, y = pair(12, 12, 4)
    three = [i // 4 for i in range(12)]
    result = permutation_test(x, y, groups_x=three, groups_y=three)
    assert result.smallest == 2 / 20
    assert result.warnings[0].startswith("No p-value below 0.1 is possible with 20 ways to deal out the groups")
    result = permutation_test(x, y, permutations=9)
    assert result.warnings == ("No p-value below 0.1 is possible with 9 permutations: ask for at least 99.",)


def test_groups_of_systematically_other_sizes_are_told():
    x, y = pair(30, 24, 4)
    result = permutation_test(x, y, permutations=19, groups_y=[i // 3 for i in range(24)])
    assert result.warnings[0].startswith("Groups of the first set have 1 rows on average and those of the second 3")


def test_fid_leaves_a_large_test_with_a_note(monkeypatch):
    monkeypatch.setattr(metrics.statistics.permutation, "DENSE_ROWS", 40)
    x, y = pair(30, 24, 4)
    result = permutation_test(x, y, permutations=19)
    assert list(result.p_values) == ["kid", "rbf", "energy"]
    assert result.warnings == ("fid left the permutation test: 54 rows, and above 40 it would take too long.",)
    with pytest.raises(InputError, match=r"fid cannot be permuted with 54 rows\. Expected at most 40"):
        permutation_test(x, y, ("fid",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistics": ("kid", "mmd")}, "Expected some of kid, rbf, energy, fid, each once"),
        ({"statistics": ()}, r"statistics = \[\]"),
        ({"statistics": ("kid", "kid")}, "each once"),
        ({"permutations": 0}, "permutations = 0. Expected at least 1"),
        ({"groups_x": [1, 2]}, "groups_x has 2 entries for 20 rows"),
        ({"groups_y": [1] * 15}, "groups_y: all rows are of one group"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        permutation_test(*pair(20, 15, 4), **options)
    with pytest.raises(InputError, match="the kernel overflows"):
        permutation_test(np.ones((4, 3)) * 1e160, np.ones((4, 3)), ("kid",), 9)
