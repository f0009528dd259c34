import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import metrics.statistics.mmd
from metrics.errors import InputError
from metrics.extractors.float_precision import ieee_float32
from metrics.statistics.jackknife import interval, jackknife
from metrics.statistics.kid import kid

torch.set_num_threads(1)


def waves(n, d, a, b, s, t):
    """Deterministic features without a random generator."""
    i, j = np.arange(n)[:, None], np.arange(d)[None]
    return s * np.sin(a * (i + 1) * np.sqrt(j + 1) + b * j) + t


def pair(n, m, d):
    return waves(n, d, 0.37, 1.13, 1.0, 0.5), waves(m, d, 0.53, 0.71, 1.2, 0.6)


def reference(x, y):
    """The definition, one pair at a time."""

    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


GOLDEN = [  # printed by torch-fidelity 0.4.0, torchmetrics 1.9.0 and clean-fid 0.1.35 where n = m
    (64, 64, 16, -0.023190232244710),
    (64, 48, 16, -0.072620622627865),
    (24, 20, 64, -0.224405530148789),
]


@pytest.mark.parametrize(("n", "m", "d", "expected"), GOLDEN)
def test_golden_values(n, m, d, expected):
    x, y = pair(n, m, d)
    assert kid(x, y).value == pytest.approx(expected, abs=1e-12)
    assert kid(x.astype(np.float32), y.astype(np.float32)).value == pytest.approx(expected, abs=1e-7)


def test_equals_the_definition_pair_by_pair():
    x, y = pair(13, 9, 5)
    result = kid(x, torch.from_numpy(y))
    assert result.value == pytest.approx(reference(x, y), abs=1e-13)
    assert (result.n, result.m) == (13, 9)


def test_equals_torch_fidelity_when_its_subset_is_the_whole_set():
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = (torch.from_numpy(f) for f in pair(120, 120, 32))
    theirs = kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=120, verbose=False)
    assert kid(x, y).value == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-12)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
def test_equals_torchmetrics_when_its_subset_is_the_whole_set():
    from torchmetrics.image.kid import KernelInceptionDistance

    class Flat(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1)

    x, y = (torch.from_numpy(f) for f in pair(60, 60, 12))
    theirs = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=60)
    theirs.update(x.view(60, 3, 2, 2), real=True)
    theirs.update(y.view(60, 3, 2, 2), real=False)
    assert kid(x, y).value == pytest.approx(float(theirs.compute()[0]), abs=1e-12)


def test_of_a_set_with_itself_is_slightly_negative():
    x, _ = pair(40, 40, 8)
    kernel = (x @ x.T / 8 + 1) ** 3
    off = (kernel.sum() - np.trace(kernel)) / (40 * 39)
    assert kid(x, x).value == pytest.approx(-2 / 40 * (np.diag(kernel).mean() - off), abs=1e-12)


