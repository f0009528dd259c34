import dataclasses
import hashlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from metrics.errors import InputError
from stylize.patterns import FAMILIES, _leaf_painter
from stylize.patterns import dead_leaves as family
from stylize.patterns.class_json import from_json, to_json

GOLDEN = "b65343438743e2787c9a01d3d0614271fc03f0b76a87e6001540f286e319eac9"
PUBLISHED = {"shape": "mixed", "exponent": 3.0, "smallest": 0.03, "limit": 5000, "select": False}


def digest():
    images = [family.render(family.sample_class(1, 2, shape=shape), 3, 32) for shape in family.MODES]
    return hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()


# Same pixels everywhere


@pytest.mark.slow
def test_golden_here_and_in_a_process_of_its_own():
    assert digest() == GOLDEN
    code = "import sys; sys.path.insert(0, 'tests'); import test_stylize_dead_leaves as t; print(t.digest())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == GOLDEN


@pytest.mark.parametrize("size", [16, 200, 512])
def test_order_does_not_matter(size):
    jobs = [(c, i) for c in range(2) for i in range(2)]
    images = {job: family.render(family.sample_class(5, job[0]), job[1], size) for job in jobs}
    for c, i in reversed(jobs):
        assert np.array_equal(images[c, i], family.render(family.sample_class(5, c), i, size))
    assert len({image.tobytes() for image in images.values()}) == 4
    assert images[0, 0].shape == (size, size, 3)
    assert images[0, 0].dtype == np.uint8


@pytest.mark.parametrize("shape", family.MODES)
@pytest.mark.parametrize("size", [16, 33])
def test_torch_gives_the_same_bits(shape, size):
    params = family.sample_class(2, 0, shape=shape, smallest=0.08, exponent=2.0)
    expected = [family.render(params, i, size) for i in (4, 0, 7)]
    got = family.render_torch(params, [4, 0, 7], size)
    assert got.dtype == torch.uint8
    assert np.array_equal(got.numpy().transpose(0, 2, 3, 1), expected)


def test_torch_draws_again_where_numpy_does():
    params = family.sample_class(2, 0, shape="circle", smallest=0.3, exponent=0.5)
    drawn = [family.render_leaves(params, i, 16).draws for i in range(12)]
    assert max(drawn) > 1
    expected = np.array([family.render(params, i, 16) for i in range(12)])
    assert np.array_equal(family.render_torch(params, range(12), 16).numpy().transpose(0, 2, 3, 1), expected)
    assert family.render_torch(params, [], 16).shape == (0, 3, 16, 16)


# The model, against a slow statement of it


def slow(params, instance, size):
    """Every leaf against every pixel, in floating point from the drawn uniforms: index [H,W] and number of leaves."""
    rng = family.generator(params.seed, "dead-leaves leaves", f"{params.class_id}/{instance}/1")
    grid = np.linspace(params.smallest, 1, 200)
    total = np.cumsum(grid**-params.exponent - 1)
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    top = np.zeros((size, size), int)
    for k in range(1, params.limit + 1):
        u = rng.random(11)
        shape = family.SHAPES[int(u[0] * 6)] if params.shape == "mixed" else params.shape
        r = grid[np.argmin(np.abs(total / total[-1] - u[1]))]
        px, py, turns = x - u[2], y - u[3], 2 * math.pi * u[7:]
        if shape == "circle":
            inside = np.hypot(px, py) <= r
        elif shape in ("square", "oriented-square"):
            a = turns[0] if shape == "oriented-square" else 0
            s, t = px * math.cos(a) + py * math.sin(a), py * math.cos(a) - px * math.sin(a)
            inside = np.maximum(np.abs(s), np.abs(t)) <= r / math.sqrt(2)
        elif shape == "rectangle":
            inside = (np.abs(px) <= r * math.cos(turns[0] / 4)) & (np.abs(py) <= r * math.sin(turns[0] / 4))
        else:
            angles = np.sort(turns[: 3 if shape == "triangle" else 4])
            inside = np.ones_like(px, bool)
            for a, b in zip(angles, np.roll(angles, -1), strict=True):  # towards the centre from the chord's line
                b += 2 * math.pi * (b < a)
                middle, depth = (a + b) / 2, math.cos((b - a) / 2)
                inside &= px * math.cos(middle) + py * math.sin(middle) <= r * depth
        top[inside] = k
        if top.all():
            break
    return top, k


