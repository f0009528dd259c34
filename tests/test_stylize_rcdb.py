import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from metrics.errors import InputError
from stylize import patterns
from stylize.patterns import _contours as contours
from stylize.patterns import _contours_torch, rcdb
from stylize.patterns.class_json import from_json, to_json

# Sha256 of instance 3 of class 2 of seed 1 at 48 pixels
GOLDEN = "bdf156d9da95b0aec8a115f67161d9dfe8537072755323b7df7b49cf394b1198"


@cache
def klass(class_id, min_ink=contours.MIN_INK):
    return rcdb.sample_class(5, class_id, min_ink=min_ink)


def reference_hash(counter, key):
    """The documented hash, in Python's integers."""
    mask, low, high = 2**32 - 1, key & 0xFFFFFFFF, key >> 32
    v = (counter * 0x9E3779B1 & mask) ^ low
    v = (v ^ v >> 16) * 0x7FEB352D & mask
    v = (v ^ v >> 15 ^ high) * 0x846CA68B & mask
    return v ^ v >> 16


def reference_polygons(stack):
    """Every polygon of a stack as float points, straight from the formula; the noise function is evaluated anew."""
    q = stack.vertices
    angles = [2 * math.pi * v / q for v in range(q)]
    x = [stack.centre[0] + stack.radius[0] * math.cos(t) for t in angles]
    y = [stack.centre[1] + stack.radius[1] * math.sin(t) for t in angles]
    for k in range(stack.polygons):
        for v, t in enumerate(angles):
            bits = reference_hash(k * q + v, stack.key)
            u = (np.array([bits & 0xFFFF, bits >> 16]) + 0.5) * 10000 / 65536
            p, p2 = contours.perlin(u)
            wave = stack.advance + sum(0.5 * math.sin(n * t) for n in stack.waves)
            x[v] += math.cos(t) * (wave - stack.noise * p)
            y[v] += math.sin(t) * (wave - stack.noise * p2)
        yield [*zip(x, y, strict=True)]


def reference_draw(stacks, size):
    """The canvas of polygon numbers, drawn by Pillow line by line."""
    image = Image.new("I", (size, size))
    pen, number = ImageDraw.Draw(image), 0
    for stack in stacks:
        for polygon in reference_polygons(stack):
            number += 1
            points = [(x * size / 512, y * size / 512) for x, y in polygon]
            for a, b in zip(points, points[1:] + points[:1], strict=True):
                pen.line((*a, *b), fill=number, width=1)
    return np.asarray(image)


# The formula


def test_noise_is_that_of_the_published_package():
    """Values of pnoise1 of the package noise 1.2.2, which computes in float32."""
    golden = {0.3: 0.7577808, 5.25: -0.21386719, 100.5: 0.3, 1023.75: -0.56191409, 1024.1: 0.3141057, 255.5: -0.3}
    assert contours.perlin(np.array([*golden])) == pytest.approx([*golden.values()], abs=1e-4)


