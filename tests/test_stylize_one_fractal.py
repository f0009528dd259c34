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
from stylize.patterns import _contractions, one_fractal
from stylize.patterns import one_fractal as family

torch.set_num_threads(1)

GOLDEN = "d7e18f65553ecda1df045cd74574ee6c1cdd20baded8077df71d232e4fe8d71d"


@cache
def klass(class_id, **options):
    return family.sample_class(5, class_id, **options)


def array(rows):
    return np.array(rows).reshape(-1, 2, 3)


# The formula


@pytest.mark.parametrize("variant", family.VARIANTS)
def test_perturbations_follow_their_formula(variant):
    """Uniform within the range of the paper's (additive) or the program's (multiplicative) equation."""
    base, delta = array(klass(0).base), 0.2
    rng = generator(0, "test", variant)
    drawn = np.stack([family.perturb(base, delta, variant, rng) for _ in range(4000)])
    moves = drawn - base if variant == "additive" else drawn / base - 1
    half = delta / 2 if variant == "additive" else delta
    assert np.abs(moves).max() <= half * (1 + 1e-9)
    assert np.abs(moves).max() > 0.99 * half
    assert np.abs(moves.mean(0)).max() < 5 * half / np.sqrt(3 * 4000)
    np.testing.assert_allclose(moves.std(0), half / np.sqrt(3), rtol=0.05)


def test_all_classes_share_one_base_and_its_chances():
    classes = [klass(c) for c in range(6)]
    assert len({c.base for c in classes}) == 1
    assert len({c.maps for c in classes}) == 6
    assert family.sample_class(6, 0).base != classes[0].base
    base = array(classes[0].base)
    for c in classes:
        assert np.abs(array(c.maps) - base).max() <= 0.05
    dets = [abs(np.linalg.det(m[:, :2])) for m in base]
    assert family._system(classes[3]).thresholds[0] / 2**32 == pytest.approx(dets[0] / sum(dets), abs=1e-9)


def test_base_has_two_maps_of_the_given_complexity():
    for seed in range(20):
        maps, _ = family.base_maps(seed, 3.5, 100_000, 0.0, 1)
        values = np.linalg.svd(maps[:, :, :2], compute_uv=False)
        assert maps.shape == (2, 2, 3)
        assert 3.4 <= (values[:, 0] + 2 * values[:, 1]).sum() <= 3.6
        assert values.max() <= 1 + 1e-9


def test_image_is_the_drawing_of_its_maps():
    """The same picture from a plain re-statement of the rule: orbit, box, patches pasted in turn."""
    params = klass(1, points=3000, min_fill=0.0)
    points = game.orbit(family._system(params), family.orbit_key(5), 3000)
    assert (points[:, 0] == 0).all()
    low, extent = points.min(1), np.ptp(points, axis=1)
    slow, key = np.zeros((192, 192), np.uint8), family.patch_key(5, 1, 0)
    for n, point in enumerate(points.T):
        column, up = ((point - low) * ((192 - 12) / extent) + 6).astype(int)
        bits = 1 + ((int(game._mix(game.u64(key), n)) & 0xFFFFFFFF) * 511 >> 32)
        patch = np.array([bits >> k & 1 for k in range(9)]).reshape(3, 3) * 127
        slow[191 - up - 1 : 191 - up + 2, column - 1 : column + 2] = patch
    image = family.render(params, 0, 192)
    assert (image == image[..., :1]).all()
    assert (image[..., 0] != slow).sum() <= 9


# Published and measured statistics


def test_sparse_at_sigma_three_and_a_half_and_full_at_four_and_a_half():
    """Median share of 512 x 512 pixels that hold a point: 0.041 and 0.19."""
    medians = []
    for sigma in (3.5, 4.5):
        systems = [game.system(family.base_maps(seed, sigma, 100_000, 0.0, 1)[0]) for seed in range(50)]
        medians.append(np.median([game.fill(game.orbit(s, 1, 100_000), 512) for s in systems]))
    assert 0.025 < medians[0] < 0.065
    assert 0.13 < medians[1] < 0.25


def test_filter_holds_and_counts_its_draws():
    for class_id in range(8):
        image = family.render(klass(class_id), 0, 512)
        assert (image[..., 0] > 0).mean() > 0.05
        assert klass(class_id).draws >= 1
        assert klass(class_id).base_draws == klass(0).base_draws
    free = [family.sample_class(seed, 0, min_fill=0.0) for seed in range(12)]
    assert all((c.draws, c.base_draws) == (1, 1) for c in free), "no filter: the first draws are the class"
    assert min((family.render(c, 0, 512)[..., 0] > 0).mean() for c in free) <= 0.05


