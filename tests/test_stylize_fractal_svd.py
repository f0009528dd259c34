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
from stylize.patterns import _contractions, _plasma
from stylize.patterns import fractal_svd as family

torch.set_num_threads(1)

GOLDEN = "560ad836ad0218b3818c6c96652c37519e3d7f033029d3e1425f6c3a2220ea36"


@cache
def klass(class_id, **options):
    return family.sample_class(5, class_id, **options)


def array(params):
    return np.array(params.maps).reshape(-1, 2, 3)


# The formula


def test_classes_follow_the_published_ranges():
    counts, offsets = [], []
    for c in range(600):
        maps = array(family.sample_class(1, c))
        values = np.linalg.svd(maps[:, :, :2], compute_uv=False)
        assert values.max() < 1, "every map contracts"
        counts.append(len(maps))
        offsets.append((values[:, 0] + 2 * values[:, 1]).sum() - (5 + len(maps)) / 2)
        assert np.abs(maps[:, :, 2]).max() <= 1
    assert min(offsets) > -1e-9 and max(offsets) < 0.5 + 1e-9
    assert abs(np.mean(offsets) - 0.25) < 0.03
    np.testing.assert_allclose(np.bincount(counts)[2:], 200, atol=55)


def test_largest_singular_value_and_fixed_point():
    for c in range(20):
        for one in array(klass(c)):
            values = np.linalg.svd(one[:, :2], compute_uv=False)
            assert _contractions.largest_singular_value(one[:, :2]) == pytest.approx(values[0])
            point = np.linalg.solve(np.eye(2) - one[:, :2], one[:, 2])
            np.testing.assert_allclose(_contractions.fixed_point(one), point, rtol=1e-6)


def test_orbit_starts_on_the_attractor():
    seen, _, _ = family.scene(klass(0), 0, 32)
    points = game.orbit(seen.system, seen.key, 1000, start=seen.start)
    first = seen.system.maps[0]
    np.testing.assert_allclose(first[:, :2] @ points[:, 0] + first[:, 2], points[:, 0], atol=1e-9)


def test_image_is_the_published_drawing():
    """Hits of the window's pixels spread by one mask, over their greatest; hue 255 density + shift; black behind."""
    params = klass(3, background=False, points=5000)
    seen = next(s for s, _, w in (family.scene(params, i, 48) for i in range(20)) if w == 0)
    seen = seen._replace(flip=(False, True, True), window=np.array([[1.0, 1.0], [0.0, 0.0]]))
    points = game.orbit(seen.system, seen.key, 5000, start=seen.start)
    low, high = points.min(1), points.max(1)
    counts = np.zeros((50, 50))
    for x, y in points.T:
        column, up = int((x - low[0]) * (47 / (high[0] - low[0]))), int((y - low[1]) * (47 / (high[1] - low[1])))
        for k in range(9):
            if seen.mask >> k & 1:
                counts[47 - up + 2 - k // 3, column + 2 - k % 3] += 1
    counts = counts[1:-1, 1:-1]
    levels = np.where(counts > 0, 1 + np.floor(255 * counts / counts.max()), 0)[:, ::-1].T
    drawn = family.layer(family.count(seen, 5000, 48), seen)
    assert (drawn != levels).sum() <= 9
    assert drawn.max() == 256


def test_jitter_scales_one_map_and_contracts():
    rng, changed = generator(0, "test", "jitter"), 0
    for c in range(100):
        maps = array(klass(c))
        new = family.jittered(maps, rng)
        ratios = [float((n / o).mean()) for n, o in zip(new, maps, strict=True) if not np.array_equal(n, o)]
        assert len(ratios) <= 1
        assert all(0.8 <= r <= 1.1 for r in ratios)
        assert np.linalg.svd(new[:, :, :2], compute_uv=False).max() < 1
        changed += len(ratios)
    assert changed > 90


def test_windows():
    points = np.array([[0.0, 4.0, 1.0, 2.0], [0.0, 0.0, 2.0, 1.0]])
    whole = family.locate(points, np.array([[1.0, 1.0], [0.0, 0.0]]), 9)
    assert [divmod(int(p), 9) for p in whole] == [(8, 0), (8, 8), (0, 2), (4, 4)]
    half = family.locate(points, np.array([[0.5, 1.0], [0.0, 0.0]]), 9)
    assert [p >= 0 for p in half] == [False, False, True, True]
    shifted = family.locate(points, np.array([[1.0, 1.0], [0.25, 0.0]]), 9)
    assert [divmod(int(p), 9) if p >= 0 else None for p in shifted] == [None, (8, 6), (0, 0), (4, 2)]


def test_filter_keeps_windows_full_and_can_be_switched_off():
    def hit(params, instance):
        seen, _, _ = family.scene(params, instance, 16)
        points = game.orbit(seen.system, seen.key, family.PROBE, start=seen.start)
        whole = np.array_equal(seen.window, [[1, 1], [0, 0]])
        return whole or (game.hits(family.locate(points, seen.window, 64), 64) > 0).mean() >= 0.1

    assert all(hit(klass(c, min_fill=0.1), i) for c in range(10) for i in range(4))
    assert not all(hit(klass(c, min_fill=0.0), i) for c in range(10) for i in range(4))


# Background and blur


def test_plasma_keeps_its_shape_at_other_sizes_and_its_noise_decays():
    rng = generator(0, "test", "plasma")
    field = _plasma.subdivide(np.zeros((2, 2)), 0.0, rng)
    assert (field == 0).all()
    ramp = np.array([[0.0, 1.0], [0.0, 1.0]])
    middle = _plasma.subdivide(ramp, 0.0, rng)
    np.testing.assert_allclose(middle, [[0, 0.5, 1], [1 / 6, 0.5, 5 / 6], [0, 0.5, 1]])
    small, large = (_plasma.plasma(generator(0, "test", "same"), size) for size in (65, 129))
    assert np.abs(small.astype(int) - large[::2, ::2]).mean() < 12
    assert large.std(axis=(0, 1)).max() > 5


@pytest.mark.parametrize("weight", [0, 40, 155])
def test_blur(weight):
    image = generator(0, "test", "blur").integers(0, 256, (17, 17, 3), dtype=np.uint8)
    kernel = np.array([weight, 256, weight]) / (256 + 2 * weight)
    wide = np.pad(image.astype(float), [(1, 1), (1, 1), (0, 0)], mode="edge")
    wide = kernel[0] * wide[:-2] + kernel[1] * wide[1:-1] + kernel[2] * wide[2:]
    wide = kernel[0] * wide[:, :-2] + kernel[1] * wide[:, 1:-1] + kernel[2] * wide[:, 2:]
    assert np.abs(_plasma.blur(image, weight) - wide).max() <= 0.5 + 1e-9


def test_half_of_the_images_are_blurred():
    weights = [_plasma.blur_weight(generator(0, "test", str(i))) for i in range(400)]
    assert 0.4 < np.mean(np.array(weights) > 0) < 0.6
    assert {w for w in weights if w} <= set(range(round(256 * np.exp(-2)), round(256 * np.exp(-0.5)) + 1))


# Several fractals in an image


def test_render_many():
    seen, sums = np.zeros(7, int), []
    for index in range(60):
        image, labels = family.render_many(5, index, 7, 48)
        assert (image.shape, image.dtype) == ((48, 48, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((7,), np.uint8)
        assert set(np.unique(labels)) <= {0, 1}
        seen += labels
        sums.append(int(labels.sum()))
    assert (seen > 0).all()
    assert (min(sums), max(sums)) >= (1, 4) and max(sums) <= 5
    again = family.render_many(5, 11, [family.sample_class(5, c) for c in range(7)], 48)
    for a, b in zip(again, family.render_many(5, 11, 7, 48), strict=True):
        assert np.array_equal(a, b)


def test_every_fractal_is_partly_inside():
    """A place leaves at least 0.3 of the shape inside the image, however lopsided the shape is."""
    for index in range(30):
        shape = np.zeros((12, 12))
        shape[index % 12, :3] = 1
        top, left = family.position(shape > 0, 40, generator(0, "test", str(index)))
        rows, columns = np.nonzero(shape)
        inside = (rows + top >= 0) & (rows + top < 40) & (columns + left >= 0) & (columns + left < 40)
        assert inside.mean() >= 0.3
        assert -6 <= top <= 34 and -6 <= left <= 34


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, -1, 7, 48), "index is -1"),
        ((5, 0, 0, 48), "number of classes is 0"),
        ((5, 0, [], 48), "number of classes is 0"),
        ((5, 0, 7, 12), "size is 12"),
    ],
)
def test_render_many_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        family.render_many(*arguments)
    with pytest.raises(InputError, match="most is 0"):
        family.render_many(5, 0, 7, 48, most=0)