def test_noise_marginal():
    """Measured with that package over 10^6 uniform arguments."""
    noise = contours.NOISE.astype(np.float64)
    assert noise.mean() == pytest.approx(0, abs=2e-3)
    assert noise.std() == pytest.approx(0.3288, abs=1e-3)
    assert (noise.min(), noise.max()) == pytest.approx((-0.952, 0.952), abs=1e-3)
    quantiles = np.quantile(noise, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    assert quantiles == pytest.approx([-0.825, -0.576, -0.154, -0.002, 0.143, 0.615, 0.852], abs=6e-3)


def test_noise_draws_are_independent():
    key = 0x123456789ABCDEF0
    bits = _contours_torch._hash(torch.arange(1 << 17), key).numpy()
    assert bits[:300].tolist() == [reference_hash(c, key) for c in range(300)]
    for half in (bits & 0xFFFF, bits >> 16):
        counts = np.bincount(half >> 8, minlength=256)
        assert ((counts - 512) ** 2 / 512).sum() == pytest.approx(255, abs=5 * math.sqrt(2 * 255))
    x, y = (contours.NOISE[half] for half in (bits & 0xFFFF, bits >> 16))
    x2 = contours.NOISE[_contours_torch._hash(torch.arange(1 << 17), key + 1).numpy() & 0xFFFF]
    for a, b in ((x, y), (x[1:], x[:-1]), (x[100:], x[:-100]), (x, x2)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(1 << 17)


@pytest.mark.parametrize("size", [16, 200, 512])
def test_drawing_matches_the_slow_formula(size):
    """Fixed point against float64: a coordinate may fall on the other side of a pixel's edge."""
    stack = contours.Stack(57, 40, 3.05, 6.0, (60.0, 45.5), (200.5, 301.0), 2**63 + 12345)
    canvas, expected = contours.draw([stack], size, contours.ordinals([stack])), reference_draw([stack], size)
    assert (canvas > 0).mean() > 0.05
    assert (canvas != expected).mean() < 1e-4


def test_lines_are_pillows():
    rng = np.random.default_rng(0)
    for spread in (1, 3, 20, 90):
        pixels = rng.integers(-spread, 40 + spread, (2, 30)).astype(np.int32)
        pixels[:, -1] = pixels[:, 0]
        canvas = np.zeros((40, 40), np.uint16)
        contours.outline(canvas.ravel(), 40, pixels, np.uint16(1))
        image = Image.new("L", (40, 40))
        pen = ImageDraw.Draw(image)
        for a, b in zip(pixels.T[:-1].tolist(), pixels.T[1:].tolist(), strict=True):
            pen.line((*a, *b), fill=1, width=1)
        assert np.array_equal(canvas, np.asarray(image))
    point = contours.Stack(5, 1, 0.0, 0.0, (0.0, 0.0), (100.5, 7.0), 0)
    dot = contours.draw([point], 512, contours.ordinals([point]))
    assert np.argwhere(dot).tolist() == [[7, 100]]


def test_coordinates_are_cut_towards_zero():
    """A vertex less than a pixel outside the left or upper edge is drawn on the edge, as by Pillow."""
    stack = contours.Stack(40, 1, 0.0, 0.0, (30.0, 30.0), (29.5, 29.5), 0)
    canvas = contours.draw([stack], 512, contours.ordinals([stack]))
    assert np.array_equal(canvas, reference_draw([stack], 512))
    assert canvas[:, 0].any() and canvas[0].any()


def test_rounded_cosines_do_not_depend_on_the_c_library():
    """No cosine or sine of a vertex lies within 4 units of float64's last place of a tie between two float32."""
    for q in range(3, 1001):
        angles = 2 * math.pi * np.arange(q) / q
        for exact in (np.cos(angles), np.sin(angles)):
            low, high = exact * (1 - 2**-50), exact * (1 + 2**-50)
            assert np.array_equal(low.astype(np.float32), high.astype(np.float32)), q


# The family


def test_image_is_the_grey_canvas():
    params = klass(1)
    (stack,), greys = rcdb.place(params, 4)
    image = rcdb.render(params, 4, 200)
    assert (image.shape, image.dtype) == ((200, 200, 3), np.uint8)
    assert np.array_equal(image, greys[contours.draw([stack], 200, contours.ordinals([stack]))][..., None].repeat(3, 2))
    assert greys[0] == 255 and len(greys) == 1 + params.polygons
    assert (stack.advance, stack.noise) == (params.step + params.noise, 2 * params.noise)


def test_class_parameters_have_the_published_distribution():
    classes = [klass(c, 0) for c in range(1500)]
    vertices, polygons, noise, step = (
        np.array([getattr(p, f) for p in classes]) for f in ("vertices", "polygons", "noise", "step")
    )
    weights = np.exp(-np.arange(3, 201) / 100)  # of floor(Exp(mean 100)) between 3 and 200
    assert vertices.min() >= 3 and vertices.max() <= 200
    assert vertices.mean() == pytest.approx(np.average(np.arange(3, 201), weights=weights), abs=5)
    assert (polygons.min(), polygons.max()) == (1, 200)
    assert polygons.mean() == pytest.approx(100.5, abs=5)
    assert noise.min() >= 0 and noise.max() <= 4 and noise.mean() == pytest.approx(2, abs=0.1)
    assert step.min() >= 0 and step.max() <= 0.1 and step.mean() == pytest.approx(0.05, abs=0.003)
    assert {p.draws for p in classes} == {1}


def test_instance_parameters_have_the_published_distribution():
    stacks, greys = zip(*(rcdb.place(klass(1), i) for i in range(600)), strict=True)
    centres = np.array([s[0].centre for s in stacks])
    assert centres.min() >= 56 and centres.max() <= 456 and set(np.unique(centres % 0.5)) == {0}
    assert centres.mean(0) == pytest.approx(256, abs=15)
    radii = np.array([s[0].radius for s in stacks])
    assert radii.min() >= 0 and radii.max() <= 200 and radii.mean() == pytest.approx(75, abs=5)
    all_greys = np.concatenate([g[1:] for g in greys])
    assert all_greys.mean() == pytest.approx(128, abs=2)
    assert np.bincount(all_greys, minlength=256)[255] > 1.5 * len(all_greys) / 257, "256 shows as 255"


def test_empty_classes_are_drawn_again():
    kept = [klass(c) for c in range(60)]
    assert 0.75 < len(kept) / sum(p.draws for p in kept) < 0.97
    for params in kept[:10]:
        for instance in range(3):
            assert (rcdb.render(params, instance, 512) != 255).any(2).mean() > 0.002
    first = [klass(c, 0) for c in range(60)]
    assert all(a == b for a, b in zip(kept, first, strict=True) if a.draws == 1)
    assert any(a != b for a, b in zip(kept, first, strict=True))


def test_search_that_cannot_finish_says_what_it_saw(monkeypatch):
    monkeypatch.setattr(contours, "MAX_DRAWS", 3)
    with pytest.raises(InputError, match=r"class 7 of seed 5: 0 of 3 draws touch 1 of the canvas.*Lower min_ink"):
        rcdb.sample_class(5, 7, min_ink=1)


def digest():
    return hashlib.sha256(rcdb.render(rcdb.sample_class(1, 2), 3, 48).tobytes()).hexdigest()


def test_golden():
    assert digest() == GOLDEN


@pytest.mark.slow
def test_golden_without_simd(tmp_path):
    """A CPU with the oldest instruction set gives the same bits."""
    code = "import sys; sys.path.insert(0, 'tests'); import test_stylize_rcdb as t; print(t.digest())"
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | generic, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == GOLDEN


def test_order_and_processes_do_not_matter():
    jobs = [(klass(c), i, 40) for c in range(2) for i in range(3)]
    expected = [rcdb.render(*job) for job in jobs]
    assert len({image.tobytes() for image in expected}) == 6
    backwards = [rcdb.render(*job) for job in reversed(jobs)][::-1]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        elsewhere = list(pool.map(rcdb.render, *zip(*jobs, strict=True)))
        assert pool.submit(rcdb.sample_class, 5, 1).result() == klass(1)
    assert np.array_equal(expected, backwards) and np.array_equal(expected, elsewhere)


@pytest.mark.parametrize("size", [16, 200, 512])
def test_torch_gives_the_same_bits(size):
    torch.set_num_threads(1)
    params = klass(3)
    images = rcdb.render_torch(params, [2, 0], size)
    assert (images.shape, images.dtype) == ((2, 3, size, size), torch.uint8)
    expected = np.stack([rcdb.render(params, i, size) for i in (2, 0)])
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)
    assert rcdb.render_torch(params, [], size).shape == (0, 3, size, size)


def test_json_round_trip(monkeypatch):
    monkeypatch.setitem(patterns.FAMILIES, "rcdb", "contours")
    assert from_json(to_json("rcdb", [klass(0), klass(1)])) == ("rcdb", [klass(0), klass(1)])
    document = json.loads(to_json("rcdb", [klass(0)]))
    document["classes"][0]["noise"] = "much"
    with pytest.raises(InputError, match="class 0: noise is 'much'; expected a finite number from 0 to 8"):
        from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": 2}, "vertices is 2; expected an integer from 3 to 4096"),
        ({"vertices": 5.0}, "vertices is 5.0; expected an integer"),
        ({"polygons": 501}, "polygons is 501; expected an integer from 1 to 500"),
        ({"noise": math.nan}, "noise is nan; expected a finite number from 0 to 8"),
        ({"noise": math.inf}, "noise is inf"),
        ({"step": -0.1}, "step is -0.1"),
        ({"class_id": -1}, "class_id is -1"),
        ({"seed": True}, "seed is True"),
        ({"draws": 0}, "draws is 0"),
    ],
)
def test_bad_parameters_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(klass(0), **change)


@pytest.mark.parametrize("size", [0, 7, 8193, 32.0])
def test_bad_size(size):
    for call in (lambda: rcdb.render(klass(0), 0, size), lambda: rcdb.render_torch(klass(0), [0], size)):
        with pytest.raises(InputError, match="expected an integer from 8 to 8192"):
            call()


@pytest.mark.parametrize("min_ink", [-0.1, 1.5, math.nan])
def test_bad_min_ink(min_ink):
    with pytest.raises(InputError, match="min_ink is"):
        rcdb.sample_class(0, 0, min_ink=min_ink)


def test_extreme_parameters_stay_in_range():
    """The farthest that the accepted parameters go still fits the fixed point: 500 steps of 16 px outward."""
    params = dataclasses.replace(klass(0), vertices=4096, polygons=500, noise=8.0, step=8.0)
    (stack,), _ = rcdb.place(params, 0)
    pixels = contours.add(np.zeros((8, 8), np.uint16), stack, contours.ordinals([stack])[1:])
    radius = np.hypot(*(64.0 * pixels - np.array(stack.centre)[:, None]))
    assert 7500 < np.median(radius) < 8500
