"""Generate a labelled image set from class names: an ImageFolder, one seed per (class, index), resumable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metrics.errors import InputError
from metrics.seed import seed_for

from .. import __version__
from ..data.encode import check_format
from ..job import SHARD_SIZE, Failure, Image, Job, Progress
from .pipeline import TINY
from .prompts import PLAIN_PROMPT, PROMPT, read_classes
from .sampler import GUIDANCE, SCHEDULER, STEPS, Sampler, finished


def generate(
    classes: str | Path,
    out: str | Path,
    *,
    per_class: int = 100,
    embedding: str | Path | None = None,
    model: str | Path = TINY,
    prompt: str | None = None,
    negative: str = "",
    guidance: float = GUIDANCE,
    steps: int = STEPS,
    scheduler: str = SCHEDULER,
    size: int | None = None,
    batch: int = 8,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    format: str = "png",
    quality: int = 90,
    workers: int = 1,
) -> Iterator[Progress]:
    """Write ``per_class`` images of every class; yields progress.

    OUT gets ``<class>/<index>.png``, ``metadata.jsonl`` (label, prompt, seed, sampling options, digests of model and
    embedding of each) and ``run.json``. An interrupted run continues where it stopped. An image's start and noise come
    from (seed, class, index) alone; shards are whole batches, so that resuming and workers keep every bit.

    Args:
        classes: text file with one class name a line, or an ImageFolder whose labels are meant.
        out: the folder to fill; new, empty, or an earlier run of the same configuration.
        per_class: images per class, at least 1.
        embedding: file from :func:`stylize.diffusion.invert.invert`; a folder of them, one per class, from its mode
            ``class-wise``; None: no placeholder.
        model: see :func:`stylize.diffusion.pipeline.load_pipeline`.
        prompt: sentence with ``{class}`` and ``{token}``; None: PROMPT with an embedding, else PLAIN_PROMPT.
        negative: what the images should not show.
        guidance: scale of classifier-free guidance; 1 switches it off.
        steps: sampling steps.
        scheduler: one of :data:`stylize.diffusion.pipeline.SCHEDULERS`.
        size: side in pixels; None: that of the model.
        batch: images that the networks see at once. Rounding differs between batch sizes, so it is part of the run.
        seed: decides every image.
        device: e.g. ``cuda``.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        format: ``png``, ``jpeg`` or ``webp``.
        quality: 1 to 100, for JPEG and WebP.
        workers: processes of one thread each, for the CPU.

    Raises:
        InputError: unsuitable classes, embedding, model, scheduler or prompt; a number out of range; see
            :class:`stylize.job.Job`.
    """
    names = read_classes(classes)
    check_format(format, quality)
    if per_class < 1 or batch < 1:
        raise InputError(f"per_class = {per_class}, batch = {batch}: expected at least 1 of each.")
    path = None if embedding is None else Path(embedding)
    sampler = Sampler(model, path, device, dtype, scheduler, steps, guidance, negative)
    sampler.check()
    template = prompt or (PLAIN_PROMPT if embedding is None else PROMPT)
    prompts = {name: sampler.prompt(template, name) for name in names}
    task = Generate(sampler, prompts, sampler.size(size), batch, seed, format, quality)
    config = {
        "command": "generate",
        "version": __version__,
        "prompts": prompts,
        "per_class": per_class,
        "size": task.size,
        "batch": batch,
        "seed": seed,
        "format": format,
        "quality": None if format == "png" else quality,
        **sampler.describe(),
    }
    keys = [f"{name}/{index:05d}" for name in names for index in range(per_class)]
    with Job(Path(out), config, {"model_name": str(model)}) as job:
        yield from job.run(task, keys, workers=workers, shard_size=-(-SHARD_SIZE // batch) * batch)


@dataclass
class Generate:
    """The shard task: sample whole batches, encode."""

    sampler: Sampler
    prompts: Mapping[str, str]
    size: int
    batch: int
    seed: int
    format: str
    quality: int

    def __call__(self, keys: Sequence[str]) -> Iterator[Image | Failure]:
        """Yield one result per key ``<class>/<index>``."""
        for start in range(0, len(keys), self.batch):
            group = keys[start : start + self.batch]
            labels = [key.rpartition("/")[0] for key in group]
            seeds = [seed_for(self.seed, "generate", key) % 2**63 for key in group]
            options = self.sampler.options([self.prompts[label] for label in labels], seeds)
            images = self.sampler.pipeline(height=self.size, width=self.size, **options).images
            for key, label, seed, image in zip(group, labels, seeds, images, strict=True):
                row = {"label": label, "prompt": self.prompts[label], "seed": seed, **self.sampler.describe()}
                yield finished(key, image, row, self.format, self.quality)