# Same pixels everywhere


def test_golden_here_and_in_another_process():
    code = (
        "import hashlib, sys; from stylize.patterns import fractal_svd as f; "
        "a, b = f.render(f.sample_class(1, 2), 3, 32), f.render_many(1, 2, 9, 32)[0]; "
        "print(hashlib.sha256(a.tobytes() + b.tobytes()).hexdigest(), 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [GOLDEN, "False"]
    image, many = family.render(family.sample_class(1, 2), 3, 32), family.render_many(1, 2, 9, 32)[0]
    assert hashlib.sha256(image.tobytes() + many.tobytes()).hexdigest() == GOLDEN


def test_order_does_not_matter():
    jobs = [(c, i) for c in range(2) for i in range(3)]
    forward = [family.render(klass(c), i, 40) for c, i in jobs]
    backward = [family.render(klass(c), i, 40) for c, i in reversed(jobs)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert len({image.tobytes() for image in forward}) == 6


@pytest.mark.parametrize("options", [{}, {"background": False, "min_fill": 0.0}])
def test_torch_gives_the_same_bits(options):
    params, instances = klass(2, points=20_000, **options), [0, 1, 2, 9, 17]
    images = family.render_torch(params, instances, 64)
    assert (images.dtype, images.shape) == (torch.uint8, (5, 3, 64, 64))
    for image, instance in zip(images, instances, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), family.render(params, instance, 64))


@pytest.mark.parametrize("size", [16, 200, 512])
def test_sizes(size):
    image = family.render(klass(0), 0, size)
    assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
    assert image.std() > 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": ((1.5, 0.0, 0.0, 0.0, 0.5, 0.0),)}, "expected a contraction"),
        ({"maps": ((0.5,) * 5,)}, "maps: expected 6 numbers in each map"),
        ({"background": "no"}, "background is 'no'"),
        ({"min_fill": 0.9}, "min_fill is 0.9"),
        ({"points": 3}, "points is 3"),
    ],
)
def test_bad_parameters_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(klass(0), **change)


def test_bad_size_or_instance():
    with pytest.raises(InputError, match="size is 7"):
        family.render(klass(0), 0, 7)
    with pytest.raises(InputError, match="instance is -1"):
        family.render(klass(0), -1, 32)
