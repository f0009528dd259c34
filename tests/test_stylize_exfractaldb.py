import dataclasses
import hashlib
import math
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch

from metrics.errors import InputError
from metrics.seed import generator
from stylize.patterns import _chaos_game as game
from stylize.patterns import exfractaldb as family

torch.set_num_threads(1)

GOLDEN = "0ad6cc3145defb304166ab59426ba54f94a57f4be88ee99505823ff1bc0249d3"


@cache
def klass(class_id, **options):
    return family.sample_class(5, class_id, **options)


def array(params):
    return np.array(params.maps).reshape(-1, 3, 4)


# The formula


@pytest.mark.slow
def test_single_orbit_is_the_published_game():
    maps = array(klass(0))
    system = game.system(maps)
    fast = game.orbit(system, 77, 2000, single=True)
    assert (fast[:, 0] == 0).all()
    edges = np.concatenate([[0], system.thresholds / 2**32, [1]])
    dets = np.abs([np.linalg.det(m[:, :3]) for m in maps])
    np.testing.assert_allclose(np.diff(edges), dets / dets.sum(), atol=1e-9)
    for n in range(1999):
        draw = (int(game._mix(game.u64(77), n)) >> 32) / 2**32
        k = int(np.searchsorted(edges, draw, side="right")) - 1
        np.testing.assert_allclose(fast[:, n + 1], maps[k, :, :3] @ fast[:, n] + maps[k, :, 3], rtol=1e-12, atol=1e-12)


def test_many_chains_have_the_law_of_one():
    system = game.system(array(klass(1)))
    many, one = game.orbit(system, 7, 100_000), game.orbit(system, 7, 100_000, single=True)
    np.testing.assert_allclose(many.mean(1), one.mean(1), atol=0.02)
    np.testing.assert_allclose(np.cov(many), np.cov(one), atol=0.03)


def test_weights():
    """The identity and, for each of the twelve numbers, 0.4 to 1.6 in steps of 0.1."""
    table = family.weights()
    assert table.shape == (145, 12)
    assert (table[0] == 1).all()
    assert ((table[1:] != 1).sum(1) == 1).all()
    for column in table.T:
        np.testing.assert_allclose(np.unique(column), np.arange(4, 17) / 10)


def test_camera():
    """A look-at camera at (0, 0, 4), 45 degrees high: the plane z = 0 shows 2 * 4 tan(22.5 degrees) of the world."""
    half = 4 * math.tan(math.radians(22.5))
    points = np.array([[0, 0, 0], [half, 0, 0], [0, -half, 0], [0.5, 0.25, 1]]).T
    x, y, depth = family.project(points, np.eye(3))
    np.testing.assert_allclose(x, [0, 1, 0, 0.5 / 3 / math.tan(math.radians(22.5))], atol=1e-12)
    np.testing.assert_allclose(y, [0, 0, -1, 0.25 / 3 / math.tan(math.radians(22.5))], atol=1e-12)
    np.testing.assert_allclose(depth, [4, 4, 4, 3])


def test_image_is_the_projected_cloud():
    params = klass(2)
    row, rotation = family.parts(params, 7)
    points = game.orbit(family.instance_maps(params, row), family.orbit_key(5), params.points)
    cloud = (points - points.min()) / (points.max() - points.min()) * 2 - 1
    cloud = rotation @ (cloud - cloud.mean(1, keepdims=True))
    slow = np.zeros((96, 96), np.uint8)
    for x, y, z in cloud.T:
        u, v = ((p / (4 - z) / math.tan(math.radians(22.5)) + 1) * 48 for p in (x, y))
        if 4 - z >= 1 and 0 <= u < 96 and 0 <= v < 96:
            slow[95 - int(v), int(u)] = 255
    image = family.render(params, 7, 96)
    assert (image == image[..., :1]).all()
    assert (image[..., 0] != slow).sum() <= 2, "the mean in fixed point may move a point across an edge"


def test_rotations_are_uniform():
    rng = generator(0, "test", "rotation")
    turns = np.stack([family.uniform_rotation(rng) for _ in range(4000)])
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    assert np.abs(turns.mean(0)).max() < 0.05
    np.testing.assert_allclose((turns**2).mean(0), 1 / 3, atol=0.02)


def test_ring_has_twelve_azimuths():
    params = klass(0, views="ring")
    for view in range(12):
        _, rotation = family.parts(params, 145 * view)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert rotation[1].tolist() == [0, 1, 0]
        camera = rotation.T @ [0, 0, 4]  # where the camera stands in the scene
        azimuth = math.degrees(math.atan2(camera[0], camera[2]))
        assert abs((azimuth - 30 - 30 * view + 180) % 360 - 180) <= math.pi


# Published statistics


