import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from metrics.errors import InputError
from stylize.patterns import FAMILIES
from stylize.patterns import spectrum_noise as family
from stylize.patterns.class_json import from_json, to_json

GOLDEN = "43959088d9c790d298c326ccfda7903b297828c63085cedac74191a68506eae9"


def digest():
    images = [family.render(family.sample_class(1, 2, colour=colour), 3, 32) for colour in (False, True)]
    return hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()


# Same pixels everywhere


@pytest.mark.slow
def test_golden_here_and_in_a_process_of_its_own():
    assert digest() == GOLDEN
    code = "import sys; sys.path.insert(0, 'tests'); import test_stylize_spectrum_noise as t; print(t.digest())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == GOLDEN


@pytest.mark.parametrize("size", [16, 37, 200])
def test_order_does_not_matter(size):
    jobs = [(c, i) for c in range(2) for i in range(2)]
    images = {job: family.render(family.sample_class(5, job[0]), job[1], size) for job in jobs}
    for c, i in reversed(jobs):
        assert np.array_equal(images[c, i], family.render(family.sample_class(5, c), i, size))
    assert len({image.tobytes() for image in images.values()}) == 4
    assert images[0, 0].shape == (size, size, 3)
    assert images[0, 0].dtype == np.uint8
    assert images[0, 0].min() == 0 and images[0, 0].max() == 255


def test_large():
    image = family.render(family.sample_class(5, 0), 0, 512)
    assert image.shape == (512, 512, 3)
    assert (image.min(), image.max()) == (0, 255)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("size", [16, 37, 128])
def test_torch_agrees(colour, size):
    """Two FFTs round differently: a byte may differ where a value lies within 1e-12 of a half."""
    params = family.sample_class(2, 0, colour=colour)
    expected = np.array([family.render(params, i, size) for i in (4, 0, 7)])
    got = family.render_torch(params, [4, 0, 7], size)
    assert got.dtype == torch.uint8
    different = got.numpy().transpose(0, 2, 3, 1) != expected
    assert different.mean() < 1e-4
    alone = family.render_torch(params, [0], size)[0]
    assert (alone != got[1]).float().mean() < 1e-4
    assert family.render_torch(params, [], size).shape == (0, 3, size, size)


# The formula


