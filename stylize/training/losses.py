"""What training the network compares: the frozen encoder, the photos as it sees them, the critics and the losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrizations import spectral_norm

from metrics.extractors.efficientnet_lite import classifier, packaged_weights
from metrics.extractors.weights import read_weights
from metrics.image_sets.items import ImageSet

from ..styles.methods.network import CODE, style_code
from ..styles.methods.patches import Statistics
from ..styles.methods.patches import learn as patch_statistics
from ..styles.rows import Rows
from .windows import disturbed, readable, window

ENCODER = "efficientnet-lite0"
STYLES, WINDOWS = 360, 5  # crops of photos in all, windows per crop
COMPONENTS = 32  # principal components of the content's features that the probe recovers


class FoldedEfficientNet(nn.Module):
    """EfficientNet-Lite0, batch normalisations folded in: maps at 1/2, 1/4, 1/8, 1/16, 1/32, and pooled features."""

    def __init__(self) -> None:
        super().__init__()
        path = packaged_weights(ENCODER)
        network = cast("Any", classifier(ENCODER, read_weights(path), path).eval())
        self.stem = _folded(network, "conv_stem", "bn1")
        self.stages = nn.ModuleList(nn.ModuleList(network_stage) for network_stage in network.blocks)
        self.head = _folded(network, "conv_head", "bn2")
        for block in (block for stage in network.blocks for block in stage):
            names = ["conv_pw", "conv_dw", "conv_pwl"] if hasattr(block, "conv_pwl") else ["conv_dw", "conv_pw"]
            for number, name in enumerate(names, 1):
                setattr(block, name, _folded(block, name, f"bn{number}"))
                setattr(block, f"bn{number}", nn.Identity())
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Five maps and the features ``[N,1280]`` of ``float32 [N,3,H,W]`` images in [0, 1]."""
        x = self.stem(((images * 255 - 127) / 128).contiguous(memory_format=torch.channels_last))
        maps = []
        for number, stage in enumerate(self.stages):
            for block in cast("nn.ModuleList", stage):
                x = block(x)
            if number in (0, 1, 2, 4, 6):
                maps.append(x)
        return maps, self.head(x).mean((2, 3))

    def components(self, contents: torch.Tensor) -> torch.Tensor:
        """The first whitened principal components ``[N,k]`` of the pooled features of ``uint8 [N,3,H,W]`` images."""
        device = next(self.parameters()).device
        batches = (contents[start : start + 16].to(device).float() / 255 for start in range(0, len(contents), 16))
        with torch.no_grad():
            features = torch.cat([self(batch)[1].cpu() for batch in batches])
        left, values, _ = torch.linalg.svd(features - features.mean(0), full_matrices=False)
        kept = min(COMPONENTS, int((values > 1e-4 * values[0]).sum()))
        components: torch.Tensor = left[:, :kept] * math.sqrt(len(features))
        return components


def _folded(module: nn.Module, convolution: str, norm: str) -> nn.Module:
    """The convolution with its batch normalisation in its weights, and the activation after it."""
    after = getattr(module, norm)
    plain = nn.BatchNorm2d(after.num_features, after.eps).eval()
    plain.load_state_dict(after.state_dict())
    return nn.Sequential(fuse_conv_bn_eval(getattr(module, convolution), plain), after.act)


