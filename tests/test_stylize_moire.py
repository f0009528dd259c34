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
from stylize.patterns import FAMILIES
from stylize.patterns import moire as family
from stylize.patterns.class_json import from_json, to_json

GOLDEN = "3653b0ac470483a96bb06fe51aa9e93aa5f85477739b101c81b32ff2a5699b38"


def digest():
    images = [family.render(family.sample_class(1, 2, combine=combine), 3, 32) for combine in family.COMBINE]
    return hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()


# Same pixels everywhere


@pytest.mark.slow
def test_golden_here_and_in_a_process_of_its_own():
    assert digest() == GOLDEN
    code = "import sys; sys.path.insert(0, 'tests'); import test_stylize_moire as t; print(t.digest())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == GOLDEN


@pytest.mark.parametrize("size", [16, 37, 200, 512])
def test_order_does_not_matter(size):
    jobs = [(c, i) for c in range(2) for i in range(2)]
    images = {job: family.render(family.sample_class(5, job[0]), job[1], size) for job in jobs}
    for c, i in reversed(jobs):
        assert np.array_equal(images[c, i], family.render(family.sample_class(5, c), i, size))
    assert len({image.tobytes() for image in images.values()}) == 4
    assert images[0, 0].shape == (size, size, 3)
    assert images[0, 0].dtype == np.uint8
    assert images[0, 0].min() == 0 and images[0, 0].max() == 255


@pytest.mark.parametrize("combine", family.COMBINE)
@pytest.mark.parametrize("size", [16, 37, 200])
def test_torch_agrees(combine, size):
    """Two cosines round differently: a byte may differ where a value lies within 1e-12 of a half."""
    params = family.sample_class(2, 0, combine=combine)
    expected = np.array([family.render(params, i, size) for i in (4, 0, 7)])
    got = family.render_torch(params, [4, 0, 7], size)
    assert got.dtype == torch.uint8
    assert (got.numpy().transpose(0, 2, 3, 1) != expected).mean() < 1e-4
    assert torch.equal(family.render_torch(params, [0], size)[0], got[1])
    assert family.render_torch(params, [], size).shape == (0, 3, size, size)


# The formula


@pytest.mark.parametrize("combine", family.COMBINE)
def test_image_is_the_formula(combine):
    params = family.sample_class(4, 3, combine=combine)
    (x1, y1), (x2, y2) = 24 * family.centres(params, 1)
    values = np.empty((24, 24))
    for i in range(24):
        for j in range(24):
            a = math.cos(2 * math.pi * params.frequencies[0] * math.hypot(j + 0.5 - x1, i + 0.5 - y1))
            b = math.cos(2 * math.pi * params.frequencies[1] * math.hypot(j + 0.5 - x2, i + 0.5 - y2))
            values[i, j] = 0.5 + 0.5 * a * b if combine == "product" else 0.5 + 0.25 * (a + b)
    expected = 255 * (values - values.min()) / (values.max() - values.min())
    image = family.render(params, 1, 24)
    assert (image == image[..., :1]).all(), "grey"
    assert np.abs(image[..., 0] - expected).max() < 0.5 + 1e-9


def test_cosine_is_accurate():
    """Against the library's cosine of the reduced argument, near the centre and 500 pixels away."""
    got = np.empty((64, 64))
    family.interfere(0.37, 0.29, np.array([[-3.3, 8.1], [-500.25, 77.7]]), False, got)
    y, x = np.mgrid[:64, :64] + 0.5
    turns = [0.37 * np.sqrt((x + 3.3) ** 2 + (y - 8.1) ** 2), 0.29 * np.sqrt((x + 500.25) ** 2 + (y - 77.7) ** 2)]
    expected = sum(np.cos(2 * np.pi * (t - np.round(t))) for t in turns)
    assert np.abs(got - expected).max() < 3e-15


def test_near_the_pixel_frequency_the_grid_beats():
    """A grating of f = 0.49 seen at every second pixel looks like one of period 50: the moiré of sampling."""
    waves = np.empty((256, 256))
    family.interfere(0.49, 0.0, np.array([[0.5, 32.5], [0.0, 0.0]]), True, waves)
    neighbours = np.abs(np.diff(waves[32])).mean()
    second = np.abs(waves[32, 2:] - waves[32, :-2]).mean()
    assert second < 0.15 * neighbours


def test_classes_are_settings():
    classes = [family.sample_class(0, c) for c in range(300)]
    first, second = np.array([params.frequencies for params in classes]).T
    assert first.min() >= 1 / 32 and max(first.max(), second.max()) <= 0.5
    assert (second / first).min() >= 0.8 - 1e-12 and (second / first).max() <= 1.25 + 1e-12
    assert np.log(first).mean() == pytest.approx(math.log(1 / 8), abs=0.15)
    assert {params.combine for params in classes} == set(family.COMBINE)
    spots = np.array([family.centres(classes[0], i) for i in range(500)])
    assert spots.min() >= -0.25 and spots.max() <= 1.25
    assert spots.mean((0, 1)) == pytest.approx([0.5, 0.5], abs=0.06)


# Parameters as data, and bad input


def test_json_round_trip(monkeypatch):
    monkeypatch.setitem(FAMILIES, "moire", "rings")
    params = family.sample_class(3, 1)
    assert from_json(to_json("moire", [params])) == ("moire", [params])
    document = json.loads(to_json("moire", [params]))
    document["classes"][0]["frequencies"] = [0.1]
    with pytest.raises(InputError, match=r"frequencies: expected 2 numbers; got 1"):
        from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frequencies": (0.1, 0.0)}, "an entry of frequencies is 0.0; expected a finite number from 0.001 to 4"),
        ({"frequencies": (float("nan"), 0.1)}, "an entry of frequencies is nan"),
        ({"combine": "products"}, "Did you mean 'product'"),
        ({"seed": None}, "seed is None"),
    ],
)
def test_bad_parameters(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(family.sample_class(0, 0), **change)


@pytest.mark.parametrize("size", [0, 7, 8193])
def test_bad_size(size):
    for render in (lambda p: family.render(p, 0, size), lambda p: family.render_torch(p, [0], size)):
        with pytest.raises(InputError, match=r"size is .*; expected an integer from 8 to 8192"):
            render(family.sample_class(0, 0))
