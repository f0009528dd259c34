import dataclasses
import hashlib
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch

from metrics.errors import InputError
from metrics.seed import generator
from stylize.patterns import _chaos_game as game
from stylize.patterns import fractaldb as family

torch.set_num_threads(1)

GOLDEN = "5abf80a04ffdce1458d4c1834e970bbe8edb4f57116495cb94619e99b5867b70"


@cache
def klass(class_id, **options):
    return family.sample_class(5, class_id, **options)


def render_job(job):
    class_id, instance, size = job
    return family.render(klass(class_id), instance, size)


# The formula, point by point


def mixed(key, n):
    v = (key + (n + 1) * int(game.GOLDEN)) % 2**64
    v = (v ^ (v >> 30)) * int(game.MIX_1) % 2**64
    v = (v ^ (v >> 27)) * int(game.MIX_2) % 2**64
    return v ^ (v >> 31)


def slow_orbit(maps, chances, key, points):
    """The published game: one orbit from the origin, a map chosen by walking along the cumulative chances."""
    x = y = 0.0
    out = []
    for n in range(points):
        out.append((x, y))
        draw, k, total = (mixed(key, n) >> 32) / 2**32, 0, chances[0]
        while draw >= total and k < len(maps) - 1:
            k += 1
            total += chances[k]
        (a, b, c), (d, e, f) = maps[k]
        x, y = a * x + b * y + c, d * x + e * y + f
    return np.array(out).T


def slow_image(points, size, key, margin=6):
    """Shift and stretch the points, truncate, paste an opaque random 3 x 3 patch for each, y up."""
    low, high = points.min(1), points.max(1)
    image = np.zeros((size, size), np.uint8)
    for n, (x, y) in enumerate(points.T):
        column = margin + int((x - low[0]) / (high[0] - low[0]) * (size - 2 * margin))
        row = size - 1 - margin - int((y - low[1]) / (high[1] - low[1]) * (size - 2 * margin))
        bits = 1 + ((mixed(key, n) & 0xFFFFFFFF) * 511 >> 32)
        patch = [[127 * (bits >> (3 * i + j) & 1) for j in range(3)] for i in range(3)]
        image[row - 1 : row + 2, column - 1 : column + 2] = patch
    return image


def chances(maps):
    dets = [abs(a * e - b * d) for (a, b, _), (d, e, _) in maps]
    return [det / sum(dets) for det in dets]


def test_single_orbit_is_the_published_game():
    maps = np.array(klass(0).maps).reshape(-1, 2, 3).tolist()
    fast = game.orbit(game.system(maps), 77, 3000, single=True)
    np.testing.assert_array_equal(fast, slow_orbit(maps, chances(maps), 77, 3000))


def test_many_chains_have_the_law_of_one():
    """Origin first, the same chances, and the same share of points in each cell of an 8 x 8 grid."""
    system = game.system(np.array(klass(1).maps).reshape(-1, 2, 3))
    many, one = game.orbit(system, 7, 200_000), game.orbit(system, 7, 200_000, single=True)
    assert (many[:, 0] == 0).all()
    box = game.bounds(one)
    grids = [np.histogram2d(*o, bins=8, range=box)[0] / o.shape[1] for o in (many, one)]
    assert np.abs(grids[0] - grids[1]).sum() < 0.02
    assert abs(game.fill(many, 512) - game.fill(one, 512)) < 0.01


def test_image_is_the_published_drawing():
    points = game.orbit(game.system(np.array(klass(0).maps).reshape(-1, 2, 3)), 3, 4000)
    fast = game.paint_patches(game.pixels(points, 192), game.u64(2**64 - 9), 1, 192) * np.uint8(127)
    slow = slow_image(points, 192, 2**64 - 9)
    assert (fast != slow).sum() <= 2 * 9, "a division before or after the product may move a point across an edge"


def test_every_mask_but_the_empty_one_occurs():
    masks = [int(1 + ((mixed(3, n) & 0xFFFFFFFF) * 511 >> 32)) for n in range(20_000)]
    assert set(masks) == set(range(1, 512))


def test_weights():
    table = family.weights(0.4)
    assert table.shape == (25, 6)
    assert (table[0] == 1).all()
    changed = [(int(np.flatnonzero(row != 1)[0]), float(row[row != 1][0])) for row in table[1:]]
    np.testing.assert_allclose(changed, [(k, f) for k in range(6) for f in (0.2, 0.6, 1.4, 1.8)])
    assert family.weights(0.5).min() == 0.01


def test_chances_follow_the_determinants_and_survive_the_weights():
    params = klass(0, min_fill=0.0)
    maps = np.array(params.maps).reshape(-1, 2, 3)
    system = family.instance_maps(params, 7)
    np.testing.assert_array_equal(system.maps, maps * family.weights(0.4)[7].reshape(2, 3))
    np.testing.assert_allclose(system.thresholds / 2**32, np.cumsum(chances(maps))[:-1], atol=1e-9)


# Published statistics


def test_acceptance():
    """2.0 % of systems fill 0.2, 21 % fill 0.1 and 41 % fill 0.05 (sampling error of this test: 0.7, 2.0, 2.5)."""
    fills = []
    for n in range(400):
        system = game.system(family.draw_maps(generator(3, "test", str(n))))
        fills.append(game.fill(game.orbit(system, 7, family.POINTS, single=True), family.SIDE))
        if fills[-1] >= family.RATE:
            assert family.accepted(system, 7), "the quick looks lose nothing"
        else:
            assert not family.accepted(system, 7)
    shares = [np.mean(np.array(fills) >= rate) for rate in (0.2, 0.1, 0.05)]
    assert 0.003 <= shares[0] <= 0.05
    assert abs(shares[1] - 0.21) < 0.06
    assert abs(shares[2] - 0.41) < 0.07


