"""The training loop of the pre-training recipes: CSV log, resume, one process or several, stop at a NaN.

A learner is a module whose ``forward(*batch)`` is the loss. Every random draw of a run comes from its seed, the step
and the image's place in the order: an interrupted run, more data workers or more processes train on the same batches.
"""

from __future__ import annotations

import argparse
import csv
import math
import pickle
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration, PartialState
from torch import nn
from torch.utils.data import DataLoader, Dataset

from metrics.errors import InputError
from metrics.image_sets.decode import ImageError
from metrics.image_sets.items import Item
from metrics.seed import generator, seed_for

LOG = ("step", "loss", "lr", "seconds")
# Options that a continued run may change.
FREE = ("out", "what", "every", "workers", "dry_run", "lr", "grid", "crops", "held_out", "samples", "sampler_steps")


@dataclass(frozen=True)
class Run:
    """Where and how long to train. ``settings`` is what a checkpoint depends on: other settings are refused."""

    out: Path
    steps: int
    batch_size: int
    seed: int = 0
    every: int = 100  # steps between two checkpoints and lines of the log
    precision: str = "no"
    workers: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Any, **given: Any) -> Run:
        """The run that a recipe's options ask for; its settings are all options that results depend on."""
        names = ("out", "steps", "batch_size", "seed", "every", "precision", "workers")
        kept = {name: str(value) for name, value in sorted(vars(options).items()) if name not in FREE}
        return cls(**{name: getattr(options, name) for name in names} | {"settings": kept} | given)


def train(
    learner: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Dataset,
    run: Run,
    factor: Callable[[int], float],
    watch: Callable[[int, float], None] = lambda step, loss: None,
) -> float:
    """Train in place from the last checkpoint, or from the start, to the last step. Returns the seconds it took.

    ``factor(step)`` is the share of the learning rate, ``watch(step, mean loss)`` is called with every line of the log,
    and ``learner.follow(step, steps)``, where there is one, after every step (averages of the weights).

    Returns:
        Seconds of this run.

    Raises:
        InputError: a NaN or infinite loss or weight (the step and the checkpoint that is kept are named), a checkpoint
            of other settings, or a batch that the processes cannot share evenly.
    """
    config = DataLoaderConfiguration(split_batches=True)
    cpu = not torch.accelerator.is_available()  # else each of several processes on a CPU takes itself for the only one
    accelerator = Accelerator(cpu=cpu, mixed_precision=run.precision, dataloader_config=config)
    if run.batch_size % accelerator.num_processes:
        shared = f"{run.batch_size} images for {accelerator.num_processes} processes"
        raise InputError(f"--batch-size: {shared}. Expected a multiple.")
    rates = [group["lr"] for group in optimizer.param_groups]
    first, before = restore(learner, optimizer, run)
    batches = Batches(len(data), run, first)
    feed = DataLoader(Seeded(data), batch_sampler=batches, num_workers=run.workers)
    model, optimizer, feed = accelerator.prepare(learner.to(accelerator.device), optimizer, feed)
    begin, losses = time.perf_counter() - before, []
    follow = getattr(learner, "follow", None)
    with torch.random.fork_rng(devices=[]):
        for step, batch in enumerate(feed, first + 1):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor(step - 1)
            torch.manual_seed(seed_for(run.seed, "step", f"{step} {accelerator.process_index}"))
            loss = model.train()(*batch)
            losses.append(float(accelerator.gather(loss.detach()).mean()))
            if not math.isfinite(losses[-1]):
                raise stopped(f"loss {losses[-1]}", step, run)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            if follow:
                follow(step, run.steps)
            if (step % run.every == 0 or step == run.steps) and accelerator.is_main_process:
                seconds = time.perf_counter() - begin
                log(run.out / "log.csv", step, float(np.mean(losses)), rates[0] * factor(step - 1), seconds)
                keep(learner, optimizer, run, step, seconds)
                watch(step, float(np.mean(losses)))
                losses = []
    accelerator.wait_for_everyone()
    return time.perf_counter() - begin


def stopped(what: str, step: int, run: Run) -> InputError:
    path = run.out / "checkpoint.pt"
    state = "There is no checkpoint yet; lower --lr and start again."
    if path.exists():
        kept = f"The checkpoint of step {load(path)['step']} is kept in {path}"
        state = f"{kept}; lower --lr and start again: the run continues from there."
    return InputError(f"{what} at step {step}. {state}")


def restore(learner: nn.Module, optimizer: torch.optim.Optimizer, run: Run) -> tuple[int, float]:
    """Load the checkpoint, if any; the steps and seconds behind it. Lines of the log after it are dropped."""
    path, lines = run.out / "checkpoint.pt", run.out / "log.csv"
    run.out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        if PartialState().is_main_process:
            lines.unlink(missing_ok=True)
        return 0, 0.0
    state = load(path)
    changed = [name for name, value in run.settings.items() if state["settings"].get(name) != value]
    if changed:
        was = ", ".join(f"{name} {state['settings'].get(name)} (now {run.settings[name]})" for name in changed)
        raise InputError(f"{path} was made with other settings: {was}. Use the same, or another folder.")
    try:
        learner.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: of another model ({detail(error)}). Use another folder.") from error
    if lines.exists() and PartialState().is_main_process:
        with lines.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if len(row) == len(LOG) and row[0].isdecimal()]
        with (run.out / "log.part").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([LOG, *(row for row in rows if int(row[0]) <= state["step"])])
        (run.out / "log.part").replace(lines)
    return state["step"], state["seconds"]


