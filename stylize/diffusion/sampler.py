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
from metrics.image_sets.decode import sha256
from metrics.registry import unknown

from ..version import __version__
from ..writing.encode import SUFFIXES, encode
from ..writing.job import Failure, Image
from .pipeline import SCHEDULERS, TINY, check_size, fingerprint, load_pipeline, set_scheduler
from .placeholder import prompt_ids, use_embedding
from .prompts import check_template, fill

DESCRIBED = ("dtype", "scheduler", "steps", "guidance", "negative")


@dataclass(frozen=True)
class Sampler:
    """How images are drawn. Loaded once per process, and sent to other processes without what it has loaded.

    Guidance 5, 25 steps and the scheduler are ours: Li et al. state none of the three.

    Attributes:
        model: see :func:`stylize.diffusion.pipeline.load_pipeline`; device and dtype too.
        embedding: file from :func:`stylize.diffusion.invert.invert`; a folder of them, one per class, from its mode
            ``class-wise``; None: no placeholder.
        negative: what the images should not show.
        guidance: scale of classifier-free guidance, 0 to 100; 1 switches it off.
        steps: sampling steps, at least 1; a restyling of strength s takes s of them.
        scheduler: one of :data:`stylize.diffusion.pipeline.SCHEDULERS`.
        size: side in pixels; None: that of the model.
        device: e.g. ``cuda``.
        dtype: ``float32``, ``float16`` or ``bfloat16``.

    Raises:
        InputError: a number out of range or an unknown scheduler, at once; an unsuitable model, embedding or size, when
            first used.
    """

    model: str | Path = TINY
    embedding: str | Path | None = None
    negative: str = ""
    guidance: float = 5.0
    steps: int = 25
    scheduler: str = "dpm++"
    size: int | None = None
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not 0 <= self.guidance <= 100 or self.steps < 1:
            raise InputError(
                f"guidance = {self.guidance}, steps = {self.steps}: expected guidance 0 to 100 and at least 1 step."
            )
        if self.scheduler not in SCHEDULERS:
            raise unknown("scheduler", self.scheduler, SCHEDULERS)

    @cached_property
    def _loaded(self) -> tuple[Any, dict[str, Any], dict[str, tuple[str, list[int]]]]:
        pipeline, files = load_pipeline(self.model, device=self.device, dtype=self.dtype), self.files()
        model = fingerprint(pipeline)
        tokens = {name: use_embedding(pipeline, path) for name, path in files.items()}
        digests = {"model": model, "embedding": [sha256(path) for path in files.values()]}
        set_scheduler(pipeline, self.scheduler)
        return pipeline, digests, tokens

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_loaded"}

    @property
    def pipeline(self) -> Any:
        """The pipeline, with the embedding's tokens and the scheduler."""
        return self._loaded[0]

    @property
    def side(self) -> int:
        """The side of the images in pixels."""
        return check_size(self.pipeline, self.size)

    @property
    def class_wise(self) -> bool:
        """Whether every class has an embedding of its own."""
        return self.embedding is not None and Path(self.embedding).is_dir()

    def files(self) -> dict[str, Path]:
        """The files of the embedding.

        Returns:
            None, itself as '', or by class those in the folder of a class-wise one.

        Raises:
            InputError: a folder without embeddings.
        """
        if self.embedding is None:
            return {}
        path = Path(self.embedding)
        if not path.is_dir():
            return {"": path}
        found = sorted(path.rglob("*.safetensors"))
        files = {file.relative_to(path).with_suffix("").as_posix(): file for file in found}
        if not files:
            raise InputError(f"{path}: holds no *.safetensors. Expected what `stylize invert --mode class-wise` wrote.")
        return files

    def describe(self) -> dict[str, Any]:
        """What of it decides pixels.

        Returns:
            Facts for ``run.json`` and for every row of ``metadata.jsonl``.
        """
        return self._loaded[1] | {name: getattr(self, name) for name in DESCRIBED}

    def prompt(self, template: str, label: str) -> str:
        """The sentence for a class.

        Args:
            template: with ``{class}`` and ``{token}`` where they are wanted.
            label: the name of the class.

        Returns:
            The sentence, with the token of the embedding.

        Raises:
            InputError: the model would not read all of it, or has no embedding of the class.
        """
        check_template(template, self.embedding is not None)
        token, ids = self._token(label)
        prompt = fill(template, label, token)
        prompt_ids(self.pipeline, prompt, ids)
        return prompt

    def _token(self, label: str) -> tuple[str, list[int]]:
        tokens = self._loaded[2]
        if self.class_wise and label not in tokens:
            raise InputError(f"{self.embedding}: no embedding of the class {label!r}; it has {', '.join(tokens)}.")
        return tokens.get(label if self.class_wise else "", ("", []))

    def options(self, prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
        """Arguments of a call of the pipeline: every image has a generator of its own.

        Args:
            prompts: N sentences.
            seeds: N numbers, of which every image's noise comes.

        Returns:
            Keyword arguments of a diffusers pipeline.
        """
        return {
            "prompt": list(prompts),
            "negative_prompt": [self.negative] * len(seeds),
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            "output_type": "np",
        }


def finished(key: str, image: np.ndarray, row: Mapping[str, Any], format: str, quality: int) -> Image | Failure:
    """The pipeline's ``float [H,W,3]`` in [0, 1] as an encoded file, or a failure when it is not finite."""
    if not np.isfinite(image).all():
        return Failure(key, "the networks returned values that are not finite; use --precision bfloat16 or float32")
    data = encode(np.rint(image * 255).astype(np.uint8), format, quality)
    return Image(key, key + SUFFIXES[format], data, {**row, "version": __version__})
