import numpy as np
import pytest
import scipy.stats
import torch
from scipy.spatial.distance import cdist, pdist

import metrics.statistics.mmd
from metrics.errors import InputError
from metrics.statistics.jackknife import interval
from metrics.statistics.kid import kid
from metrics.statistics.mmd import energy, median_distance, mmd, paired_difference, rbf


def waves(n, d, a, b, s, t):
    """Deterministic features without a random generator."""
    i, j = np.arange(n)[:, None], np.arange(d)[None]
    return s * np.sin(a * (i + 1) * np.sqrt(j + 1) + b * j) + t


def pair(n, m, d):
    return waves(n, d, 0.37, 1.13, 1.0, 0.5), waves(m, d, 0.53, 0.71, 1.2, 0.6)


def unbiased(k, x, y, groups_x, groups_y):
    """The definition, one pair at a time."""

    def own(rows, groups):
        count = range(len(rows))
        return np.mean([k(rows[i], rows[j]) for i in count for j in count if groups[i] != groups[j]])

    return own(x, groups_x) + own(y, groups_y) - 2 * np.mean([k(a, b) for a in x for b in y])


def kernels(x, y):
    sigma = np.median(pdist(np.concatenate([x, y])))
    return {
        rbf: lambda a, b: np.exp(-np.sum((a - b) ** 2) / (2 * sigma**2)),
        energy: lambda a, b: -np.linalg.norm(a - b),
    }


@pytest.mark.parametrize("statistic", [rbf, energy])
def test_equals_the_definition_pair_by_pair(statistic):
    x, y = pair(13, 9, 5)
    groups_x, groups_y = [0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 7, 8], list("aabcddddd")
    k = kernels(x, y)[statistic]
    plain = statistic(x, torch.from_numpy(y))
    assert plain.value == pytest.approx(unbiased(k, x, y, range(13), range(9)), abs=1e-13)
    assert (plain.n, plain.m) == (13, 9)
    grouped = statistic(x, y, groups_x=groups_x, groups_y=groups_y)
    assert grouped.value == pytest.approx(unbiased(k, x, y, groups_x, groups_y), abs=1e-13)
    assert len(grouped.loo_x) == 9
    assert len(grouped.loo_y) == 4


@pytest.mark.parametrize("statistic", [rbf, energy])
def test_leave_one_out_values_are_what_deleting_the_row_gives(statistic):
    x, y = pair(12, 8, 4)
    k = kernels(x, y)[statistic]  # the bandwidth stays that of all rows
    result = statistic(x, y)
    by_x = [unbiased(k, np.delete(x, i, 0), y, range(11), range(8)) for i in range(12)]
    by_y = [unbiased(k, x, np.delete(y, i, 0), range(12), range(7)) for i in range(8)]
    np.testing.assert_allclose(result.loo_x, by_x, atol=1e-13)
    np.testing.assert_allclose(result.loo_y, by_y, atol=1e-13)


def test_rbf_equals_torch_fidelity():
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = (torch.from_numpy(f) for f in pair(120, 120, 32))
    options = {"kid_kernel": "rbf", "kid_kernel_rbf_sigma": 5.0, "kid_subsets": 1, "kid_subset_size": 120}
    theirs = kid_features_to_metric(x, y, verbose=False, **options)
    assert rbf(x, y, bandwidth=5.0).value == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-12)


def test_energy_equals_scipy_in_one_dimension():
    x, y = pair(40, 30, 1)
    biased = scipy.stats.energy_distance(x.ravel(), y.ravel()) ** 2  # also counts each row with itself
    spread_x, spread_y = cdist(x, x).mean(), cdist(y, y).mean()
    expected = biased + spread_x + spread_y - spread_x * 40 / 39 - spread_y * 30 / 29
    assert energy(x, y).value == pytest.approx(expected, abs=1e-12)


def test_polynomial_kernels_equal_their_moments():
    """sum x·y = |sum x|² and sum (x·y)² = |XᵀX|²: no pair is looked at."""
    x, y = pair(50, 40, 7)
    means = [(np.sum(f.sum(0) ** 2) - np.sum(f**2)) / (len(f) * (len(f) - 1)) for f in (x, y)]
    linear = sum(means) - 2 * x.mean(0) @ y.mean(0)
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    assert mmd(*tensors, lambda a, b: a @ b.T, None, None).value == pytest.approx(linear, abs=1e-12)
    squares = [(np.sum((f.T @ f) ** 2) - np.sum(np.sum(f**2, 1) ** 2)) / (len(f) * (len(f) - 1)) for f in (x, y)]
    quadratic = sum(squares) - 2 * np.sum((x.T @ x) * (y.T @ y)) / (50 * 40)
    assert mmd(*tensors, lambda a, b: (a @ b.T) ** 2, None, None).value == pytest.approx(quadratic, abs=1e-11)


@pytest.mark.parametrize(("n", "m"), [(9, 8), (10, 8)])
def test_median_distance_is_that_of_all_pairs(n, m):
    x, y = pair(n, m, 5)
    assert median_distance(x, y) == pytest.approx(np.median(pdist(np.concatenate([x, y]))), rel=1e-12)


def test_median_distance_of_many_rows_is_that_of_an_even_subset(monkeypatch):
    x, y = pair(60, 41, 5)
    monkeypatch.setattr(metrics.statistics.mmd, "MEDIAN_ROWS", 51)
    assert median_distance(x, y) == pytest.approx(np.median(pdist(np.concatenate([x, y])[::2])), rel=1e-12)


