"""The training loop of an inversion: a matrix [vectors, hidden] learns, everything else is frozen.

Every draw comes from (seed, number of the sample), so that a resumed run gives the bits of an uninterrupted one, and
two processes take the steps that one process with twice the batch would take.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save

from metrics.errors import InputError
from metrics.files import write_atomically
from metrics.image_sets.items import Item
from metrics.seed import seed_for

from ..locks import alone_on
from .denoising import DenoisingLoss
from .pipeline import DTYPES, set_scheduler
from .placeholder import add_token, initialiser_id, prompt_ids, save_embedding
from .prompts import fill

POINTS = 50  # of the loss curve
VALIDATION_IMAGES, VALIDATION_STEPS, VALIDATION_GUIDANCE = 4, 25, 5.0


@dataclass(frozen=True)
class Settings:
    """What decides the result, beside the images and the model; see :func:`stylize.diffusion.invert.invert`."""

    token: str
    initialiser: str
    vectors: int
    steps: int
    batch: int
    accumulate: int
    rate: float
    warm_up: int
    size: int
    seed: int
    precision: str


@dataclass(frozen=True)
class InversionStep:
    """An optimiser step: how many are done out of ``total``, the loss of its batch, and the last of the fixed batch."""

    done: int
    total: int
    loss: float
    fixed_loss: float


class Inversion:
    """One placeholder, the images that it is learnt from, and their prompts.

    Args:
        pipeline: as :func:`stylize.diffusion.pipeline.load_pipeline` returns it; gets the placeholder.
        items: the images; ``labels`` are their class names, and ``template`` the sentence.
        settings: see there.
        config: everything that decides the result, JSON-able.
        out: file to write.
        accelerator: an ``accelerate.Accelerator``: device, precision and processes.

    Raises:
        InputError: a prompt that is too long or hides the placeholder; OUT or its state belong to something else.
    """

    def __init__(
        self,
        pipeline: Any,
        items: Sequence[Item],
        labels: Sequence[str],
        template: str,
        settings: Settings,
        config: Mapping[str, Any],
        out: Path,
        accelerator: Any,
    ) -> None:
        self.pipeline, self.settings, self.accelerator = pipeline, settings, accelerator
        self.config, self.out, self.state = dict(config), out, out.with_name(out.name + ".training")
        self.finished = _finished(out, self.state, self.config)
        rows = pipeline.text_encoder.get_input_embeddings().weight
        start = rows[initialiser_id(pipeline.tokenizer, settings.initialiser)].detach().float()
        self.ids = add_token(pipeline, settings.token, start.expand(settings.vectors, -1))
        self.prompts = {label: fill(template, label, settings.token) for label in dict.fromkeys(labels)}
        encoded = {label: prompt_ids(pipeline, prompt, self.ids) for label, prompt in self.prompts.items()}
        self.loss = DenoisingLoss(
            pipeline,
            items,
            torch.tensor([encoded[label] for label in labels]),
            settings.size,
            settings.seed,
            DTYPES[settings.precision],
            accelerator.device,
        )
        self.vectors = torch.nn.Parameter(start.repeat(settings.vectors, 1).to(accelerator.device))
        self.curve: list[dict[str, float]] = []
        self.step = 0

    def train(self, save_every: int, validate_every: int) -> Iterator[InversionStep]:
        """Learn; writes OUT and its state every ``save_every`` steps and at the end.

        Args:
            save_every: steps between two saved states.
            validate_every: steps between two sheets of validation images; 0: none.

        Yields:
            Every step, or the last without its losses where OUT is finished.
        """
        if self.finished:
            yield InversionStep(self.settings.steps, self.settings.steps, math.nan, math.nan)
            return
        with alone_on(self.out) if self.accelerator.is_main_process else nullcontext():
            yield from self._train(save_every, validate_every)

    def _train(self, save_every: int, validate_every: int) -> Iterator[InversionStep]:
        settings, accelerator = self.settings, self.accelerator
        self._prepare()
        optimiser = torch.optim.AdamW([self.vectors], settings.rate, weight_decay=0.0)
        self._resume(optimiser)
        accelerator.wait_for_everyone()
        hook = self.pipeline.text_encoder.get_input_embeddings().register_forward_hook(self._replace_rows)
        try:
            optimiser = accelerator.prepare(optimiser)
            while self.step < settings.steps:
                loss = self._advance(optimiser)
                if self.step % max(1, settings.steps // POINTS) == 0 or self.step == settings.steps:
                    self._measure(loss)
                if self.step % save_every == 0 or self.step == settings.steps:
                    self._save(optimiser)
                if validate_every and (self.step % validate_every == 0 or self.step == settings.steps):
                    self._validate()
                yield InversionStep(
                    self.step, settings.steps, loss, self.curve[-1]["fixed_loss"] if self.curve else math.nan
                )
        finally:
            hook.remove()
        self._finish()

    def _prepare(self) -> None:
        """Move the networks; the text encoder stays float32, since its input is what learns."""
        device, dtype = self.accelerator.device, DTYPES[self.settings.precision]
        self.pipeline.unet.to(device, dtype)
        self.pipeline.vae.to(device, dtype)
        self.pipeline.text_encoder.to(device, torch.float32)

    def _advance(self, optimiser: torch.optim.Optimizer) -> float:
        settings, accelerator = self.settings, self.accelerator
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * min(1.0, (self.step + 1) / max(1, settings.warm_up))
        optimiser.zero_grad()
        losses = []
        for passed in range(settings.accumulate):
            first = (self.step * settings.accumulate + passed) * accelerator.num_processes + accelerator.process_index
            numbers = range(first * settings.batch, (first + 1) * settings.batch)
            loss = self.loss([self.loss.sample(number) for number in numbers])
            accelerator.backward(loss / settings.accumulate)
            losses.append(loss.detach())
        assert self.vectors.grad is not None
        self.vectors.grad = accelerator.reduce(self.vectors.grad, reduction="mean")
        mean = float(accelerator.reduce(torch.stack(losses).mean(), reduction="mean"))
        if not math.isfinite(mean):
            raise InputError(
                f"the loss is not finite at step {self.step}. {self.out} keeps the last saved vectors. Use a smaller "
                "--rate or --precision bfloat16, and another output file."
            )
        optimiser.step()
        self.step += 1
        return mean

    def _replace_rows(self, _: torch.nn.Module, arguments: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        for number, row in zip(self.ids, self.vectors, strict=True):
            output = torch.where((arguments[0] == number)[..., None], row.to(output.dtype), output)
        return output

    def _measure(self, loss: float) -> None:
        fixed, norm = self.loss.fixed(self.settings.batch), float(self.vectors.detach().norm(dim=1).mean())
        self.curve.append({"step": self.step, "loss": loss, "fixed_loss": fixed, "norm": norm})

    def _save(self, optimiser: torch.optim.Optimizer) -> None:
        if not self.accelerator.is_main_process:
            return
        kept = {f"adam/{name}": value for name, value in optimiser.state_dict()["state"].get(0, {}).items()}
        kept = {name: torch.as_tensor(value).detach().cpu().contiguous() for name, value in kept.items()}
        kept["vectors"] = self.vectors.detach().cpu().contiguous()
        header = {"step": str(self.step), "config": json.dumps(self.config), "curve": json.dumps(self.curve)}
        write_atomically(self.state, save(kept, header))
        save_embedding(self.out, self.settings.token, self.vectors, {"config": self.config, "step": self.step})
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", "loss", "fixed_loss", "norm"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.curve)
        write_atomically(self.out.with_name(self.out.name + ".csv"), text.getvalue().encode())

    def _resume(self, optimiser: torch.optim.Optimizer) -> None:
        if not self.state.is_file():
            return
        with safe_open(self.state, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        with torch.no_grad():
            self.vectors.copy_(tensors.pop("vectors"))
        moments = {name.removeprefix("adam/"): value for name, value in tensors.items()}
        optimiser.load_state_dict({**optimiser.state_dict(), "state": {0: moments}})
        self.step, self.curve = int(metadata["step"]), json.loads(metadata["curve"])

    @torch.no_grad()
    def _validate(self) -> None:
        """A sheet of images beside OUT, from the same seeds every time."""
        if not self.accelerator.is_main_process:
            return
        set_scheduler(self.pipeline, "dpm++")
        prompts = list(self.prompts.values())[:VALIDATION_IMAGES]
        prompts = (prompts * VALIDATION_IMAGES)[: max(len(prompts), VALIDATION_IMAGES)]
        seeds = [seed_for(self.settings.seed, "validation", str(number)) % 2**63 for number in range(len(prompts))]
        dtype = DTYPES[self.settings.precision]
        with torch.autocast(self.accelerator.device.type, dtype, enabled=dtype != torch.float32):
            images = self.pipeline(
                prompts,
                height=self.settings.size,
                width=self.settings.size,
                num_inference_steps=VALIDATION_STEPS,
                guidance_scale=VALIDATION_GUIDANCE,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="np",
            ).images
        buffer = io.BytesIO()
        Image.fromarray(np.hstack(list(np.rint(images * 255).astype(np.uint8)))).save(buffer, "PNG")
        write_atomically(self.out.with_name(f"{self.out.stem}-{self.step:06d}.png"), buffer.getvalue())

    def _finish(self) -> None:
        with torch.no_grad():
            weight = self.pipeline.text_encoder.get_input_embeddings().weight
            weight[self.ids] = self.vectors.detach().to(weight)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.state.unlink(missing_ok=True)


def _finished(out: Path, state: Path, config: Mapping[str, Any]) -> bool:
    """Whether OUT is the result of this very run; refuses results and states of others."""
    held = _header(out, "stylize") if out.exists() else None
    if out.exists() and (held is None or "config" not in held):
        raise InputError(f"{out}: exists, and is not from `stylize invert`. Name another file.")
    kept = _header(state, "config") if state.exists() else None
    if state.exists() and kept is None:
        raise InputError(f"{state}: cannot be resumed from. Delete it to start again.")
    for path, other in ((out, None if held is None else held["config"]), (state, kept)):
        other = config if other is None else other
        for name in sorted({*config, *other}):
            if config.get(name) != other.get(name):
                raise InputError(
                    f"{path}: was made with {name} = {other.get(name)!r}, and this command says {name} = "
                    f"{config.get(name)!r}. Repeat the earlier setting to continue, or name another file."
                )
    if held is None or held["step"] == config["steps"]:
        return held is not None
    if not state.exists():
        raise InputError(f"{out}: unfinished, and {state.name} is missing: cannot resume. Delete it to start again.")
    return False


def _header(path: Path, name: str) -> dict[str, Any] | None:
    """A JSON object in the metadata of a safetensors file; None if there is none."""
    try:
        with safe_open(path, "pt") as file:
            value = json.loads((file.metadata() or {})[name])
        return dict(value)
    except Exception:  # whatever is wrong with the file, it is not ours
        return None
