"""Extractors turn images into features: ``uint8 [N,3,H,W] -> float32 [N,D]``, by name.

A name is ``family[:model][/layer]``: ``efficientnet-lite0``, ``timm:resnet18``, ``inception:clean``,
``efficientnet-lite0/blocks.2``. The table maps a family to a module with two functions: ``load(name, *, weights: Path |
None) -> Network`` and ``layers(name) -> tuple[str, ...]``, the layers of a gap profile from low to high (without the
network's own output, which is its last level). To add a family, write such a module and add a line. Another
package adds one through the entry point ``reverse_stylize.extractors``, whose object is such a module; its name may be
followed by a colon and a model.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..registry import find

if TYPE_CHECKING:  # importing this package must not import torch
    from .extractor import Extractor

DEFAULT = "efficientnet-lite0"  # works offline: its weights are a dependency
EXTRACTORS = {
    "clip": "metrics.extractors.clip",  # clip[:ViT-L-14-336], 768-d, the embedding of CMMD
    "dinov2": "metrics.extractors.dinov2",  # dinov2[:vitb14], 768-d; dinov2:vitl14 is the network of FD-DINOv2
    "efficientnet-lite0": "metrics.extractors.efficientnet_lite",  # 1280-d, ImageNet
    "efficientnet-lite2": "metrics.extractors.efficientnet_lite",  # 1280-d, an independent judge
    "inception": "metrics.extractors.inception",  # inception[:preset], 2048-d, the network of published FID and KID
    "random-conv": "metrics.extractors.random_conv",  # 294-d, random weights: texture and colour, for smoke tests
    "timm": "metrics.extractors.timm_models",  # timm:<model>, any model of timm
}
WITH_MODELS = ("clip", "dinov2", "inception", "timm")  # the families that take a model or preset after a colon


def load_extractor(
    name: str = DEFAULT, *, weights: Path | None = None, device: str = "cpu", precision: str = "float32"
) -> Extractor:
    """The extractor called ``name``, ready on ``device``.

    Args:
        name: ``family[:model][/layer]``. With a layer, the features are that layer's, pooled over positions: the mean
            and the standard deviation, for ``inception`` the mean alone, as pytorch-fid's 64, 192 and 768.
        weights: a file, or a folder with one (as the hub stores a model), that replaces the one it would load.
        device: where the network runs.
        precision: ``float32``, or ``bfloat16`` for autocast: faster where the processor knows it, not comparable with
            float32 features (another fingerprint), and less exact.

    Returns:
        ``uint8 [N,3,H,W] -> float32 [N,D]``, with its name and fingerprint.

    Raises:
        InputError: unknown name or layer (near names are suggested), missing or unusable weights, or no such device.
    """
    base, slash, layer = name.partition("/")
    if slash and not layer:
        raise InputError(f"extractor {name!r} names no layer. Expected {base}/<layer>, or {base} for its output.")
    return _load(base, (layer,), weights, device, precision)


def load_levels(
    name: str = DEFAULT, *, weights: Path | None = None, device: str = "cpu", precision: str = "float32"
) -> Extractor:
    """All of ``levels(name)`` in one extractor, from one pass per image; ``Extractor.columns`` says which is where.

    Args:
        name: as in ``load_extractor``.
        weights: a file that replaces the weights it would load.
        device: where the network runs.
        precision: ``float32`` or ``bfloat16``.

    Returns:
        One extractor, whose columns are those of all levels.

    Raises:
        InputError: as :func:`load_extractor`.
    """
    return _load(name, (*_module(name).layers(name), ""), weights, device, precision)


def levels(name: str = DEFAULT) -> tuple[str, ...]:
    """Extractors from low to high level for a gap profile: at most four layers of ``name``, then ``name`` itself.

    ``levels("inception")`` is ``("inception/64", "inception/192", "inception/768", "inception")``.

    Args:
        name: as in ``load_extractor``.

    Returns:
        Names for ``load_extractor``.

    Raises:
        InputError: unknown name (near names are suggested).
    """
    return (*(f"{name}/{layer}" for layer in _module(name).layers(name)), name)


def _module(name: str) -> Any:
    """The module that loads ``name``."""
    family, colon, _ = name.partition(":")
    if colon and family in EXTRACTORS and family not in WITH_MODELS:
        raise InputError(
            f"extractor {name!r}: {family} takes no model name; only {', '.join(WITH_MODELS)} do. Expected {family!r}."
        )
    found = find("extractor", "extractors", EXTRACTORS, family)
    return import_module(found) if family in EXTRACTORS else found


def _load(name: str, layers: tuple[str, ...], weights: Path | None, device: str, precision: str) -> Extractor:
    module = _module(name)
    from torch.random import fork_rng

    from .extractor import Extractor
    from .weights import weight_file

    with fork_rng(devices=[]):  # building a network draws initial weights: leave the caller's random state alone
        network = module.load(name, weights=None if weights is None else weight_file(weights))
        return Extractor.of(network, layers, device=device, precision=precision)
