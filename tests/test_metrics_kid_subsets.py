import numpy as np
import pytest
import torch

import metrics.statistics.mmd
from metrics.errors import InputError
from metrics.statistics.kid import kid
from metrics.statistics.kid_subsets import kid_subsets


def waves(n, d, a, b, s, t):
    """Deterministic features without a random generator."""
    i, j = np.arange(n)[:, None], np.arange(d)[None]
    return s * np.sin(a * (i + 1) * np.sqrt(j + 1) + b * j) + t


def pair(n, m, d):
    return waves(n, d, 0.37, 1.13, 1.0, 0.5), waves(m, d, 0.53, 0.71, 1.2, 0.6)


def torch_fidelity(x, y, subsets, size, **options):
    from torch_fidelity.metric_kid import kid_features_to_metric

    found = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=subsets, kid_subset_size=size, verbose=False, **options
    )
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


@pytest.mark.parametrize(
    ("n", "m", "subsets", "size"),
    [(300, 250, 100, 100), (300, 250, 3, 20)],  # one pass over all pairs; one subset after the other
)
def test_equals_torch_fidelity(n, m, subsets, size):
    x, y = pair(n, m, 24)
    ours = kid_subsets(x, y, subsets=subsets, size=size)
    mean, std = torch_fidelity(x, y, subsets, size)
    assert ours.mean == pytest.approx(mean, rel=1e-9)
    assert ours.std == pytest.approx(std, rel=1e-9)
    assert (len(ours.values), ours.size) == (subsets, size)
    single = kid_subsets(x.astype(np.float32), y.astype(np.float32), subsets=subsets, size=size)
    assert single.mean == pytest.approx(mean, abs=1e-7)


@pytest.mark.slow
def test_equals_torch_fidelity_at_the_published_size():
    x, y = pair(2000, 1500, 64)
    mean, std = torch_fidelity(x, y, 100, 1000)
    ours = kid_subsets(x, y)
    assert ours.mean == pytest.approx(mean, rel=1e-9)
    assert ours.std == pytest.approx(std, rel=1e-9)


def test_the_seed_is_that_of_torch_fidelity():
    x, y = pair(60, 50, 8)
    for seed in (2020, 7):
        mean, _ = torch_fidelity(x, y, 10, 20, rng_seed=seed)
        assert kid_subsets(x, y, subsets=10, size=20, seed=seed).mean == pytest.approx(mean, rel=1e-9)


def test_both_ways_and_all_blocks_give_the_same(monkeypatch):
    x, y = pair(90, 70, 8)
    at_once = kid_subsets(x, y, subsets=30, size=40)
    monkeypatch.setattr(metrics.statistics.mmd, "BLOCK", 17)
    np.testing.assert_allclose(kid_subsets(x, y, subsets=30, size=40).values, at_once.values, atol=1e-13)
    random = np.random.RandomState(2020)
    one_by_one = [
        kid(x[random.choice(90, 40, replace=False)], y[random.choice(70, 40, replace=False)]).value for _ in range(30)
    ]
    np.testing.assert_allclose(at_once.values, one_by_one, atol=1e-13)


def test_a_subset_that_is_the_whole_set_gives_the_full_value_and_no_spread():
    x, y = pair(50, 50, 8)
    ours = kid_subsets(x, y, subsets=5, size=50)
    assert ours.mean == pytest.approx(kid(x, y).value, abs=1e-13)
    assert ours.std < 1e-13


@pytest.mark.parametrize("options", [{"size": 51}, {"size": 1}, {"size": 20, "subsets": 0}, {}])
def test_sizes_that_do_not_fit_are_refused(options):
    with pytest.raises(InputError, match=r"images from 50 and 60. Expected at least 1 subset of 2 images"):
        kid_subsets(*pair(50, 60, 4), **options)


def test_overflow_is_refused():
    with pytest.raises(InputError, match="the kernel overflows"):
        kid_subsets(np.ones((9, 3)) * 1e160, np.ones((9, 3)), subsets=9, size=8)
