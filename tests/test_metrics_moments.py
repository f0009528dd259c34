import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from metrics.errors import InputError
from metrics.statistics.block_kid import BlockKid
from metrics.statistics.frechet import frechet, frechet_from_moments
from metrics.statistics.kid import kid
from metrics.statistics.moments import Moments


def waves(n, d, a, b, s, t):
    """Deterministic features without a random generator."""
    i, j = np.arange(n)[:, None], np.arange(d)[None]
    return s * np.sin(a * (i + 1) * np.sqrt(j + 1) + b * j) + t


def pair(n, m, d):
    return waves(n, d, 0.37, 1.13, 1.0, 0.5), waves(m, d, 0.53, 0.71, 1.2, 0.6)


def moments(*batches, fingerprint="net/1"):
    state = Moments(batches[0].shape[1], fingerprint)
    for batch in batches:
        state.update(batch)
    return state


GOLDEN = [(64, 64, 16, 1.451637202775), (64, 48, 16, 0.797795082931), (24, 20, 64, 38.244433418284)]


@pytest.mark.parametrize(("n", "m", "d", "expected"), GOLDEN)
def test_golden_values(n, m, d, expected):
    x, y = pair(n, m, d)
    ours = frechet_from_moments(moments(*np.array_split(x, 5)), moments(y))
    assert ours.value == pytest.approx(expected, rel=1e-9 if n > d else 1e-6)
    whole = frechet(x, y)
    assert (ours.n, ours.m, ours.warnings) == (n, m, whole.warnings)
    assert ours.bias == (None if whole.bias is None else pytest.approx(whole.bias, rel=1e-9))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), parts=st.integers(1, 9), offset=st.sampled_from([0.0, 5.0, 1e4]))
def test_any_split_merged_in_any_order_is_the_whole(seed, parts, offset):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, 7)) @ rng.standard_normal((7, 7)) + offset
    cuts = np.sort(rng.integers(0, 41, parts - 1))
    shards = [
        moments(*(b for b in np.array_split(part, 3) if len(b))) if len(part) else Moments(7, "net/1")
        for part in np.split(x, cuts)
    ]
    total = Moments(7, "net/1")
    for shard in rng.permutation(len(shards)):
        total.merge(shards[shard])
    assert total.n == 40
    np.testing.assert_allclose(total.mean, x.mean(0), rtol=1e-12, atol=1e-12)
    covariance = np.cov(x, rowvar=False)
    np.testing.assert_allclose(total.covariance(), covariance, atol=1e-12 * np.abs(covariance).max() * max(1, offset))


def test_merging_leaves_the_other_alone():
    x, y = pair(10, 12, 4)
    a, b = moments(x), moments(y)
    before = b.m2.clone()
    a.merge(b)
    a.update(x)
    assert (a.n, b.n) == (32, 12)
    assert torch.equal(b.m2, before)


def test_float32_batches_are_summed_in_float64():
    x = (pair(4000, 2, 6)[0] + 5).astype(np.float32)
    state = moments(*np.array_split(x, 40))
    np.testing.assert_allclose(state.covariance(), np.cov(x.astype(np.float64), rowvar=False), atol=1e-13)


def test_saved_and_resumed_equals_not_interrupted(tmp_path):
    x, _ = pair(30, 2, 5)
    first = moments(x[:11])
    first.save(tmp_path / "part.safetensors")
    resumed = Moments.load(tmp_path / "part.safetensors")
    assert torch.equal(resumed.m2, first.m2)
    resumed.update(x[11:])
    straight = moments(x[:11], x[11:])
    assert (resumed.n, resumed.fingerprint) == (30, "net/1")
    torch.testing.assert_close(resumed.mean, straight.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(resumed.m2, straight.m2, rtol=0, atol=1e-14 * float(straight.m2.max()))
    assert [path.name for path in tmp_path.iterdir()] == ["part.safetensors"]


def test_what_cannot_be_added_is_refused_and_changes_nothing(tmp_path):
    x, _ = pair(8, 2, 3)
    state = moments(x)
    for bad, message in [
        (np.ones((2, 4)), "batch has 4 features per image. Expected 3"),
        (np.full((2, 3), np.nan), r"batch has NaN or infinite features in 2 row\(s\)"),
        (np.ones((0, 3)), r"batch has 0 row\(s\). Expected at least 1"),
    ]:
        with pytest.raises(InputError, match=message):
            state.update(bad)
    with pytest.raises(InputError, match=r"moments of extractors 'net/1' \(3 features\) and 'net/2' \(3 features\)"):
        state.merge(moments(x, fingerprint="net/2"))
    with pytest.raises(InputError, match="Expected one extractor"):
        frechet_from_moments(state, moments(x, fingerprint="net/2"))
    assert torch.equal(state.m2, moments(x).m2)
    with pytest.raises(InputError, match=r"1 image\(s\) so far. Expected at least 2"):
        moments(x[:1]).covariance()


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    for cls in (Moments, BlockKid):
        with pytest.raises(InputError, match="no such file"):
            cls.load(tmp_path / "none")
        path.write_bytes(b"nonsense")
        with pytest.raises(InputError, match="damaged"):
            cls.load(path)
        save_file({"mean": torch.zeros(2)}, path, metadata={"schema": "other/1"})
        with pytest.raises(InputError, match="schema 'other/1'"):
            cls.load(path)
    wrong = {"mean": torch.zeros(2, dtype=torch.float64), "m2": torch.zeros(3, 3, dtype=torch.float64)}
    save_file(wrong, path, metadata={"schema": "reverse-stylize/moments/1", "n": "4", "fingerprint": "a"})
    with pytest.raises(InputError, match="do not match"):
        Moments.load(path)
    save_file(wrong, path, metadata={"schema": "reverse-stylize/block-kid/1"})
    with pytest.raises(InputError, match="damaged"):
        BlockKid.load(path)


SIZE = 8


def block_reference(x, y):
    blocks = min(len(x), len(y)) // SIZE
    return [kid(x[b * SIZE : (b + 1) * SIZE], y[b * SIZE : (b + 1) * SIZE]).value for b in range(blocks)]


def float32_pair(n, m, d):
    return tuple(f.astype(np.float32) for f in pair(n, m, d))


def test_block_kid_is_the_mean_over_blocks_and_its_error():
    x, y = float32_pair(43, 50, 5)
    state = BlockKid(5, "net/1", SIZE)
    state.update("y", 0, y)
    for start in range(0, 43, 7):
        state.update("x", start, x[start : start + 7])
    result, expected = state.result(), block_reference(x, y)
    assert result.value == np.mean(expected)
    assert result.error.se == pytest.approx(np.std(expected, ddof=1) / np.sqrt(5), rel=1e-9)
    assert result.error.dof == 4
    assert (result.blocks, result.size, result.left_out) == (5, SIZE, 3 + 10)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), workers=st.integers(1, 5))
