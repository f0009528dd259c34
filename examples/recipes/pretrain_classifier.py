"""Pre-train a timm model on patterns or any ImageFolder, then fine-tune or probe it on real images.

    python pretrain_classifier.py pretrain fractaldb runs/fractaldb --classes 100 --per-class 50
    python pretrain_classifier.py finetune photos runs/photos --from runs/fractaldb --shots 20
    python pretrain_classifier.py probe fashion-mnist runs/probe --from runs/fractaldb
    python pretrain_classifier.py sweep patterns runs/sweep --real photos --grid 10x100 100x10 1000x1
    accelerate launch --num_processes 8 pretrain_classifier.py pretrain patterns runs/vit --preset deit
    torchrun --nproc_per_node 2 pretrain_classifier.py ...    # several processes without GPUs

SOURCE of pretrain: an ImageFolder, a pattern family, or a file of classes from ``stylize patterns``. PHOTOS: a folder
with ``train`` and ``test``, or ``fashion-mnist`` (Debian's package, painted in colour). ``--preset`` names a
publication's recipe (_presets.py); options override it. OFDB and 1p-frac need no loss of their own: perturbations are
classes (``one-fractal``), so cross entropy is the locally perturbed one. ``--objective dino`` needs no labels,
``multi`` draws several fractals per image. ``--dry-run`` prints plan and cost. The same command continues a run.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import time
from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np
import timm
import torch
from _collapse import Alarm, health
from _dino import Dino
from _labelled import Images, real_sets, training_set
from _presets import BASE, PRESETS
from _training import Run, check, command, common, cost, detail, train
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import v2

from metrics import open_images
from metrics.comparison.label_probe import ridge_scores
from metrics.errors import InputError
from metrics.image_sets.items import Item
from metrics.seed import seed_for
from stylize.patterns import known_families

OVERRIDES = {"model": str, "objective": str, "size": int, "batch_size": int, "lr": float, "steps": int, "epochs": int}


def main() -> None:
    options = parse()
    {"pretrain": pretrain, "finetune": finetune, "probe": finetune, "sweep": sweep}[options.what](options)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pretrain", "finetune", "probe", "sweep"))
    parser.add_argument("source")
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", choices=PRESETS, default="laptop")
    for name, kind in OVERRIDES.items():
        choices = ("supervised", "multi", "dino") if name == "objective" else None
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, choices=choices, help="default: the preset's")
    parser.add_argument("--model-options", type=json.loads, default={}, help='JSON, as in {"patch_size": 4}')
    parser.add_argument("--from", dest="start", type=Path, help="folder of a finished run to start from")
    parser.add_argument("--classes", type=int, default=100, help="of a pattern family")
    parser.add_argument("--per-class", type=int, default=50, help="images per class of a pattern family")
    parser.add_argument("--shots", type=int, default=0, help="training photos per class; 0: all")
    parser.add_argument("--real", help="photos that sweep fine-tunes on")
    parser.add_argument("--grid", nargs="+", default=["10x100", "100x10"], help="classes x images per class of sweep")
    common(parser)
    options = parser.parse_args(words)
    given = {name: value for name in OVERRIDES if (value := getattr(options, name)) is not None}
    if {"steps", "epochs"} <= given.keys():
        raise InputError("--steps and --epochs say the same. Expected one of them.")
    if not isinstance(options.model_options, dict):
        raise InputError(f'--model-options {options.model_options}: expected JSON as in {{"patch_size": 4}}.')
    if options.start and ("model" in given or options.model_options):
        raise InputError("--model and --model-options do not go with --from, whose run says which model it is.")
    recipe = dict(PRESETS[options.preset])
    if "epochs" in recipe or "epochs" in given:
        recipe["steps"] = None
    for name, value in {**BASE, **recipe, **given}.items():
        setattr(options, name, value)
    check(options, epochs=1, classes=1, per_class=1, shots=0)
    return options


# ---- the commands ----------------------------------------------------------------------------------------------------


def pretrain(options: argparse.Namespace) -> None:
    data, classes = training_set(options)
    pretrain_on(data, classes, options)


def pretrain_on(data: Dataset, classes: list[str], options: argparse.Namespace) -> float | None:
    """Train a new model; model.safetensors and model.json in OUT. Returns the accuracy on the training images."""
    network = started(options, len(classes))
    learner = {"dino": Dino, "multi": MultiLabel}.get(options.objective, lambda n: Supervised(n, len(classes), options))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(options.seed, "weights", options.objective))
        learner = learner(network)
    if not fit(learner, network, data, classes, options):
        return None
    facts = {"model": options.model, "options": options.model_options, "size": options.size, "seed": options.seed}
    facts["classes"] = [] if options.objective == "dino" else classes
    if PartialState().is_main_process:  # model.json comes last: a folder that has it is finished
        save_file(network.state_dict(), options.out / "model.part")
        (options.out / "model.part").replace(options.out / "model.safetensors")
        (options.out / "model.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    PartialState().wait_for_everyone()
    return health(network, data, options)


def finetune(options: argparse.Namespace) -> float | None:
    return (probe_on if options.what == "probe" else finetune_on)(*real_sets(options.source, options), options)


def finetune_on(
    items: Sequence[Item], test: Sequence[Item], classes: list[str], options: argparse.Namespace
) -> float | None:
    """Train all weights on ``items``; the accuracy on ``test``."""
    options = argparse.Namespace(**{**vars(options), "objective": "supervised"})
    network = started(options, len(classes))
    data = Images(items, classes, options, train=True)
    if not fit(Supervised(network, len(classes), options), network, data, classes, options):
        return None
    return report(*outputs(network, Images(test, classes, options)), items, options)


def probe_on(
    items: Sequence[Item], test: Sequence[Item], classes: list[str], options: argparse.Namespace
) -> float | None:
    """A ridge classifier on frozen features; the accuracy on ``test``."""
    network = started(options, len(classes))
    network.reset_classifier(0)
    if options.dry_run:
        some, begin = Subset(Images(test, classes, options), range(min(20, len(test)))), time.perf_counter()
        minutes = len(outputs(network, some)[0]) and (time.perf_counter() - begin) / len(some) / 60
        print(f"{options.model}, {options.size} px, frozen; {len(items)} images to learn from, {len(test)} to test")
        print(f"{minutes * (len(items) + len(test)):.1f} minutes here in one CPU process")
        return None
    (x, y), (x_test, y_test) = (outputs(network, Images(part, classes, options)) for part in (items, test))
    scores = ridge_scores(x.numpy(), np.eye(len(classes))[y], x_test.numpy())
    return report(torch.from_numpy(scores), y_test, items, options)


def sweep(options: argparse.Namespace) -> None:
    """Label complexity: pre-train on C classes × N images each of SOURCE, fine-tune on ``--real``; table.csv."""
    if options.real is None:
        raise InputError("sweep needs --real, the photos to fine-tune on.")
    cells = [cell_of(cell, options) for cell in options.grid]
    real_sets(options.real, options)
    rows = [("classes", "images per class", "images", "parameters per label", "pre-training", "fine-tuned")]
    for cell, (mine, names) in zip(options.grid, cells, strict=True):
        ours, theirs, count, each = copy(options), copy(options), len(names), len(mine) // len(names)
        ours.out, theirs.out = options.out / cell, options.out / f"{cell}-real"
        theirs.what, theirs.source = "finetune", options.real
        theirs.start = None if options.dry_run else ours.out
        seen = pretrain_on(Images(mine, names, ours, train=True), names, ours)
        accuracy = finetune(theirs)
        weights = sum(value.numel() for value in started(ours, count).parameters())
        numbers = ["" if value is None else f"{value:.4f}" for value in (seen, accuracy)]
        rows.append((count, each, count * each, round(weights / count), *numbers))
    if PartialState().is_main_process and not options.dry_run:
        with (options.out / "table.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        lines = (rows[0], ["---"] * len(rows[0]), *rows[1:])
        print("\n".join("| " + " | ".join(map(str, row)) + " |" for row in lines))


def cell_of(cell: str, options: argparse.Namespace) -> tuple[list[Item], list[str]]:
    """Images and class names of a cell of ``--grid``: the first so many of both."""
    if not re.fullmatch(r"\d+x\d+", cell) or int(cell.split("x")[0]) < 2 or int(cell.split("x")[1]) < 1:
        raise InputError(f"--grid {cell}: expected classes x images of each, as in 10x100; at least two classes.")
    if options.objective == "multi" or (options.source in known_families() and not Path(options.source).exists()):
        raise InputError("sweep: expected a folder per class, as of stylize render, and supervised or dino.")
    count, each = (int(number) for number in cell.split("x"))
    items = list(open_images(options.source))
    names = sorted({str(item.label) for item in items})[:count]
    chosen = [[item for item in items if str(item.label) == name][:each] for name in names]
    if len(names) < count or min(map(len, chosen)) < each:
        smallest = f"the smallest of them {min(map(len, chosen))} images"
        raise InputError(f"--grid {cell}: {options.source} has {len(names)} classes, {smallest}.")
    return [item for own in chosen for item in own], names


def report(scores: torch.Tensor, labels: torch.Tensor, items: Sequence[Item], options: argparse.Namespace) -> float:
    accuracy = float((scores.argmax(1) == labels).double().mean())
    result = {
        "what": options.what,
        "seed": options.seed,
        "train": len(items),
        "test": len(labels),
        "accuracy": accuracy,
    }
    if PartialState().is_main_process:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "result.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
        print(f"{options.out}: test accuracy {accuracy:.1%} on {len(labels)} images, {len(items)} to learn from")
    return accuracy


# ---- models and losses -----------------------------------------------------------------------------------------------


def started(options: argparse.Namespace, classes: int) -> nn.Module:
    """A new model, or the one of ``--from`` with a new classifier."""
    if options.start is None:
        return create(options, classes)
    path = options.start / "model.json"
    if not path.is_file():
        raise InputError(f"--from {options.start}: no model.json. Expected the folder of a finished pretrain run.")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        options.model, options.model_options = facts["model"], facts["options"]
        network = create(options, len(facts["classes"]))
        network.load_state_dict(load_file(options.start / "model.safetensors"))
    except RuntimeError as error:
        trained = f"{facts['model']} at --size {facts.get('size')}"
        raise InputError(f"{options.start}: weights of another model than {trained} ({detail(error)}).") from error
    except (json.JSONDecodeError, KeyError, TypeError, FileNotFoundError, SafetensorError) as error:
        raise InputError(f"--from {options.start}: damaged ({error!r:.200}). Finish or repeat its pretrain.") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(options.seed, "classifier", options.model))
        network.reset_classifier(classes)
    return network


def create(options: argparse.Namespace, classes: int) -> nn.Module:
    extra = {**options.model_options, **({"drop_path_rate": options.drop_path} if options.drop_path else {})}
    if options.model.startswith(("vit", "deit")):
        extra.setdefault("img_size", options.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(options.seed, "weights", options.model))
        try:
            network = timm.create_model(options.model, num_classes=classes, **extra)
            with torch.inference_mode():
                network.eval()(torch.zeros(1, 3, options.size, options.size))
        except (RuntimeError, AssertionError, TypeError, ValueError) as error:
            words = f"--model {options.model} --size {options.size} --model-options {json.dumps(options.model_options)}"
            raise InputError(f"{words}: {str(error) or repr(error)}") from error
    return network.train()


class Supervised(nn.Module):
    """Cross entropy with label smoothing, mixup or cutmix (either with equal chance)."""

    def __init__(self, network: nn.Module, classes: int, options: argparse.Namespace) -> None:
        super().__init__()
        self.network, self.smoothing = network, options.smoothing
        mixers = [v2.MixUp(alpha=options.mixup, num_classes=classes)] if options.mixup else []
        mixers += [v2.CutMix(alpha=options.cutmix, num_classes=classes)] if options.cutmix else []
        self.mix = v2.RandomChoice(mixers) if mixers else None

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of images [N,3,H,W] and class numbers [N]."""
        if self.mix is not None and len(images) > 1:
            images, labels = self.mix(images, labels)
        return F.cross_entropy(self.network(images), labels, label_smoothing=self.smoothing)