def load(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: state[name] for name in ("step", "seconds", "settings", "model", "optimizer")}
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: damaged, or no checkpoint of a recipe. Remove it to start again.") from error


def detail(error: Exception) -> str:
    """What does not fit, of torch's list of all that does not."""
    return str(error).splitlines()[:2][-1].strip()[:200]


def keep(learner: nn.Module, optimizer: Any, run: Run, step: int, seconds: float) -> None:
    """Write the checkpoint; one with a NaN never replaces a good one."""
    if not all(torch.isfinite(value).all() for value in learner.state_dict().values()):
        raise stopped("a weight that is NaN or infinite", step, run)
    state = {"step": step, "seconds": seconds, "settings": dict(run.settings)}
    state |= {"model": learner.state_dict(), "optimizer": optimizer.state_dict()}
    part = run.out / "checkpoint.part"
    torch.save(state, part)
    part.replace(run.out / "checkpoint.pt")


def log(path: Path, step: int, loss: float, rate: float, seconds: float) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        row = [step, f"{loss:.5f}", f"{rate:.3g}", f"{seconds:.1f}"]
        csv.writer(file).writerows([LOG, row] if new else [row])


def cost(learner: nn.Module, data: Dataset, run: Run) -> float:
    """Seconds that the whole run takes in one process on this machine's CPU, from three timed steps.

    They have no more images than take about five seconds: the plan of a large run costs little.

    Returns:
        Seconds, a rough figure.
    """

    def step(size: int) -> float:
        times, few = [time.perf_counter()], replace(run, batch_size=size, steps=3)
        for batch in DataLoader(Seeded(data), batch_sampler=list(Batches(len(data), few, 0))):
            learner.train()(*batch).backward()
            times.append(time.perf_counter())
        return float(np.median(np.diff(times)))

    small = min(2, run.batch_size)
    size = min(run.batch_size, max(small, int(5 * small / step(small))))
    seconds = run.steps * step(size) * run.batch_size / size
    learner.zero_grad()
    return seconds


# ---- the command line ------------------------------------------------------------------------------------------------


def command(main: Callable[[], Any]) -> None:
    """Run a recipe; bad input, a full disk and an interruption end it with one line."""
    name = Path(sys.argv[0]).name
    try:
        main()
    except InputError as error:
        said = str(error).rpartition("InputError: ")[2].strip()  # of a process that reads images, without its traceback
        raise SystemExit(f"{name}: {said}") from error
    except (ImageError, OSError) as error:
        raise SystemExit(f"{name}: {error}") from error
    except KeyboardInterrupt as error:
        raise SystemExit(f"{name}: interrupted. The same command continues at the last checkpoint.") from error


def common(parser: argparse.ArgumentParser) -> None:
    """Options that every recipe has."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images; no result depends on them")
    parser.add_argument("--every", type=int, default=100, help="steps between two checkpoints and lines of log.csv")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its cost")


def check(options: argparse.Namespace, **least: float) -> None:
    """Refuse numbers below the ``least`` and an output that cannot be a folder, before anything is read or written."""
    for name, low in {"size": 1, "batch_size": 1, "steps": 1, "lr": 0, "workers": 0, "every": 1, **least}.items():
        given = getattr(options, name)
        for number in given if isinstance(given, list) else [given]:
            if number is not None and not low <= number < math.inf:
                raise InputError(f"--{name.replace('_', '-')} {number}: expected at least {low}.")
    for path in (options.out, *options.out.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file. Expected a folder, or a name for a new one.")


def read(item: Item) -> np.ndarray:
    """The image, uint8 [H,W,3].

    Returns:
        ``uint8 [H,W,3]``.

    Raises:
        InputError: it cannot be read; the message has its place.
    """
    try:
        return item.read()
    except ImageError as error:
        raise InputError(f"{item.location}: {error}. Repair or remove it; the same command continues.") from error


# ---- batches ---------------------------------------------------------------------------------------------------------


class Batches:
    """A batch of (index, seed of its augmentation) per step from ``first`` on, in shuffled epochs."""

    def __init__(self, size: int, run: Run, first: int) -> None:
        self.size, self.run, self.first = size, run, first
        self.batch_size, self.drop_last = run.batch_size, True  # what accelerate asks for

    def __len__(self) -> int:
        return max(0, self.run.steps - self.first)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, dtype=int)
        for step in range(self.first, self.run.steps):
            batch = []
            for place in range(step * self.batch_size, (step + 1) * self.batch_size):
                if place // self.size != epoch:
                    epoch = place // self.size
                    order = generator(self.run.seed, "epoch", str(epoch)).permutation(self.size)
                batch.append((int(order[place % self.size]), seed_for(self.run.seed, "augment", str(place))))
            yield batch


class Seeded(Dataset):
    """``data`` whose random transforms draw from the seed that comes with the index."""

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def __getitem__(self, place: tuple[int, int]) -> Any:
        with drawing_from(place[1]):
            return self.data[place[0]]


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """The global generators of Python, NumPy and torch, all three of which image transforms draw from, seeded."""
    python, array = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)  # transforms run on the CPU; a tenth of the time of manual_seed
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)  # noqa: NPY002
