"""DINOv2, the network of FD-DINOv2: ``dinov2[:vits14|vitb14|vitl14|vitg14]``, by default ViT-B/14.

Oquab et al., "DINOv2" (2023). The features are the class token after the last norm. Preprocessing is that of dgm-eval
(Stein et al., "Exposing flaws of generative model evaluation metrics", NeurIPS 2023): squash to 224x224, Pillow's
bicubic with its antialiasing, ImageNet mean and standard deviation. Published FD-DINOv2 numbers are of
``dinov2:vitl14``; those of EDM2 use the same resize without its rounding to 8 bits.

The weights are upstream's in timm's repositories on the hub; upstream's own ``.pth`` files fit, too. Upstream
stretches the position embeddings from 37x37 to 16x16 by the factor 16.1/37, bicubic, without antialiasing; timm's way
gives other features, so it is done here as upstream does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..errors import InputError
from ..registry import unknown
from .network import Network
from .preprocess import Preprocess
from .timm_models import pretrained, stages

DEFAULT = "vitb14"
MODELS = {
    "vits14": "vit_small_patch14_dinov2.lvd142m",  # 384 features
    "vitb14": "vit_base_patch14_dinov2.lvd142m",  # 768
    "vitl14": "vit_large_patch14_dinov2.lvd142m",  # 1024
    "vitg14": "vit_giant_patch14_dinov2.lvd142m",  # 1536
}
SIDE = 224


def load(name: str, *, weights: Path | None = None) -> Network:
    """The network, with weights from the Hugging Face cache or hub, or from ``weights``.

    Args:
        name: as in ``load_extractor``.
        weights: a file that replaces the weights it would load.

    Returns:
        The network with its preprocessing.

    Raises:
        InputError: unknown model, weights that do not fit, or no way to fetch them.
    """
    model = _model(name)
    network = pretrained(name, model, weights)
    preprocess = replace(Preprocess.of_timm(network), size=(SIDE, SIDE), crop_mode="squash")
    _resize_positions(network)
    return Network(name, network, preprocess, f"timm {model}, {SIDE} px, positions as upstream", preprocess.describe())


def layers(name: str) -> tuple[str, ...]:
    """The layers of a gap profile: four blocks from the first to the last but one."""
    return stages(_model(name))


def _model(name: str) -> str:
    _, colon, model = name.partition(":")
    if colon and model not in MODELS:
        raise unknown("DINOv2 model", model, MODELS)
    return MODELS[model or DEFAULT]


def _resize_positions(network: torch.nn.Module) -> None:
    """Position embeddings for SIDE pixels, as upstream interpolates them."""
    native = network.pos_embed.detach().clone()  # type: ignore[operator]
    network.set_input_size(img_size=SIDE)  # type: ignore[operator]
    resized = stretch(native, SIDE // 14)
    if resized.shape != network.pos_embed.shape:
        raise InputError(f"position embeddings {list(native.shape)} cannot be stretched to {SIDE} px.")
    network.pos_embed.data = resized


def stretch(positions: torch.Tensor, grid: int) -> torch.Tensor:
    """``[1, 1 + n*n, D]`` class token and n x n positions to ``[1, 1 + grid*grid, D]``, as upstream does."""
    token, patches = positions[:, :1], positions[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factor = (grid + 0.1) / side
    square = torch.nn.functional.interpolate(square, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([token, square.flatten(2).transpose(1, 2)], 1)
