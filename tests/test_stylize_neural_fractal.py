import dataclasses
import hashlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import torch
from numba import njit

from metrics.errors import InputError
from stylize.patterns import _neural_fractal_kernel as kernel
from stylize.patterns import _neural_fractal_torch as tensors
from stylize.patterns import load_family
from stylize.patterns import neural_fractal as family
from stylize.patterns.class_json import from_json, to_json

GOLDEN = {  # sha256 of coverage + magnitude + image, of instance 3 of class 2 of seed 1 at 24 pixels
    "split": "13eeb7ac011bb54774a53477046d046bd537b446cfbfb96265cc4b2d33207115",
    "holomorphic": "e5c8feb971413ceb4426a8d6c40fb0010b111ef296a9d29466e32d78a6d99b8a",
}


@cache
def klass(class_id, activation="split", tau=None, seed=5):
    return family.sample_class(seed, class_id, activation=activation, tau=tau)


def digest(activation):
    params = family.sample_class(1, 2, activation=activation)
    field = family.render_field(params, 3, 24)
    image = family.render(params, 3, 24)
    return hashlib.sha256(field.coverage.tobytes() + field.magnitude.tobytes() + image.tobytes()).hexdigest()


def render_job(job):
    class_id, instance, size = job
    return family.render(family.sample_class(5, class_id), instance, size)


# Same pixels everywhere


@pytest.mark.parametrize("activation", family.ACTIVATIONS)
def test_golden(activation):
    assert digest(activation) == GOLDEN[activation]


