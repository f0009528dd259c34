"""A classifier of Fashion-MNIST in colour, which judges generated images, and the views that networks train on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

sys.path.append(str(Path(__file__).parents[2] / "examples" / "recipes"))
from _fashion import CLASSES, SIZE, STYLES, paint, photos


def paint_each(grey: np.ndarray, styles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paint every photo in its own style, an index into STYLES: ``uint8 [N,32,32,3]``."""
    result = np.empty((len(grey), SIZE, SIZE, 3), np.uint8)
    for number, style in enumerate(STYLES.values()):
        result[styles == number] = paint(grey[styles == number], style, rng)
    return result


def train_classifier(steps: int = 1200, batch: int = 64, seed: int = 0) -> nn.Module:
    """A small network on painted training photos, channels permuted and inverted at random so that any style will do.

    Takes ``float32 [N,3,32,32]`` in [-1, 1] and gives ``[N, 10]`` logits.

    Returns:
        The trained network, in eval mode.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    grey, labels = photos("train")
    network = nn.Sequential(
        *(layer for a, b in ((3, 24), (24, 48), (48, 96)) for layer in _block(a, b)),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(4 * 96, len(CLASSES)),
    )
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(steps):
        rows = rng.integers(0, len(grey), batch)
        image = to_tensor(paint_each(grey[rows], rng.integers(0, len(STYLES), batch), rng))
        loss = F.cross_entropy(network(any_colours(image, rng)), torch.from_numpy(labels[rows]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def _block(a: int, b: int) -> tuple[nn.Module, ...]:
    return (nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """``uint8 [N,H,W,3]`` to ``float32 [N,3,H,W]`` in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def any_colours(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Permute the channels of half of the batches and invert each channel with probability one third."""
    if rng.random() < 0.5:
        images = images[:, torch.from_numpy(rng.permutation(3))]
    signs = torch.from_numpy(np.where(rng.random((1, 3, 1, 1)) < 1 / 3, -1, 1).astype(np.float32))
    return images * signs


@torch.no_grad()
def accuracy(classifier: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of ``uint8 [N,32,32,3]`` images whose class the classifier names."""
    guesses = torch.cat([classifier(part) for part in to_tensor(images).split(500)]).argmax(1)
    return float((guesses.numpy() == labels).mean())