def slow(params, instance, size, passes):
    """The published loop on whole complex spectra, with np.unique and np.interp, from the drawn noise and colours."""
    channels = family.white(params, instance, size)
    frequency = np.abs(np.arange(size) - size // 2) / size
    inverse = frequency[None, :] ** params.exponents[0] + frequency[:, None] ** params.exponents[1]
    magnitude = np.fft.ifftshift(1 / (1e-300 + inverse))
    magnitude[0, 0] = 0
    colours = family.draw_colours(params, instance, size)
    levels, bins = family.histograms(colours)
    for _ in range(passes):
        for c in range(3):
            mean, deviation = channels[c].mean(), channels[c].std()
            phase = np.angle(np.fft.fft2(channels[c] - mean))
            shaped = np.real(np.fft.ifft2(magnitude * np.exp(1j * phase)))
            channels[c] = (shaped - shaped.mean()) / shaped.std() * deviation + mean
            if params.colour:
                _, which, counts = np.unique(channels[c], return_inverse=True, return_counts=True)
                at = np.cumsum(counts) / channels[c].size
                matched = np.interp(at, levels[c], bins[c])
                channels[c] = matched[which].reshape(size, size)
    rgb = np.tensordot(colours.axes, channels, 1) + colours.mean[:, None, None]
    return (rgb - rgb.min()) / (rgb.max() - rgb.min()) * 255


@pytest.mark.parametrize("size", [31, 64])
def test_one_pass_is_ten(size):
    params = family.sample_class(3, 1)
    expected = slow(params, 0, size, 10)
    assert np.abs(family.render(params, 0, size).transpose(2, 0, 1) - expected).max() < 0.5 + 1e-6


def test_colour_takes_ten_passes():
    params = family.sample_class(3, 1, colour=True)
    assert np.abs(family.render(params, 0, 32).transpose(2, 0, 1) - slow(params, 0, 32, 10)).max() < 0.5 + 1e-6
    assert np.abs(family.render(params, 0, 32).transpose(2, 0, 1) - slow(params, 0, 32, 9)).max() > 2


@pytest.mark.parametrize("exponents", [(0.5, 0.5), (1.0, 1.2), (3.5, 3.3)])
@pytest.mark.parametrize("size", [33, 64])
def test_components_have_the_power_law(exponents, size):
    params = family.sample_class(0, 0, exponents=exponents)
    noise = family.white(params, 0, size)
    shaped = family.shape_spectrum(noise, family.amplitude(exponents, size))
    assert shaped.mean((1, 2)) == pytest.approx(np.zeros(3), abs=1e-9)
    assert shaped.std((1, 2)) == pytest.approx(np.ones(3), abs=1e-9)
    angle = np.angle(np.fft.fft2(shaped) / np.fft.fft2(noise))
    angle[:, 0, 0] = 0
    assert np.abs(angle).max() < 1e-6, "phases are kept"
    for channel in shaped:
        waves = np.abs(np.fft.fft2(channel))
        across, down = np.log(waves[0, 1 : size // 2]), np.log(waves[1 : size // 2, 0])
        assert np.polyfit(np.log(np.arange(1, size // 2)), across, 1)[0] == pytest.approx(-exponents[0], abs=1e-6)
        assert np.polyfit(np.log(np.arange(1, size // 2)), down, 1)[0] == pytest.approx(-exponents[1], abs=1e-6)


def test_images_have_the_power_law():
    """Power, summed over the channels, of many images: rotations and stretches keep the exponent."""
    params = family.sample_class(0, 0, exponents=(1.0, 1.0))
    power = 0.0
    for i in range(20):
        power = power + (np.abs(np.fft.fft2(family.render(params, i, 64), axes=(0, 1))) ** 2).sum(2)
    slope = np.polyfit(np.log(np.arange(1, 25)), np.log(power[0, 1:25]), 1)[0]
    assert slope == pytest.approx(-2, abs=0.1)


def test_colour_imposes_the_histograms():
    params = family.sample_class(7, 0, colour=True)
    colours = family.draw_colours(params, 0, 64)
    assert colours.axes @ colours.axes.T == pytest.approx(np.eye(3), abs=1e-12)
    values = family.quantiles(colours, 64 * 64)
    channels = family.white(params, 0, 64)
    matched = family.impose_histograms(channels, values)
    assert np.array_equal(np.sort(matched.reshape(3, -1), 1), values)
    for before, after in zip(channels, matched, strict=True):
        assert (np.diff(after.ravel()[np.argsort(before, axis=None)]) >= 0).all(), "order is kept"
    levels, bins = family.histograms(colours)
    share = np.searchsorted(values[0], bins[0], side="right") / values.shape[1]
    assert share == pytest.approx(levels[0], abs=2 / values.shape[1])
    assert np.abs(np.corrcoef(colours.axes.T @ colours.pixels) - np.eye(3)).max() < 1e-9, (
        "principal components are uncorrelated"
    )


def test_published_exponents():
    drawn = np.array([family.sample_class(0, c).exponents for c in range(2000)])
    slope, difference = drawn.mean(1), (drawn[:, 0] - drawn[:, 1]) / 2
    assert slope.min() >= 0.5 and slope.max() <= 3.5
    assert slope.mean() == pytest.approx(2, abs=0.08)
    assert difference.std() == pytest.approx(0.05, rel=0.08)
    assert difference.mean() == pytest.approx(0, abs=0.005)


# Parameters as data, and bad input


def test_json_round_trip(monkeypatch):
    monkeypatch.setitem(FAMILIES, "spectrum-noise", "noise")
    params = family.sample_class(3, 1, colour=True)
    assert from_json(to_json("spectrum-noise", [params])) == ("spectrum-noise", [params])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exponents": (1.0,)}, "exponents: expected 2 numbers; got 1"),
        ({"exponents": 2.0}, "exponents: expected 2 numbers; got float"),
        ({"exponents": (1.0, float("inf"))}, "an entry of exponents is inf; expected a finite number from 0 to 6"),
        ({"exponents": (-1.0, 1.0)}, "an entry of exponents is -1"),
        ({"colour": "yes"}, "colour is 'yes'; expected true or false"),
        ({"class_id": 1.5}, "class_id is 1.5"),
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
