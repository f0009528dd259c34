"""examples/recipes/pretrain_autoencoder.py and pretrain_diffusion.py: measures, equations and whole small runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torch import nn

from metrics.errors import InputError

pytest.importorskip("accelerate", reason="the extra 'diffusion' is not installed")
pytest.importorskip("diffusers", reason="the extra 'diffusion' is not installed")
RECIPES = Path(__file__).parent.parent / "examples" / "recipes"


@pytest.fixture
def autoencoder(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    import pretrain_autoencoder

    return pretrain_autoencoder


@pytest.fixture
def diffusion(autoencoder):
    import pretrain_diffusion

    return pretrain_diffusion


@pytest.fixture
def pictures(folder, picture):
    def make(name, count=4, start=0):
        return folder(name, {f"{index}.png": picture(start + index, 40, 40) for index in range(count)})

    return make


def quick_judge(module, monkeypatch):
    """Features by pooling instead of a network: a whole run is about the plumbing."""
    monkeypatch.setattr(
        module,
        "load_extractor",
        lambda name: lambda images: images.float().flatten(2).unfold(2, 64, 64).mean(3).flatten(1),
    )


# ---- autoencoder -----------------------------------------------------------------------------------------------------


def test_measures_agree_with_scikit_image(autoencoder, picture, monkeypatch):
    quick_judge(autoencoder, monkeypatch)
    monkeypatch.setattr(autoencoder, "feature_distance", lambda x, y: torch.zeros(len(x)))
    rng = np.random.default_rng(0)
    images = np.stack([picture(seed, 32, 32) for seed in range(3)])
    copies = np.clip(images + rng.normal(0, [[[[5]]], [[[20]]], [[[50]]]], images.shape), 0, 255).astype(np.uint8)
    x, y = (torch.from_numpy(part).permute(0, 3, 1, 2) for part in (images, copies))
    found = autoencoder.judged(x, y, ["a", "b", "c"])
    pairs = [(a / 255, b / 255) for a, b in zip(images, copies, strict=True)]
    assert found["mse"] == pytest.approx(np.mean([mean_squared_error(*pair) for pair in pairs]), rel=1e-9)
    psnr = [peak_signal_noise_ratio(*pair, data_range=1) for pair in pairs]
    assert found["psnr"] == pytest.approx(np.mean(psnr), rel=1e-9)
    ssim = [structural_similarity(*pair, data_range=1, channel_axis=2) for pair in pairs]
    assert found["ssim"] == pytest.approx(np.mean(ssim), rel=1e-6)


def test_feature_distance_is_the_mean_of_cosines(autoencoder, monkeypatch, picture):
    """Vectors of length one: the squared difference is 2 − 2 cos, at every position."""
    rng = np.random.default_rng(1)
    a, b = (
        torch.from_numpy(rng.random((2, 5, 4, 4)).astype(np.float32)),
        torch.from_numpy(rng.random((2, 5, 4, 4)).astype(np.float32)),
    )
    stages = {0: [a], 1: [b]}
    network = SimpleNamespace(forward_intermediates=lambda x, **_: stages[int(x.flatten()[0] > 0)])
    monkeypatch.setattr(autoencoder, "packaged_weights", lambda name: Path("weights"))
    monkeypatch.setattr(autoencoder, "read_weights", lambda path: {})
    monkeypatch.setattr(autoencoder, "classifier", lambda *_: SimpleNamespace(eval=lambda: network))
    dark, light = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)
    expected = (2 - 2 * nn.functional.cosine_similarity(a, b, dim=1)).mean((1, 2))
    torch.testing.assert_close(autoencoder.feature_distance(dark, light), expected)
    torch.testing.assert_close(autoencoder.feature_distance(dark, dark), torch.zeros(2))


def test_feature_distance_of_the_real_network_grows_with_noise(autoencoder, picture):
    image = torch.from_numpy(picture(3, 32, 32)).permute(2, 0, 1)[None]
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 1, image.shape))
    near, far = ((image + scale * noise).clamp(0, 255).to(torch.uint8) for scale in (4, 40))
    distances = [float(autoencoder.feature_distance(image, other)) for other in (image, near, far)]
    assert distances[0] == 0 and 0 < distances[1] < distances[2]


def test_autoencoder_run(autoencoder, pictures, tmp_path, monkeypatch, capsys):
    quick_judge(autoencoder, monkeypatch)
    small = ["--widths", "8", "8", "--steps", "4", "--every", "2", "--batch-size", "2", "--crops", "2", "--size", "16"]
    words = [str(pictures("synthetic")), str(pictures("real", start=9)), str(tmp_path / "out"), *small]
    options = autoencoder.parse(words)
    crops = autoencoder.open_images(options.real).crops(options.crops, options.size)
    synthetic = list(autoencoder.open_images(options.source))
    assert autoencoder.run_on(synthetic, crops, autoencoder.parse([*words, "--dry-run"])) == {}
    assert "4 images, 4 steps of 2" in capsys.readouterr().out and not (tmp_path / "out").exists()
    found = autoencoder.run_on(synthetic, crops, options)
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == found and found["photos"] == 4
    assert autoencoder.run_on(synthetic, crops, options) == found  # nothing is left to train
    from diffusers import AutoencoderKL

    kept, images = AutoencoderKL.from_pretrained(tmp_path / "out" / "autoencoder"), autoencoder.pixels(crops, 16)
    errors = (autoencoder.reconstructed(kept, images).double() - images.double()) / 255
    assert float(errors.square().mean()) == pytest.approx(found["mse"], rel=1e-6)
    with pytest.raises(InputError, match=r"--size 30: 3 widths need a multiple of 4"):
        autoencoder.run_on(synthetic, crops, autoencoder.parse([*words[:3], "--size", "30"]))


# ---- diffusion -------------------------------------------------------------------------------------------------------


class Zero(nn.Module):
    """A network that says 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x, time):
        return SimpleNamespace(sample=x * self.weight)


