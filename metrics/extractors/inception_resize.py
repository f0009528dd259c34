"""The resize to 299x299 of each program that publishes FID and KID: on the same weights, their numbers differ by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

SIDE = 299


@dataclass(frozen=True)
class Resize:
    """``uint8 [N,3,H,W] -> float32 [N,3,299,299]`` on the scale [0, 255], and what it is called in a report."""

    name: str
    compute: Callable[[torch.Tensor], torch.Tensor]


def tensorflow(images: torch.Tensor) -> torch.Tensor:
    """TensorFlow 1's bilinear resize, as torch-fidelity: grid from the corner, not antialiased."""
    result = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(SIDE, SIDE), align_corners=False)
    return cast("torch.Tensor", result)


def clean(images: torch.Tensor) -> torch.Tensor:
    """Pillow's bicubic on float channels, antialiased, clipped but not rounded to 8 bits: clean-fid (Parmar 2022)."""
    planes = images.cpu().float().flatten(0, 1).numpy()
    resized = [Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for plane in planes]
    values = np.stack([np.asarray(plane) for plane in resized]).clip(0, 255)
    return torch.from_numpy(values).view(*images.shape[:2], SIDE, SIDE).to(images.device)


def antialiased(images: torch.Tensor) -> torch.Tensor:
    """Torch's antialiased bilinear resize of float values: torchmetrics from 1.8 on."""
    return interpolate(images.float(), size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)


PRESETS = {
    "torch-fidelity": Resize("bilinear, TensorFlow 1 grid, not antialiased, float32", tensorflow),
    "clean": Resize("bicubic, antialiased, Pillow on float channels", clean),
    "torchmetrics": Resize("bilinear, antialiased, torch on float32", antialiased),
}