@pytest.mark.parametrize("shape", family.MODES)
def test_leaves_match_the_slow_statement(shape):
    """Equal but for pixels within half a step of the grid of a border."""
    for instance, size in ((0, 24), (1, 61)):
        params = family.sample_class(9, 0, shape=shape, exponent=2.5, smallest=0.07, limit=3000, select=False)
        expected, count = slow(params, instance, size)
        got = family.render_leaves(params, instance, size)
        assert len(got.colours) - 1 == count
        assert (got.top != expected).mean() < 0.002


def test_spans_are_exact_at_the_largest_size():
    """Against integers without bounds, where 64 bits are nearly used up."""
    size, grid = family.checks.MAX_SIZE, _leaf_painter.GRID
    rng = np.random.default_rng(0)
    u = rng.random((60, 11))
    leaves = np.empty((60, 9), np.int64)
    radius = np.where(np.arange(60) % 2, 1.0, 0.05)
    _leaf_painter.shape_leaves(np.arange(60) % 6, radius, u[:, 2:4], u[:, 7:], leaves)
    for leaf in leaves:
        for row in rng.integers(0, size, 4).tolist():
            first, end = _leaf_painter._span(leaf, row, size)
            numbers = [int(v) for v in leaf]
            y = (2 * row + 1) * grid

            def inside(column, numbers=numbers, y=y):
                x, scale = (2 * column + 1) * grid, 2 * size
                if numbers[0]:
                    return (x - scale * numbers[1]) ** 2 + (y - scale * numbers[2]) ** 2 <= (scale * numbers[0]) ** 2
                points = [(scale * a, scale * b) for a, b in zip(numbers[1::2], numbers[2::2], strict=True)]
                pairs = zip(points, points[1:] + points[:1], strict=True)
                return all((c - a) * (y - b) - (d - b) * (x - a) >= 0 for (a, b), (c, d) in pairs)

            probes = {0, size - 1, *rng.integers(0, size, 20).tolist()}
            probes |= {c for c in (first - 1, first, end - 1, end) if 0 <= c < size}
            assert all(inside(c) == (first <= c < end) for c in probes)


def test_an_image_ends_with_the_leaf_that_covers_the_last_ground():
    params = family.sample_class(0, 0, **PUBLISHED)
    done = family.render_leaves(params, 0, 64)
    count = len(done.colours) - 1
    assert done.top.min() > 0
    assert done.top.max() == count
    before = family.render_leaves(dataclasses.replace(params, limit=count - 1), 0, 64)
    assert before.top.min() == 0
    assert (family.render(dataclasses.replace(params, limit=count - 1), 0, 64)[before.top == 0] == 0).all()
    kept = before.top > 0
    assert (done.top[kept] >= before.top[kept]).all()


def test_published_marginals():
    params = family.sample_class(0, 0, **(PUBLISHED | {"limit": 40_000}))
    blocks = list(family.draw_leaves(params, 0, 1))
    leaves, colours = (np.concatenate(part) for part in zip(*blocks, strict=True))
    assert len(leaves) == 40_000
    discs = leaves[:, 0] > 0
    assert discs.mean() == pytest.approx(1 / 6, abs=0.01)
    radius = leaves[discs, 0] / _leaf_painter.GRID
    density = np.linspace(0.03, 1, 200) ** -3 - 1
    total = np.cumsum(density) / density.sum()
    edges = np.concatenate([[0], (total[1:] + total[:-1]) / 2, [1]])  # nearest value of the cumulated density
    expected = np.diff(edges)
    assert np.median(radius) == pytest.approx(
        np.linspace(0.03, 1, 200)[np.searchsorted(np.cumsum(expected), 0.5)], abs=0.003
    )
    for limit in (0.0301, 0.05, 0.1, 0.3):
        share = expected[np.linspace(0.03, 1, 200) <= limit].sum()
        assert (radius <= limit).mean() == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / len(radius)))
    centre = leaves[discs, 1:3] / _leaf_painter.GRID
    assert centre.min() >= 0 and centre.max() <= 1
    assert centre.mean(0) == pytest.approx([0.5, 0.5], abs=0.015)
    assert colours.min() == 0 and colours.max() == 254, "int(255 U) never reaches 255"
    assert colours.mean(0) == pytest.approx([127, 127, 127], abs=1.5)


