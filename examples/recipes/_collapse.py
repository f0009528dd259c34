"""Has pre-training collapsed? Then fine-tuning ends below training from scratch, so the recipes say it."""

from __future__ import annotations

import argparse
import math

import torch
from _training import drawing_from
from accelerate import PartialState
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Alarm:
    """Warns once when half of the steps left the cross entropy at ln(classes), that of a guess.

    No smoothing or mixing of labels moves that value: any target sums to one.
    """

    def __init__(self, classes: int, steps: int) -> None:
        self.guess, self.steps, self.rung = math.log(classes), steps, False

    def __call__(self, step: int, loss: float) -> None:
        """Look at the mean loss since the last look."""
        if not self.rung and step >= self.steps / 2 and loss > 0.98 * self.guess:
            self.rung = True
            print(
                f"WARNING: collapsed? Loss {loss:.3f} at step {step}, a guess has {self.guess:.3f}. {ADVICE}",
                flush=True,
            )


ADVICE = (
    "Fine-tuning from a collapsed model is worse than from scratch. Raise the perturbation (published: one-fractal "
    "with delta 0.01 or less collapses, 0.1 does not), --lr or --steps."
)


def health(network: nn.Module, data: Dataset, options: argparse.Namespace) -> float | None:
    """Accuracy on training images and the effective rank of their features; a collapse is named."""
    if not PartialState().is_main_process:
        return None
    some = torch.utils.data.Subset(data, range(0, len(data), math.ceil(len(data) / 1000)))
    features, scores, labels = [], [], []
    with torch.inference_mode(), drawing_from(options.seed):
        for images, truth in DataLoader(some, 250):
            images = images[:, 0] if options.objective == "dino" else images
            found = network.eval().forward_features(images.to(next(network.parameters()).device))
            features.append(network.forward_head(found, pre_logits=True).double().cpu())
            scores.append(network.forward_head(found).double().cpu())
            labels.append(truth)
    values = torch.linalg.svdvals((x := torch.cat(features)) - x.mean(0))
    shares = values / values.sum().clamp_min(1e-300)
    rank = float(torch.exp(-(shares * shares.clamp_min(1e-300).log()).sum()))
    accuracy, said = None, f"{options.out}: effective rank of the features {rank:.1f} of {x.shape[1]}"
    if options.objective == "supervised":
        accuracy = float((torch.cat(scores).argmax(1) == torch.cat(labels)).double().mean())
        said += f", accuracy on training images {accuracy:.1%} (a guess: {1 / scores[0].shape[1]:.1%})"
    print(said)
    guess = 1 / scores[0].shape[1]
    if rank < 2 or (accuracy is not None and accuracy < min(2 * guess, (1 + guess) / 2)):
        print(f"WARNING: collapsed. {ADVICE}")
    return accuracy