def test_classes_are_accepted_and_their_draws_give_the_rate():
    draws = [klass(c).draws for c in range(24)]
    assert 0.012 < 1 / np.mean(draws) < 0.04
    for c in range(24):
        points = game.orbit(game.system(np.array(klass(c).maps).reshape(-1, 2, 3)), family.orbit_key(5), 100_000)
        assert game.fill(points, 512) > 0.19
    assert {len(klass(c).maps) for c in range(24)} <= set(range(2, 8))
    assert np.abs([v for c in range(24) for row in klass(c).maps for v in row]).max() <= 1


def test_filter_keeps_instances_full_and_can_be_switched_off():
    def fill(params, row):
        return game.fill(game.orbit(family.instance_maps(params, row), family.orbit_key(5), family.POINTS), 512)

    on = [fill(klass(c), row) for c in range(4) for row in range(1, 25, 2)]
    off = [fill(klass(c, min_fill=0.0), row) for c in range(4) for row in range(1, 25, 2)]
    assert min(on) >= 0.05
    assert 0.05 < np.mean(np.array(off) < 0.05) < 0.4


# Same pixels everywhere


def test_golden():
    image = family.render(family.sample_class(1, 2), 30, 32)
    assert hashlib.sha256(image.tobytes()).hexdigest() == GOLDEN


def test_order_does_not_matter():
    jobs = [(c, i, 40) for c in range(2) for i in (0, 31, 100)]
    expected = [render_job(job) for job in jobs]
    backwards = [render_job(job) for job in reversed(jobs)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(expected, backwards, strict=True))
    assert len({image.tobytes() for image in expected}) == len(jobs)


def test_another_process_gives_the_same_image():
    code = (
        "import hashlib, sys; from stylize.patterns import fractaldb as f; "
        "print(hashlib.sha256(f.render(f.sample_class(1, 2), 30, 32).tobytes()).hexdigest()); "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [GOLDEN, "False"]


@pytest.mark.parametrize("options", [{}, {"marker": "point"}, {"colour": True}, {"marker": "point", "colour": True}])
def test_torch_gives_the_same_bits(options):
    params = klass(1, points=20_000, **options)
    instances = [0, 25, 57, 99, 100]
    images = family.render_torch(params, instances, 64)
    assert (images.dtype, images.shape) == (torch.uint8, (5, 3, 64, 64))
    for image, instance in zip(images, instances, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), family.render(params, instance, 64))


@pytest.mark.parametrize("size", [16, 200, 512])
def test_sizes(size):
    image = family.render(klass(0), 0, size)
    assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
    assert set(np.unique(image)) == {0, 127}
    if size >= 200:
        assert (image[:4] == 0).all() and (image[-4:] == 0).all(), "6 pixels less a patch and a rounding"
    assert (image > 0).mean() > 0.1


def test_flips():
    plain, down, across, both = (family.render(klass(0, marker="point"), 25 * flip, 64) for flip in range(4))
    assert np.array_equal(down, plain[::-1])
    assert np.array_equal(across, plain[:, ::-1])
    assert np.array_equal(both, plain[::-1, ::-1])


def test_patch_draws_keep_the_shape():
    params = klass(0)
    images = [family.render(params, i, 96) > 0 for i in (0, 100, 200)]
    assert not np.array_equal(images[0], images[1])
    coarse = [image[..., 0].reshape(12, 8, 12, 8).mean((1, 3)) for image in images]
    assert np.corrcoef(coarse[0].ravel(), coarse[1].ravel())[0, 1] > 0.95


def test_colours_have_equal_saturation_and_value():
    colours = family.palette(True)
    assert colours.shape == (129, 3)
    assert (colours[1:].max(1) == 191).all()
    assert (np.abs(colours[1:].min(1) - 191 / 4) <= 1).all()


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": ()}, "maps: expected 1 to 16 tuples of 6 numbers; got 0"),
        ({"maps": ((0.5,) * 5,)}, "maps: expected 6 numbers in each map"),
        ({"maps": ((float("nan"),) * 6,)}, "a number of maps is nan"),
        ({"interval": 0.6}, "interval is 0.6"),
        ({"points": 1.5}, "points is 1.5"),
        ({"marker": "patches"}, "Did you mean 'patch'"),
        ({"colour": 1}, "colour is 1"),
        ({"min_fill": -0.1}, "min_fill is -0.1"),
        ({"seed": True}, "seed is True"),
        ({"draws": 0}, "draws is 0"),
    ],
)
def test_bad_parameters_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(klass(0), **change)


def test_bad_calls():
    for size in (0, 7, 9000):
        with pytest.raises(InputError, match=f"size is {size}"):
            family.render(klass(0), 0, size)
    with pytest.raises(InputError, match="instance is -1"):
        family.render(klass(0), -1, 32)
    with pytest.raises(InputError, match=r"0 of 3 random systems .*acceptance 0 %"):
        family.sample_class(5, 0, max_draws=3)
    with pytest.raises(InputError, match="every map of the system is singular"):
        family.render(dataclasses.replace(klass(0), maps=((0.0,) * 6,)), 0, 32)


def test_divergence_is_left_out_not_undefined():
    params = dataclasses.replace(klass(0), maps=((3.0, 0.0, 1.0, 0.0, 3.0, 1.0),), min_fill=0.0)
    image = family.render(params, 0, 32)
    assert 0 < (image > 0).mean() < 0.2
    assert np.array_equal(family.render_torch(params, [0], 32)[0].permute(1, 2, 0).numpy(), image)
