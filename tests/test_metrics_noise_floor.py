import numpy as np
import pytest
import torch

from metrics.errors import InputError
from metrics.statistics.frechet import frechet
from metrics.statistics.kid import kid
from metrics.statistics.noise_floor import noise_floor


def features(photos, each, d=4, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.standard_normal((photos, d)), each, 0) + 0.3 * rng.standard_normal((photos * each, d))
    return rows, [f"photo{i // each}" for i in range(photos * each)]


def kid_value(x, y, groups_x, groups_y):
    return kid(x, y, groups_x=groups_x, groups_y=groups_y).value


def test_parts_are_whole_groups_and_together_the_set():
    real, groups = features(9, 3)
    seen = []

    def statistic(x, y, groups_x, groups_y):
        seen.append((x, y, groups_x, groups_y))
        return float(len(seen))

    values, sizes = noise_floor(real, groups, 7, statistic, halvings=5)
    assert values.tolist() == [1, 2, 3, 4, 5]
    assert len({tuple(groups_x) for _, _, groups_x, _ in seen}) > 1
    for (x, y, groups_x, groups_y), size in zip(seen, sizes, strict=True):
        assert [len(x), len(y)] == [len(groups_x), len(groups_y)] == size.tolist() == [6, 21]
        assert not set(groups_x) & set(groups_y)
        both = torch.cat([x, y]).numpy()
        assert {tuple(row) for row in both} == {tuple(row) for row in real}
        where = [int(np.flatnonzero((real == row.numpy()).all(1))[0]) for row in x]
        assert where == sorted(where)
        assert [groups[row] for row in where] == groups_x


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, [6, 24]), (9, [9, 21]), (10, [9, 21]), (11, [12, 18]), (15, [15, 15]), (500, [15, 15])],
)
def test_first_part_is_as_near_to_the_candidate_as_groups_allow(n, expected):
    real, groups = features(10, 3)
    _, sizes = noise_floor(real, groups, n, lambda *_: 0.0, halvings=3)
    assert sizes.tolist() == [expected] * 3


def test_unequal_groups_leave_two_on_each_side():
    real = np.arange(20.0)[:, None]
    groups = ["large"] * 17 + ["a", "b", "c"]
    for n in (1, 10, 100):
        noise_floor(real, groups, n, lambda x, y, a, b: float(min(len(set(a)), len(set(b))) - 2), halvings=30)
        values, sizes = noise_floor(real, groups, n, lambda x, y, a, b: float(min(len(set(a)), len(set(b)))), 30)
        assert values.min() == 2
        assert (sizes.sum(1) == 20).all()


def test_the_seed_decides_not_the_order_of_rows_nor_how_many():
    real, groups = features(10, 3)
    values, _ = noise_floor(real, groups, 9, kid_value, halvings=6, seed=2)
    order = np.random.default_rng(1).permutation(30)
    shuffled, _ = noise_floor(real[order], [groups[i] for i in order], 9, kid_value, halvings=6, seed=2)
    np.testing.assert_allclose(shuffled, values, atol=1e-12)
    assert noise_floor(real, groups, 9, kid_value, halvings=3, seed=2)[0].tolist() == values[:3].tolist()
    assert noise_floor(real, groups, 9, kid_value, halvings=6, seed=3)[0].tolist() != values.tolist()


def test_floor_is_what_redraws_without_a_gap_give():
    """Mean and spread beside fresh samples of the same sizes; KID near 0, the biased Fréchet distance far above."""

    def spread(statistic):
        floors = [
            noise_floor(np.random.default_rng(s).standard_normal((120, 5)), None, 30, statistic, 20) for s in range(20)
        ]
        fresh = []
        for seed in range(200):
            rng = np.random.default_rng(1000 + seed)
            x, y = (torch.from_numpy(rng.standard_normal((n, 5))) for n in (30, 90))
            fresh.append(statistic(x, y, None, None))
        values = np.concatenate([values for values, _ in floors])
        return values, np.array(fresh)

    values, fresh = spread(lambda x, y, a, b: kid(x, y).value)
    assert abs(values.mean() - fresh.mean()) < 0.25 * fresh.std()
    assert 0.8 < values.std() / fresh.std() < 1.2
    values, fresh = spread(lambda x, y, a, b: frechet(x, y).value)
    assert values.mean() == pytest.approx(fresh.mean(), rel=0.05)
    assert values.mean() > 2 * fresh.std()
    assert 0.8 < values.std() / fresh.std() < 1.2


@pytest.mark.parametrize(
    ("rows", "groups", "n", "halvings", "message"),
    [
        (6, list("aabbcc"), 3, 5, "3 independent real images. Expected at least 4"),
        (6, None, 0, 5, "got n = 0 and halvings = 5"),
        (6, None, 3, 0, "got n = 3 and halvings = 0"),
        (6, ["a"], 3, 5, "groups_real has 1 entries for 6 rows"),
    ],
)
def test_bad_input_is_refused(rows, groups, n, halvings, message):
    with pytest.raises(InputError, match=message):
        noise_floor(np.ones((rows, 2)), groups, n, lambda *_: 0.0, halvings)