class MultiLabel(nn.Module):
    """Binary cross entropy of multi-hot labels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of images [N,3,H,W] and labels [N,K]."""
        return F.binary_cross_entropy_with_logits(self.network(images), labels)


# ---- training --------------------------------------------------------------------------------------------------------


def fit(
    learner: nn.Module, network: nn.Module, data: Dataset, classes: Sequence[str], options: argparse.Namespace
) -> bool:
    """Train, or for ``--dry-run`` print the plan and return False."""
    steps = options.steps or math.ceil(options.epochs * len(data) / options.batch_size)
    run = Run.of(options, steps=steps)
    if options.dry_run:
        count = sum(value.numel() for value in network.parameters())
        epochs, minutes = steps * run.batch_size / len(data), cost(learner, data, run) / 60
        print(f"{options.model}, {count / 1e6:.2f}M parameters, {options.size} px; preset {options.preset}")
        print(f"{len(data)} images, {len(classes)} classes, {count / len(classes):.0f} parameters per label")
        print(f"{steps} steps of {run.batch_size} ({epochs:.1f} epochs), {options.opt}, lr {options.lr}")
        print(f"{minutes:.1f} minutes here in one CPU process")
        return False
    optimizer = create_optimizer_v2(learner, options.opt, options.lr, options.weight_decay)
    alarm = Alarm(len(classes), steps) if options.objective == "supervised" else (lambda step, loss: None)
    train(learner, optimizer, data, run, lambda step: factor(step, steps, options), alarm)
    return True


def factor(step: int, steps: int, options: argparse.Namespace) -> float:
    """The learning rate of a step, as a share of ``--lr``."""
    warm = round(options.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if options.schedule == "step":
        return 0.1 ** (3 * step // steps)
    cosine = 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1, steps - warm))
    return options.floor + (1 - options.floor) * cosine


@torch.inference_mode()
def outputs(network: nn.Module, data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network says of every image, float64 on the CPU, and the labels."""
    device = next(network.parameters()).device
    found = [(network.eval()(images.to(device)).double().cpu(), labels) for images, labels in DataLoader(data, 250)]
    return torch.cat([scores for scores, _ in found]), torch.cat([labels for _, labels in found])


if __name__ == "__main__":
    command(main)
