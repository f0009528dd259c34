"""The one extractor class: a frozen network with its own resize, and a fingerprint of everything that matters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import cast, final

import torch

from ..errors import InputError
from .float_precision import ieee_float32
from .network import Network, Taps
from .weights import cause

PRECISIONS = ("float32", "bfloat16")


@final
class Extractor:
    """Images to features: ``__call__(uint8 [N,3,H,W]) -> float32 [N,D]``, the same as ``forward(prepare(images))``.

    ``prepare`` handles one image size at a time; ``forward`` takes what it returns, so images of several sizes can be
    prepared one by one and go through the network together. The network runs in eval mode, without gradients and in
    true float32 (no TF32).

    On the CPU the network sees one image at a time, channels last: a processor's caches hold one image's activations
    but not a batch's, so this is faster, and the features do not depend on the batch by a bit.

    With ``precision='bfloat16'`` the network runs under autocast; pooling and results are float32. On 32 photo crops
    (benchmarks/extractors.py) features were off by 4 % of their length for efficientnet-lite0, 0.9 % for Inception with
    random weights and 0.2 % for random-conv. The KID of efficientnet-lite0 to blurred copies fell from 0.0136 (standard
    error 0.0069) to 0.0080: do not publish such numbers. It took 0.82, 0.65 and 0.89 of the time on a CPU with AVX-512.

    Attributes:
        name: the registry name, with its model and layer (``timm:resnet18``, ``inception/192``).
        dim: D, the length of a feature vector.
        columns: which columns belong to which level, in order; ``{name: slice(0, D)}`` but for ``load_levels``.
        preprocessing: resize, crop and normalisation in words, for reports; also layer and precision if not the
            default ones.
        fingerprint: 16 hexadecimal digits of a SHA-256 over the weights, architecture, preprocessing, layer and dtype.
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
        precision: str = "float32",
        columns: Mapping[str, slice] | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"precision {precision!r} is not supported. Expected {' or '.join(PRECISIONS)}.")
        self.name = name
        self.preprocessing = dict(preprocessing)
        if precision != "float32":
            self.preprocessing["precision"] = precision
        self._precision = precision
        self._prepare = prepare
        self._device = check_device(device)
        self.fingerprint = _fingerprint(network, architecture, self.preprocessing, precision)
        self._network = network.eval().requires_grad_(False).to(self._device)
        if self._device.type == "cpu":
            self._network.to(memory_format=torch.channels_last)
        self.dim = self(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape[1]
        self.columns = {name: slice(0, self.dim)} if columns is None else dict(columns)

    @classmethod
    def of(cls, network: Network, layers: Sequence[str] = ("",), *, device: str, precision: str) -> Extractor:
        """An extractor of the ``layers`` of ``network``, side by side; '' is the network's own output."""
        module, prepare, preprocessing = network.module, network.prepare, dict(network.preprocessing)
        names = [f"{network.name}/{layer}" if layer else network.name for layer in layers]
        columns = None
        if tuple(layers) != ("",):
            module = Taps(network, layers).eval()
            with torch.inference_mode():
                parts = module.pooled(prepare(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)))
            ends = accumulate((part.shape[1] for part in parts), initial=0)
            columns = dict(zip(names, (slice(*pair) for pair in pairwise(ends)), strict=True))
            preprocessing["layer"] = f"{', '.join(layer or 'output' for layer in layers)}; {network.pool} of each"
        return cls(
            names[0] if len(names) == 1 else f"{network.name}/levels",
            module,
            prepare,
            architecture=network.architecture,
            preprocessing=preprocessing,
            device=device,
            precision=precision,
            columns=columns,
        )

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
        bfloat16 = torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bfloat16")
        with torch.inference_mode(), ieee_float32(), bfloat16:
            features = self._run(prepared)
        if features.ndim != 2:
            raise InputError(
                f"{self.name} gives {list(features.shape)} per batch. Expected one vector per image [N,D]."
            )
        return features.float()

    def _run(self, prepared: torch.Tensor) -> torch.Tensor:
        if self._device.type != "cpu":
            return cast("torch.Tensor", self._network(prepared.to(self._device)))
        images = prepared.to(self._device)[:, None]  # a batch of one each
        return torch.cat([self._network(image.contiguous(memory_format=torch.channels_last)) for image in images])


def check_device(device: str) -> torch.device:
    """``device`` as torch names it, after checking that it exists.

    Args:
        device: where the network runs.

    Returns:
        The device.

    Raises:
        InputError: no such device here.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {device!r} cannot be used here ({cause(error)}). Try cpu.") from error


def _fingerprint(network: torch.nn.Module, architecture: str, preprocessing: Mapping[str, str], precision: str) -> str:
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    facts = {"architecture": architecture, "dtype": precision, "weights": digest.hexdigest(), **preprocessing}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
