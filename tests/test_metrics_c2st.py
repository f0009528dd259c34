import numpy as np
import pytest
import torch

from metrics.comparison.label_probe import ridge_scores
from metrics.errors import InputError
from metrics.statistics.c2st import RIDGE, c2st


def draws(n, m, d, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) + shift, rng.standard_normal((m, d))


def leave_two_out(x, y):
    """Two images a side make two folds of one pair each: the area by hand, every ordering of the pairs tried."""

    def right(train_x, train_y, test_x, test_y):
        train = np.stack([train_x, train_y])
        centred = train - train.mean(0)
        ridge = RIDGE * (centred**2).sum() / 2
        weights = np.linalg.solve(centred.T @ centred + ridge * np.eye(len(test_x)), centred.T @ np.array([1.0, -1.0]))
        return float(test_x @ weights > test_y @ weights)

    return {(right(x[0], y[a], x[1], y[b]) + right(x[1], y[b], x[0], y[a])) / 2 for a, b in ((0, 1), (1, 0))}


@pytest.mark.parametrize("seed", range(6))
def test_smallest_case_by_hand(seed):
    x, y = draws(2, 2, 3, 0.8, seed)
    assert c2st(x, y, seed=seed).value in leave_two_out(x, y)


@pytest.mark.parametrize("d", [3, 200])  # fewer features than images, and more
def test_area_is_that_of_a_ridge_classifier_trained_without_the_fold(d):
    """Each fold is recovered by its own groups; the classifier and the area come from other code."""
    x, y = draws(23, 31, d, 0.3)
    from metrics.statistics.c2st import _hash_order  # the folds are the ranks in hash order, dealt out in turn

    fold = np.concatenate([_hash_order(None, len(rows), name, 4) % 5 for rows, name in ((x, "x"), (y, "y"))])
    pooled, target = np.concatenate([x, y]), np.repeat([1.0, -1.0], [23, 31])
    import metrics.comparison.label_probe as probe

    before, probe.RIDGE = probe.RIDGE, RIDGE
    try:
        parts = [
            (ridge_scores(pooled[fold != f], target[fold != f, None], pooled[fold == f])[:, 0], target[fold == f])
            for f in range(5)
        ]
    finally:
        probe.RIDGE = before
    won = [np.sign(s[t > 0][:, None] - s[t < 0]) / 2 + 0.5 for s, t in parts]
    expected = sum(w.sum() for w in won) / sum(w.size for w in won)
    assert c2st(x, y, seed=4).value == pytest.approx(expected, abs=1e-12)


def test_permuted_areas_are_those_of_the_permuted_sets():
    """Areas under permuted labels have the law of areas of sets whose images were exchanged at random."""
    x, y = draws(30, 30, 6)
    null = c2st(x, y, permutations=400).null
    rng = np.random.default_rng(1)
    pooled = np.concatenate([x, y])
    exchanged = []
    for seed in range(150):
        order = rng.permutation(60)
        exchanged.append(c2st(pooled[order[:30]], pooled[order[30:]], permutations=1, seed=seed).value)
    from scipy.stats import ks_2samp

    assert ks_2samp(null, exchanged).pvalue > 0.01


def test_size_of_the_test_without_a_gap():
    p = np.array([c2st(*draws(20, 26, 40, seed=seed), permutations=39, seed=seed).p for seed in range(300)])
    for level in (0.05, 0.1, 0.25, 0.5):
        assert abs((p <= level).mean() - level) < 3 * np.sqrt(level * (1 - level) / 300)
    assert p.min() >= 1 / 40


def test_size_of_the_test_where_rows_depend_in_groups():
    """Five crops a photo: permuting photos keeps the size, permuting crops does not."""
    grouped, naive = [], []
    names = [f"photo {i // 5}" for i in range(60)]
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x, y = (np.repeat(rng.standard_normal((12, 8)), 5, 0) + 0.3 * rng.standard_normal((60, 8)) for _ in "xy")
        grouped.append(c2st(x, y, groups_x=names, groups_y=names, permutations=39, seed=seed).p)
        naive.append(c2st(x, y, permutations=39, seed=seed).p)
    assert np.mean(np.array(grouped) <= 0.1) < 0.1 + 3 * np.sqrt(0.1 * 0.9 / 150)
    assert np.mean(np.array(naive) <= 0.1) > 0.5


