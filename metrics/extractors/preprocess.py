"""Resize, crop and normalise on tensors, as a network's own evaluation pipeline prescribes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from timm.data.config import resolve_model_data_config
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from ..errors import InputError

BAND = 2**22  # pixels narrowed at once: as floats they take eight times the room of the image's bytes


@dataclass(frozen=True)
class Preprocess:
    """``uint8 [N,3,H,W] -> float32 [N,3,*size]`` with the geometry of ``timm.data.create_transform``.

    The image is resized, with an antialiasing filter, to ``size / crop_pct`` and its centre of ``size`` is kept.
    ``crop_mode`` says what is resized to that: 'center' the short side, 'squash' both sides, 'border' the long side
    with the mean colour around, 'square' the largest square in the centre, which timm does not have. ``mean`` and
    ``std`` are on the scale [0, 1].

    The resize is Pillow's, on tensors of any device: at most one pixel in 50 differs, nearly always by one level of
    255, because Pillow has fixed-point weights (see tests). Deliberate deviation: the width is resized first, always.
    Pillow 13 starts with the height where that shrinks much more, which moves such pixels by up to 5 levels; features
    must not depend on its version.
    """

    size: tuple[int, int]
    interpolation: str
    crop_pct: float
    crop_mode: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.interpolation not in ("bilinear", "bicubic"):
            raise InputError(f"interpolation {self.interpolation!r} is not supported. Expected bilinear or bicubic.")
        if self.crop_mode not in ("center", "squash", "border", "square"):
            raise InputError(
                f"crop mode {self.crop_mode!r} is not supported. Expected center, squash, border or square."
            )

    @classmethod
    def of_timm(cls, network: torch.nn.Module) -> Preprocess:
        """The evaluation preprocessing in the pretrained configuration of a timm network."""
        config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
        channels, height, width = config["input_size"]
        if channels != 3:
            raise InputError(f"the model takes {channels} channels. Expected a model for RGB images.")
        mean, std = (tuple(config[key]) for key in ("mean", "std"))
        return cls((height, width), config["interpolation"], config["crop_pct"], config["crop_mode"], mean, std)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The network's input for ``images``, ``uint8 [N,3,H,W]``."""
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (self.mean, self.std))
        if self.crop_mode == "square":
            images = _centre_square(images)
        resized = self._resize(images)
        if self.crop_mode == "border":  # pad around zero, which is the mean colour once it is subtracted
            fill = (mean * 255).round_()
            cropped = F.center_crop(resized - fill, list(self.size)) + fill
        else:
            cropped = F.center_crop(resized, list(self.size))
        return cast("torch.Tensor", (cropped / 255 - mean) / std)

    def _resize(self, images: torch.Tensor) -> torch.Tensor:
        """Pillow's resize: first the width, then the height, with 8-bit values after each."""
        height, width = images.shape[-2:]
        new_height, new_width = self._resized(height, width)
        rows = max(1, BAND // width)
        bands = (images[..., top : top + rows, :].float() for top in range(0, height, rows))
        narrowed = torch.cat([self._rounded(band, band.shape[-2], new_width) for band in bands], -2)
        return self._rounded(narrowed, new_height, new_width)

    def _rounded(self, images: torch.Tensor, height: int, width: int) -> torch.Tensor:
        resized = F.resize(images, [height, width], InterpolationMode(self.interpolation), antialias=True)
        return cast("torch.Tensor", resized.add(0.5).floor_().clamp_(0, 255))

    def _resized(self, height: int, width: int) -> list[int]:
        target_h, target_w = (math.floor(side / self.crop_pct) for side in self.size)
        if self.crop_mode in ("squash", "square"):
            return [target_h, target_w]
        if self.crop_mode == "center" and target_h == target_w:  # truncates, as torchvision's Resize does
            short = min(height, width)
            return [int(target_h * height / short), int(target_h * width / short)]
        ratios = height / target_h, width / target_w
        ratio = max(ratios) if self.crop_mode == "border" else min(ratios)
        return [round(height / ratio), round(width / ratio)]

    def describe(self) -> dict[str, str]:
        """In words, for reports and the fingerprint."""
        height, width = self.size
        return {
            "resize": f"{self.interpolation}, antialiased, 8 bits per pass",
            "crop": f"{self.crop_mode} {self.crop_pct:g}",
            "size": f"{height}x{width}",
            "normalise": f"mean {_numbers(self.mean)} std {_numbers(self.std)}",
        }


def _centre_square(images: torch.Tensor) -> torch.Tensor:
    """The largest square in the centre, half a pixel further to the top left where the rest is odd."""
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
