"""Bridged transfer: fine-tune on synthetic images first and on few real ones next, beside fair controls.

    python bridged_transfer.py synthetic real out --shots 16 --seeds 0 1 2
    accelerate launch --multi_gpu --num_processes 2 bridged_transfer.py synthetic real out

The last needs no GPU: on a machine without one it starts two processes on the CPU, as torchrun --nproc_per_node 2 does
(without --multi_gpu, accelerate starts one). The processes share every batch; augmentation and batch statistics are
their own, so that the numbers are not those of one process.

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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from _bridged_report import write_page
from _bridged_sets import Batches, Images, Scale, Splits, by_class, few_shot, held_out, read_sets
from _training import Seeded
from accelerate import Accelerator, DataLoaderConfiguration
from timm.data import resolve_model_data_config
from torch.nn import functional as F
from torch.utils.data import DataLoader

from metrics.errors import InputError
from metrics.extractors.efficientnet_lite import classifier, packaged_weights
from metrics.extractors.weights import read_weights
from metrics.files import write_atomically
from metrics.image_sets.items import Item
from metrics.seed import generator, seed_for

REGIMES = ["vanilla", "matched", "matched+mixup", "mixed@0.5", "mixed@0.9", "synthetic"]
REGIMES += ["bridged", "bridged+reinit", "bridged+mixup", "bridged+reinit+mixup"]


def main() -> None:
    options = parse()
    regimes = [parse_regime(text, options) for text in options.regimes]
    synthetic, splits = read_sets(options)
    accelerator = start(options)
    options.images, options.processes = splits.digest, accelerator.num_processes  # settings of the results
    check_network(Trainer(0, options, accelerator))
    done = read_results(options)
    for seed in options.seeds:
        for regime in regimes:
            if (regime.name, seed) in {(cell["regime"], cell["seed"]) for cell in done}:
                continue
            done.append(cell := run(regime, synthetic, splits, Trainer(seed, options, accelerator)))
            if accelerator.is_main_process:
                lines = "".join(json.dumps(cell) + "\n" for cell in done)
                write_atomically(options.out / "results.jsonl", lines.encode())
                print(f"{regime.name}, seed {seed}: test {cell['test']:.1%} after {cell['seconds']:.0f} s", flush=True)
    if accelerator.is_main_process:
        write_page(done, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("synthetic", type=Path)
    parser.add_argument("real", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shots", type=least(0), default=16, help="real training images per class; 0: all")
    parser.add_argument("--validation", type=least(1), default=16, help="real images per class for early stopping")
    parser.add_argument("--test", type=least(1), default=100, help="test images per class at most")
    parser.add_argument("--seeds", type=least(0), nargs="+", default=[0, 1, 2])
    parser.add_argument("--regimes", nargs="+", default=REGIMES)
    parser.add_argument("--other-classes", action="store_true", help="the synthetic classes are not the real ones")
    parser.add_argument("--backbone", default="efficientnet-lite0", help="works offline; or any timm model")
    parser.add_argument("--weights", type=Path, help="weights file of the timm model, instead of a download")
    parser.add_argument("--size", type=least(8), default=64, help="side of the training images")
    parser.add_argument("--synthetic-steps", type=least(1), default=200)
    parser.add_argument("--real-steps", type=least(1), default=150)
    parser.add_argument("--batch-size", type=least(2), default=32, help="of all processes together")
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    parser.add_argument("--lr", type=positive, default=0.02)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--mixup", type=positive, default=0.2, help="alpha of the Beta distribution")
    parser.add_argument("--every", type=least(1), default=25, help="steps between two looks at the validation images")
    parser.add_argument("--patience", type=least(1), default=4, help="looks without a better one before a stage stops")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no")
    parser.add_argument("--workers", type=least(0), default=0)
    options = parser.parse_args()
    options.regimes = list(dict.fromkeys(options.regimes))
    return options


def least(bound: int) -> Callable[[str], int]:
    """Reads a whole number that is at least ``bound``."""

    def whole(text: str) -> int:
        if int(text) < bound:
            raise argparse.ArgumentTypeError(f"{text}: expected at least {bound}")
        return int(text)

    return whole


def positive(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return float(text)


def start(options: argparse.Namespace) -> Accelerator:
    """Devices and processes; without ``cpu`` each of several processes on a CPU would take itself for the only one."""
    cpu = not torch.accelerator.is_available()
    if cpu and options.precision == "fp16":
        raise InputError("--precision fp16 needs a GPU. On a CPU: --precision bf16, or leave it out.")
    feed = DataLoaderConfiguration(split_batches=True)
    accelerator = Accelerator(cpu=cpu, mixed_precision=options.precision, dataloader_config=feed)
    if options.batch_size % accelerator.num_processes:
        count = accelerator.num_processes
        raise InputError(f"--batch-size {options.batch_size}: expected a multiple of the {count} processes.")
    return accelerator


def check_network(trainer: Trainer) -> None:
    """Load the network once and show it an image before any training."""
    options = trainer.options
    try:
        device = trainer.accelerator.device
        trainer.backbone().eval()(torch.zeros(1, 3, options.size, options.size, device=device))
    except InputError:
        raise
    except (RuntimeError, ValueError, OSError, AssertionError) as error:  # of timm, the hub and the layers
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(
            f"--backbone {options.backbone}, --size {options.size}: {reason}. Expected efficientnet-lite0, which comes "
            "along, or a timm model that takes this size; --weights names its weights where they cannot be downloaded."
        ) from error


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
    options, began = trainer.options, time.perf_counter()
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
    seconds = round(time.perf_counter() - began, 1)
    cell = {"regime": regime.name, "seed": trainer.seed, "test": test, "leep": leeps, "curve": curve}
    return {**cell, "seconds": seconds, "settings": settings(options)}


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
        feed = DataLoader(Seeded(data), batch_sampler=batches, num_workers=options.workers)
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
            self._average_statistics(network)
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

    def _average_statistics(self, network: torch.nn.Module) -> None:
        """Batch statistics differ between processes; validated and tested is one network."""
        if self.accelerator.num_processes > 1:
            for buffer in filter(torch.is_floating_point, network.buffers()):
                buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

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
        feed = self.accelerator.prepare(
            DataLoader(data, 128 * self.accelerator.num_processes, num_workers=self.options.workers)
        )
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
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"{options.out}: is a file. Name a folder.")
    path = options.out / "results.jsonl"
    try:
        cells = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    except ValueError as error:
        raise InputError(f"{path}: a line is not complete ({error}). Remove that line to continue.") from error
    for cell in cells:
        now = settings(options)
        changed = [name for name in now if now[name] != cell["settings"].get(name)]
        if changed:
            was = ", ".join(f"{name} = {cell['settings'].get(name)} (now {now[name]})" for name in changed)
            raise InputError(f"{path} was made with {was}. Use the same images and settings, or another folder.")
    return cells


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"bridged_transfer.py: {error}") from error