def test_cautious_where_only_the_real_images_come_in_groups():
    p, names = [], [i // 4 for i in range(60)]
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((40, 8)) * np.sqrt(1.09)
        y = np.repeat(rng.standard_normal((15, 8)), 4, 0) + 0.3 * rng.standard_normal((60, 8))
        p.append(c2st(x, y, groups_y=names, permutations=39, seed=seed).p)
    assert np.mean(np.array(p) <= 0.1) < 0.1 + 3 * np.sqrt(0.1 * 0.9 / 150)


def test_power_grows_with_the_gap():
    areas = [
        np.mean([c2st(*draws(40, 40, 30, s, seed), permutations=1).value for seed in range(8)]) for s in (0, 0.2, 1)
    ]
    assert areas[0] == pytest.approx(0.5, abs=0.06)
    assert areas[0] + 0.1 < areas[1] < areas[2]
    assert areas[2] > 0.97
    assert c2st(*draws(40, 40, 30, 1.0)).p == 1 / 200


def test_unequal_sizes_are_no_gap():
    values = [c2st(*draws(200, 15, 30, seed=seed), permutations=1).value for seed in range(40)]
    assert abs(np.mean(values) - 0.5) < 3 * np.std(values) / np.sqrt(40)


def test_depends_on_seed_and_group_names_only():
    x, y = draws(30, 24, 50, 0.1)
    names_x, names_y = [f"a{i}" for i in range(30)], [f"b{i // 2}" for i in range(24)]
    whole = c2st(x, y, groups_x=names_x, groups_y=names_y)
    rng = np.random.default_rng(0)
    one, two, columns = rng.permutation(30), rng.permutation(24), rng.permutation(50)
    again = c2st(
        torch.from_numpy(x[one][:, columns]),
        y[two][:, columns],
        groups_x=[names_x[i] for i in one],
        groups_y=[names_y[i] for i in two],
    )
    assert (again.value, again.p) == (whole.value, whole.p)
    np.testing.assert_allclose(again.null, whole.null, atol=1e-12)
    assert c2st(x, y, groups_x=names_x, groups_y=names_y, seed=1).value != whole.value
    assert c2st(x, y).value == c2st(x, y).value


def test_invariant_to_scale_shift_and_rotation():
    x, y = draws(30, 24, 10, 0.1)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((10, 10)))
    whole, moved = c2st(x, y), c2st(5 * x @ rotation + 3, 5 * y @ rotation + 3)
    assert (moved.value, moved.p) == pytest.approx((whole.value, whole.p), abs=1e-12)


def test_equal_features_are_guesses():
    result = c2st(np.ones((12, 4)), np.ones((9, 4)), permutations=19)
    assert (result.value, result.p) == (0.5, 1.0)
    outlier = np.full((12, 4), 0.1)
    outlier[3] = 1e3  # the rows that train are all equal where this one is held out
    assert c2st(outlier, np.full((9, 4), 0.1), permutations=19).p > 0.05


def test_what_makes_the_p_value_rough_is_said():
    x, y = draws(40, 40, 5)
    assert c2st(x, y).warnings == ()
    by_four = [i // 4 for i in range(40)]
    assert "Groups have 1 images on one side and 4 on the other" in c2st(x, y, groups_y=by_four).warnings[0]
    assert c2st(x[:3], y[:3]).warnings == ("3 and 3 independent images: p-values cannot fall below about 0.12.",)
    attained = {c2st(x[:3], y[:3], permutations=200, seed=s).p for s in range(10)}
    assert min(attained) > 0.08


def test_bad_input_is_refused():
    x, y = draws(9, 6, 3)
    with pytest.raises(InputError, match=r"permutations = 0\. Expected 1 or more"):
        c2st(x, y, permutations=0)
    with pytest.raises(InputError, match=r"y has NaN or infinite features in 1 row\(s\): 2"):
        c2st(x, np.where(np.arange(6)[:, None] == 2, np.nan, y))
    with pytest.raises(InputError, match=r"x has 1 row\(s\)"):
        c2st(x[:1], y)
    with pytest.raises(InputError, match="groups_x: all rows are of one group"):
        c2st(x, y, groups_x=["a"] * 9)
