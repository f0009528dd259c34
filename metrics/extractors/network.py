"""What a loader hands over: a network, its preprocessing, and how its layers are read."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import InputError

MEAN = "mean"
MEAN_STD = "mean and standard deviation"


@dataclass(frozen=True)
class Network:
    """A loaded network, before it becomes an extractor.

    Attributes:
        name: the registry name with its model; another one where the weights are not the published ones.
        module: ``float32 [N,3,S,S] -> float32 [N,D]``.
        prepare: ``uint8 [N,3,H,W] -> float32 [N,3,S,S]``, for one image size at a time.
        architecture: what the fingerprint says of the module.
        preprocessing: resize, crop and normalisation in words.
        pool: what is taken of a layer's positions, MEAN or MEAN_STD.
        layers: other names of layers, ``name -> name of the module``.
    """

    name: str
    module: torch.nn.Module
    prepare: Callable[[torch.Tensor], torch.Tensor]
    architecture: str
    preprocessing: Mapping[str, str]
    pool: str = MEAN_STD
    layers: Mapping[str, str] = field(default_factory=dict)


class _AllSeen(Exception):
    """Ends a pass through the network: the layers that follow are not wanted."""


class Taps(torch.nn.Module):
    """The pooled outputs of some layers of a network side by side, from one pass; '' is the network's own output.

    A layer's output ``[N,C,H,W]`` (or tokens ``[N,T,C]``, without class and register tokens) is pooled over its
    positions in float32 to ``[N,C]``, or ``[N,2C]`` with the standard deviation (of the positions, divided by their
    number). The pass ends after the last of the layers. Calls from several threads do not mix.

    Raises:
        InputError: no such layer (near names are suggested), or one that gives no tensor of features.
    """

    def __init__(self, network: Network, layers: Sequence[str]) -> None:
        super().__init__()
        self._module, self._name = network.module, network.name
        self._spread = network.pool == MEAN_STD
        self._last = getattr(network.module, "output_fmt", "NCHW") == "NHWC"  # as Swin in timm
        self._prefix = getattr(network.module, "num_prefix_tokens", 0)
        self._layers = tuple(layers)
        self._seen = threading.local()
        modules = dict(network.module.named_modules())
        for layer in filter(None, layers):
            module = modules.get(network.layers.get(layer, layer))
            if module is None:
                raise _no_layer(network, layer, list(modules))
            module.register_forward_hook(self._hook(layer))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``[N, sum of the widths]``, in the order of the layers."""
        return torch.cat(self.pooled(images), 1)

    def pooled(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The features of each layer."""
        self._seen.features = found = {}
        with suppress(_AllSeen):
            found[""] = self._module(images)
        missing = [layer for layer in self._layers if layer not in found]
        if missing:
            raise InputError(f"{self._name} has a layer {missing[0]!r}, but images do not pass it. Name another one.")
        return [found[layer] for layer in self._layers]

    def _hook(self, layer: str) -> Callable[..., None]:
        def keep(module: torch.nn.Module, args: Any, output: Any) -> None:
            self._seen.features[layer] = self._pool(output, layer)
            if all(wanted in self._seen.features for wanted in self._layers):
                raise _AllSeen

        return keep

    def _pool(self, output: Any, layer: str) -> torch.Tensor:
        if not isinstance(output, torch.Tensor) or output.ndim not in (2, 3, 4):
            raise InputError(f"layer {layer!r} of {self._name} does not give features of an image. Name another one.")
        if output.ndim == 2:
            return output
        if output.ndim == 3:
            positions = output[:, self._prefix :].transpose(1, 2)
        else:
            positions = (output.permute(0, 3, 1, 2) if self._last else output).flatten(2)
        positions = positions.float()
        if not self._spread:
            return positions.mean(2)
        std, mean = torch.std_mean(positions, 2, correction=0)
        return torch.cat([mean, std], 1)


def _no_layer(network: Network, layer: str, modules: list[str]) -> InputError:
    known = [*network.layers, *filter(None, modules)]
    near = difflib.get_close_matches(layer, known, n=3, cutoff=0.4) or known[:3]
    return InputError(
        f"{network.name} has no layer {layer!r}. Did you mean {' or '.join(f'{network.name}/{name}' for name in near)}?"
    )


def spread_out(layers: Sequence[str], count: int = 4) -> tuple[str, ...]:
    """At most ``count`` of ``layers``, evenly from the first to the last."""
    steps = min(count, len(layers)) - 1
    return tuple(layers[round(step * (len(layers) - 1) / max(steps, 1))] for step in range(steps + 1))
