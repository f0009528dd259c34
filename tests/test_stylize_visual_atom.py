import dataclasses
import hashlib
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import numpy as np
import pytest
import torch
from test_stylize_rcdb import reference_draw

from metrics.errors import InputError
from stylize import patterns
from stylize.patterns import _contours as contours
from stylize.patterns import visual_atom
from stylize.patterns.class_json import from_json, to_json

# Sha256 of instance 3 of class 2 of seed 1 at 48 pixels
GOLDEN = "cc031edeb0ae64bac0f884bbbee7e01f0308dcad231df26e5e2902f3a4de4394"


@cache
def klass(class_id, min_ink=contours.MIN_INK):
    return visual_atom.sample_class(5, class_id, min_ink=min_ink)


@pytest.mark.parametrize("size", [16, 200, 512])
def test_drawing_matches_the_slow_formula(size):
    """Fixed point against float64: a coordinate may fall on the other side of a pixel's edge."""
    params = dataclasses.replace(klass(0), vertices=211, polygons=30, waves=(3, 8))
    (stack,), _ = visual_atom.place(params, 0)
    canvas, expected = contours.draw([stack], size, contours.ordinals([stack])), reference_draw([stack], size)
    assert (canvas > 0).mean() > 0.02
    assert (canvas != expected).mean() < 1e-4


def test_orbits_are_sine_waves():
    """Without noise the last orbit is the ellipse moved by K times the step and the two waves."""
    waves = (4, 9)
    stack = contours.Stack(720, 50, 1.5, 0.0, (40.0, 30.0), (256.0, 256.0), 1, waves)
    x, y = contours.add(np.zeros((8192, 8192), np.uint16), stack, contours.ordinals([stack])[1:])[:, :-1] / 16 - 256
    t = 2 * np.pi * np.arange(720) / 720
    growth = 50 * (1.5 + (np.sin(4 * t) + np.sin(9 * t)) / 2)
    np.testing.assert_allclose(x, np.cos(t) * (40 + growth), atol=0.07)
    np.testing.assert_allclose(y, np.sin(t) * (30 + growth), atol=0.07)


def test_class_parameters_have_the_published_distribution():
    classes = [klass(c, 0) for c in range(1500)]
    for field, least, most in (("vertices", 200, 1000), ("polygons", 1, 200), ("radius", 10, 60)):
        values = np.array([getattr(p, field) for p in classes])
        assert values.min() >= least and values.max() <= most
        assert values.mean() == pytest.approx((least + most) / 2, rel=0.05)
    for field, most in (("noise", 4), ("step", 0.1)):
        values = np.array([getattr(p, field) for p in classes])
        assert values.min() >= 0 and values.max() <= most and values.mean() == pytest.approx(most / 2, rel=0.05)
    ovals = np.array([p.oval for p in classes])
    assert ovals.min() >= 1 and ovals.max() <= 2 and ovals.mean(0) == pytest.approx(1.5, abs=0.03)
    waves = np.array([p.waves for p in classes])
    assert (waves.min(), waves.max()) == (0, 20) and waves.mean(0) == pytest.approx(10, abs=0.6)
    assert all(first != second or first == 0 for first, second in waves)


def test_instances_move_only_the_centre():
    params = klass(1)
    stacks, greys = zip(*(visual_atom.place(params, i) for i in range(600)), strict=True)
    centres = np.array([s[0].centre for s in stacks])
    assert centres.min() >= 0 and centres.max() <= 512 and set(np.unique(centres % 0.5)) == {0}
    assert centres.mean(0) == pytest.approx(256, abs=25)
    assert len({s[0]._replace(centre=(0, 0), key=0) for s in stacks}) == 1
    assert len({s[0].key for s in stacks}) == 600
    assert stacks[0][0].radius == (params.radius * params.oval[0], params.radius * params.oval[1])
    assert (stacks[0][0].advance, stacks[0][0].noise) == (params.step + params.noise, params.noise)
    assert {g[0] for g in greys} == {0}
    assert np.concatenate([g[1:] for g in greys]).mean() == pytest.approx(127.5, abs=3)


def test_image_is_the_grey_canvas():
    params = klass(1)
    (stack,), greys = visual_atom.place(params, 4)
    image = visual_atom.render(params, 4, 200)
    assert (image.shape, image.dtype) == ((200, 200, 3), np.uint8)
    assert np.array_equal(image, greys[contours.draw([stack], 200, contours.ordinals([stack]))][..., None].repeat(3, 2))


def test_empty_classes_are_drawn_again():
    kept = [klass(c) for c in range(80)]
    assert len(kept) / sum(p.draws for p in kept) > 0.9
    bare = next(c for c in range(1500) if klass(c, 0).polygons * klass(c, 0).noise < 0.3)
    assert contours.ink(visual_atom._stack(klass(bare, 0), (0.0, 0.0), 0)) < contours.MIN_INK
    assert klass(bare).draws > 1 and klass(bare) != klass(bare, 0)
    assert contours.ink(visual_atom._stack(klass(bare), (0.0, 0.0), 0)) >= contours.MIN_INK


def test_golden():
    image = visual_atom.render(visual_atom.sample_class(1, 2), 3, 48)
    assert hashlib.sha256(image.tobytes()).hexdigest() == GOLDEN


def test_order_and_processes_do_not_matter():
    jobs = [(klass(c), i, 40) for c in range(2) for i in range(3)]
    expected = [visual_atom.render(*job) for job in jobs]
    assert len({image.tobytes() for image in expected}) == 6
    backwards = [visual_atom.render(*job) for job in reversed(jobs)][::-1]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        elsewhere = list(pool.map(visual_atom.render, *zip(*jobs, strict=True)))
        assert pool.submit(visual_atom.sample_class, 5, 1).result() == klass(1)
    assert np.array_equal(expected, backwards) and np.array_equal(expected, elsewhere)


@pytest.mark.parametrize("size", [16, 200, 512])
def test_torch_gives_the_same_bits(size):
    torch.set_num_threads(1)
    params = dataclasses.replace(klass(3), polygons=60)
    images = visual_atom.render_torch(params, [2, 0], size)
    assert (images.shape, images.dtype) == ((2, 3, size, size), torch.uint8)
    expected = np.stack([visual_atom.render(params, i, size) for i in (2, 0)])
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)


def test_json_round_trip(monkeypatch):
    monkeypatch.setitem(patterns.FAMILIES, "visual-atom", "contours")
    assert from_json(to_json("visual-atom", [klass(0), klass(1)])) == ("visual-atom", [klass(0), klass(1)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": 4097}, "vertices is 4097; expected an integer from 3 to 4096"),
        ({"polygons": 0}, "polygons is 0; expected an integer from 1 to 500"),
        ({"noise": -1}, "noise is -1; expected a finite number from 0 to 8"),
        ({"step": math.nan}, "step is nan"),
        ({"radius": "1"}, "radius is '1'"),
        ({"oval": (1.0,)}, r"oval is \(1.0,\); expected a tuple of 2 numbers"),
        ({"oval": (1.0, 5.0)}, "oval is 5.0; expected a finite number from 0.25 to 4"),
        ({"waves": [1, 2]}, r"waves is \[1, 2\]; expected a tuple"),
        ({"waves": (1, -2)}, "waves is -2; expected an integer from 0 to 1000"),
        ({"draws": 0}, "draws is 0"),
    ],
)
def test_bad_parameters_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(klass(0), **change)


def test_bad_size():
    with pytest.raises(InputError, match="size is 7; expected an integer from 8 to 8192"):
        visual_atom.render(klass(0), 0, 7)
