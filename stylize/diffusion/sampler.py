"""What generating and restyling share: a model, an embedding and sampling options; prompts that are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metrics.errors import InputError
from metrics.images import sha256
from metrics.registry import unknown

from .. import __version__
from ..data.encode import SUFFIXES, encode
from ..job import Failure, Image
from .pipeline import SCHEDULERS, check_size, fingerprint, load_pipeline, set_scheduler
from .placeholder import prompt_ids, use_embedding
from .prompts import check_template, fill

GUIDANCE, STEPS, SCHEDULER = 5.0, 25, "dpm++"  # ours: the paper states none of the three


@dataclass
class Sampler:
    """Loaded once per process, and sent to other processes without what it has loaded.

    Attributes:
        model: see :func:`stylize.diffusion.pipeline.load_pipeline`; device and dtype too.
        embedding: a file, a folder of one per class, or None.
        scheduler: one of :data:`stylize.diffusion.pipeline.SCHEDULERS`.
        steps: sampling steps.
        guidance: scale of classifier-free guidance; 1 switches it off.
        negative: what the images should not show.
    """

    model: str | Path
    embedding: Path | None
    device: str
    dtype: str
    scheduler: str
    steps: int
    guidance: float
    negative: str

    def check(self) -> None:
        """Raises InputError for numbers that no sampler takes; before anything is loaded."""
        if not 0 <= self.guidance <= 100 or self.steps < 1:
            raise InputError(
                f"guidance = {self.guidance}, steps = {self.steps}: expected guidance 0 to 100 and at least 1 step."
            )
        if self.scheduler not in SCHEDULERS:
            raise unknown("scheduler", self.scheduler, SCHEDULERS)

    @cached_property
    def _loaded(self) -> tuple[Any, str, dict[str, tuple[str, list[int]]]]:
        pipeline = load_pipeline(self.model, device=self.device, dtype=self.dtype)
        digest = fingerprint(pipeline)
        tokens = {path.stem: use_embedding(pipeline, path) for path in embedding_files(self.embedding)}
        set_scheduler(pipeline, self.scheduler)
        return pipeline, digest, tokens

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_loaded"}

    @property
    def pipeline(self) -> Any:
        """The pipeline, with the embedding's tokens and the scheduler."""
        return self._loaded[0]

    def describe(self) -> dict[str, Any]:
        """What of it decides pixels: for ``run.json`` and for every row of ``metadata.jsonl``."""
        names = ("dtype", "scheduler", "steps", "guidance", "negative")
        digests = {"model": self._loaded[1], "embedding": [sha256(path) for path in embedding_files(self.embedding)]}
        return digests | {name: getattr(self, name) for name in names}

    def prompt(self, template: str, label: str) -> str:
        """The sentence for a class; raises InputError when the model would not read all of it."""
        tokens = self._loaded[2]
        check_template(template, self.embedding is not None)
        token, ids = self._token(label, tokens) if tokens else ("", [])
        prompt = fill(template, label, token)
        prompt_ids(self.pipeline, prompt, ids)
        return prompt

    def _token(self, label: str, tokens: Mapping[str, tuple[str, list[int]]]) -> tuple[str, list[int]]:
        assert self.embedding is not None
        if not self.embedding.is_dir():
            return next(iter(tokens.values()))
        if label.replace("/", "-") not in tokens:
            raise InputError(f"{self.embedding}: no embedding of the class {label!r}; it has {', '.join(tokens)}.")
        return tokens[label.replace("/", "-")]

    def size(self, size: int | None) -> int:
        """The side in pixels, that of the model by default."""
        return check_size(self.pipeline, size)

    def options(self, prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
        """Arguments of a call of the pipeline: every image has a generator of its own."""
        return {
            "prompt": list(prompts),
            "negative_prompt": [self.negative] * len(seeds),
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            "output_type": "np",
        }


def embedding_files(embedding: Path | None) -> list[Path]:
    """The files of an embedding: none, itself, or those in the folder of a class-wise one."""
    if embedding is None:
        return []
    if not embedding.is_dir():
        return [embedding]
    files = sorted(embedding.glob("*.safetensors"))
    if not files:
        raise InputError(
            f"{embedding}: holds no *.safetensors. Expected what `stylize invert --mode class-wise` wrote."
        )
    return files


def finished(key: str, image: np.ndarray, row: Mapping[str, Any], format: str, quality: int) -> Image | Failure:
    """The pipeline's ``float [H,W,3]`` in [0, 1] as an encoded file, or a failure when it is not finite."""
    if not np.isfinite(image).all():
        return Failure(key, "the networks returned values that are not finite; use --dtype bfloat16 or float32")
    data = encode(np.rint(image * 255).astype(np.uint8), format, quality)
    return Image(key, key + SUFFIXES[format], data, {**row, "version": __version__})
