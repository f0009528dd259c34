import numpy as np
import pytest
import torch

import metrics.statistics.mmd
from metrics.errors import InputError
from metrics.statistics.cmmd import cmmd


def waves(n, d, a, b, s, t):
    """Deterministic features without a random generator."""
    i, j = np.arange(n)[:, None], np.arange(d)[None]
    return s * np.sin(a * (i + 1) * np.sqrt(j + 1) + b * j) + t


def pair(n, m, d):
    return waves(n, d, 0.37, 1.13, 1.0, 0.5), waves(m, d, 0.53, 0.71, 1.2, 0.6)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def kernel(x, y):
    return np.exp(-((x[:, None] - y) ** 2).sum(-1) / 200)


@pytest.mark.parametrize(
    ("n", "m", "d", "expected"),
    [(64, 64, 16, 0.0104848000), (64, 48, 16, 0.0093907442), (24, 20, 64, 0.0270638479)],
)
def test_golden_values_of_the_published_estimate(n, m, d, expected):
    assert cmmd(*pair(n, m, d)).published == pytest.approx(expected, abs=6e-11)  # ten decimals were printed


def test_equals_the_definition():
    x, y = (unit(f) for f in pair(13, 9, 5))
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    unbiased = (xx.sum() - 13) / (13 * 12) + (yy.sum() - 9) / (9 * 8) - 2 * xy.mean()
    result = cmmd(3 * x, torch.from_numpy(7 * y))  # the length of a row does not matter
    assert result.value == pytest.approx(1000 * unbiased, abs=1e-11)
    assert result.published == pytest.approx(1000 * (xx.mean() + yy.mean() - 2 * xy.mean()), abs=1e-11)
    assert (result.n, result.m) == (13, 9)


def test_standard_error_is_that_of_leaving_one_out():
    x, y = pair(14, 11, 6)
    loo_x = np.array([cmmd(np.delete(x, i, 0), y).value for i in range(14)])
    loo_y = np.array([cmmd(x, np.delete(y, i, 0)).value for i in range(11)])
    result = cmmd(x, y)
    assert result.se == pytest.approx(np.sqrt(13 * loo_x.var() + 10 * loo_y.var()), rel=1e-9)
    np.testing.assert_allclose(1000 * result.mmd.loo_x, loo_x, atol=1e-10)
    assert cmmd(x[:2], y).se is None


def test_is_ten_times_the_squared_difference_of_means():
    rng = np.random.default_rng(0)
    x, y = (unit(rng.standard_normal((400, 64)) + shift) for shift in (0.5, 0.6))
    difference = 10 * ((x.mean(0) - y.mean(0)) ** 2).sum()
    assert cmmd(x, y).published == pytest.approx(difference, rel=0.01)


def test_unbiased_without_a_gap_where_the_published_estimate_has_a_floor():
    results = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        results.append(cmmd(rng.standard_normal((30, 20)) + 1, rng.standard_normal((30, 20)) + 1))
    values = np.array([r.value for r in results])
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean()) < 3 * error
    assert np.mean([r.published for r in results]) > 20 * error
    assert 0.9 < np.sqrt(np.mean([r.se**2 for r in results])) / values.std(ddof=1) < 1.6


def test_groups_leave_out_the_pairs_inside_a_photo():
    x, y = (unit(f) for f in pair(12, 9, 5))
    groups = list("aabbbcdde")
    apart = np.array([[a != b for b in groups] for a in groups])
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    slow = (xx.sum() - 12) / (12 * 11) + yy[apart].mean() - 2 * xy.mean()
    assert cmmd(x, y, groups_y=groups).value == pytest.approx(1000 * slow, abs=1e-11)


def test_does_not_depend_on_block_size_or_order(monkeypatch):
    x, y = pair(45, 31, 10)
    whole = cmmd(x, y)
    monkeypatch.setattr(metrics.statistics.mmd, "BLOCK", 7)
    rng = np.random.default_rng(0)
    again = cmmd(x[rng.permutation(45)], y[rng.permutation(31)])
    assert (again.value, again.se) == pytest.approx((whole.value, whole.se), rel=1e-9)
    assert again.published == pytest.approx(whole.published, rel=1e-9)


def test_float32_features_are_reduced_in_float64():
    x, y = (f.astype(np.float32) for f in pair(64, 48, 16))
    assert cmmd(x, y).published == pytest.approx(0.0093907442, rel=1e-5)


def test_warns_where_the_published_value_is_mostly_floor():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 20))
    assert "its floor at this number of images" in cmmd(x, rng.standard_normal((30, 20))).warnings[0]
    assert cmmd(x + 5, rng.standard_normal((30, 20)) - 5).warnings == ()


def test_bad_input_is_refused():
    x, y = pair(9, 6, 3)
    with pytest.raises(InputError, match=r"y has rows of zeros, which have no direction: \[2\]"):
        cmmd(x, np.where(np.arange(6)[:, None] == 2, 0, y))
    with pytest.raises(InputError, match=r"x has NaN or infinite features in 1 row\(s\): 0"):
        cmmd(np.where(np.arange(9)[:, None] == 0, np.inf, x), y)
    with pytest.raises(InputError, match=r"x has 1 row\(s\)"):
        cmmd(x[:1], y)
    with pytest.raises(InputError, match="all rows are of one group"):
        cmmd(x, y, groups_x=["a"] * 9)