@pytest.mark.parametrize("block", [1, 7, 20, 64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_does_not_depend_on_the_block_size(monkeypatch, block, dtype):
    x, y = (f.astype(dtype) for f in pair(45, 31, 10))
    whole = kid(x, y, groups_x=[i % 6 for i in range(45)])
    monkeypatch.setattr(metrics.statistics.mmd, "BLOCK", block)
    tiled = kid(x, y, groups_x=[i % 6 for i in range(45)])
    tolerance = 1e-6 if dtype == np.float32 else 1e-13
    assert tiled.value == pytest.approx(whole.value, abs=tolerance)
    np.testing.assert_allclose(tiled.loo_x, whole.loo_x, atol=tolerance)
    np.testing.assert_allclose(tiled.loo_y, whole.loo_y, atol=tolerance)


def test_does_not_depend_on_the_order_of_rows_or_features():
    x, y = pair(45, 31, 10)
    rng = np.random.default_rng(0)
    one, two, columns = rng.permutation(45), rng.permutation(31), rng.permutation(10)
    straight, shuffled = kid(x, y), kid(x[one][:, columns], y[two][:, columns])
    assert shuffled.value == pytest.approx(straight.value, abs=1e-13)
    assert shuffled.se == pytest.approx(straight.se, rel=1e-9)
    np.testing.assert_allclose(shuffled.loo_x, straight.loo_x[one], atol=1e-13)


def test_swapping_the_sets_swaps_the_sides():
    x, y = pair(25, 31, 10)
    there, back = kid(x, y), kid(y, x)
    assert there.value == pytest.approx(back.value, abs=1e-13)
    np.testing.assert_allclose(there.loo_x, back.loo_y, atol=1e-13)


def test_invariant_to_rotation():
    x, y = pair(25, 31, 10)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((10, 10)))
    assert kid(x @ rotation, y @ rotation).value == pytest.approx(kid(x, y).value, abs=1e-12)


def test_leave_one_out_values_are_what_deleting_the_row_gives():
    x, y = pair(14, 11, 6)
    result = kid(x, y)
    np.testing.assert_allclose(result.loo_x, [kid(np.delete(x, i, 0), y).value for i in range(14)], atol=1e-13)
    np.testing.assert_allclose(result.loo_y, [kid(x, np.delete(y, i, 0)).value for i in range(11)], atol=1e-13)


def test_leave_one_group_out_values_are_what_deleting_the_group_gives():
    x, y = pair(20, 13, 6)
    groups_x = [f"photo{i * i % 7}" for i in range(20)]  # interleaved, of unequal sizes
    groups_y = ["a"] * 5 + ["b"] * 1 + ["c"] * 7
    result = kid(x, y, groups_x=groups_x, groups_y=groups_y)

    def without(features, groups, group):
        return features[[g != group for g in groups]]

    def rest(groups, group):
        return [g for g in groups if g != group]

    by_x = [
        kid(without(x, groups_x, g), y, groups_x=rest(groups_x, g), groups_y=groups_y).value
        for g in dict.fromkeys(groups_x)
    ]
    by_y = [
        kid(x, without(y, groups_y, g), groups_x=groups_x, groups_y=rest(groups_y, g)).value
        for g in dict.fromkeys(groups_y)
    ]
    np.testing.assert_allclose(result.loo_x, by_x, atol=1e-13)
    np.testing.assert_allclose(result.loo_y, by_y, atol=1e-13)
    assert result.se == pytest.approx(jackknife(by_x, by_y).se, rel=1e-9)


def test_pairs_inside_a_group_are_left_out():
    x, y = pair(9, 7, 5)
    groups_x, groups_y = list("aabbbcdde"), list("uuvvwww")

    def mean(a, b, apart):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if apart(i, j)]
        return np.mean([(a[i] @ b[j] / 5 + 1) ** 3 for i, j in pairs])

    slow = (
        mean(x, x, lambda i, j: groups_x[i] != groups_x[j])
        + mean(y, y, lambda i, j: groups_y[i] != groups_y[j])
        - 2 * mean(x, y, lambda i, j: True)
    )
    assert kid(x, y, groups_x=groups_x, groups_y=groups_y).value == pytest.approx(slow, rel=1e-12)


def test_unbiased_for_several_dependent_crops_of_each_photo():
    """Rows share their photo's mean: leaving out the pairs inside photos keeps the null at 0, using them does not."""
    grouped, ungrouped = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        photos = np.repeat(rng.standard_normal((8, 6)), 5, axis=0) + 0.5 * rng.standard_normal((40, 6))
        others = rng.standard_normal((40, 6)) * np.sqrt(1.25)
        names = np.repeat(np.arange(8), 5).tolist()
        grouped.append(kid(others, photos, groups_y=names).value)
        ungrouped.append(kid(others, photos).value)
    error = np.std(grouped, ddof=1) / np.sqrt(300)
    assert abs(np.mean(grouped)) < 3 * error
    assert np.mean(ungrouped) > 10 * error


def redraws(count, shift, n=40, d=6):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        yield kid(rng.standard_normal((n, d)), rng.standard_normal((n, d)) + shift)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
def test_jackknife_error_matches_the_spread_of_redraws(shift):
    results = list(redraws(400, shift))
    true = np.std([r.value for r in results], ddof=1)
    assert 0.9 < np.sqrt(np.mean([r.se**2 for r in results])) / true < 1.6


def test_unbiased_without_a_gap():
    values = [r.value for r in redraws(400, 0.0)]
    assert abs(np.mean(values)) < 3 * np.std(values, ddof=1) / np.sqrt(len(values))


def test_confidence_interval_covers_the_true_gap():
    truth = np.mean([r.value for r in redraws(150, 0.5, n=300)])  # unbiased, so an average of larger samples
    inside = [low < truth < high for low, high in (interval(r.value, r.error) for r in redraws(400, 0.5))]
    assert np.mean(inside) > 0.90


