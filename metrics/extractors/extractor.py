"""The one extractor class: a frozen network with its own resize, and a fingerprint of everything that matters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import cast, final

import torch

from ..errors import InputError
from ..precision import ieee_float32
from .weights import cause


@final
class Extractor:
    """Images to features: ``__call__(uint8 [N,3,H,W]) -> float32 [N,D]``, the same as ``forward(prepare(images))``.

    ``prepare`` handles one image size at a time; ``forward`` takes what it returns, so images of several sizes can be
    prepared one by one and go through the network together. The network runs in eval mode, without gradients and in
    true float32 (no TF32).

    Attributes:
        name: the registry name, with its model (``timm:resnet18``).
        dim: D, the length of a feature vector.
        preprocessing: resize, crop and normalisation in words, for reports.
        fingerprint: 16 hexadecimal digits of a SHA-256 over the weights, architecture, preprocessing and dtype.
            Features are comparable if and only if their fingerprints are equal.
    """

    def __init__(
        self,
        name: str,
        network: torch.nn.Module,
        prepare: Callable[[torch.Tensor], torch.Tensor],
        *,
        architecture: str,
        preprocessing: Mapping[str, str],
        device: str = "cpu",
    ) -> None:
        self.name = name
        self.preprocessing = dict(preprocessing)
        self._prepare = prepare
        self._device = check_device(device)
        self.fingerprint = _fingerprint(network, architecture, self.preprocessing)
        self._network = network.eval().requires_grad_(False).to(self._device)
        self.dim = self(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape[1]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features ``float32 [N,D]`` of ``images`` (``uint8 [N,3,H,W]``, sRGB), on the extractor's device."""
        return self.forward(self.prepare(images))

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """The network's input ``float32 [N,3,S,S]`` for ``images`` (``uint8 [N,3,H,W]``), on their device."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"got {images.dtype} {list(images.shape)}. Expected a batch of images: uint8 [N,3,H,W].")
        with torch.inference_mode():
            return self._prepare(images)

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        """Features ``float32 [N,D]`` of ``prepared`` (``float32 [N,3,S,S]``), on the extractor's device."""
        with torch.inference_mode(), ieee_float32():
            features = self._network(prepared.to(self._device))
        if features.ndim != 2:
            raise InputError(
                f"{self.name} gives {list(features.shape)} per batch. Expected one vector per image [N,D]."
            )
        return cast("torch.Tensor", features.float())


def check_device(device: str) -> torch.device:
    """``device`` as torch names it, after checking that it exists.

    Raises:
        InputError: no such device here.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {device!r} cannot be used here ({cause(error)}). Try cpu.") from error


def _fingerprint(network: torch.nn.Module, architecture: str, preprocessing: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    facts = {"architecture": architecture, "dtype": "float32", "weights": digest.hexdigest(), **preprocessing}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