def test_the_loss_of_the_prior_is_one_at_every_noise_level(diffusion):
    """EDM's weight makes the error of the best linear denoiser of Gaussian images 1, whatever σ is."""
    learner = diffusion.Edm(Zero())
    torch.manual_seed(0)
    images = diffusion.SIGMA_DATA * torch.randn(400, 3, 8, 8)
    assert float(learner(images).detach()) == pytest.approx(1, abs=0.01)
    for mean in (-3.0, 2.0):
        diffusion_p, diffusion.P_MEAN = diffusion.P_MEAN, mean
        try:
            assert float(learner(images).detach()) == pytest.approx(1, abs=0.01)
        finally:
            diffusion.P_MEAN = diffusion_p


def test_the_networks_input_and_target_have_unit_variance(diffusion):
    seen = []

    class Spy(Zero):
        def forward(self, x, time):
            seen.append((x, time))
            return super().forward(x, time)

    network, data = Spy(), diffusion.SIGMA_DATA
    generator = torch.Generator().manual_seed(0)
    for level in (0.01, 0.5, 30.0):
        sigma = torch.full((2000, 1, 1, 1), level)
        y = data * torch.randn(2000, 1, 4, 4, generator=generator)
        noisy = y + sigma * torch.randn(y.shape, generator=generator)
        skipped = diffusion.denoise(network, noisy, sigma).detach()
        out = level * data / math.hypot(level, data)
        assert float(seen[-1][0].var()) == pytest.approx(1, abs=0.03)
        assert float(((y - skipped) / out).var()) == pytest.approx(1, abs=0.03)
        assert float(seen[-1][1][0]) == pytest.approx(500 + 250 * math.log(level) / 4, rel=1e-6)


def test_heun_follows_the_flow_of_gaussian_data(diffusion):
    """For N(0, s²) the flow is known: x(0) = x(σ_max) s / √(s² + σ_max²); the error falls by four per halved step."""
    s, noise = 0.7, torch.randn(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = noise * diffusion.SIGMA_MAX * s / math.hypot(s, diffusion.SIGMA_MAX)
    errors = [
        float((diffusion.heun(lambda x, sigma: x * s**2 / (s**2 + sigma**2), noise, steps) - exact).abs().max())
        for steps in (32, 64, 128)
    ]
    assert errors[0] < 0.05 and 3 < errors[0] / errors[1] < 5 and 3 < errors[1] / errors[2] < 5
    grid = diffusion.levels(18)
    assert float(grid[0]) == pytest.approx(80) and float(grid[-2]) == pytest.approx(0.002) and float(grid[-1]) == 0


def test_the_average_of_weights_is_the_power_law(diffusion):
    """EDM2, eq. 6: the average at t weighs the weights of step τ by τ^γ, up to the discrete sum."""
    learner, weights = diffusion.Edm(Zero()), np.sin(np.arange(1, 201) / 20)
    for step, weight in enumerate(weights, 1):
        learner.network.weight.data.fill_(weight)
        learner.follow(step, 200)
    powers = np.arange(1, 201) ** diffusion.GAMMA
    expected = (powers * weights).sum() / powers.sum()
    assert float(learner.average.weight) == pytest.approx(expected, abs=5e-3)
    relative = math.sqrt(diffusion.GAMMA + 1) / ((diffusion.GAMMA + 2) * math.sqrt(diffusion.GAMMA + 3))
    assert relative == pytest.approx(0.10, abs=1e-3)  # its width, of all steps


def test_the_learning_rate_is_edm2s(diffusion):
    rates = [diffusion.factor(step, 400, 0.25) for step in (50, 100, 400)]
    assert rates == pytest.approx([1, 1, 0.5])


SMALL = ["--widths", "8", "8", "--size", "8", "--steps", "2", "--real-steps", "2", "--every", "2", "--batch-size", "2"]


def test_diffusion_run(diffusion, pictures, tmp_path, monkeypatch, capsys):
    quick_judge(diffusion, monkeypatch)
    sets = [list(diffusion.open_images(pictures(name, start=start))) for name, start in (("a", 0), ("b", 9), ("c", 20))]
    words = ["", "", "", str(tmp_path / "out"), *SMALL, "--samples", "3", "--sampler-steps", "2"]
    assert diffusion.compare(*sets, diffusion.parse([*words, "--dry-run"])) == {}
    assert "4 steps of 2 a row" in capsys.readouterr().out
    found = diffusion.compare(*sets, diffusion.parse(words))
    assert set(found) == {"pre-trained", "from scratch"}
    made = torch.load(tmp_path / "out" / "pre-trained" / "samples.pt")
    assert made.shape == (3, 3, 8, 8) and made.dtype == torch.uint8
    assert diffusion.compare(*sets, diffusion.parse(words)) == found  # nothing is left to train
    steps = [
        len((tmp_path / "out" / place / "log.csv").read_text().split()) - 1
        for place in ("pre-trained/synthetic", "from-scratch/real")
    ]
    assert steps == [1, 2]  # 2 steps, and 4: as many as both stages


def test_a_sample_depends_on_its_number_alone(diffusion):
    options = diffusion.parse(["", "", "", "x", *SMALL, "--sampler-steps", "2"])
    learner = diffusion.Edm(diffusion.unet(options))
    options.samples = 2
    two = diffusion.samples(learner, options)
    options.samples = 3
    assert torch.equal(diffusion.samples(learner, options)[:2], two)