@pytest.mark.parametrize("statistic", [rbf, energy])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_does_not_depend_on_the_block_size_or_the_order(monkeypatch, statistic, dtype):
    x, y = (f.astype(dtype) for f in pair(45, 31, 10))
    whole = statistic(x, y, groups_x=[i % 6 for i in range(45)])
    order = np.random.default_rng(0).permutation(45)
    monkeypatch.setattr(metrics.statistics.mmd, "BLOCK", 7)
    tiled = statistic(x[order], y[::-1], groups_x=[i % 6 for i in order])
    tolerance = 1e-6 if dtype == np.float32 else 1e-13
    assert tiled.value == pytest.approx(whole.value, abs=tolerance)
    assert tiled.se == pytest.approx(whole.se, rel=1e-4 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("statistic", [rbf, energy])
def test_rotation_shift_and_scale(statistic):
    x, y = pair(25, 31, 10)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((10, 10)))
    degree = {rbf: 0, energy: 1}[statistic]
    moved = statistic(3 * x @ rotation + 100, 3 * y @ rotation + 100)
    assert moved.value == pytest.approx(3**degree * statistic(x, y).value, rel=1e-9)
    shifted = statistic((x + 1e3).astype(np.float32), (y + 1e3).astype(np.float32))
    assert shifted.value == pytest.approx(statistic(x, y).value, rel=1e-3)  # float32 keeps 1e-4 of x + 1000


@pytest.mark.parametrize("statistic", [rbf, energy])
def test_of_a_set_with_itself_is_slightly_negative(statistic):
    x, _ = pair(40, 40, 8)
    assert -0.5 < statistic(x, x).value < 0


def redraws(statistic, count, shift, n=30, d=6):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        yield statistic(rng.standard_normal((n, d)), rng.standard_normal((n, d)) + shift)


@pytest.mark.parametrize("statistic", [rbf, energy])
def test_unbiased_without_a_gap_and_the_error_matches_the_spread(statistic):
    results = list(redraws(statistic, 300, 0.0))
    values = [r.value for r in results]
    true = np.std(values, ddof=1)
    assert abs(np.mean(values)) < 3 * true / np.sqrt(300)
    assert 0.9 < np.sqrt(np.mean([r.se**2 for r in results])) / true < 1.6


@pytest.mark.parametrize("statistic", [rbf, energy])
def test_with_a_gap_the_error_matches_the_spread_and_the_interval_covers(statistic):
    def fixed(x, y):  # one bandwidth for all redraws: an own median each would move the truth
        return rbf(x, y, bandwidth=3.5) if statistic is rbf else energy(x, y)

    truth = np.mean([r.value for r in redraws(fixed, 60, 0.5, n=300)])
    results = list(redraws(fixed, 300, 0.5))
    true = np.std([r.value for r in results], ddof=1)
    assert 0.9 < np.sqrt(np.mean([r.se**2 for r in results])) / true < 1.6
    inside = [low < truth < high for low, high in (interval(r.value, r.error) for r in results)]
    assert np.mean(inside) > 0.90


@pytest.mark.parametrize("paired", [True, False])
def test_error_of_a_paired_difference_matches_the_spread_of_redraws(paired):
    differences, errors, independent = [], [], []
    for seed in range(250):
        rng = np.random.default_rng(seed)
        reference, first, second = (rng.standard_normal((30, 4)) for _ in range(3))
        before = first + 0.8
        after = before - 0.3 if paired else second + 0.5
        a, b = kid(after, reference), kid(before, reference)
        difference, error = paired_difference(a, b, paired_rows=paired)
        differences.append(difference)
        errors.append(error.se)
        independent.append(np.hypot(a.se, b.se))
        assert difference == a.value - b.value
    true = np.std(differences, ddof=1)
    ratio = np.sqrt(np.mean(np.square(errors))) / true
    assert 0.9 < ratio < 1.3
    assert (
        np.sqrt(np.mean(np.square(independent))) / true > (1.3 if paired else 1.0) * ratio
    )  # as if nothing was shared


def test_a_paired_difference_with_itself_is_exactly_zero():
    x, y = pair(20, 15, 4)
    difference, error = paired_difference(kid(x, y), kid(x, y), paired_rows=True)
    assert (difference, error.se) == (0.0, 0.0)


def test_differences_of_what_cannot_be_paired_are_refused():
    x, y = pair(20, 15, 4)
    with pytest.raises(InputError, match="the references have 15 and 14 images in 15 and 14 groups"):
        paired_difference(kid(x, y), kid(x, y[1:]), paired_rows=True)
    with pytest.raises(InputError, match="the candidates have 20 and 19 groups"):
        paired_difference(kid(x, y), kid(x[1:], y), paired_rows=True)


def test_bad_bandwidths_and_groups_are_refused():
    x, y = pair(20, 15, 4)
    for bandwidth in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match=f"bandwidth = {bandwidth}. Expected a distance above 0"):
            rbf(x, y, bandwidth=bandwidth)
    with pytest.raises(InputError, match="half of all pairs of images have equal features"):
        rbf(np.ones((5, 3)), np.ones((5, 3)))
    with pytest.raises(InputError, match="groups_y has 2 entries for 15 rows"):
        energy(x, y, groups_y=[1, 2])
    with pytest.raises(InputError, match=r"y has NaN or infinite features in 1 row\(s\): 2"):
        energy(x, np.where(np.arange(15)[:, None] == 2, np.nan, y))