def test_acceptance():
    """1.2 % of random systems are spread above 0.05 (sampling error here 0.2); about a quarter diverge."""
    spreads, diverging = [], 0
    for n in range(3000):
        system = game.system(family.draw_maps(generator(3, "test", str(n))))
        points = game.orbit(system, 7, family.POINTS, single=True)
        spreads.append(family.spread(points))
        diverging += bool(not (np.abs(points) <= game.REACH).all())
        if spreads[-1] > 0.04:
            assert family.accepted(system, 7) == (spreads[-1] > family.VARIANCE), "the quick look loses nothing"
    assert 0.006 <= np.mean(np.array(spreads) > 0.05) <= 0.019
    assert 0.21 <= diverging / 3000 <= 0.30


def test_spread_is_the_variance_of_the_scaled_cloud():
    points = generator(0, "test", "cloud").normal(size=(3, 500)) * [[1], [2], [3]] + 4
    scaled = (points - points.min()) / (points.max() - points.min()) * 2 - 1
    assert family.spread(points) == pytest.approx(scaled.var(1).min())
    np.testing.assert_allclose(family.centred(points), scaled - scaled.mean(1, keepdims=True), atol=1e-8)
    assert family.spread(np.full((3, 10), np.inf)) == family.spread(np.zeros((3, 10))) == 0


def test_classes_are_accepted():
    for c in range(12):
        points = game.orbit(game.system(array(klass(c))), family.orbit_key(5), family.POINTS, single=True)
        assert family.spread(points) > 0.05
        assert 2 <= len(klass(c).maps) <= 7
    assert 1 / np.mean([klass(c).draws for c in range(12)]) < 0.04


def test_filter_spreads_instances_and_can_be_switched_off():
    def spread(params, row):
        return family.spread(game.orbit(family.instance_maps(params, row), family.orbit_key(5), family.POINTS))

    on = [spread(klass(c), row) for c in range(6) for row in range(1, 145, 6)]
    off = [spread(klass(c, min_variance=0.0), row) for c in range(6) for row in range(1, 145, 6)]
    assert min(on) > 0.02
    assert min(off) <= 0.02


# Same pixels everywhere


def test_golden_here_and_in_another_process():
    code = (
        "import hashlib, sys; from stylize.patterns import exfractaldb as f; "
        "print(hashlib.sha256(f.render(f.sample_class(1, 2), 30, 32).tobytes()).hexdigest()); "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [GOLDEN, "False"]
    image = family.render(family.sample_class(1, 2), 30, 32)
    assert hashlib.sha256(image.tobytes()).hexdigest() == GOLDEN


def test_order_does_not_matter():
    jobs = [(c, i) for c in range(2) for i in range(3)]
    forward = [family.render(klass(c), i, 40) for c, i in jobs]
    backward = [family.render(klass(c), i, 40) for c, i in reversed(jobs)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert len({image.tobytes() for image in forward}) == 6


@pytest.mark.parametrize("views", family.VIEWS)
def test_torch_gives_the_same_bits(views):
    params, instances = klass(1, views=views), [0, 3, 145, 146, 10_000]
    images = family.render_torch(params, instances, 64)
    assert (images.dtype, images.shape) == (torch.uint8, (5, 3, 64, 64))
    for image, instance in zip(images, instances, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), family.render(params, instance, 64))


@pytest.mark.parametrize("size", [16, 200, 512])
def test_sizes(size):
    image = family.render(klass(0), 0, size)
    assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
    assert set(np.unique(image)) == {0, 255}


def test_divergence_is_left_out_not_undefined():
    maps = ((2.0, 0, 0, 1.0, 0, 3.0, 0, 1.0, 0, 0, 2.5, 1.0),)
    params = dataclasses.replace(klass(0), maps=maps, min_variance=0.0)
    image = family.render(params, 0, 64)
    assert (image > 0).any()
    assert np.array_equal(family.render_torch(params, [0], 64)[0].permute(1, 2, 0).numpy(), image)


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": ((0.5,) * 6,)}, "maps: expected 12 numbers in each map"),
        ({"maps": [(0.5,) * 12]}, "maps: expected 1 to 16 tuples of 12 numbers; got list"),
        ({"views": "rnd"}, "unknown views 'rnd'"),
        ({"min_variance": 0.1}, "min_variance is 0.1"),
        ({"class_id": -1}, "class_id is -1"),
    ],
)
def test_bad_parameters_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(klass(0), **change)


def test_bad_calls():
    with pytest.raises(InputError, match="size is 7"):
        family.render(klass(0), 0, 7)
    with pytest.raises(InputError, match="instance is -1"):
        family.render(klass(0), -1, 32)
    with pytest.raises(InputError, match=r"0 of 3 random systems .*acceptance 0 %"):
        family.sample_class(5, 0, max_draws=3)
