"""Pre-train a diffusion model on synthetic images, fine-tune it on few real ones, and compare with from scratch.

    python pretrain_diffusion.py patterns few-photos held-out-photos runs/diffusion
    accelerate launch --num_processes 8 pretrain_diffusion.py patterns few held-out runs/big --size 64 ...

Preconditioning, loss and sampler are those of EDM (Karras et al. 2022, table 1 and algorithm 1 without churn). The
noise levels, the learnt weight of each level, the inverse-square-root learning rate and the power-law average of
weights are those of EDM2 (Karras et al. 2024). Deviations: diffusers' UNet2DModel has neither magnitude-preserving
layers nor forced weight normalisation, and one average of weights is kept, not a set to choose from. Both rows see as
many steps: pre-training and fine-tuning, or all of them on the real images. Each is sampled from the same noise and
measured against real images that no training saw. ``--dry-run`` prints the plan and its cost; the same command
continues.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from _training import Run, check, command, common, cost, read, train
from accelerate import PartialState
from diffusers import UNet2DModel
from pretrain_autoencoder import Pixels, check_widths, pixels
from torch import nn

from metrics import open_images
from metrics.errors import InputError
from metrics.extractors import load_extractor
from metrics.image_sets.items import Item
from metrics.seed import seed_for
from metrics.statistics.frechet import frechet
from metrics.statistics.kid import kid

SIGMA_DATA = 0.5  # standard deviation of images in [-1, 1], about
P_MEAN, P_STD = -0.8, 1.6  # EDM2 at 64 px in pixels: ln σ ~ N(P_MEAN, P_STD²)
SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0
GAMMA = 6.94  # of the average of weights: β = (1 − 1/t)^(γ+1); its relative width is 0.10
JUDGE = "efficientnet-lite0"  # works offline


def main() -> None:
    options = parse()
    sets = [list(open_images(source)) for source in (options.source, options.real, options.held_out)]
    compare(*sets, options)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="synthetic images: a folder or whatever open_images reads")
    parser.add_argument("real", help="few real images to fine-tune on")
    parser.add_argument("held_out", help="other real images to measure against")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=32, help="side in pixels, a multiple of 4")
    parser.add_argument("--widths", type=int, nargs="+", default=[24, 48, 48], help="channels; each but one halves")
    parser.add_argument("--steps", type=int, default=800, help="of pre-training")
    parser.add_argument("--real-steps", type=int, default=400, help="of fine-tuning")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3, help="of EDM2's schedule")
    parser.add_argument("--decay", type=float, default=0.5, help="share of all steps after which the rate decays")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--sampler-steps", type=int, default=12)
    common(parser)
    options = parser.parse_args(words)
    check(options, real_steps=1, samples=2, sampler_steps=1, decay=1e-6)
    check_widths(options)
    return options


def compare(
    items: Sequence[Item], real: Sequence[Item], held_out: Sequence[Item], options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Both rows; result.json and a table."""
    if len(held_out) < 2:
        raise InputError(f"{options.held_out}: {len(held_out)} image. Expected at least 2 to measure against.")
    if options.dry_run:
        return plan(items, real, options)
    for item in (*real, *held_out):
        read(item)  # a damaged photo stops here, not after hours
    found = {}
    for name, own in (("pre-trained", items), ("from scratch", [])):
        there = argparse.Namespace(**{**vars(options), "out": options.out / name.replace(" ", "-")})
        found[name] = measured(stages(own, real, there), held_out, there)
    if PartialState().is_main_process:
        (options.out / "result.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        for name, row in found.items():
            print(f"{name}: " + ", ".join(f"{metric} {value:.4g}" for metric, value in row.items()))
    return found


def plan(items: Sequence[Item], real: Sequence[Item], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    learner, steps = Edm(unet(options), options.seed), options.steps + options.real_steps
    seconds = cost(learner, Pixels(real, options.size), Run(options.out, steps, options.batch_size, options.seed))
    count = sum(value.numel() for value in learner.network.parameters())
    print(
        f"UNet2DModel of {count / 1e6:.2f}M parameters, {options.size} px, {steps} steps of {options.batch_size} a row"
    )
    print(
        f"{options.steps} on {len(items)} synthetic images and {options.real_steps} on {len(real)} real; or all on real"
    )
    print(f"{2 * seconds / 60:.1f} minutes in one process, and {4 * options.sampler_steps - 2} passes of all samples")
    return {}


# ---- training --------------------------------------------------------------------------------------------------------


def stages(items: Sequence[Item], real: Sequence[Item], options: argparse.Namespace) -> Edm:
    """Steps on ``items`` and on ``real``, or all of them on ``real`` where there are no items."""
    learner = Edm(unet(options), options.seed)
    if items:
        fit(learner, items, options.steps, options.out / "synthetic", options)
        fit(learner, real, options.real_steps, options.out / "real", options)
    else:
        fit(learner, real, options.steps + options.real_steps, options.out / "real", options)
    return learner


def fit(learner: Edm, items: Sequence[Item], steps: int, out: Path, options: argparse.Namespace) -> None:
    run = Run.of(options, out=out, steps=steps)
    parameters = [value for value in learner.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(parameters, options.lr, betas=(0.9, 0.99))
    train(learner, optimizer, Pixels(items, options.size), run, lambda step: factor(step, steps, options.decay))


def factor(step: int, steps: int, decay: float) -> float:
    """EDM2: constant, then falling with the square root of the step; a short warm-up."""
    return min(1.0, (step + 1) / 20) / math.sqrt(max(1.0, step / (decay * steps)))


def unet(options: argparse.Namespace) -> UNet2DModel:
    count = len(options.widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(options.seed, "weights", "diffusion"))
        return UNet2DModel(
            sample_size=options.size,
            block_out_channels=tuple(options.widths),
            down_block_types=("DownBlock2D",) * count,
            up_block_types=("UpBlock2D",) * count,
            add_attention=True,
            attention_head_dim=8,
            layers_per_block=1,
            norm_num_groups=8,
        )


class Edm(nn.Module):
    """A preconditioned denoiser, its loss, and the average of its weights."""

    def __init__(self, network: nn.Module, seed: int = 0) -> None:
        super().__init__()
        self.network = network
        self.average = copy.deepcopy(network).requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(seed, "weights", "uncertainty"))
            self.register_buffer("frequencies", torch.randn(64))
            self.register_buffer("phases", torch.rand(64))
        self.uncertainty = nn.Linear(64, 1, bias=False)
        nn.init.zeros_(self.uncertainty.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """EDM2, eq. 14: λ(σ)/e^u(σ) · |D(y + n; σ) − y|² + u(σ) of float32 [N,3,H,W] in [-1, 1], mean over images."""
        sigma = (P_MEAN + P_STD * torch.randn(len(images), device=images.device)).exp().view(-1, 1, 1, 1)
        weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
        error = (denoise(self.network, images + sigma * torch.randn_like(images), sigma) - images).square()
        u = self.log_variance(sigma.flatten())
        return (weight.flatten() * error.mean((1, 2, 3)) / u.exp() + u).mean()

    def log_variance(self, sigma: torch.Tensor) -> torch.Tensor:
        """u(σ): a linear layer on random Fourier features of ln(σ)/4."""
        angles = (sigma.log() / 4)[:, None] * self.frequencies + self.phases
        return self.uncertainty((2 * math.pi * angles).cos()).flatten()

    @torch.no_grad()
    def follow(self, step: int, steps: int) -> None:
        """EDM2's power-law average: β = (1 − 1/t)^(γ+1); the first step forgets the initial weights."""
        beta = (1 - 1 / step) ** (GAMMA + 1)
        for kept, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
            kept.lerp_(new, 1 - beta)


def denoise(network: nn.Module, noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """D(x; σ) = c_skip x + c_out F(c_in x; c_noise), EDM table 1; ``sigma`` is [N,1,1,1].

    c_noise = ln(σ)/4 is stretched to the range of steps, 0 to 1000, that the network's embedding is made for.

    Returns:
        The denoised images ``[N,C,H,W]``.
    """
    scale = (sigma**2 + SIGMA_DATA**2).sqrt()
    skip, out = SIGMA_DATA**2 / scale**2, sigma * SIGMA_DATA / scale
    return skip * noisy + out * network(noisy / scale, 500 + 250 * sigma.flatten().log() / 4).sample


# ---- sampling and measuring ------------------------------------------------------------------------------------------


def levels(steps: int) -> torch.Tensor:
    """EDM eq. 5: noise levels from SIGMA_MAX to SIGMA_MIN, then 0; float64 [steps + 1]."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ends = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return torch.cat([(ends[0] + ramp * (ends[1] - ends[0])) ** RHO, torch.zeros(1, dtype=torch.float64)])


def heun(denoiser: nn.Module, noise: torch.Tensor, steps: int) -> torch.Tensor:
    """EDM algorithm 1 without churn: Heun's method on dx/dσ = (x − D(x; σ))/σ from unit ``noise``, float64."""
    grid = levels(steps)
    x = noise.double() * grid[0]
    for now, later in pairwise(grid):
        slope = (x - denoiser(x, now)) / now
        ahead = x + (later - now) * slope
        if later > 0:
            ahead = x + (later - now) * (slope + (ahead - denoiser(ahead, later)) / later) / 2
        x = ahead
    return x


@torch.inference_mode()
def samples(learner: Edm, options: argparse.Namespace) -> torch.Tensor:
    """Images uint8 [N,3,H,W]; every one from a seed of its own, so that batches do not matter."""
    network, found = learner.average.eval(), []
    device = next(network.parameters()).device

    def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        level = torch.full((len(x), 1, 1, 1), float(sigma), device=device)
        return denoise(network, x.float().to(device), level).double().cpu()

    for start in range(0, options.samples, 50):
        indices = range(start, min(start + 50, options.samples))
        seeds = [torch.Generator().manual_seed(seed_for(0, "sample", str(index)) % 2**63) for index in indices]
        noise = torch.stack([torch.randn(3, options.size, options.size, generator=own) for own in seeds])
        found.append(((heun(denoiser, noise, options.sampler_steps) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(found)


def measured(learner: Edm, held_out: Sequence[Item], options: argparse.Namespace) -> dict[str, float]:
    """KID and the Fréchet distance of samples to ``held_out``; samples.pt keeps the samples."""
    if not PartialState().is_main_process:
        return {}
    made = samples(learner, options)
    torch.save(made, options.out / "samples.pt")
    extractor = load_extractor(JUDGE)
    own, real = extractor(made), extractor(pixels(held_out, options.size))
    return {"kid": kid(own, real).value, "frechet": frechet(own, real).value}


if __name__ == "__main__":
    command(main)