@pytest.mark.slow
def test_golden_without_simd_or_hardware_fma(tmp_path):
    """A CPU with the oldest instruction set, whose multiply-adds are calls of the C library, gives the same bits."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_stylize_neural_fractal as t; "
        "print(*(t.digest(a) for a in t.GOLDEN)); "
        "print('fmaf' in ''.join(t.kernel.tanh_split.inspect_asm().values()))"
    )
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | generic, capture_output=True, text=True, check=True
    )
    digests, calls_fmaf = result.stdout.splitlines()
    assert digests.split() == list(GOLDEN.values())
    if os.uname().machine == "x86_64":
        assert calls_fmaf == "True"


def test_order_threads_and_processes_do_not_matter():
    jobs = [(c, i, 24) for c in range(2) for i in range(3)]
    expected = [render_job(job) for job in jobs]
    backwards = [render_job(job) for job in reversed(jobs)][::-1]
    with ThreadPoolExecutor(2) as pool:
        threads = list(pool.map(render_job, jobs))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        processes = list(pool.map(render_job, jobs))
    for other in (backwards, threads, processes):
        assert all(np.array_equal(a, b) for a, b in zip(expected, other, strict=True))


def test_render_is_pure():
    params = klass(0)
    before, state = repr(params), pickle.dumps(np.random.get_state())  # noqa: NPY002
    first = family.render(params, 0, 20)
    family.render(klass(1), 1, 33)
    assert np.array_equal(first, family.render(pickle.loads(pickle.dumps(params)), 0, 20))
    assert repr(params) == before
    assert pickle.dumps(np.random.get_state()) == state  # noqa: NPY002


def test_image_is_the_coloured_field():
    params = klass(0)
    image = family.render(params, 2, 40)
    assert image.shape == (40, 40, 3)
    assert image.dtype == np.uint8
    field = family.render_field(params, 2, 40)
    for part in field:
        assert part.shape == (40, 40)
        assert part.dtype == np.float32
        assert 0 <= part.min() <= part.max() <= 1
    assert set(np.unique(field.coverage * 16) % 1) == {0}, "coverage counts 16 samples"
    sure = np.minimum(field.coverage, 1 - field.coverage) == 0
    assert np.array_equal(field.magnitude[sure] <= 0.5, field.coverage[sure] == 1), "magnitude is 1/2 at the threshold"


@pytest.mark.parametrize("size", [16, 37, 512])
def test_size_changes_only_the_resolution(size):
    """The window and the threshold do not depend on the size, so area averages agree."""
    params = dataclasses.replace(klass(3), iterations=6)
    small, other = (family.render_field(params, 1, n, strata=s) for n, s in ((64, 4), (size, 4 if size < 64 else 1)))
    assert other.coverage.shape == (size, size)
    grid = [
        [part.mean() for row in np.array_split(f.coverage, 4) for part in np.array_split(row, 4, 1)]
        for f in (small, other)
    ]
    assert np.abs(np.subtract(*grid)).mean() < 0.02 + 0.3 / size
    assert family.render(params, 1, size, strata=1).shape == (size, size, 3)


def test_classes_and_instances_differ():
    images = [family.render(klass(c), i, 16) for c in range(3) for i in range(3)]
    assert len({image.tobytes() for image in images}) == 9
    assert len({family.sample_class(s, 0).weights for s in range(4)}) == 4


# The pictures are worth looking at


def edge_density(coverage):
    inside = coverage >= 0.5
    return float((inside[1:] != inside[:-1]).mean() + (inside[:, 1:] != inside[:, :-1]).mean()) / 2


def share_of_good(**options):
    fields = [family.render_field(klass(c, **options), i, 64, strata=2) for c in range(12) for i in range(3)]
    return np.mean([0.1 <= f.coverage.mean() <= 0.9 and edge_density(f.coverage) >= 0.02 for f in fields])


@pytest.mark.parametrize("activation", family.ACTIVATIONS)
def test_instances_have_structure_and_a_fixed_threshold_has_less(activation):
    assert share_of_good(activation=activation) >= 0.95
    assert share_of_good(activation=activation, tau=2.0) <= 0.5


def test_images_use_the_colours():
    """Natural photos have a luminance deviation of about 50 codes; none of these may be nearly flat."""
    deviation = [family.render(klass(c), i, 48, strata=2).std() for c in range(12) for i in range(2)]
    assert min(deviation) > 8
    assert np.median(deviation) > 30


def test_threshold_is_the_quantile_of_the_window():
    params = klass(4)
    window, tau = family.place(params, 2)
    assert family.probe(params, window).good
    assert family.probe(params, window).tau == tau
    field = family.render_field(params, 2, 128, strata=2)
    assert abs(field.coverage.mean() - window.fill) < 0.03


def test_acceptance_is_counted():
    draws = [klass(c).draws for c in range(12)]
    assert min(draws) >= 1
    assert 0.1 < len(draws) / sum(draws) < 0.7


def test_search_that_cannot_finish_says_what_it_saw(monkeypatch):
    monkeypatch.setattr(family, "SPREAD", 2.0)
    with pytest.raises(InputError, match=r"class 7 of seed 5: 0 of 3 random split networks.*acceptance 0 %.*max_draws"):
        family.sample_class(5, 7, max_draws=3)


def test_instance_without_a_good_window_keeps_its_class_window(monkeypatch):
    params = klass(0)
    monkeypatch.setattr(family, "SPREAD", 2.0)
    assert family.place(params, 1)[0] == params.window


# The kernel against plain NumPy in double precision


def reference_orbit(weights, c, steps, holomorphic):
    """z_T, complex128, straight from the recurrence."""
    w = np.asarray(weights, np.float64).reshape(-1, 2) @ [1, 1j]
    first, hidden, last = w[:6].reshape(3, 2), w[6:66].reshape(5, 3, 4), w[66:]
    tanh = np.tanh if holomorphic else lambda v: np.tanh(v.real) + 1j * np.tanh(v.imag)
    z = np.zeros_like(c)
    for _ in range(steps):
        h = tanh(np.multiply.outer(first[:, 0], z) + first[:, 1, None])
        for layer in hidden:
            h = tanh(layer[:, :3] @ h + layer[:, 3:])
        z = (last[:3] @ h + last[3]) ** 3 + c
    return z


def reference_points(frame, key, width, height, strata):
    """The sample points c, complex128 [pixels, strata^2], with the documented hash as jitter."""
    mask, n = 0xFFFFFFFF, strata * strata
    points = []
    for counter in range(width * height * n):
        v = (counter * 0x9E3779B1 & mask) ^ key
        v = ((v ^ v >> 16) * 0x7FEB352D) & mask
        v = ((v ^ v >> 15) * 0x846CA68B) & mask
        v ^= v >> 16
        pixel, s = divmod(counter, n)
        u = pixel % width + (s % strata + (v & 0xFFFF) / 65536) / strata
        t = pixel // width + (s // strata + (v >> 16) / 65536) / strata
        points.append(complex(frame[0] + frame[1] * u + frame[2] * t, frame[3] + frame[4] * u + frame[5] * t))
    return np.reshape(points, (-1, n))


@pytest.mark.parametrize(("holomorphic", "steps"), [(False, 3), (True, 2)])
@pytest.mark.parametrize("strata", [1, 3])
def test_kernel_matches_the_recurrence(holomorphic, steps, strata):
    """A few steps, before chaos has amplified the rounding; a few samples beside a pole may differ."""
    weights = np.array(klass(0).weights, np.float32)
    frame = np.array([-1.5, 0.2, 0.03, 1.4, 0.02, -0.2], np.float32)
    width, height, tau = 18, 13, 9.0
    out = np.empty((2, width * height), np.float32)
    kernel.orbits(weights, frame, np.uint32(77), width, strata, steps, np.float32(tau), holomorphic, out)
    points = reference_points(frame.astype(np.float64), 77, width, height, strata)
    modulus = np.abs(reference_orbit(weights, points.ravel(), steps, holomorphic)).reshape(points.shape)
    wrong = np.abs(out[1] - (modulus / (modulus + tau)).mean(1)) > 2e-3
    assert wrong.mean() < 0.03
    assert (np.abs(out[0] - (modulus <= tau).mean(1)) > 1e-6).mean() < 0.03
    assert modulus.std() > 1


@pytest.mark.parametrize("reach", [3, 30])
def test_tanh_accuracy(reach):
    rng = np.random.default_rng(reach)
    n = kernel.NEURONS * kernel.LANES
    for _ in range(50):
        h = rng.uniform(-reach, reach, 2 * n).astype(np.float32)
        split = h.copy()
        kernel.tanh_split(split)
        np.testing.assert_allclose(split, np.tanh(h.astype(np.float64)), rtol=1e-6)
        z = h[:n].astype(np.float64) + 1j * h[n:].astype(np.float64)
        kernel.tanh_holomorphic(h)
        error = np.abs(h[:n] + 1j * h[n:].astype(np.float64) - np.tanh(z))
        assert (error < 4 * 2**-24 * (1 + np.abs(z.imag)) * (1 + np.abs(np.tanh(z)) ** 2)).all()


def test_tanh_stays_finite_at_poles_and_far_away():
    n = kernel.NEURONS * kernel.LANES
    for x, y in [(0, np.pi / 2), (1e-7, -np.pi / 2), (0, 0), (1e20, 1e20), (-1e30, 1e25), (50, 2**23 + 1)]:
        h = np.repeat(np.array([x, y], np.float32), n)
        kernel.tanh_holomorphic(h)
        assert np.isfinite(h).all()
        assert np.abs(h).max() <= 2e6


def test_extreme_weights_are_outside_not_undefined():
    params = dataclasses.replace(klass(0, "holomorphic"), weights=(100.0, -100.0) * 70, tau=1e-6)
    field = family.render_field(params, 0, 16)
    assert all(np.isfinite(part).all() for part in field)


@pytest.mark.parametrize("holomorphic", [False, True])
def test_undefined_orbits_are_outside(holomorphic):
    """An imaginary part near 2^47 pi has no phase left and its tanh is NaN; so is infinity minus infinity."""
    weights = np.zeros(kernel.WEIGHTS, np.float32)
    if holomorphic:
        weights[[3, 7, 11]] = (2.0**46 + 2.0**23) * np.pi
    else:
        weights[kernel.OUTPUT_ROW :] = np.inf
    out = np.empty((2, 64), np.float32)
    frame = np.array([0, 1, 0, 0, 0, 1], np.float32)
    kernel.orbits(weights, frame, np.uint32(1), 8, 2, 1, np.float32(1), holomorphic, out)
    assert (out[0] == 0).all() and (out[1] == 1).all()
    same = tensors.orbits(weights.tolist(), frame[None], [1], [1.0], 8, 2, 1, holomorphic, "cpu")
    assert np.array_equal(same.numpy().reshape(2, 64), out)


def test_more_samples_converge():
    params = dataclasses.replace(klass(3), iterations=6)
    best, four, one = (family.render_field(params, 0, 48, strata=s).coverage for s in (16, 4, 1))
    assert np.abs(four - best).mean() < np.abs(one - best).mean() / 2


# The torch path


@njit(error_model="numpy")
def kernel_fma(a, b, c):
    out = np.empty_like(a)
    for i in range(len(a)):
        out[i] = kernel.fma(a[i], b[i], c[i])
    return out


def near_ties(count):
    """a b is half-way between two float32, and c is too small for float64 to move the sum off the tie."""
    rng = np.random.default_rng(1)
    a = (2 * rng.integers(2**11, 2**12, count) + 1).astype(np.float32)
    b = (2 * rng.integers(2**11, 2**12, count) + 1).astype(np.float32)  # an odd product of 25 or 26 bits
    return a, b, (rng.choice([-1, 1], count) * 2.0**-50).astype(np.float32)


def test_multiply_add_rounds_once():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(5000).astype(np.float32) for _ in range(2))
    c = -(a * b) * (1 + rng.integers(-3, 4, 5000) * 2**-20).astype(np.float32)
    tiny = (np.float32(1e-30) * a, np.float32(1e-12) * b, np.float32(1e-43) * c)
    odd = (
        np.array([np.inf, 1e38, -1e38, 0], np.float32),
        np.array([1, 10, 10, -1], np.float32),
        np.zeros(4, np.float32),
    )
    for triple in ((a, b, c), near_ties(5000), tiny, odd):
        expected = kernel_fma(*triple)
        sent = [torch.from_numpy(v) for v in triple]
        assert np.array_equal(tensors.fma_by_double(*sent).numpy(), expected)
        assert np.array_equal(tensors.fma(*sent).numpy(), expected)
    a, b, c = (v.astype(np.float64) for v in near_ties(5000))
    assert ((a * b + c).astype(np.float32) != kernel_fma(*near_ties(5000))).any(), "the ties are not hard enough"


@pytest.mark.parametrize("activation", family.ACTIVATIONS)
@pytest.mark.parametrize(("class_id", "size", "strata"), [(0, 40, 4), (1, 19, 3), (2, 64, 1)])
def test_torch_gives_the_same_bits(activation, class_id, size, strata):
    params = klass(class_id, activation)
    images = family.render_torch(params, [3, 0], size, strata=strata)
    assert images.shape == (2, 3, size, size) and images.dtype == torch.uint8
    expected = np.stack([family.render(params, i, size, strata=strata) for i in (3, 0)])
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)


@pytest.mark.parametrize("activation", family.ACTIVATIONS)
def test_torch_field_without_fused_addcmul_and_in_small_chunks(activation, monkeypatch):
    params = dataclasses.replace(klass(1, activation), iterations=8, tau=5.0)
    window, _ = family.place(params, 0)
    expected = family.render_field(params, 0, 16)
    monkeypatch.setattr(tensors, "_fused", lambda device: False)
    monkeypatch.setattr(tensors, "CPU_LANES", 1000)
    got = tensors.orbits(
        params.weights, family._frame(window, 16)[None], [family._jitter(params, 0)], [5.0], 16, 4, 8,
        activation == "holomorphic", "cpu",
    )  # fmt: skip
    assert np.array_equal(got[:, 0].numpy(), np.stack(expected))


def test_torch_fields_of_one_side_only():
    """Without inside or without outside pixels there are no ranks to count."""
    for tau in (1e-6, 1e6):
        params = dataclasses.replace(klass(0), tau=tau)
        image = family.render_torch(params, [0], 16)[0].permute(1, 2, 0).numpy()
        assert np.array_equal(image, family.render(params, 0, 16))


def test_torch_stays_on_its_device(monkeypatch):
    """The device without data: reading a value, or mixing it with tensors of the CPU, raises."""
    monkeypatch.setattr(tensors, "_fused", lambda device: True)
    for activation in family.ACTIVATIONS:
        params = dataclasses.replace(klass(0, activation), iterations=1)
        assert family.render_torch(params, [0, 1], 16, "meta").device.type == "meta"


def test_torch_without_instances():
    assert family.render_torch(klass(0), [], 16).shape == (0, 3, 16, 16)


# Parameters as data, and bad input


@pytest.mark.parametrize("options", [{}, {"activation": "holomorphic"}, {"tau": 2.0}])
def test_json_round_trip(options):
    params = family.sample_class(3, 1, **options)
    name, (again,) = from_json(to_json("neural-fractal", [params]))
    assert name == "neural-fractal" and again == params and type(again.window) is family.Window
    assert np.array_equal(family.render(again, 0, 16), family.render(params, 0, 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [0.5] * 139}, "weights: expected 140 numbers; got 139"),
        ({"weights": [float("nan")] * 140}, "weights holds nan"),
        ({"weights": [float("inf")] * 140}, "weights holds inf"),
        ({"weights": ["1"] * 140}, "weights holds '1'"),
        ({"weights": 3}, "weights: expected 140 numbers; got int"),
        ({"window": [0, 0, 1, 0]}, "window: expected 5 numbers; got 4"),
        ({"window": [0, 0, -1, 0, 0.5]}, "window side holds -1"),
        ({"window": [0, 0, 1, 0, 1.5]}, "window fill holds 1.5"),
        ({"tau": -1.0}, "tau holds -1"),
        ({"iterations": 2.5}, "iterations is 2.5"),
        ({"iterations": True}, "iterations is True"),
        ({"activation": "holomorph"}, "Did you mean 'holomorphic'"),
        ({"extra": 1}, "exactly the keys"),
    ],
)
def test_bad_json_is_refused(change, message):
    document = json.loads(to_json("neural-fractal", [klass(0)]))
    document["classes"][0] |= change
    with pytest.raises(InputError, match=message):
        from_json(json.dumps(document))


@pytest.mark.parametrize(("size", "strata"), [(0, 4), (7, 4), (8193, 4), (32, 0), (32, 17)])
def test_bad_size_or_strata(size, strata):
    for call in (
        lambda: family.render(klass(0), 0, size, strata=strata),
        lambda: family.render_torch(klass(0), [0], size, strata=strata),
    ):
        with pytest.raises(InputError, match=r"expected"):
            call()


def test_unknown_activation():
    with pytest.raises(InputError, match=r"unknown activation 'relu'"):
        family.sample_class(0, 0, activation="relu")


# The registry


def test_registry():
    assert load_family("neural-fractal") is family
    with pytest.raises(InputError, match=r"Did you mean 'neural-fractal'"):
        load_family("neural-fractals")