def test_no_perturbation_is_one_class_many_times():
    classes = [family.sample_class(5, c, delta=0.0) for c in range(2)]
    assert classes[0].maps == classes[1].maps == classes[0].base


@pytest.mark.parametrize("variant", family.VARIANTS)
def test_delta_that_rejects_every_draw(variant):
    with pytest.raises(InputError, match=rf"0 of 20 {variant} perturbations with delta 90 .*Lower delta"):
        family.sample_class(5, 0, delta=90.0, variant=variant, max_draws=20)


def test_sigma_that_rejects_every_base():
    with pytest.raises(InputError, match=r"0 of 20 base fractals with sigma 0.3 .*Raise sigma"):
        family.sample_class(5, 0, sigma=0.3, max_draws=20)


# Same pixels everywhere


def test_golden_here_and_in_another_process():
    code = (
        "import hashlib, sys; from stylize.patterns import one_fractal as f; "
        "print(hashlib.sha256(f.render(f.sample_class(1, 2), 0, 32).tobytes()).hexdigest()); "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [GOLDEN, "False"]
    image = family.render(family.sample_class(1, 2), 0, 32)
    assert hashlib.sha256(image.tobytes()).hexdigest() == GOLDEN


def test_order_does_not_matter():
    forward = [family.render(family.sample_class(5, c), 0, 40) for c in range(4)]
    family.base_maps.cache_clear()
    backward = [family.render(family.sample_class(5, c), 0, 40) for c in (3, 2, 1, 0)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert len({image.tobytes() for image in forward}) == 4


def test_torch_gives_the_same_bits():
    params = klass(0, points=20_000)
    images = family.render_torch(params, [0, 1, 5], 64)
    assert (images.dtype, images.shape) == (torch.uint8, (3, 3, 64, 64))
    for image, instance in zip(images, [0, 1, 5], strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), family.render(params, instance, 64))
    pairs = [(klass(c, points=20_000), c % 2) for c in range(20)]
    images = family.render_classes_torch(pairs, 32)
    for image, (member, instance) in zip(images, pairs, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), family.render(member, instance, 32))
    with pytest.raises(InputError, match="classes of 2 data sets"):
        family.render_classes_torch([(klass(0), 0), (family.sample_class(6, 0), 0)], 32)


@pytest.mark.parametrize("size", [16, 200, 512])
def test_sizes(size):
    image = family.render(klass(0), 0, size)
    assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
    assert set(np.unique(image)) == {0, 127}


def test_instances_draw_new_patches_on_the_same_shape():
    one, two = (family.render(klass(0), i, 96)[..., 0] > 0 for i in (0, 1))
    assert not np.array_equal(one, two)
    coarse = [image.reshape(12, 8, 12, 8).mean((1, 3)).ravel() for image in (one, two)]
    assert np.corrcoef(*coarse)[0, 1] > 0.95


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": ()}, "maps: expected 1 to 16 tuples"),
        ({"base": ((0.5,) * 6,)}, "base has 1 maps; expected as many as maps, 2"),
        ({"base": ((float("inf"),) * 6,) * 2}, "a number of base is inf"),
        ({"points": 10}, "points is 10"),
        ({"base_draws": 0}, "base_draws is 0"),
    ],
)
def test_bad_parameters_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(klass(0), **change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": -0.1}, "delta is -0.1"),
        ({"delta": float("nan")}, "delta is nan"),
        ({"sigma": 6.0}, "sigma is 6"),
        ({"variant": "additve"}, "Did you mean 'additive'"),
        ({"min_fill": 1.0}, "min_fill is 1"),
        ({"points": 1}, "points is 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        family.sample_class(0, 0, **options)


def test_bad_size_or_instance():
    for size in (7, 9000):
        with pytest.raises(InputError, match=f"size is {size}"):
            one_fractal.render(klass(0), 0, size)
    with pytest.raises(InputError, match="instance is -1"):
        one_fractal.render(klass(0), -1, 32)


# Sampling by singular values


@pytest.mark.parametrize(("count", "alpha"), [(2, 0.2), (2, 3.5), (2, 5.9), (3, 4.2), (4, 5.0), (4, 11.9)])
def test_singular_values_share_their_factor(count, alpha):
    rng = generator(0, "test", f"{count} {alpha}")
    for _ in range(200):
        pairs = _contractions.singular_values(rng, count, alpha)
        assert (pairs[:, 0] + 2 * pairs[:, 1]).sum() == pytest.approx(alpha)
        assert (pairs[:, 1] >= -1e-12).all() and (pairs[:, 0] >= pairs[:, 1] - 1e-12).all()
        assert pairs.max() <= 1 + 1e-12
