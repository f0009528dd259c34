import numpy as np
import pytest
import torch

import metrics.statistics.neighbours
from metrics.errors import InputError
from metrics.statistics.neighbours import nearest
from metrics.statistics.precision_recall import density_coverage, precision_recall


def waves(n, d, a, b, s, t):
    """Deterministic features without a random generator."""
    i, j = np.arange(n)[:, None], np.arange(d)[None]
    return s * np.sin(a * (i + 1) * np.sqrt(j + 1) + b * j) + t


def pair(n, m, d):
    return waves(n, d, 0.37, 1.13, 1.0, 0.5), waves(m, d, 0.53, 0.71, 1.2, 0.6)


def draws(n, m, d, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) + shift, rng.standard_normal((m, d))


def slow(x, y, k, groups_x=None, groups_y=None):
    """Precision and recall (closed balls), density and coverage (open balls), one pair at a time."""

    def distance(a, b):
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))

    def reach(points, groups):
        own = list(zip(points, groups, strict=True))
        names = set(groups)
        return [
            sorted(min(distance(a, b) for b, g in own if g == other) for other in names - {group})[k - 1]
            for a, group in own
        ]

    groups_x = list(range(len(x))) if groups_x is None else groups_x
    groups_y = list(range(len(y))) if groups_y is None else groups_y

    reach_x, reach_y = reach(x, groups_x), reach(y, groups_y)
    precision = np.mean([any(distance(a, b) <= r for b, r in zip(y, reach_y, strict=True)) for a in x])
    recall = np.mean([any(distance(b, a) <= r for a, r in zip(x, reach_x, strict=True)) for b in y])
    balls = [sum(distance(a, b) < r for b, r in zip(y, reach_y, strict=True)) for a in x]
    density = np.mean(balls) / k / (len(y) / len(set(groups_y)))
    coverage = np.mean([any(distance(a, b) < r for a in x) for b, r in zip(y, reach_y, strict=True)])
    return precision, recall, density, coverage


def all_four(x, y, k=3, **groups):
    pr, dc = precision_recall(x, y, k=k, **groups), density_coverage(x, y, k=k, **groups)
    return pr.precision, pr.recall, dc.density, dc.coverage


SIZES = [(64, 64, 16), (64, 48, 16), (24, 20, 64)]


@pytest.mark.parametrize(  # printed by torch-fidelity 0.4.0 and prdc
    ("size", "fidelity", "prdc"),
    [
        (SIZES[0], (1, 0.734375), (1, 0.8125, 2.815625, 1)),
        (SIZES[1], (1, 0.8958333333333), (1, 0.9166666666667, 2.728125, 1)),
        (SIZES[2], (1, 0.7), (1, 0.7, 3.2916666666667, 1)),
    ],
)
def test_golden_values(size, fidelity, prdc):
    x, y = pair(*size)
    result = precision_recall(x, y)
    assert (result.precision, result.recall) == pytest.approx(fidelity, abs=1e-12)
    assert (result.k, result.n, result.m) == (3, *size[:2])
    assert all_four(x, y, k=5) == pytest.approx(prdc, abs=1e-12)
    assert density_coverage(x, torch.from_numpy(y)) == density_coverage(x, y, k=5)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_equals_torch_fidelity(shift):
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = draws(90, 70, 4, shift)
    theirs = prc_features_to_metric(torch.from_numpy(x), torch.from_numpy(y), verbose=False)
    result = precision_recall(x, y)
    assert 0.3 < result.precision < 1
    assert (result.precision, result.recall) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_equals_the_definition_on_a_grid_full_of_ties(k):
    """Whole numbers: many distances equal a radius exactly, many images are duplicates, and sets share images."""
    rng = np.random.default_rng(3)
    x, y = (rng.integers(0, 4, (size, 3)).astype(np.float64) for size in (40, 30))
    assert all_four(x, y, k) == pytest.approx(slow(x, y, k), abs=1e-12)
    offset = np.array([1e3, -2e4, 3e4])  # ties survive an offset that a matrix product rounds
    assert all_four(x + offset, y + offset, k) == pytest.approx(slow(x, y, k), abs=1e-12)


