import inspect

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import metrics.statistics.frechet
from metrics.errors import InputError
from metrics.statistics.frechet import first_order_bias, frechet, frechet_from_statistics

torch.set_num_threads(1)


def waves(n, d, a, b, s, t):
    """Deterministic features without a random generator."""
    i, j = np.arange(n)[:, None], np.arange(d)[None]
    return s * np.sin(a * (i + 1) * np.sqrt(j + 1) + b * j) + t


def pair(n, m, d):
    return waves(n, d, 0.37, 1.13, 1.0, 0.5), waves(m, d, 0.53, 0.71, 1.2, 0.6)


def statistics(x):
    return x.mean(0), np.cov(x, rowvar=False)


def by_square_root(x, y):
    """The textbook formula with a matrix square root."""
    (mu1, s1), (mu2, s2) = statistics(x), statistics(y)
    root = scipy.linalg.sqrtm(s1 @ s2)
    return float(np.sum((mu1 - mu2) ** 2) + np.trace(s1) + np.trace(s2) - 2 * np.trace(root).real)


GOLDEN = [  # where n, m > d, torch-fidelity 0.4.0, torchmetrics 1.9.0 and clean-fid 0.1.35 print the same
    (64, 64, 16, 1.451637202775),
    (64, 48, 16, 0.797795082931),
    (24, 20, 64, 38.244433418284),
]


@pytest.mark.parametrize(("n", "m", "d", "expected"), GOLDEN)
def test_golden_values(n, m, d, expected):
    x, y = pair(n, m, d)
    assert frechet(x, y).value == pytest.approx(expected, abs=1e-11)
    assert frechet(torch.from_numpy(x), torch.from_numpy(y)).value == pytest.approx(expected, abs=1e-11)
    assert frechet_from_statistics(*statistics(x), *statistics(y)) == pytest.approx(expected, abs=1e-11)
    assert frechet(x.astype(np.float32), y.astype(np.float32)).value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(300, 260, 64), (700, 300, 128)])
def test_equals_the_matrix_square_root_with_enough_images(n, m, d):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) @ rng.standard_normal((d, d)) / 8
    assert frechet(x, y).value == pytest.approx(by_square_root(x, y), rel=1e-8)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 30, 64), (100, 30, 64), (65, 200, 64)])
def test_is_close_to_the_matrix_square_root_with_few_images(n, m, d):
    x, y = pair(n, m, d)
    assert frechet(x, y).value == pytest.approx(by_square_root(x, y), rel=1e-5)
    assert frechet(y, x).value == pytest.approx(frechet(x, y).value, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(200, 16), (20, 64), (64, 64), (65, 64)])
def test_of_a_set_with_itself_is_zero(n, d):
    x, _ = pair(n, n, d)
    assert 0 <= frechet(x, x).value < 1e-12 * np.trace(np.cov(x.T))


def test_shift_alone_is_its_squared_length():
    x, _ = pair(50, 50, 20)
    shift = np.linspace(-1, 2, 20)
    assert frechet(x, x + shift).value == pytest.approx(np.sum(shift**2), rel=1e-12)


def test_diagonal_gaussians():
    a, b = np.array([4.0, 9.0, 0.0, 1.0]), np.array([1.0, 16.0, 2.0, 0.0])
    expected = np.sum((np.sqrt(a) - np.sqrt(b)) ** 2) + 4 * 0.25
    assert frechet_from_statistics(np.zeros(4), np.diag(a), np.full(4, 0.5), np.diag(b)) == pytest.approx(expected)


def test_commuting_covariances():
    basis, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((6, 6)))
    a, b = np.arange(1.0, 7.0), np.arange(7.0, 1.0, -1.0)
    value = frechet_from_statistics(np.zeros(6), basis * a @ basis.T, np.zeros(6), basis * b @ basis.T)
    assert value == pytest.approx(np.sum((np.sqrt(a) - np.sqrt(b)) ** 2))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.floats(0.01, 100), n=st.integers(3, 25), m=st.integers(3, 25))
def test_invariant_to_rotation_and_homogeneous_of_degree_two(seed, scale, n, m):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 8)), 2 * rng.standard_normal((m, 8)) + 1
    rotation, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    value = frechet(x, y).value
    assert frechet(x @ rotation + 3, y @ rotation + 3).value == pytest.approx(value, rel=1e-9)
    assert frechet(scale * x, scale * y).value == pytest.approx(scale**2 * value, rel=1e-9)


