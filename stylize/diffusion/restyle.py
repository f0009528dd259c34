"""Restyle a synthetic set image by image: noise up to a strength, denoised under a prompt with the learnt token.

Image-to-image sampling (Meng et al., "SDEdit", 2022): a low strength keeps the structure and the label, a high one
takes more of the style. Strength 0.5 is ours, as in DA-Fusion (Trabucco et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metrics.errors import InputError
from metrics.images import ImageError, ImageSet, Item, open_images
from metrics.seed import seed_for

from .. import __version__
from ..apply import content_digest
from ..data.encode import check_format
from ..job import MAX_ERRORS, SHARD_SIZE, Failure, Image, Job, Progress
from .inversion import fit
from .pipeline import TINY, require_diffusers
from .prompts import STYLE_PROMPT, check_label
from .sampler import GUIDANCE, SCHEDULER, STEPS, Sampler, finished

STRENGTH = 0.5


def restyle(
    embedding: str | Path,
    synthetic: str | Path,
    out: str | Path,
    *,
    model: str | Path = TINY,
    prompt: str = STYLE_PROMPT,
    negative: str = "",
    strength: float = STRENGTH,
    guidance: float = GUIDANCE,
    steps: int = STEPS,
    scheduler: str = SCHEDULER,
    size: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    format: str = "png",
    quality: int = 90,
    workers: int = 1,
    max_errors: int = MAX_ERRORS,
) -> Iterator[Progress]:
    """Write a restyled copy of ``synthetic`` with the same tree, keys and labels; yields progress.

    Images become squares of ``size`` pixels: the central square, resized, not stretched. OUT is as
    :func:`stylize.diffusion.generate.generate` makes it, each row with its source. Networks see one image at a time, so
    that no result depends on another image.

    Args:
        embedding: file, or folder of one per class, from :func:`stylize.diffusion.invert.invert`.
        synthetic: folder of images; fractals too.
        out: the folder to fill; new, empty, or an earlier run of the same configuration.
        model: see :func:`stylize.diffusion.pipeline.load_pipeline`.
        prompt: sentence with ``{token}``, and ``{class}`` where the labels are words that the model knows.
        negative: what the images should not show.
        strength: share of the noise levels, above 0 (nothing changes) to 1 (nothing is kept).
        guidance: scale of classifier-free guidance; 1 switches it off.
        steps: sampling steps of strength 1; ``strength`` of them are taken.
        scheduler: one of :data:`stylize.diffusion.pipeline.SCHEDULERS`.
        size: side in pixels; None: that of the model.
        seed: decides the noise of every image.
        device: e.g. ``cuda``.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        format: ``png``, ``jpeg`` or ``webp``.
        quality: 1 to 100, for JPEG and WebP.
        workers: processes of one thread each, for the CPU.
        max_errors: how many unreadable images are skipped and listed before the run stops.

    Raises:
        InputError: unsuitable embedding, model, scheduler, prompt or label; a number out of range; masks, which
            would no longer fit; see :class:`stylize.job.Job`.
    """
    check_format(format, quality)
    if not 0 < strength <= 1 or int(steps * strength) < 1:
        raise InputError(
            f"strength = {strength}, steps = {steps}: expected a strength above 0, at most 1, and at least one step of "
            "their product."
        )
    images, path = open_images(synthetic), Path(embedding)
    _check_masks(images)
    sampler = Sampler(model, path, device, dtype, scheduler, steps, guidance, negative)
    sampler.check()
    labels = {str(item.label): item.label for item in images} if "{class}" in prompt or path.is_dir() else {}
    prompts = {name: sampler.prompt(prompt, check_label(label)) for name, label in labels.items()}
    single = "" if prompts else sampler.prompt(prompt, "")
    items = {item.key: item for item in images}
    task = Restyle(sampler, items, prompts, single, sampler.size(size), strength, seed, format, quality)
    config = {
        "command": "restyle",
        "version": __version__,
        "images": content_digest(images),
        "prompt": prompt,
        "strength": strength,
        "size": task.size,
        "seed": seed,
        "format": format,
        "quality": None if format == "png" else quality,
        **sampler.describe(),
    }
    with Job(Path(out), config, {"synthetic": str(images.root), "model_name": str(model)}) as job:
        yield from job.run(task, list(items), workers=workers, shard_size=SHARD_SIZE, max_errors=max_errors)


@dataclass
class Restyle:
    """The shard task: read, sample from the noisy image, encode."""

    sampler: Sampler
    items: Mapping[str, Item]
    prompts: Mapping[str, str]
    single: str
    size: int
    strength: float
    seed: int
    format: str
    quality: int

    @cached_property
    def pipeline(self) -> Any:
        """The sampler's networks as an image-to-image pipeline."""
        kind = require_diffusers().StableDiffusionImg2ImgPipeline
        pipeline = kind(**self.sampler.pipeline.components, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "pipeline"}

    def __call__(self, keys: Sequence[str]) -> Iterator[Image | Failure]:
        """Yield one result per key."""
        for key in keys:
            try:
                pixels = fit(self.items[key].read(), self.size)
            except ImageError as error:
                yield Failure(key, str(error))
                continue
            yield self._restyle(self.items[key], pixels)

    def _restyle(self, item: Item, pixels: np.ndarray) -> Image | Failure:
        prompt = self.prompts.get(str(item.label), self.single)
        seed = seed_for(self.seed, "restyle", item.key) % 2**63
        start = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        options = self.sampler.options([prompt], [seed])
        image = self.pipeline(image=start, strength=self.strength, **options).images[0]
        label = {} if item.label is None else {"label": item.label}
        row = {"source": item.location, "prompt": prompt, "seed": seed, "strength": self.strength}
        return finished(item.key, image, label | row | self.sampler.describe(), self.format, self.quality)


def _check_masks(images: ImageSet) -> None:
    for item in images:
        if item.companions:
            raise InputError(
                f"{images.root}: {item.key} has {', '.join(item.companions)}, which would no longer fit the image: "
                "restyling redraws shapes. Use `stylize apply`, or remove the column from metadata.jsonl."
            )
