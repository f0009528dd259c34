"""Train the network of the style method ``network``: real photos and patterns in, one small weight file out.

A step paints a batch of pattern windows in the styles of random crops of the photos, shows the result to a frozen
EfficientNet-Lite0 and improves the network against five losses:

- *style*: means and standard deviations of the encoder's maps, and the pooled features, equal those of the style's
  crop (Gatys et al. 2016 with the statistics of Huang & Belongie 2017; robust: smooth L1 in units of the spread between
  styles);
- *critic*: small discriminators on the encoder's maps, hinge loss, conditioned on the style (Sauer et al., "Projected
  GANs converge faster", 2021). They see what moments do not;
- *set*: the kernel inception distance of a queue of results to the real windows (Bińkowski et al. 2018), the measure
  itself;
- *structure*: luminance gradients stay where the content has them, at full and half resolution;
- *label*: a linear probe on the result's pooled features recovers the principal components of the content's.

Before the encoder sees a result it is enlarged, shifted, flipped, brightened and rounded at random; the real windows
were too. So the network cannot live on perturbations of single pixels. What is tuned here against one encoder is to be
judged by another.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from metrics.errors import MAX_ERRORS, InputError
from metrics.extractors.extractor import check_device
from metrics.files import write_atomically
from metrics.image_sets.items import ImageSet
from metrics.image_sets.ledger import licences, restricted
from metrics.image_sets.open import open_images
from metrics.progress import Callback, iterates, silent, to_the_end
from metrics.seed import generator, seed_for

from ..locks import alone_on
from ..styles.gamut import soft_gamut
from ..styles.methods.network import ARCHITECTURE, Stylizer, inputs, read_network, save_network
from ..styles.photos import check_losses, without_copies
from ..writing.apply import content_digest
from .losses import ENCODER, WINDOWS, FoldedEfficientNet, MapCritic, PooledCritic, RealWindows, kernel, structure_loss
from .windows import content_windows, disturbed

WEIGHTS = {"style": 5.0, "critic": 0.8, "set": 25.0, "structure": 0.5, "label": 0.5}
RATE, CRITIC_RATE, PROBE_RATE = 1e-3, 1e-3, 3e-4
WARM_UP, DECAY = 30, 0.6  # steps; share of the steps after which the rates fall linearly, to a twentieth
AVERAGE = 0.995  # per step, of the weights that are kept
QUEUE = 48  # results that the set loss remembers
SAVE_EVERY = 200
TAPS = (1, 2, 3, 4)  # maps with a critic


@dataclass(frozen=True)
class TrainingStep:
    """A training step: how many are done out of ``total``, seconds since the start of this run, and the losses.

    ``notes``, of the first step of a run, are lines about images that cannot be had or were passed over.
    """

    done: int
    total: int
    seconds: float
    losses: Mapping[str, float]
    notes: tuple[str, ...] = ()


@iterates
def iter_train(
    real: str | Path,
    patterns: str | Path,
    out: str | Path,
    *,
    steps: int = 6000,
    minutes: float = math.inf,
    size: int = 128,
    batch: int = 4,
    seed: int = 0,
    device: str = "cpu",
    max_errors: int = MAX_ERRORS,
    architecture: Mapping[str, int] = ARCHITECTURE,
    progress: Callback = silent,
) -> Iterator[TrainingStep]:
    """Train a network for the style method ``network``.

    OUT is written every SAVE_EVERY steps and at the end; beside it lies ``OUT.training``, which holds what resuming
    needs until training is finished. The same call again continues, and gives the weights that an uninterrupted run
    would have given, to the bit on the same machine with the same number of threads.

    Args:
        real: folder of real photos, best with a ledger.
        patterns: folder of synthetic images.
        out: weight file to write, ``*.safetensors``.
        steps: steps in all; the learning rates fall towards the last.
        minutes: stop this run, resumable, after so long.
        size: side of the windows in pixels, a multiple of 8 of at least 16. Real crops have twice that side.
        batch: windows per step, at least 2.
        seed: decides every random draw.
        device: where to compute, e.g. ``cuda``.
        max_errors: how many unreadable images are left out and listed, on either side, before training is refused.
        architecture: sizes of :class:`stylize.styles.methods.network.Stylizer`.
        progress: called with every step, too.

    Yields:
        Every step with its losses.

    Raises:
        InputError: a number out of range, no readable image on either side, OUT holds something else, another process
            trains it, or the loss is no longer finite (the last good weights are kept).
    """
    out = Path(out)
    if steps < 1 or size < 16 or size % 8 or batch < 2 or not minutes > 0:
        raise InputError(
            f"steps = {steps}, size = {size}, batch = {batch}, minutes = {minutes:g}: expected at least 1 step, a size "
            "of at least 16 divisible by 8, a batch of at least 2, and some minutes."
        )
    if out.suffix != ".safetensors":
        raise InputError(f"{out}: expected a file name ending in .safetensors, e.g. {out.with_suffix('.safetensors')}.")
    check_device(device)
    photos, contents = without_copies(open_images(real)), open_images(patterns)
    config = {
        "encoder": ENCODER,
        "weights": WEIGHTS,
        "steps": steps,
        "size": size,
        "batch": batch,
        "seed": seed,
        "architecture": dict(architecture),
        "real": content_digest(photos),
        "patterns": content_digest(contents),
    }
    state = out.with_name(out.name + ".training")
    if _finished(out, state, config):
        yield TrainingStep(steps, steps, 0.0, {})
        return
    start = time.monotonic()
    with alone_on(out):
        trainer = _Trainer(photos, contents, config, device, max_errors)
        if state.is_file():
            trainer.load(state)
        yield from _train(trainer, out, state, start, minutes)


train = to_the_end(iter_train)


def _train(trainer: _Trainer, out: Path, state: Path, start: float, minutes: float) -> Iterator[TrainingStep]:
    """Train to the end, or until ``minutes`` after ``start``; saves on the way."""
    notes, steps = trainer.notes, int(trainer.config["steps"])
    while trainer.step < steps:
        losses = trainer.advance()
        if not all(map(math.isfinite, losses.values())):
            raise InputError(
                f"training diverged at step {trainer.step}: {losses}. {out} keeps the last good weights, if any were "
                "saved. Train into another file with another --seed, or on other photos."
            )
        over = time.monotonic() - start > 60 * minutes
        if trainer.step % SAVE_EVERY == 0 or trainer.step == steps or over:
            trainer.save(out, state)
        yield TrainingStep(trainer.step, steps, time.monotonic() - start, losses, notes)
        notes = ()
        if over:
            return
    state.unlink(missing_ok=True)


def _finished(out: Path, state: Path, config: Mapping[str, Any]) -> bool:
    """Whether ``out`` is the result of this very training; refuses what is not even part of it."""
    if not out.exists():
        return False
    try:
        header = read_network(out)[0]
    except InputError as error:
        raise InputError(
            f"{out}: is in the way, and no result of training to go on with. Name another file, or delete this one. "
            f"({error})"
        ) from error
    if header.get("training") != config:
        raise InputError(
            f"{out}: holds a network that was trained otherwise ({_changes(header.get('training') or {}, config)}). "
            "Repeat the earlier command to continue it, name another file, or delete this one."
        )
    if header["steps"] < config["steps"] and not state.is_file():
        raise InputError(f"{out}: unfinished, and {state.name} is missing: cannot resume. Delete it to start again.")
    return bool(header["steps"] >= config["steps"])


def _changes(trained: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What differs: ``steps = 6000 there, 100 here; other real images``."""
    changed = [name for name in config if trained.get(name) != config[name]]
    return "; ".join(
        f"other {name} images"
        if name in ("real", "patterns")
        else f"{name} = {trained.get(name)} there, {config[name]} here"
        for name in changed
    )


