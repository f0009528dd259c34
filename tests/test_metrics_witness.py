import numpy as np
import pytest
import torch

import metrics.statistics.mmd
from metrics.comparison.witness import witness
from metrics.errors import InputError
from metrics.statistics.kid import kid


def draws(n, m, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) + 0.3, 1.2 * rng.standard_normal((m, d))


def slow(x, y, groups_x, groups_y):
    """The definition, one pair at a time."""

    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    def score(own, groups, other):
        return [
            np.mean([k(a, b) for b, h in zip(own, groups, strict=True) if h != g]) - np.mean([k(a, b) for b in other])
            for a, g in zip(own, groups, strict=True)
        ]

    return score(x, groups_x, y), score(y, groups_y, x)


def test_equals_the_definition():
    x, y = draws(14, 9, 5)
    result = witness(x, torch.from_numpy(y))
    synthetic, real = slow(x, y, range(14), range(9))
    np.testing.assert_allclose(result.synthetic, synthetic, atol=1e-12)
    np.testing.assert_allclose(result.real, real, atol=1e-12)


def test_equals_the_definition_with_groups():
    x, y = draws(12, 9, 5)
    groups_x, groups_y = [i % 4 for i in range(12)], list("aabbbcdde")
    result = witness(x, y, groups_x=groups_x, groups_y=groups_y)
    synthetic, real = slow(x, y, groups_x, groups_y)
    np.testing.assert_allclose(result.synthetic, synthetic, atol=1e-12)
    np.testing.assert_allclose(result.real, real, atol=1e-12)


def test_scores_add_up_to_the_kid():
    x, y = draws(40, 33, 8)
    result = witness(x, y)
    assert result.synthetic.mean() + result.real.mean() == pytest.approx(kid(x, y).value, abs=1e-12)


def test_scores_average_zero_without_a_gap():
    means = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        means.append(witness(*rng.standard_normal((2, 20, 4))).synthetic.mean())
    assert abs(np.mean(means)) < 3 * np.std(means) / np.sqrt(200)


def test_finds_the_odd_synthetic_images_and_the_real_ones_left_uncovered():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.standard_normal((40, 6)), rng.standard_normal((10, 6)) + 4])  # the last ten: a mode
    synthetic = np.concatenate([rng.standard_normal((45, 6)), rng.standard_normal((5, 6)) - 4])  # the last five: odd
    result = witness(synthetic, real)
    assert set(np.argsort(result.synthetic)[-5:]) == set(range(45, 50))
    assert set(np.argsort(result.real)[-10:]) == set(range(40, 50))


def test_nearest_neighbours_both_ways():
    from scipy.spatial.distance import cdist

    x, y = draws(30, 22, 6)
    result, table = witness(x, y), cdist(x, y)
    np.testing.assert_array_equal(result.nearest_real, table.argmin(1))
    np.testing.assert_array_equal(result.nearest_synthetic, table.argmin(0))
    np.testing.assert_allclose(result.real_distance, table.min(1), rtol=1e-12)
    np.testing.assert_allclose(result.synthetic_distance, table.min(0), rtol=1e-12)


@pytest.mark.parametrize("block", [1, 7])
def test_does_not_depend_on_block_size_or_order(monkeypatch, block):
    x, y = draws(25, 31, 5)
    groups = [i // 3 for i in range(25)]
    whole = witness(x, y, groups_x=groups)
    monkeypatch.setattr(metrics.statistics.mmd, "BLOCK", block)
    order = np.random.default_rng(0).permutation(25)
    again = witness(x[order], y, groups_x=[groups[i] for i in order])
    np.testing.assert_allclose(again.synthetic, whole.synthetic[order], atol=1e-12)
    np.testing.assert_allclose(again.real, whole.real, atol=1e-12)
    np.testing.assert_array_equal(again.nearest_real, whole.nearest_real[order])


def test_bad_input_is_refused():
    x, y = draws(9, 6, 3)
    with pytest.raises(InputError, match=r"y has NaN or infinite features in 1 row\(s\): 2"):
        witness(x, np.where(np.arange(6)[:, None] == 2, np.nan, y))
    with pytest.raises(InputError, match=r"x has 1 row\(s\)"):
        witness(x[:1], y)
    with pytest.raises(InputError, match="groups_x: all rows are of one group"):
        witness(x, y, groups_x=["a"] * 9)
    with pytest.raises(InputError, match="the kernel overflows"):
        witness(x.astype(np.float32) * 1e30, y.astype(np.float32))