def test_block_kid_has_the_same_bits_however_the_work_is_split(seed, workers):
    x, y = float32_pair(40, 37, 5)
    rng = np.random.default_rng(seed)
    whole = BlockKid(5, "net/1", SIZE)
    whole.update("x", 0, x)
    whole.update("y", 0, y)
    states = [BlockKid(5, "net/1", SIZE) for _ in range(workers)]
    batches = [
        (side, start, rows[start : start + 3])
        for side, rows in (("x", x), ("y", y))
        for start in range(0, len(rows), 3)
    ]
    for index in rng.permutation(len(batches)):
        states[rng.integers(workers)].update(*batches[index])
    total = BlockKid(5, "net/1", SIZE)
    for index in rng.permutation(workers):
        total.merge(states[index])
    assert total.values == whole.values
    assert total.result() == whole.result()


def test_block_kid_saved_and_resumed_equals_not_interrupted(tmp_path):
    x, y = float32_pair(40, 40, 5)
    state = BlockKid(5, "net/1", SIZE)
    state.update("y", 0, y)
    state.update("x", 0, x[:21])
    state.save(tmp_path / "part.safetensors")
    state = BlockKid.load(tmp_path / "part.safetensors")
    assert len(state.values) == 2
    state.update("x", 21, x[21:])
    assert state.result().value == np.mean(block_reference(x, y))
    state.save(tmp_path / "part.safetensors")
    assert BlockKid.load(tmp_path / "part.safetensors").result() == state.result()


def test_block_kid_is_unbiased_and_its_error_matches_the_spread():
    results = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        state = BlockKid(4, "net/1", 10)
        for side in ("x", "y"):
            state.update(side, 0, rng.standard_normal((100, 4)))
        results.append(state.result())
    values = [r.value for r in results]
    true = np.std(values, ddof=1)
    assert abs(np.mean(values)) < 3 * true / np.sqrt(150)
    assert 0.9 < np.sqrt(np.mean([r.error.se**2 for r in results])) / true < 1.1


def test_block_kid_refuses_an_image_that_comes_twice():
    x, y = float32_pair(16, 16, 5)

    def state(*parts):
        made = BlockKid(5, "net/1", SIZE)
        for side, rows, start, stop in parts:
            made.update(side, start, rows[start:stop])
        return made

    complete = state(("x", x, 0, 8), ("y", y, 0, 8))
    with pytest.raises(InputError, match="position 3 of x has come before"):
        complete.update("x", 3, x[3:5])
    with pytest.raises(InputError, match="position 9 of y has come before"):
        state(("y", y, 8, 12)).update("y", 9, y[9:10])
    for other in (complete, state(("x", x, 2, 4))):
        with pytest.raises(InputError, match=r"has come before. Expected every image once; merge each shard once"):
            state(("x", x, 0, 8), ("y", y, 0, 8)).merge(other)
    partial = state(("x", x, 2, 4))
    with pytest.raises(InputError, match="position 2 of x has come before"):
        partial.merge(complete)
    assert partial.values == {}


def test_block_kid_refuses_what_does_not_fit():
    state = BlockKid(5, "net/1", SIZE)
    with pytest.raises(InputError, match=r"no complete block. Expected at least 8 images"):
        state.result()
    with pytest.raises(InputError, match="got side 'z' and start 0"):
        state.update("z", 0, np.ones((2, 5)))
    with pytest.raises(InputError, match=r"batch has 4 features per image. Expected 5"):
        state.update("x", 0, np.ones((2, 4)))
    with pytest.raises(InputError, match="Expected the same of both"):
        state.merge(BlockKid(5, "net/2", SIZE))
    with pytest.raises(InputError, match="size = 1"):
        BlockKid(5, "net/1", 1)
    x, y = float32_pair(8, 8, 5)
    state.update("x", 0, x)
    state.update("y", 0, y)
    assert state.result().error.reason == "one block; a standard error needs two"