class _Trainer:
    """Networks, optimisers, data and step counter; every draw comes from (seed, step)."""

    def __init__(
        self, photos: ImageSet, patterns: ImageSet, config: Mapping[str, Any], device: str, max_errors: int
    ) -> None:
        self.config, self.device, self.step = config, torch.device(device), 0
        self.seed, self.batch = int(config["seed"]), int(config["batch"])
        encoder = FoldedEfficientNet().to(self.device)
        self.encoder = encoder
        self.real = RealWindows(photos, int(config["size"]), self.seed, encoder)
        lost = dict(patterns.losses)
        self.contents = content_windows(patterns, int(config["size"]), self.seed, lost)
        self._account(photos, patterns, lost, max_errors)
        self.components = encoder.components(self.contents)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, "train", "weights") % 2**63)
            self.network = Stylizer(**config["architecture"])
            self.network.learn_styles(self.real.codes)
            self.critics = nn.ModuleList([*(MapCritic(self.real.maps[tap]) for tap in TAPS), PooledCritic(self.real)])
            self.probe = nn.Linear(self.real.pooled.shape[1], self.components.shape[1])
        self.modules = {"network": self.network, "critics": self.critics, "probe": self.probe}
        for module in self.modules.values():
            module.to(self.device)
        self.network.to(memory_format=torch.channels_last)
        self.modules["average"] = self.average = deepcopy(self.network).requires_grad_(False)
        self.optimisers = {
            "network": torch.optim.Adam(self.network.parameters(), RATE, betas=(0.8, 0.99)),
            "critics": torch.optim.Adam(self.critics.parameters(), CRITIC_RATE, betas=(0.0, 0.99)),
            "probe": torch.optim.Adam(self.probe.parameters(), PROBE_RATE),
        }
        self.queue = torch.zeros(0, self.real.pooled.shape[1], device=self.device)

    def _account(self, photos: ImageSet, patterns: ImageSet, lost: Mapping[str, str], most: int) -> None:
        """Licences, losses and notes of the images, for the header and for people; refuses too many losses."""
        check_losses(photos.root, self.real.losses, most)
        check_losses(patterns.root, lost, most)
        held, skipped = licences(photos), dict(self.real.losses)
        self.facts: dict[str, Any] = {
            **held.without(skipped).header(),
            "skipped": skipped,
            "skipped_patterns": dict(lost),
            "notes": [*photos.notes, *patterns.notes],
        }
        lines = [f"skipped {key}: {reason}" for key, reason in (*skipped.items(), *lost.items())]
        self.notes = (*lines, *photos.notes, *patterns.notes, *restricted(self.facts["licences"]))

    def advance(self) -> dict[str, float]:
        """One step of the network and the probe, then one of the critics; returns the losses."""
        draw = generator(self.seed, "train", str(self.step))
        chosen = torch.from_numpy(draw.integers(0, len(self.contents), self.batch))
        styles = torch.from_numpy(draw.integers(0, len(self.real.codes), self.batch))
        content = self.contents[chosen].to(self.device).float() / 255
        style = {name: values[styles].to(self.device) for name, values in self.real.statistics.items()}
        seeds = [seed_for(self.seed, "train", f"{self.step}/{index}") for index in range(self.batch)]
        result = soft_gamut(content, self.network(**inputs(content, style, seeds, self.network.noise_channels)))
        maps, pooled = self.encoder(disturbed(result, draw))
        code = self.real.codes[styles].to(self.device)
        self.critics.requires_grad_(False)
        fooled = [
            critic(seen, code).mean() for critic, seen in zip(self.critics, self._seen(maps, pooled), strict=True)
        ]
        losses = {
            "style": self.real.style_loss(maps, pooled, styles),
            "critic": -torch.stack(fooled).mean(),
            "set": self._set_loss(pooled),
            "structure": structure_loss(result, content),
            "label": (self.probe(self.real.standardised(pooled)) - self.components[chosen].to(self.device))
            .square()
            .mean(),
        }
        total = torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
        self._set_rates()
        if not total.isfinite():
            return {name: float(loss.detach()) for name, loss in losses.items()}
        self.optimisers["network"].zero_grad()
        self.optimisers["probe"].zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimisers["network"].step()
        self.optimisers["probe"].step()
        self._update_average()
        self.queue = torch.cat([self.queue, pooled.detach()])[-QUEUE:]
        losses["hinge"] = self._train_critics([m.detach() for m in maps], pooled.detach(), code, draw)
        self.step += 1
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _seen(self, maps: Sequence[torch.Tensor], pooled: torch.Tensor) -> list[torch.Tensor]:
        return [*(maps[tap] for tap in TAPS), pooled]

    def _train_critics(
        self, maps: Sequence[torch.Tensor], pooled: torch.Tensor, code: torch.Tensor, draw: np.random.Generator
    ) -> torch.Tensor:
        rows = torch.from_numpy(draw.integers(0, len(self.real.pooled), self.batch))
        real = self._seen([held[rows].to(self.device).float() for held in self.real.maps], self.real.pooled[rows])
        real_code = self.real.codes[rows // WINDOWS].to(self.device)
        self.critics.requires_grad_(True)
        hinges = [
            F.relu(1 + critic(fake, code)).mean() + F.relu(1 - critic(true.to(self.device), real_code)).mean()
            for critic, fake, true in zip(self.critics, self._seen(maps, pooled), real, strict=True)
        ]
        hinge = torch.stack(hinges).mean()
        self.optimisers["critics"].zero_grad()
        hinge.backward()  # type: ignore[no-untyped-call]
        self.optimisers["critics"].step()
        return hinge

    def _set_loss(self, pooled: torch.Tensor) -> torch.Tensor:
        """The terms of the kernel distance that this batch can change."""
        others = torch.cat([self.queue, pooled.detach()])
        own = kernel(pooled, others)
        itself = own.diagonal(len(self.queue))
        within = (own.sum(1) - itself) / (len(others) - 1)
        return 2 * (within - kernel(pooled, self.real.pooled.to(self.device)).mean(1)).mean()

    def _set_rates(self) -> None:
        left = 1 - self.step / int(self.config["steps"])
        factor = min(1.0, (self.step + 1) / WARM_UP) * min(1.0, max(0.05, left / (1 - DECAY)))
        for name, rate in (("network", RATE), ("critics", CRITIC_RATE)):
            for group in self.optimisers[name].param_groups:
                group["lr"] = rate * factor

    @torch.no_grad()
    def _update_average(self) -> None:
        share = 1 - min(AVERAGE, (self.step + 1) / (self.step + 10))
        for kept, current in zip(self.average.parameters(), self.network.parameters(), strict=True):
            kept.lerp_(current, share)

    def save(self, out: Path, state: Path) -> None:
        """Write what resuming needs, then the averaged network."""
        tensors = {
            f"{name}/{key}": t for name, module in self.modules.items() for key, t in module.state_dict().items()
        }
        for name, optimiser in self.optimisers.items():
            for index, moments in optimiser.state_dict()["state"].items():
                tensors |= {f"adam/{name}/{index}/{key}": t for key, t in moments.items()}
        tensors["queue"] = self.queue
        kept = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        write_atomically(state, save(kept, {"step": str(self.step), "training": json.dumps(self.config)}))
        header = {"steps": self.step, "training": self.config, "config_sha256": _digest(self.config), **self.facts}
        save_network(out, self.average, self.config["architecture"], header)

    def load(self, state: Path) -> None:
        """Continue from what :meth:`save` wrote; raises InputError for another configuration or a damaged file."""
        try:
            with safe_open(state, "pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name).to(self.device) for name in file.keys()}  # noqa: SIM118
            trained = json.loads(metadata["training"])
            same = trained == self.config
            if same:
                self._restore(tensors)
                self.step = int(metadata["step"])
        except Exception as error:  # whatever is wrong with the file, the remedy is the same
            raise InputError(f"{state}: cannot resume from it ({error}). Delete it to start again.") from error
        if not same:
            raise InputError(
                f"{state}: belongs to another training ({_changes(trained, self.config)}). Delete it, or name another "
                "file."
            )

    def _restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(_below(tensors, name))
        for name, optimiser in self.optimisers.items():
            moments: dict[int, dict[str, torch.Tensor]] = {}
            for key, tensor in _below(tensors, f"adam/{name}").items():
                index, _, what = key.partition("/")
                moments.setdefault(int(index), {})[what] = tensor
            optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        self.queue = tensors["queue"]


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix + "/"): t for name, t in tensors.items() if name.startswith(prefix + "/")}


def _digest(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
