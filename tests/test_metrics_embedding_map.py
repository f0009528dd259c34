import numpy as np
import pytest
import torch

from metrics.comparison.embedding_map import embedding_map
from metrics.errors import InputError


def draws(n=30, m=20, d=8, seed=0):
    rng = np.random.default_rng(seed)
    scale = np.linspace(3, 0.5, d)
    return rng.standard_normal((n, d)) * scale + 0.5, rng.standard_normal((m, d)) * scale


@pytest.mark.parametrize("d", [3, 8, 120])
def test_pca_equals_the_eigenvectors_of_the_covariance(d):
    x, y = draws(d=d)
    pooled = np.concatenate([x, y])
    values, vectors = np.linalg.eigh(np.cov(pooled.T))
    axes = vectors[:, [-1, -2]]
    axes *= np.sign(axes[np.abs(axes).argmax(0), [0, 1]])
    result = embedding_map(x, torch.from_numpy(y))
    np.testing.assert_allclose(np.concatenate([result.x, result.y]), (pooled - pooled.mean(0)) @ axes, atol=1e-9)
    assert result.explained == pytest.approx((values[-1] / values.sum(), values[-2] / values.sum()), rel=1e-9)
    assert (result.x.shape, result.y.shape) == ((30, 2), (20, 2))


def test_signs_do_not_depend_on_order_or_offset():
    x, y = draws()
    whole = embedding_map(x, y)
    order = np.random.default_rng(0).permutation(30)
    again = embedding_map(x[order] + 100, y + 100)
    np.testing.assert_allclose(again.x, whole.x[order], atol=1e-9)
    np.testing.assert_allclose(again.y, whole.y, atol=1e-9)


def test_axes_that_do_not_exist_are_zero():
    one = embedding_map(*draws(d=1))
    assert np.all(one.x[:, 1] == 0)
    assert one.explained == pytest.approx((1, 0))
    line = embedding_map(np.arange(8.0)[:, None] * [[1, 2, 3]], np.arange(4.0)[:, None] * [[1, 2, 3]])
    assert np.all(line.x[:, 1] == 0)
    assert np.ptp(line.x[:, 0]) == pytest.approx(7 * np.sqrt(14))
    still = embedding_map(np.ones((3, 4)), np.ones((2, 4)))
    assert not still.x.any()
    assert still.explained == (0, 0)


def test_bad_input_is_refused():
    x, y = draws()
    with pytest.raises(InputError, match=r"y has NaN or infinite features in 1 row\(s\): 2"):
        embedding_map(x, np.where(np.arange(20)[:, None] == 2, np.nan, y))
    with pytest.raises(InputError, match=r"x has 1 row\(s\)"):
        embedding_map(x[:1], y)