class RealWindows:
    """The photos: statistics and code of every style, and what the encoder sees in windows of its crop.

    ``maps`` and ``pooled`` hold WINDOWS consecutive rows per style; ``losses`` are the photos that cannot be had.
    """

    def __init__(self, photos: ImageSet, size: int, seed: int, encoder: FoldedEfficientNet) -> None:
        crops = photos.crops(max(1, STYLES // len(photos)), 2 * size, seed)
        losses: dict[str, str] = dict(crops.losses)
        rows = Rows(min(STYLES, len(crops)))
        for image, draw in readable(crops, STYLES, seed, losses):
            windows = torch.cat([window(image, size, draw) for _ in range(WINDOWS)]).float() / 255
            device = next(encoder.parameters()).device
            with torch.no_grad():
                maps, pooled = encoder(disturbed(windows.to(device), draw))
            levels = {f"level {level}": m.cpu().bfloat16()[None] for level, m in enumerate(maps)}
            rows.append({**patch_statistics(image.float() / 255), **levels, "pooled": pooled.cpu()[None]})
        kept = rows.tensors()
        self.losses: Mapping[str, str] = losses
        self.pooled = kept.pop("pooled").flatten(0, 1)
        self.maps = [kept.pop(name).flatten(0, 1) for name in levels]
        self.statistics: Statistics = kept
        self.codes = style_code(self.statistics)
        self._moments = [_moments(held.float()) for held in self.maps]
        self._targets = [
            by_window.view(-1, WINDOWS, by_window.shape[1]).mean(1) for by_window in (*self._moments, self.pooled)
        ]
        self._spreads = [target.std(0, correction=0) + 1e-3 for target in self._targets[:-1]]
        self._spreads.append(self._targets[-1].std(0, correction=0) + 1e-2)
        self._mean, self._spread = self.pooled.mean(0), self.pooled.std(0) + 1e-2

    def style_loss(self, maps: Sequence[torch.Tensor], pooled: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        """Distance of the results' moments and features to those of their styles; 1 is about one spread."""
        found = [*(_moments(m) for m in maps), pooled]
        parts = []
        for own, target, spread in zip(found, self._targets, self._spreads, strict=True):
            off = (own - target[styles].to(own.device)) / spread.to(own.device)
            parts.append(F.smooth_l1_loss(off, torch.zeros_like(off)))
        return (2 * torch.stack(parts[:-1]).sum() + parts[-1]) / (2 * len(parts) - 1)

    def standardised(self, pooled: torch.Tensor) -> torch.Tensor:
        """Pooled features in small units for linear layers."""
        return (pooled - self._mean.to(pooled.device)) / self._spread.to(pooled.device) / 5


def _moments(maps: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation over space, ``[N,2C]``."""
    variance, mean = torch.var_mean(maps, (2, 3), correction=0)
    return torch.cat([mean, (variance + 1e-6).sqrt()], 1)


class MapCritic(nn.Module):
    """A discriminator of one map: score per position, plus how well the position fits the style."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, real: torch.Tensor, width: int = 48) -> None:
        super().__init__()
        sample = real[:: max(1, len(real) // 400)].float()
        self.register_buffer("mean", sample.mean((0, 2, 3))[:, None, None])
        self.register_buffer("spread", sample.std((0, 2, 3))[:, None, None] + 1e-3)
        side = min(real.shape[-2:])
        self.mix = spectral_norm(nn.Conv2d(real.shape[1], width, 1))
        kernel = min(3, side)
        self.look = spectral_norm(nn.Conv2d(width, width, kernel, stride=2 if side > 16 else 1))
        self.score = spectral_norm(nn.Conv2d(width, 1, 1))
        self.style = nn.Linear(CODE, width, bias=False)
        nn.init.normal_(self.style.weight, std=0.01)

    def forward(self, maps: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Scores ``[N,1,h,w]``, high for real."""
        x = F.leaky_relu(self.mix((maps - self.mean) / self.spread), 0.2)
        x = F.leaky_relu(self.look(x), 0.2)
        scores: torch.Tensor = self.score(x) + (x * self.style(code)[..., None, None]).mean(1, keepdim=True)
        return scores


class PooledCritic(nn.Module):
    """A discriminator of the pooled features."""

    def __init__(self, real: RealWindows, width: int = 96) -> None:
        super().__init__()
        self._standardised = real.standardised
        self.mix = spectral_norm(nn.Linear(real.pooled.shape[1], width))
        self.score = spectral_norm(nn.Linear(width, 1))
        self.style = nn.Linear(CODE, width, bias=False)
        nn.init.normal_(self.style.weight, std=0.01)

    def forward(self, pooled: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Scores ``[N,1]``, high for real."""
        x = F.leaky_relu(self.mix(self._standardised(pooled)), 0.2)
        scores: torch.Tensor = self.score(x) + (x * self.style(code)).mean(1, keepdim=True)
        return scores


def structure_loss(result: torch.Tensor, content: torch.Tensor) -> torch.Tensor:
    """Squared lack of gradient correlation at full and half resolution."""
    pairs = ((F.avg_pool2d(result, factor), F.avg_pool2d(content, factor)) for factor in (1, 2))
    return torch.stack([(1 - _gradient_correlation(*pair)).square().mean() for pair in pairs]).sum()


def _gradient_correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    x, y = _gradients(a), _gradients(b)
    correlation: torch.Tensor = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1) + 1e-4)
    return correlation


def _gradients(images: torch.Tensor) -> torch.Tensor:
    """Centred gradient magnitudes of the luminance, ``[N,pixels]``."""
    luminance = torch.einsum("nchw,c->nhw", images, torch.tensor([0.299, 0.587, 0.114], device=images.device))
    right = luminance[:, 1:-1, 2:] - luminance[:, 1:-1, :-2]
    down = luminance[:, 2:, 1:-1] - luminance[:, :-2, 1:-1]
    magnitude = (right.square() + down.square() + 1e-6).sqrt().flatten(1)
    return magnitude - magnitude.mean(1, keepdim=True)


def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """KID's kernel."""
    similar: torch.Tensor = (x @ y.T / x.shape[1] + 1) ** 3
    return similar
