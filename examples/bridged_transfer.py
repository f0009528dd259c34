"""Bridged transfer: fine-tune on synthetic images first and on few real ones next, beside fair controls.

    python examples/bridged_transfer.py synthetic real out --shots 16 --seeds 0 1 2
    accelerate launch --num_processes 2 examples/bridged_transfer.py synthetic real out

Both folders are ImageFolders with the same classes; REAL may hold ``train`` and ``test``. A regime is a name with
switches: ``vanilla`` (real only), ``matched`` (real only, for as many steps as both stages), ``synthetic``,
``mixed@0.5`` (half of every batch is synthetic), ``bridged``; ``+mixup`` mixes images in the synthetic stage (in the
only stage of the others) and ``+reinit`` draws a new classifier between the stages. ``bridged+reinit+mixup`` is
Bridged Transfer++ of Li et al. (arXiv 2403.19866). That paper states no learning rate, batch size, optimiser or
schedule: all defaults here are ours. Finished cells are lines of out/results.jsonl; the same command continues.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from bridged_report import write_page
from timm.data import resolve_model_data_config
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from metrics import open_images
from metrics.errors import InputError
from metrics.extractors.efficientnet_lite import classifier, packaged_weights
from metrics.extractors.weights import read_weights
from metrics.images import Item
from metrics.seed import generator, seed_for

REGIMES = ["vanilla", "matched", "matched+mixup", "mixed@0.5", "mixed@0.9", "synthetic"]
REGIMES += ["bridged", "bridged+reinit", "bridged+mixup", "bridged+reinit+mixup"]


def main() -> None:
    options = parse()
    accelerator = Accelerator(
        mixed_precision=options.precision, dataloader_config=DataLoaderConfiguration(split_batches=True)
    )
    synthetic, splits = read_sets(options)
    regimes = [parse_regime(text, options) for text in options.regimes]
    options.out.mkdir(parents=True, exist_ok=True)
    done = read_results(options)
    for seed in options.seeds:
        for regime in regimes:
            if (regime.name, seed) in {(cell["regime"], cell["seed"]) for cell in done}:
                continue
            done.append(cell := run(regime, synthetic, splits, Trainer(seed, options, accelerator)))
            if accelerator.is_main_process:
                with (options.out / "results.jsonl").open("a") as file:
                    file.write(json.dumps(cell) + "\n")
                print(f"{regime.name}, seed {seed}: test {cell['test']:.1%} after {cell['seconds']:.0f} s", flush=True)
    if accelerator.is_main_process:
        write_page(done, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("synthetic", type=Path)
    parser.add_argument("real", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shots", type=int, default=16, help="real training images per class; 0: all")
    parser.add_argument("--validation", type=int, default=16, help="real images per class for early stopping")
    parser.add_argument("--test", type=int, default=100, help="test images per class at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--regimes", nargs="+", default=REGIMES)
    parser.add_argument("--other-classes", action="store_true", help="the synthetic classes are not the real ones")
    parser.add_argument("--backbone", default="efficientnet-lite0", help="works offline; or any timm model")
    parser.add_argument("--weights", type=Path, help="weights file of the timm model, instead of a download")
    parser.add_argument("--size", type=int, default=64, help="side of the training images")
    parser.add_argument("--synthetic-steps", type=int, default=200)
    parser.add_argument("--real-steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--mixup", type=float, default=0.2, help="alpha of the Beta distribution")
    parser.add_argument("--every", type=int, default=25, help="steps between two looks at the validation images")
    parser.add_argument("--patience", type=int, default=4, help="looks without a better one before a stage stops")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no")
    parser.add_argument("--workers", type=int, default=0)
    return parser.parse_args()


# ---- data ------------------------------------------------------------------------------------------------------------


@dataclass
class Splits:
    """Real items: training pool, validation pool and test; all classes in one order."""

    classes: list[str]
    pool: dict[str, list[Item]]
    test: list[Item]


def read_sets(options: argparse.Namespace) -> tuple[list[Item], Splits]:
    """Every check that can be made before any training."""
    synthetic = list(open_images(options.synthetic))
    halves = [options.real / name for name in ("train", "test")]
    if all(half.is_dir() for half in halves):
        pool, test = (by_class(list(open_images(half))) for half in halves)
    else:
        pool, test = {}, {}
        for label, items in by_class(list(open_images(options.real))).items():
            order = generator(0, "test", label).permutation(len(items))
            half = len(items) // 2
            test[label], pool[label] = [items[i] for i in order[:half]], [items[i] for i in order[half:]]
    classes = sorted(pool)
    if len(classes) < 2 or set(test) != set(pool):
        raise InputError(
            f"{options.real}: classes {classes} to learn, {sorted(test)} to test. Expected the same, >= 2."
        )
    ours = set(by_class(synthetic))
    if ours != set(classes) and not options.other_classes:
        only = f"only synthetic: {sorted(ours - set(classes))}; only real: {sorted(set(classes) - ours)}"
        raise InputError(f"the classes differ ({only}). Rename folders, or pass --other-classes, which needs +reinit.")
    needed = max(options.shots, 1) + options.validation
    short = {label: len(items) for label, items in pool.items() if len(items) < needed}
    if short:
        wanted = f"{options.shots} shots and {options.validation} for validation need {needed} images per class"
        raise InputError(f"{options.real}: {wanted}; too few: {short}. Lower --shots or --validation.")
    return synthetic, Splits(classes, pool, [item for label in classes for item in test[label][: options.test]])


def by_class(items: Sequence[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        if item.label is None:
            raise InputError(f"{item.key}: no label. Expected one folder per class.")
        found.setdefault(str(item.label), []).append(item)
    return found


def few_shot(splits: Splits, seed: int, options: argparse.Namespace) -> tuple[list[Item], list[Item]]:
    """The real images to train on and those to stop by, disjoint, drawn per seed."""
    train, validation = [], []
    for label in splits.classes:
        order = [splits.pool[label][i] for i in generator(seed, "shots", label).permutation(len(splits.pool[label]))]
        validation += order[: options.validation]
        train += order[options.validation :][: options.shots or None]
    return train, validation


Scale = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation that the network expects


class Images(Dataset):
    """(image, class number) of items, augmented for training or as they are."""

    def __init__(self, items: Sequence[Item], classes: Sequence[str], scale: Scale, size: int, augment: bool) -> None:
        self.items, self.number = items, {label: number for number, label in enumerate(classes)}
        shape = [v2.RandomResizedCrop(size, (0.5, 1.0), antialias=True), v2.RandomHorizontalFlip()]
        whole = [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
        last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(*scale)]
        self.transform = v2.Compose([*(shape if augment else whole), *last])

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        item = self.items[index]
        return self.transform(torch.from_numpy(item.read()).permute(2, 0, 1)), self.number[str(item.label)]


class Batches:
    """A batch of indices per step, ``ratio`` of it from the first ``sizes[0]`` items; both parts go in epochs."""

    def __init__(self, steps: int, batch_size: int, sizes: tuple[int, int], ratio: float, seed: int) -> None:
        self.steps, self.batch_size, self.drop_last = steps, batch_size, True
        self.sizes, self.ratio, self.seed = sizes, ratio, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        rng = generator(self.seed, "batches", f"{self.sizes} {self.ratio}")
        first = self._stream(0, self.sizes[0], generator(self.seed, "epochs", "synthetic"))
        second = self._stream(self.sizes[0], self.sizes[1], generator(self.seed, "epochs", "real"))
        for _ in range(self.steps):
            yield [next(first if draw < self.ratio else second) for draw in rng.random(self.batch_size)]

    @staticmethod
    def _stream(start: int, size: int, rng: np.random.Generator) -> Iterator[int]:
        while True:
            yield from (start + rng.permutation(size)).tolist()


# ---- regimes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Regime:
    """What to train on: ``ratio`` is the synthetic share of a batch outside the synthetic stage."""

    name: str
    base: str
    ratio: float
    mixup: bool
    reinit: bool


def parse_regime(text: str, options: argparse.Namespace) -> Regime:
    head, *switches = text.split("+")
    base, _, share = head.partition("@")
    known = base in ("vanilla", "matched", "synthetic", "mixed", "bridged") and not set(switches) - {"mixup", "reinit"}
    try:
        ratio = {"mixed": float(share or 0.5), "synthetic": 1.0}.get(base, 0.0)
    except ValueError:
        known, ratio = False, 0.0
    if not known or not 0 <= ratio <= 1 or ("reinit" in switches and base != "bridged") or (share and base != "mixed"):
        kinds = "vanilla, matched, synthetic, mixed@SHARE or bridged, then +mixup, and +reinit for bridged"
        raise InputError(f"regime {text!r}. Expected {kinds}.")
    if options.other_classes and not (base in ("vanilla", "matched") or "reinit" in switches):
        allowed = "vanilla, matched, bridged+reinit, each also +mixup"
        raise InputError(f"regime {text!r} needs the same classes in both sets. With --other-classes: {allowed}.")
    return Regime(text, base, ratio, "mixup" in switches, "reinit" in switches)


def run(regime: Regime, synthetic: list[Item], splits: Splits, trainer: Trainer) -> dict:
    """One cell: train by ``regime``, test once, with the weights that did best on the validation images."""
    options, start = trainer.options, time.perf_counter()
    train, validation = few_shot(splits, trainer.seed, options)
    with torch.random.fork_rng(devices=[]):  # the order of cells changes none of them
        torch.manual_seed(seed_for(trainer.seed, "bridged transfer", regime.name))
        network = trainer.backbone()
        leeps = [trainer.leep(network, train, splits.classes)]
        steps = options.real_steps if regime.base == "vanilla" else options.real_steps + options.synthetic_steps
        if regime.base == "bridged":
            sources, steps = sorted(by_class(synthetic)), options.real_steps
            held, rest = held_out(synthetic, trainer.seed)  # the synthetic classes need not be the real ones
            network.reset_classifier(len(sources))
            trainer.fit(network, Stage(rest, [], held, sources, 1.0, options.synthetic_steps, regime.mixup))
            leeps.append(trainer.leep(network, train, splits.classes))
        if regime.base != "bridged" or regime.reinit:
            network.reset_classifier(len(splits.classes))
        mixup = regime.mixup and regime.base != "bridged"
        own = synthetic if regime.ratio > 0 else []
        stage = Stage(own, train, validation, splits.classes, regime.ratio, steps, mixup)
        curve = trainer.fit(network, stage)
        test, _ = trainer.evaluate(network, splits.test, splits.classes)
    seconds = round(time.perf_counter() - start, 1)
    cell = {"regime": regime.name, "seed": trainer.seed, "test": test, "leep": leeps, "curve": curve}
    return {**cell, "seconds": seconds, "settings": settings(options)}


def held_out(items: Sequence[Item], seed: int) -> tuple[list[Item], list[Item]]:
    """A tenth of the synthetic images to stop stage 1 by, and the others."""
    order = generator(seed, "held out", "synthetic").permutation(len(items))
    count = max(1, len(items) // 10)
    return [items[i] for i in order[:count]], [items[i] for i in order[count:]]


@dataclass(frozen=True)
class Stage:
    """What one stage trains on (``ratio`` of it synthetic), is stopped by, and for how many steps at most."""

    synthetic: list[Item]
    real: list[Item]
    validation: list[Item]
    classes: list[str]
    ratio: float
    steps: int
    mixup: bool


class Trainer:
    """Fine-tuning of one network in one process or several."""

    def __init__(self, seed: int, options: argparse.Namespace, accelerator: Accelerator) -> None:
        self.seed, self.options, self.accelerator = seed, options, accelerator
        self.scale: Scale = ((127 / 255,) * 3, (128 / 255,) * 3)

    def backbone(self) -> torch.nn.Module:
        """The pretrained network with its own classifier."""
        name, weights = self.options.backbone, self.options.weights
        if name.startswith("efficientnet-lite"):
            path = weights or packaged_weights(name)
            return classifier(name, read_weights(path), path).to(self.accelerator.device)
        overlay = {} if weights is None else {"state_dict": read_weights(weights), "custom_load": False}
        network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
        config = resolve_model_data_config(network)
        self.scale = (config["mean"], config["std"])
        return network.to(self.accelerator.device)

    def fit(self, network: torch.nn.Module, stage: Stage) -> list[tuple[int, float, float]]:
        """Train in place; ``network`` ends with the weights that did best. Returns (step, loss, accuracy) per look."""
        options, accelerator = self.options, self.accelerator
        sizes = len(stage.synthetic), len(stage.real)
        batches = Batches(stage.steps, options.batch_size, sizes, stage.ratio, self.seed)
        data = Images([*stage.synthetic, *stage.real], stage.classes, self.scale, options.size, augment=True)
        optimizer = OPTIMIZERS[options.optimizer](network.to(accelerator.device).parameters(), options)
        cosine = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / stage.steps)
        )
        feed = DataLoader(data, batch_sampler=batches, num_workers=options.workers)
        model, optimizer, feed = accelerator.prepare(network, optimizer, feed)
        rng, curve, best, since, state = generator(self.seed, "mixup", ""), [], -math.inf, 0, None
        for step, (images, labels) in enumerate(feed, 1):
            share = rng.beta(options.mixup, options.mixup) if stage.mixup else 1.0
            loss = self._loss(model.train(), images, labels, share)
            if not torch.isfinite(loss):
                raise InputError(f"the loss is {float(loss)} at step {step}. Lower --lr; finished cells are kept.")
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            cosine.step()
            if step % options.every and step < stage.steps:
                continue
            accuracy, entropy = self.evaluate(network, stage.validation, stage.classes)
            curve.append((step, float(loss.detach()), accuracy))
            score, since = accuracy - 1e-6 * entropy, since + 1  # few validation images tie often
            if score > best:
                best, since, state = score, 0, copy.deepcopy(network.state_dict())
            if since >= options.patience:
                break
        network.load_state_dict(state)
        accelerator.free_memory()
        return curve

    @staticmethod
    def _loss(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, share: float) -> torch.Tensor:
        """Cross entropy, of ``share`` of each image mixed with another one (Zhang et al. 2018)."""
        if share == 1.0:
            return F.cross_entropy(model(images), labels)
        logits = model(share * images + (1 - share) * images.roll(1, 0))
        return share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels.roll(1))

    def outputs(
        self, network: torch.nn.Module, items: list[Item], classes: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits ``float64 [N,K]`` and labels of all ``items``, gathered from all processes."""
        data = Images(items, classes, self.scale, self.options.size, augment=False)
        feed = self.accelerator.prepare(DataLoader(data, 128, num_workers=self.options.workers))
        network.eval()
        with torch.inference_mode():
            found = [self.accelerator.gather_for_metrics((network(images), labels)) for images, labels in feed]
        return torch.cat([logits for logits, _ in found]).double().cpu(), torch.cat(
            [labels for _, labels in found]
        ).cpu()

    def evaluate(self, network: torch.nn.Module, items: list[Item], classes: list[str]) -> tuple[float, float]:
        """Accuracy and mean cross entropy."""
        logits, labels = self.outputs(network, items, classes)
        return float((logits.argmax(1) == labels).double().mean()), float(F.cross_entropy(logits, labels))

    def leep(self, network: torch.nn.Module, items: list[Item], classes: list[str]) -> float:
        """Log expected empirical prediction (Nguyen et al. 2020, eq. 2) of the labels by the network's own classes."""
        logits, labels = self.outputs(network, items, classes)
        source = logits.softmax(1)
        joint = torch.zeros(len(classes), source.shape[1], dtype=torch.float64).index_add_(0, labels, source)
        conditional = joint / joint.sum(0).clamp_min(1e-300)
        return float((source * conditional[labels]).sum(1).log().mean())


OPTIMIZERS = {
    "sgd": lambda p, o: torch.optim.SGD(p, o.lr, momentum=0.9, weight_decay=o.weight_decay, nesterov=True),
    "adamw": lambda p, o: torch.optim.AdamW(p, o.lr, weight_decay=o.weight_decay),
}

# ---- results ---------------------------------------------------------------------------------------------------------


def settings(options: argparse.Namespace) -> dict:
    """Everything that a cell depends on besides its regime and seed."""
    free = ("out", "seeds", "regimes", "workers")
    return {name: str(value) for name, value in sorted(vars(options).items()) if name not in free}


def read_results(options: argparse.Namespace) -> list[dict]:
    path = options.out / "results.jsonl"
    cells = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for cell in cells:
        now = settings(options)
        changed = [name for name in now if now[name] != cell["settings"].get(name)]
        if changed:
            was = ", ".join(f"--{name.replace('_', '-')} {cell['settings'].get(name)}" for name in changed)
            raise InputError(f"{path} was made with {was}. Use the same settings, or another folder.")
    return cells


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"bridged_transfer.py: {error}") from error