def test_published_number_of_leaves():
    """The medians of the module's docstring, at the accuracy of 40 images."""
    for shape, median in (("circle", 685), ("square", 1150), ("mixed", 1435)):
        params = family.sample_class(1, 0, **(PUBLISHED | {"shape": shape}))
        counts = [len(family.render_leaves(params, i, 128).colours) - 1 for i in range(40)]
        assert np.median(counts) == pytest.approx(median, rel=0.2)


def test_selection_and_its_acceptance():
    dominant = {"shape": "circle", "smallest": 0.3, "exponent": 0.5}
    free = family.sample_class(4, 0, **dominant, select=False)
    shares = [np.bincount(family.render_leaves(free, i, 32).top.ravel()).max() / 1024 for i in range(40)]
    assert 0.05 < np.mean(np.array(shares) > 0.8) < 0.95
    chosen = family.sample_class(4, 0, **dominant)
    for i, share in enumerate(shares):
        leaves = family.render_leaves(chosen, i, 32)
        assert np.bincount(leaves.top.ravel()).max() <= 0.8 * 1024
        assert (leaves.draws == 1) == (share <= 0.8), "an image is drawn again only if it must"
    draws = [family.render_leaves(family.sample_class(3, c), i, 32).draws for c in range(20) for i in range(3)]
    assert len(draws) / sum(draws) > 0.9


def test_selection_that_cannot_finish_says_so():
    params = family.sample_class(0, 3, shape="square", smallest=0.005, exponent=6.0, limit=1)  # nearly all ground
    with pytest.raises(InputError, match=r"class 3, instance 2: in 0 of 100 draws.*acceptance 0 %.*select=False"):
        family.render(params, 2, 16)
    with pytest.raises(InputError, match=r"select=False"):
        family.render_torch(params, [2], 16)


def test_classes_are_settings():
    classes = [family.sample_class(0, c) for c in range(60)]
    assert {params.shape for params in classes} == set(family.MODES)
    assert all(2 <= params.exponent <= 4 and 0.03 <= params.smallest <= 0.1 for params in classes)
    assert len({(params.exponent, params.smallest) for params in classes}) == 60
    assert family.sample_class(0, 7, shape="square").exponent == classes[7].exponent


# Parameters as data, and bad input


def test_json_round_trip(monkeypatch):
    monkeypatch.setitem(FAMILIES, "dead-leaves", "leaves")
    params = family.sample_class(3, 1)
    assert from_json(to_json("dead-leaves", [params])) == ("dead-leaves", [params])
    document = json.loads(to_json("dead-leaves", [params]))
    document["classes"][0]["smallest"] = 0.9
    with pytest.raises(InputError, match=r"smallest is 0.9; expected a finite number from 0.005 to 0.5"):
        from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": "circel"}, "unknown shape 'circel'.*Did you mean 'circle'"),
        ({"shape": 3}, "unknown shape '3'"),
        ({"exponent": float("nan")}, "exponent is nan; expected a finite number from 0 to 6"),
        ({"smallest": 0.0}, "smallest is 0.0"),
        ({"limit": 0}, "limit is 0; expected an integer"),
        ({"limit": 2.5}, "limit is 2.5"),
        ({"select": 1}, "select is 1; expected true or false"),
        ({"class_id": -1}, "class_id is -1"),
        ({"seed": "x"}, "seed is 'x'"),
    ],
)
def test_bad_parameters(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(family.sample_class(0, 0), **change)


@pytest.mark.parametrize("size", [0, 7, 8193, 32.0])
def test_bad_size(size):
    for render in (lambda p: family.render(p, 0, size), lambda p: family.render_torch(p, [0], size)):
        with pytest.raises(InputError, match=r"size is .*; expected an integer from 8 to 8192"):
            render(family.sample_class(0, 0))
