import numpy as np
import pytest
import scipy.stats

from metrics.errors import InputError
from metrics.statistics.frechet import frechet
from metrics.statistics.frechet_infinity import frechet_infinity


def sample(n, d, seed, shift=0.0, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal((n, d)) + shift


def test_is_the_least_squares_line_through_its_own_points():
    result = frechet_infinity(sample(400, 8, 0), sample(300, 8, 1, 0.2))
    fit = scipy.stats.linregress(1 / result.sizes, result.distances)
    assert result.value == pytest.approx(fit.intercept, rel=1e-9)
    assert result.slope == pytest.approx(fit.slope, rel=1e-9)
    assert result.fit_se == pytest.approx(fit.intercept_stderr, rel=1e-9)
    assert (result.sizes.min(), result.sizes.max(), len(result.sizes)) == (16, 300, 15)
    np.testing.assert_allclose(np.diff(1 / result.sizes[::3]), (1 / 300 - 1 / 16) / 4, rtol=0.05)


def test_largest_size_is_all_images_of_equal_sets():
    x, y = sample(64, 8, 0), sample(64, 8, 1)
    result = frechet_infinity(x, y)
    assert result.distances[-3:] == pytest.approx([frechet(x, y).value] * 3, rel=1e-9)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.2, 1.0), (0.0, 1.3)])
def test_meets_the_distance_of_the_distributions_where_the_plain_value_does_not(shift, scale):
    d, n = 16, 400
    truth = d * (shift**2 + (scale - 1) ** 2)
    plain, infinity = [], []
    for seed in range(20):
        x, y = sample(n, d, 2 * seed), sample(n, d, 2 * seed + 1, shift, scale)
        plain.append(frechet(x, y).value)
        infinity.append(frechet_infinity(x, y, seed=seed).value)
    bias = np.mean(plain) - truth
    error = np.std(infinity, ddof=1) / np.sqrt(20)
    assert abs(np.mean(infinity) - truth) < 0.15 * bias + 3 * error
    assert abs(np.mean(infinity) - truth) < 0.5 * bias


def test_the_seed_decides():
    x, y = sample(80, 4, 0), sample(90, 4, 1)
    assert frechet_infinity(x, y, seed=1).value == frechet_infinity(x, y, seed=1).value
    assert frechet_infinity(x, y, seed=1).value != frechet_infinity(x, y, seed=2).value


def test_too_few_images_are_refused_with_the_number_needed():
    with pytest.raises(InputError, match=r"64 and 63 images of 16 features. Expected at least 4 D = 64 on each side"):
        frechet_infinity(sample(64, 16, 0), sample(63, 16, 1))
    with pytest.raises(InputError, match="draws = 0"):
        frechet_infinity(sample(64, 16, 0), sample(64, 16, 1), draws=0)