def test_does_not_depend_on_the_order_of_rows():
    x, y = pair(90, 70, 32)
    rng = np.random.default_rng(0)
    assert frechet(rng.permutation(x), rng.permutation(y)).value == pytest.approx(frechet(x, y).value, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_does_not_depend_on_how_many_rows_are_taken_at_a_time(monkeypatch, dtype):
    x, y = (f.astype(dtype) for f in pair(90, 70, 16))
    whole = frechet(x, y)
    for rows in (1, 20, 64, 70):
        monkeypatch.setattr(metrics.statistics.frechet, "ROWS", rows)
        assert frechet(x, y).value == pytest.approx(whole.value, rel=1e-12)
        assert frechet(x, y).bias == pytest.approx(whole.bias, rel=1e-12)


def test_both_routes_with_many_images_give_the_same(monkeypatch):
    x, y = pair(90, 70, 16)
    fast = frechet(x, y).value
    monkeypatch.setattr(metrics.statistics.frechet, "ACCURACY", 0.0)
    assert frechet(x, y).value == pytest.approx(fast, rel=1e-12)


@pytest.mark.parametrize("rank", [3, 15])
def test_many_images_of_low_rank_take_the_exact_route(rank):
    """Roots of eigenvalues would be off by 1e-8 of the largest: 0 is 1e-15 here."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, rank)) @ rng.standard_normal((rank, 16))
    assert frechet(x, x).value < 1e-13 * np.trace(np.cov(x.T))
    moved = x + 1e-3 * x[:, :1]  # not a copy: the distance itself is small
    expected = by_factors(x, moved)
    assert frechet(x, moved).value == pytest.approx(expected, abs=1e-13 * np.trace(np.cov(x.T)))


def by_factors(x, y):
    a, b = ((f - f.mean(0)) / np.sqrt(len(f) - 1) for f in (x, y))
    nuclear = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.sum(a**2) + np.sum(b**2) - 2 * nuclear


def test_equals_torch_fidelity_and_torchmetrics():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torchmetrics.image.fid import _compute_fid

    x, y = pair(90, 70, 16)
    ours = frechet(x, y).value
    one, two = (fid_features_to_statistics(torch.from_numpy(f)) for f in (x, y))
    theirs = fid_statistics_to_metric(one, two, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-9)
    (mu1, s1), (mu2, s2) = ((torch.from_numpy(part) for part in statistics(f)) for f in (x, y))
    assert ours == pytest.approx(float(_compute_fid(mu1, s1, mu2, s2)), rel=1e-9)


@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated")
@pytest.mark.skipif(
    "disp" not in inspect.signature(scipy.linalg.sqrtm).parameters, reason="clean-fid needs SciPy < 1.18"
)
def test_equals_clean_fid():
    import cleanfid.fid

    x, y = pair(90, 70, 16)
    assert frechet(x, y).value == pytest.approx(cleanfid.fid.fid_from_feats(x, y), rel=1e-9)


def test_large_offset_costs_no_accuracy():
    x, y = pair(90, 70, 32)
    assert frechet(x + 1e4, y + 1e4).value == pytest.approx(frechet(x, y).value, rel=1e-8)


@pytest.mark.parametrize("n", [160, 480])
def test_first_order_bias_is_the_mean_without_a_gap(n):
    d = 16
    scale = np.arange(1, d + 1) ** -0.5
    values, biases = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        result = frechet(rng.standard_normal((n, d)) * scale, rng.standard_normal((2 * n, d)) * scale)
        values.append(result.value)
        biases.append(result.bias)
    assert np.mean(values) == pytest.approx(np.mean(biases), rel=0.05)


def test_bias_is_refused_for_few_images_and_the_reader_is_told():
    x, y = pair(64, 31, 16)
    result = frechet(x, y)
    assert result.bias is None
    assert result.warnings[0].startswith(
        "Fréchet distances of fewer than 32 images per side (16 features) are mostly sampling bias"
    )
    with pytest.raises(InputError, match=r"no bias estimate for n=64, m=31 images: expected at least 2 D = 32"):
        first_order_bias(x, y)


def test_bias_is_reported_and_named_when_it_matters():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((100, 4)), rng.standard_normal((100, 4))
    result = frechet(x, y)
    assert result.bias == first_order_bias(x, y)
    assert result.warnings[0].startswith("Two samples of one distribution would give a Fréchet distance of about")
    assert frechet(x, y + 9).warnings == ()


def test_bias_of_features_that_never_vary():
    x, y = pair(40, 40, 8)
    x[:, 3:], y[:, 3:] = 0.0, 0.0
    assert first_order_bias(x, y) == pytest.approx(first_order_bias(x[:, :3], y[:, :3]), rel=1e-9)
    constant = np.ones((40, 8))
    assert frechet(constant, constant).value == 0.0
    assert frechet(constant, constant).bias == 0.0


def eye(d):
    return np.zeros(d), np.eye(d)


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        (eye(3), eye(4), "means have 3 and 4 entries"),
        ((np.zeros(3), np.eye(4)), eye(3), r"statistics 1: shapes \[3\] and \[4, 4\]"),
        (eye(3), (np.full(3, np.nan), np.eye(3)), "statistics 2: NaN or infinity"),
        (eye(2), (np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]])), "statistics 2: the covariance is not symmetric"),
        (eye(2), (np.zeros(2), np.diag([1.0, -0.1])), "statistics 2: the covariance has the eigenvalue -0.1"),
    ],
)
def test_bad_statistics_are_refused(one, two, message):
    with pytest.raises(InputError, match=message):
        frechet_from_statistics(*one, *two)


def test_bad_features_are_refused():
    with pytest.raises(InputError, match="x has 2 features per image and y has 3"):
        frechet(np.ones((4, 2)), np.ones((4, 3)))
    with pytest.raises(InputError, match=r"y has NaN or infinite features in 1 row\(s\): 2"):
        frechet(np.ones((4, 1)), np.array([[1.0], [2.0], [np.nan]]))
