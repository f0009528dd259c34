import numpy as np
import pytest
import torch

import metrics.statistics.sliced_wasserstein
from metrics.errors import InputError
from metrics.statistics.sliced_wasserstein import along, random_directions, sliced_wasserstein


def draws(n, m, d, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) + shift, 1.5 * rng.standard_normal((m, d))


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 25), (7, 90), (2, 3)])
def test_equals_pot_along_the_same_directions(n, m):
    from ot.sliced import sliced_wasserstein_distance

    x, y = draws(n, m, 6, 0.5)
    directions = random_directions(6, 100, 3)
    result = sliced_wasserstein(x, torch.from_numpy(y), projections=100, seed=3)
    theirs = sliced_wasserstein_distance(x, y, projections=directions.T)
    assert result.value == pytest.approx(theirs, rel=1e-9)
    assert result.squared == pytest.approx(theirs**2, rel=1e-9)
    assert (result.n, result.m, result.projections) == (n, m, 100)


@pytest.mark.parametrize(("n", "m"), [(6, 4), (5, 3), (8, 8)])
def test_unequal_sizes_couple_exactly(n, m):
    """Copies of every image up to a common size: the same two distributions, sorted and paired off one by one."""
    x, y = draws(n, m, 3)
    directions = random_directions(3, 20, 0)
    common = np.lcm(n, m)
    slow = [
        np.mean((np.sort(np.repeat(x @ v, common // n)) - np.sort(np.repeat(y @ v, common // m))) ** 2)
        for v in directions
    ]
    found = along(*(torch.from_numpy(part) for part in (x, y, directions)))
    np.testing.assert_allclose(found, slow, rtol=1e-12)


def test_of_a_shift_is_its_squared_length_over_the_dimension():
    x, _ = draws(50, 2, 8)
    shift = np.arange(8.0)
    directions = random_directions(8, 512, 0)
    result = sliced_wasserstein(x + shift, x)
    assert result.squared == pytest.approx(np.mean((directions @ shift) ** 2), rel=1e-12)
    assert abs(result.squared - shift @ shift / 8) < 3 * result.projection_se
    exact = sliced_wasserstein(x + shift, x, projections=20_000)
    assert exact.squared == pytest.approx(shift @ shift / 8, rel=0.03)


def test_of_two_scales_in_one_dimension_is_the_difference_of_their_deviations():
    from scipy.stats import norm

    quantiles = norm.ppf((np.arange(4000) + 0.5) / 4000)[:, None]
    result = sliced_wasserstein(quantiles, 1.5 * quantiles + 0.2)
    assert result.squared == pytest.approx(0.5**2 + 0.2**2, rel=0.01)  # Gaussian: shift squared + (1.5 − 1)²


def test_projection_error_is_the_spread_over_seeds():
    x, y = draws(60, 50, 10, 0.3)
    results = [sliced_wasserstein(x, y, projections=40, seed=seed) for seed in range(150)]
    spread = np.std([r.squared for r in results], ddof=1)
    assert np.sqrt(np.mean([r.projection_se**2 for r in results])) == pytest.approx(spread, rel=0.15)


def test_without_a_gap_it_is_above_zero_and_falls_with_the_number_of_images():
    def null(n):
        rng = np.random.default_rng(n)
        return np.mean([sliced_wasserstein(*rng.standard_normal((2, n, 5)), projections=50).squared for _ in range(20)])

    few, many = null(20), null(200)
    assert 0 < many < few / 5


def test_zero_only_for_equal_sets_and_symmetric():
    x, y = draws(30, 20, 4)
    assert sliced_wasserstein(x, x[::-1]).value == pytest.approx(0, abs=1e-12)
    assert sliced_wasserstein(x, np.concatenate([x, x])).value == pytest.approx(0, abs=1e-12)
    assert sliced_wasserstein(x, y).value == pytest.approx(sliced_wasserstein(y, x).value, rel=1e-12)
    assert sliced_wasserstein(3 * x, 3 * y).value == pytest.approx(3 * sliced_wasserstein(x, y).value, rel=1e-12)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_does_not_depend_on_block_size_order_or_offset(monkeypatch, block):
    x, y = draws(45, 31, 6)
    whole = sliced_wasserstein(x, y)
    monkeypatch.setattr(metrics.statistics.sliced_wasserstein, "BLOCK", block)
    rng = np.random.default_rng(0)
    again = sliced_wasserstein(x[rng.permutation(45)] + 1e4, y[rng.permutation(31)] + 1e4)
    assert again.value == pytest.approx(whole.value, rel=1e-9)


def test_seed_decides_the_directions_and_nothing_else_does():
    x, y = draws(30, 20, 4)
    np.random.seed(1)  # noqa: NPY002
    one = sliced_wasserstein(x, y)
    np.random.seed(2)  # noqa: NPY002
    assert sliced_wasserstein(x, y) == one
    assert sliced_wasserstein(x, y, seed=1).value != one.value
    assert np.allclose(np.linalg.norm(random_directions(4, 9, 0), axis=1), 1)


def test_bad_input_is_refused():
    x, y = draws(9, 6, 3)
    with pytest.raises(InputError, match=r"projections = 1\. Expected 2 or more"):
        sliced_wasserstein(x, y, projections=1)
    with pytest.raises(InputError, match=r"y has NaN or infinite features in 1 row\(s\): 2"):
        sliced_wasserstein(x, np.where(np.arange(6)[:, None] == 2, np.nan, y))
    with pytest.raises(InputError, match=r"x has 1 row\(s\)"):
        sliced_wasserstein(x[:1], y)