def test_equals_the_definition_with_groups():
    x, y = draws(24, 30, 3, 0.5)
    groups = {"groups_x": [f"photo{i % 6}" for i in range(24)], "groups_y": [i // 3 for i in range(30)]}
    assert all_four(x, y, 2, **groups) == pytest.approx(slow(x, y, 2, **groups), abs=1e-12)


def test_groups_keep_the_balls_from_shrinking_to_the_crops_of_one_photo():
    rng = np.random.default_rng(0)
    photos = rng.standard_normal((40, 4))
    crops = np.repeat(photos, 6, axis=0) + 0.01 * rng.standard_normal((240, 4))
    x = rng.standard_normal((200, 4))
    photo = [i // 6 for i in range(240)]
    whole, grouped, flat = all_four(x, photos), all_four(x, crops, groups_y=photo), all_four(x, crops)
    assert grouped == pytest.approx(whole, abs=0.05)
    assert flat[0] < 0.05
    assert whole[0] > 0.7


def test_copies_count_for_precision_and_not_for_open_balls_of_no_size():
    real = np.repeat(np.arange(4.0)[:, None], 4, axis=0)  # every image four times: radius 0 for k = 3
    assert all_four(real, real, k=3) == (1.0, 1.0, 0.0, 0.0)


def test_of_a_set_with_itself():
    x, _ = draws(50, 2, 5)
    assert all_four(x, x.copy(), k=4) == (1.0, 1.0, 1.0, 1.0)  # an open ball holds its centre and k - 1 neighbours


def test_far_sets_share_nothing():
    x, y = draws(20, 25, 3, shift=50.0)
    assert all_four(x, y) == (0.0, 0.0, 0.0, 0.0)


def test_more_modes_raise_recall_and_not_precision():
    rng = np.random.default_rng(0)
    both = np.concatenate([rng.standard_normal((60, 3)), rng.standard_normal((60, 3)) + 20])
    one = rng.standard_normal((60, 3))
    assert precision_recall(one, both).precision > 0.8
    assert precision_recall(one, both).recall < 0.55
    assert precision_recall(both, one).precision < 0.55
    assert precision_recall(both, one).recall > 0.8


def test_coverage_without_a_gap_is_what_the_paper_expects():
    n, m, k = 40, 30, 3
    values = [density_coverage(*draws(n, m, 6, seed=seed), k=k) for seed in range(150)]
    expected = 1 - np.prod([(m - i) / (n + m - i) for i in range(1, k + 1)])
    found = np.array([v.coverage for v in values])
    assert abs(found.mean() - expected) < 3 * found.std() / np.sqrt(150)
    assert np.mean([v.density for v in values]) == pytest.approx(n * k / (m - 1) / n * m / k, abs=0.08)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_does_not_depend_on_block_size_or_order(monkeypatch, block):
    x, y = draws(45, 31, 3, 0.4)
    x[:10] = y[:10]
    whole = all_four(x, y)
    indices, distances = nearest(x, y)
    monkeypatch.setattr(metrics.statistics.neighbours, "BLOCK", block)
    rng = np.random.default_rng(0)
    one, two, columns = rng.permutation(45), rng.permutation(31), rng.permutation(3)
    assert all_four(x, y) == whole
    assert all_four(x[one][:, columns], y[two][:, columns]) == pytest.approx(whole, abs=1e-12)
    again = nearest(x, y)
    np.testing.assert_array_equal(again[0], indices)
    np.testing.assert_array_equal(again[1], distances)


def test_invariant_to_scale():
    x, y = draws(45, 31, 3, 0.4)
    assert all_four(4 * x, 4 * y) == all_four(x, y)


def test_nearest_is_what_scipy_finds_and_the_first_of_equals():
    from scipy.spatial.distance import cdist

    x, y = draws(700, 40, 8)
    index, distance = nearest(x, np.concatenate([y, y]))
    table = cdist(x, y)
    np.testing.assert_array_equal(index, table.argmin(1))
    np.testing.assert_allclose(distance, table.min(1), rtol=1e-12)
    index, distance = nearest(y + 1e4, y + 1e4)
    np.testing.assert_array_equal(index, np.arange(40))
    np.testing.assert_array_equal(distance, 0)


def test_identical_features_are_no_special_case():
    same = np.full((30, 4), 0.1)
    assert all_four(same, same) == (1.0, 1.0, 0.0, 0.0)
    np.testing.assert_array_equal(nearest(same, same)[0], 0)


def test_few_images_are_warned_about():
    x, y = draws(20, 1200, 2)
    assert "20 and 1200 independent images: below 1000 a side" in precision_recall(x, y).warnings[0]
    assert "600 and" in density_coverage(np.repeat(y, 1, 0), y, groups_x=[i // 2 for i in range(1200)]).warnings[0]
    assert density_coverage(y, y).warnings == ()


@pytest.mark.parametrize("function", [precision_recall, density_coverage])
def test_bad_input_is_refused(function):
    x, y = draws(9, 6, 3)
    with pytest.raises(InputError, match=r"k = 6 .* among the 6 independent images of y: use k = 5 or fewer"):
        function(x, y, k=6)
    with pytest.raises(InputError, match=r"k = 0 .* use k = 5 or fewer"):
        function(x, y, k=0)
    with pytest.raises(InputError, match=r"among the 3 independent images of y: use k = 2 or fewer"):
        function(x, y, k=3, groups_y=list("aaaabc"))
    with pytest.raises(InputError, match="groups_y: all rows are of one group"):
        function(x, y, k=3, groups_y=list("aaaaaa"))
    with pytest.raises(InputError, match="groups_y has 1 entries for 6 rows"):
        function(x, y, groups_y=["a"])
    with pytest.raises(InputError, match=r"y has NaN or infinite features in 1 row\(s\): 2"):
        function(x, np.where(np.arange(6)[:, None] == 2, np.nan, y))
    with pytest.raises(InputError, match="x has 3 features per image and y has 2"):
        function(x, y[:, :2])


def test_a_small_set_x_is_named():
    x, y = draws(3, 9, 3)
    with pytest.raises(InputError, match="the 3 independent images of x: use k = 2"):
        precision_recall(x, y)
    assert density_coverage(x, y).n == 3  # only real balls are needed
