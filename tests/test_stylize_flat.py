"""Flat photos and flat contents: the result has the style's mean, and no noise that neither of them has."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from stylize.commands.main import app
from stylize.styles.bank import learn, to_batch
from stylize.styles.flat import with_mean
from stylize.styles.methods import METHODS, network, patches

SLOW = [name for name, method in METHODS.items() if method.slow]

SIDE = 32
SKY = (176, 193, 205)
CONTENTS = {"grey": 128, "black": 0, "white": 255, "stripes": None, "dim": None}


def _even(colour, deviation=0.0):
    noise = np.random.default_rng(7).normal(0, deviation, (SIDE, SIDE, 3)) if deviation else 0
    return (np.full((SIDE, SIDE, 3), colour) + noise).clip(0, 255).round().astype(np.uint8)


def _content(name):
    if CONTENTS[name] is not None:
        return _even(CONTENTS[name])
    rows = np.arange(SIDE)[:, None, None] // 8 % 2
    low, high = ((20, 20, 20), (230, 40, 90)) if name == "stripes" else ((10, 0, 5), (40, 30, 0))
    return np.where(rows, np.uint8(high), np.uint8(low)).repeat(SIDE, 1)


STYLES = {
    "clear sky": _even(SKY, 1.5),
    "one colour": _even(SKY),
    "night": _even((4, 4, 8), 2),
    "black": _even(0),
    "snow": _even((250, 250, 253), 2),
    "white": _even(255),
    "red": _even((250, 5, 5)),
    "grey": _even(90, 1),
}


@pytest.fixture
def flat(folder):
    return folder("flat", {f"{name}.png": image for name, image in STYLES.items()})


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in METHODS]
)
def test_every_method_gives_the_mean_of_a_flat_style(method, flat):
    bank = learn(flat, methods=[method], crops=1, size=SIDE)
    for name in ("black", "stripes") if method in SLOW else CONTENTS:
        content = _content(name)
        for index, source in enumerate(bank.sources):
            style = STYLES[source["photo"]]
            result = bank.transfer(to_batch(content), ["k"], method=method, plan={"k": index})[0].double()
            off = result.mean((1, 2)).numpy() - style.mean((0, 1))
            assert np.abs(off).max() <= 10, (name, source["photo"], off)


@pytest.mark.parametrize("method", SLOW)
def test_optimisation_gives_the_mean_of_a_flat_style(method, flat, monkeypatch):
    monkeypatch.setattr(import_module(f"stylize.styles.methods.{method}"), "STEPS", 1)
    bank = learn(flat, methods=[method], crops=1, size=SIDE)
    index = [source["photo"] for source in bank.sources].index("night")
    result = bank.transfer(to_batch(_content("stripes")), ["k"], method=method, plan={"k": index})[0].double()
    assert np.abs(result.mean((1, 2)).numpy() - STYLES["night"].mean((0, 1))).max() <= 10


@pytest.mark.parametrize("method", ["texture", "network", "histogram", "fda"])
@pytest.mark.parametrize("strength", [0.0, 0.3, 0.7])
def test_less_strength_goes_as_much_less_far(method, strength, flat):
    bank = learn(flat, methods=[method], crops=1, size=SIDE)
    for name in ("grey", "black", "white"):
        content = _content(name)
        for index, source in enumerate(bank.sources):
            result = bank.transfer(to_batch(content), ["k"], strength, method=method, plan={"k": index})[0].double()
            wanted = content.mean((0, 1)) + strength * (STYLES[source["photo"]].mean((0, 1)) - content.mean((0, 1)))
            assert np.abs(result.mean((1, 2)).numpy() - wanted).max() <= 10, (name, source["photo"])


@pytest.mark.parametrize("method", [name for name in METHODS if name not in SLOW])
def test_a_clear_sky_gives_no_noise(method, flat):
    bank = learn(flat, methods=[method], crops=1, size=SIDE)
    index = [source["photo"] for source in bank.sources].index("clear sky")
    for name in ("grey", "black", "white"):
        result = bank.transfer(to_batch(_content(name)), ["k"], method=method, plan={"k": index})[0].double()
        assert result.std((1, 2)).max() <= 3, name  # the sky's is 1.5


def test_a_network_leaves_styles_that_it_does_not_know_to_texture(flat, picture):
    bank = learn(flat, methods=["network"], crops=1, size=SIDE)
    content = to_batch(picture(3, SIDE, SIDE))
    for index in range(len(bank)):
        assert bank.painted("colour+network", index) == "colour+texture"
        painted = bank.transfer(content, ["k"], 0.7, method="network", plan={"k": index})
        assert torch.equal(painted, bank.transfer(content, ["k"], 0.7, method="texture", plan={"k": index}))


def test_the_network_knows_the_photos_that_it_was_trained_on():
    bank = learn("assets/photos/learn", methods=["network"], crops=2, size=128)
    assert {bank.painted("network", index) for index in range(len(bank))} == {"network"}


def test_a_distance_from_known_styles_is_mahalanobis(picture):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(400, network.CODE, generator=generator) * 3 + 1
    architecture = dict.fromkeys(network.ARCHITECTURE, 1)
    painter = network.Stylizer(**architecture)
    style = patches.learn(to_batch(picture(1, SIDE, SIDE)).float() / 255)
    assert painter.knows(style)  # it says nothing of its styles
    painter.learn_styles(codes)
    deviations = np.cov(codes.double().numpy().T, ddof=0) + network.LOOSE * np.eye(network.CODE)
    off = network.style_code(style)[0].double().numpy() - codes.double().numpy().mean(0)
    distance = np.sqrt(off @ np.linalg.solve(deviations, off) / network.CODE)
    assert painter.knows(style) == (distance <= network.STRANGE)
    painter.learn_styles(codes + 40)
    assert not painter.knows(style)


def test_a_mean_is_reached_from_the_end_of_the_gamut():
    image = torch.zeros(1, 3, 8, 8)
    image[..., :4] = 1
    moved = with_mean(image.clone(), torch.tensor([0.0, 0.5, 1.0]))
    assert torch.allclose(moved.mean((0, 2, 3)), torch.tensor([0.0, 0.5, 1.0]), atol=0.02)
    assert torch.equal(moved[:, 1], image[:, 1])
    assert moved.min() >= 0 and moved.max() <= 1


def test_apply_says_and_records_who_paints_a_style(flat, folder, picture, tmp_path):
    contents, style, out = folder("contents", {"a.png": picture(1)}), tmp_path / "s.safetensors", tmp_path / "out"
    learn(flat, crops=1, size=SIDE).save(style)
    words = ["apply", style, contents, out, "--preset", "strong", "--workers", 1]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert (
        "note: the network was trained on no styles like 8 of 8, from black, clear sky, grey and 5 more"
        in result.stderr
    )
    (row,) = map(json.loads, (out / "metadata.jsonl").read_text(encoding="utf-8").splitlines())
    assert row["method"] == "texture"
