"""A pyramid of fixed random convolutions: nothing learnt, nothing to download, fast enough for smoke tests.

Random weights see texture and colour, not objects. That ranks blur, noise and colour casts, and says nothing about
what the images show; in features of trained networks these differences weigh otherwise. Saxe et al., "On random
weights and unsupervised feature learning" (2011), and Naeem et al. (2020), who compare generators by random features.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch.nn.functional import avg_pool2d, conv2d

from ..errors import InputError
from ..seed import generator
from .network import Network
from .preprocess import Preprocess

SIDE = 128
CHANNELS = 24
SCALES = 3


def load(name: str, *, weights: Path | None = None) -> Network:
    """294 features: the mean and standard deviation of the colours and of two layers at 128, 64 and 32 pixels.

    Args:
        name: as in ``load_extractor``.
        weights: a file that replaces the weights it would load.

    Returns:
        The network with its preprocessing.

    Raises:
        InputError: ``weights`` is given; there is nothing that it could replace.
    """
    if weights is not None:
        raise InputError(f"--weights {weights}: {name} has no weights to load. Leave the option out.")
    preprocess = Preprocess((SIDE, SIDE), "bilinear", 1.0, "center", (0.5,) * 3, (0.25,) * 3)
    note = {"weights": "random: sees texture and colour, not objects"}
    return Network(name, Pyramid(), preprocess, "random convolution pyramid 1", {**preprocess.describe(), **note})


def layers(name: str) -> tuple[str, ...]:
    """None: the features are of all layers."""
    return ()


class Pyramid(torch.nn.Module):
    """Two random convolutions (5x5 without response to flat colour, 3x3), each with a ReLU, at three scales.

    The weights are uniform with variance 2 / fan-in (He et al., 2015), so that activations keep their size. They are
    drawn by NumPy and go through elementwise arithmetic alone: the same bits on every machine. The first filters are
    differences of a draw and itself shifted around, so their weights sum to zero.
    """

    def __init__(self) -> None:
        super().__init__()
        draws = _uniform("first", (CHANNELS, 3, 5, 5))
        self.first = torch.nn.Buffer((draws - draws.roll((2, 1), (2, 3))) / math.sqrt(2))
        self.second = torch.nn.Buffer(_uniform("second", (CHANNELS, CHANNELS, 3, 3)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``[N,3,S,S] -> [N, 6 + 3 * 2 * 2 * CHANNELS]``."""
        features = [_moments(images)]
        for scale in range(SCALES):
            images = avg_pool2d(images, 2) if scale else images
            maps = conv2d(images, self.first).relu()
            features += [_moments(maps), _moments(conv2d(maps, self.second).relu())]
        return torch.cat(features, 1)


def _moments(maps: torch.Tensor) -> torch.Tensor:
    std, mean = torch.std_mean(maps.float().flatten(2), 2, correction=0)
    return torch.cat([mean, std], 1)


def _uniform(layer: str, shape: tuple[int, int, int, int]) -> torch.Tensor:
    draws = generator(0, "random-conv", layer).random(shape)
    return torch.from_numpy((draws - 0.5) * math.sqrt(24 / math.prod(shape[1:]))).float()