def test_error_by_groups_matches_the_spread_of_redraws_where_rows_depend():
    values, grouped, naive = [], [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        photos = rng.standard_normal((16, 6)) + 1.0
        crops = np.repeat(photos, 5, axis=0) + 0.1 * rng.standard_normal((80, 6))
        y = rng.standard_normal((200, 6))
        values.append(kid(crops, y).value)
        naive.append(kid(crops, y).se)
        grouped.append(kid(crops, y, groups_x=[i // 5 for i in range(80)]).se)
    true = np.std(values, ddof=1)
    assert 0.9 < np.sqrt(np.mean(np.square(grouped))) / true < 1.6
    assert np.sqrt(np.mean(np.square(naive))) / true < 0.7


def test_a_single_group_is_refused():
    x, y = pair(10, 9, 4)
    with pytest.raises(InputError, match=r"all rows are of one group. Expected at least 2 independent groups"):
        kid(x, y, groups_y=["one photo"] * 9)


def test_error_is_undefined_when_too_few_rows_remain():
    x, y = pair(2, 9, 4)
    result = kid(x, y)
    assert result.se is None
    assert result.error.reason == "sample 1 is too small to leave a group out"


def test_jackknife_of_means_is_the_textbook_standard_error():
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal(30), 3 * rng.standard_normal(20)
    loo_a = (a.sum() - a) / 29 - b.mean()
    loo_b = a.mean() - (b.sum() - b) / 19
    error = jackknife(loo_a, loo_b)
    va, vb = a.var(ddof=1) / 30, b.var(ddof=1) / 20
    assert error.se == pytest.approx(np.sqrt(va + vb), rel=1e-12)
    assert error.dof == pytest.approx((va + vb) ** 2 / (va**2 / 29 + vb**2 / 19), rel=1e-12)  # Welch
    low, high = interval(1.5, error)
    from scipy.stats import t

    assert (low, high) == pytest.approx(t.interval(0.95, error.dof, loc=1.5, scale=error.se), rel=1e-9)


def test_jackknife_of_a_function_of_statistics_that_share_a_sample():
    """A ratio of two KIDs to one reference: its error is far below that of two independent errors."""

    def ratios(seed):
        rng = np.random.default_rng(seed)
        reference, noise = rng.standard_normal((40, 4)), rng.standard_normal((40, 4))
        return kid(noise + 1.0, reference), kid(rng.standard_normal((40, 4)) + 1.0, reference)

    values, errors = [], []
    for seed in range(250):
        a, b = ratios(seed)
        values.append(a.value / b.value)
        errors.append(jackknife(a.loo_x / b.value, a.value / b.loo_x, a.loo_y / b.loo_y).se)
    assert 0.85 < np.sqrt(np.mean(np.square(errors))) / np.std(values, ddof=1) < 1.4


def test_float32_is_immune_to_a_loose_global_matmul_precision():
    x, y = (f.astype(np.float32) for f in pair(256, 256, 256))
    exact = kid(x, y).value
    torch.set_float32_matmul_precision("medium")
    try:
        assert kid(x, y).value == exact
        assert torch.get_float32_matmul_precision() == "medium"
        with ieee_float32():
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_read_only_and_strided_arrays_are_taken():
    x, y = pair(12, 10, 4)
    x.flags.writeable = False
    assert kid(x, y[::-1]).value == pytest.approx(kid(x.copy(), y).value, abs=1e-13)


def rows(count, features=3):
    return np.ones((count, features))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (rows(1), rows(4), r"x has 1 row\(s\). Expected at least 2"),
        (rows(4), rows(4, 5), "x has 3 features per image and y has 5"),
        (np.ones(3), rows(4), r"x has shape \[3\]. Expected \[N,D\]"),
        (rows(4), np.ones((4, 0)), r"y has shape \[4, 0\]"),
        (rows(4).astype(np.int64), rows(4), "x is torch.int64. Expected float32 or float64"),
        (
            np.array([[1.0], [np.nan], [2.0], [np.inf]]),
            rows(4, 1),
            r"x has NaN or infinite features in 2 row\(s\): 1, 3",
        ),
        (rows(4), np.full((20, 3), np.nan), r"in 20 row\(s\): 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."),
        (rows(4).astype(np.float32) * 1e30, rows(4).astype(np.float32), "the kernel overflows"),
    ],
)
def test_bad_features_are_refused(x, y, message):
    with pytest.raises(InputError, match=message):
        kid(x, y)


def test_groups_of_another_length_are_refused():
    with pytest.raises(InputError, match="groups_x has 2 entries for 4 rows"):
        kid(rows(4), rows(4), groups_x=["a", "b"])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_of_twenty_thousand_images():
    """20 000 x 2 048 against as many, in a process of its own: under 1.5 GB with PyTorch and the features in it."""
    program = """
import torch
from metrics.statistics.kid import kid
x, y = (torch.randn(20_000, 2048).relu_() for _ in range(2))
kid(x, y)
print(open("/proc/self/status").read())
"""
    status = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < 1.5e6
