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

from metrics.errors import MAX_ERRORS, InputError
from metrics.files import path_text
from metrics.image_sets.decode import ImageError
from metrics.image_sets.items import ImageSet, Item
from metrics.progress import Callback, iterates, silent, to_the_end
from metrics.seed import seed_for

from ..version import __version__
from ..writing.apply import content_digest, open_contents
from ..writing.encode import SUFFIXES, check_format
from ..writing.job import SHARD_SIZE, Failure, Image, Job, Progress
from ..writing.manifest import carried
from ..writing.output_names import claim
from .denoising import fit
from .pipeline import require_diffusers
from .prompts import STYLE_PROMPT, check_label
from .sampler import Sampler, finished

STRENGTH = 0.5


@iterates
def iter_restyle(
    synthetic: str | Path,
    out: str | Path,
    sampler: Sampler,
    *,
    prompt: str = STYLE_PROMPT,
    strength: float = STRENGTH,
    seed: int = 0,
    format: str = "png",
    quality: int = 90,
    workers: int = 1,
    max_errors: int = MAX_ERRORS,
    progress: Callback = silent,
) -> Iterator[Progress]:
    """Write a restyled copy of ``synthetic`` with the same tree, keys and labels.

    Images become squares: the central square, resized, not stretched. OUT is as
    :func:`stylize.diffusion.generate.generate` makes it; each row has the columns of its source as well, see
    :func:`stylize.writing.manifest.carried`. Networks see one image at a time, so that no result depends on another
    image.

    Args:
        synthetic: folder of images; fractals too.
        out: the folder to fill; new, empty, or an earlier run of the same configuration.
        sampler: model, embedding and sampling options.
        prompt: sentence with ``{token}``, and ``{class}`` where the labels are words that the model knows.
        strength: share of the noise levels, above 0 (nothing changes) to 1 (nothing is kept).
        seed: decides the noise of every image.
        format: ``png``, ``jpeg`` or ``webp``.
        quality: 1 to 100, for JPEG and WebP.
        workers: processes of one thread each, for the CPU.
        max_errors: how many unreadable images are skipped and listed before the run stops.
        progress: called with every step, too.

    Yields:
        How far the run is, at its start and after every shard.

    Raises:
        InputError: unsuitable embedding, model, prompt or label; a number out of range; masks, which would no longer
            fit; OUT inside the input; see :class:`stylize.writing.job.Job`.
    """
    check_format(format, quality)
    images = open_contents(synthetic, Path(out), max_errors)
    _check(images, strength, sampler)
    claim(Path(out), (item.key + SUFFIXES[format] for item in images))
    by_class = "{class}" in prompt or sampler.class_wise
    labels = {item.label: check_label(item.label) if by_class else "" for item in images}
    prompts = {label: sampler.prompt(prompt, name) for label, name in labels.items()}
    task = Restyle(sampler, images.root, prompts, strength, seed, format, quality)
    config = {
        "command": "restyle",
        "version": __version__,
        "images": content_digest(images),
        "prompt": prompt,
        "strength": strength,
        "size": sampler.side,
        "seed": seed,
        "format": format,
        "quality": None if format == "png" else quality,
        **sampler.describe(),
    }
    with Job(Path(out), config, {"synthetic": path_text(images.root), "model_name": str(sampler.model)}, images) as job:
        items = {item.key: item for item in images}
        yield from job.run(task, items, workers=workers, shard_size=SHARD_SIZE, max_errors=max_errors)


restyle = to_the_end(iter_restyle)


@dataclass
class Restyle:
    """The shard task: read, sample from the noisy image, encode."""

    sampler: Sampler
    root: Path
    prompts: Mapping[str | int | None, str]
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

    def __call__(self, items: Sequence[Item]) -> Iterator[Image | Failure]:
        """Yield one result per item."""
        for item in items:
            try:
                pixels = fit(item.read(), self.sampler.side)
            except ImageError as error:
                yield Failure(item.key, str(error))
                continue
            yield self._restyle(item, pixels)

    def _restyle(self, item: Item, pixels: np.ndarray) -> Image | Failure:
        prompt, seed = self.prompts[item.label], seed_for(self.seed, "restyle", item.key) % 2**63
        start = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        options = self.sampler.options([prompt], [seed])
        image = self.pipeline(image=start, strength=self.strength, **options).images[0]
        source = item.location.removeprefix(f"{self.root}/")
        own = {"source": source, "method": "restyle", "prompt": prompt, "seed": seed, "strength": self.strength}
        return finished(item.key, image, carried(item, own | self.sampler.describe()), self.format, self.quality)


def _check(images: ImageSet, strength: float, sampler: Sampler) -> None:
    if not 0 < strength <= 1 or int(sampler.steps * strength) < 1:
        raise InputError(
            f"strength = {strength}, steps = {sampler.steps}: expected a strength above 0, at most 1, and at least one "
            "step of their product."
        )
    for item in images:
        if item.companions:
            raise InputError(
                f"{images.root}: {item.key} has {', '.join(item.companions)}, which would no longer fit the image: "
                "restyling redraws shapes. Use `stylize apply`, or remove the column from metadata.jsonl."
            )
