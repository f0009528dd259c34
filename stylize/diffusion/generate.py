"""Generate a labelled image set from class names: an ImageFolder, one seed per (class, index), resumable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metrics.errors import InputError
from metrics.progress import Callback, iterates, silent, to_the_end
from metrics.seed import seed_for

from ..version import __version__
from ..writing.encode import SUFFIXES, check_format
from ..writing.job import SHARD_SIZE, Failure, Image, Job, Progress
from ..writing.output_names import claim
from .prompts import PLAIN_PROMPT, PROMPT, read_classes
from .sampler import Sampler, finished


@iterates
def iter_generate(
    classes: str | Path,
    out: str | Path,
    sampler: Sampler,
    *,
    per_class: int = 100,
    prompt: str | None = None,
    batch: int = 8,
    seed: int = 0,
    format: str = "png",
    quality: int = 90,
    workers: int = 1,
    progress: Callback = silent,
) -> Iterator[Progress]:
    """Write ``per_class`` images of every class.

    OUT gets ``<class>/<index>.png``, ``metadata.jsonl`` (label, prompt, seed, sampling options, digests of model and
    embedding of each) and ``run.json``. An interrupted run continues where it stopped. An image's start and noise come
    from (seed, class, index) alone; shards are whole batches, so that resuming and workers keep every bit.

    Args:
        classes: text file with one class name a line, or an ImageFolder whose labels are meant.
        out: the folder to fill; new, empty, or an earlier run of the same configuration.
        sampler: model, embedding and sampling options.
        per_class: images per class, at least 1.
        prompt: sentence with ``{class}`` and ``{token}``; None: PROMPT with an embedding, else PLAIN_PROMPT.
        batch: images that the networks see at once. Rounding differs between batch sizes, so it is part of the run.
        seed: decides every image.
        format: ``png``, ``jpeg`` or ``webp``.
        quality: 1 to 100, for JPEG and WebP.
        workers: processes of one thread each, for the CPU.
        progress: called with every step, too.

    Yields:
        How far the run is, at its start and after every shard.

    Raises:
        InputError: unsuitable classes, embedding, model or prompt; two classes with one prompt; a number out of range;
            see :class:`stylize.writing.job.Job`.
    """
    names = read_classes(classes)
    check_format(format, quality)
    if per_class < 1 or batch < 1:
        raise InputError(f"per_class = {per_class}, batch = {batch}: expected at least 1 of each.")
    prompts = _prompts(sampler, prompt or (PLAIN_PROMPT if sampler.embedding is None else PROMPT), names)
    task = Generate(sampler, prompts, batch, seed, format, quality)
    config = {
        "command": "generate",
        "version": __version__,
        "prompts": prompts,
        "per_class": per_class,
        "size": sampler.side,
        "batch": batch,
        "seed": seed,
        "format": format,
        "quality": None if format == "png" else quality,
        **sampler.describe(),
    }
    keys = [f"{name}/{index:05d}" for name in names for index in range(per_class)]
    claim(Path(out), (f"{name}/{per_class - 1:05d}{SUFFIXES[format]}" for name in names))
    with Job(Path(out), config, {"model_name": str(sampler.model)}) as job:
        yield from job.run(task, keys, workers=workers, shard_size=-(-SHARD_SIZE // batch) * batch)


generate = to_the_end(iter_generate)


def _prompts(sampler: Sampler, template: str, names: Sequence[str]) -> dict[str, str]:
    """By class; labels would mean nothing if two classes had the same."""
    classes: dict[str, str] = {}
    for name in names:
        prompt = sampler.prompt(template, name)
        if prompt in classes:
            raise InputError(
                f"prompt {prompt!r}: is the same for the classes {classes[prompt]!r} and {name!r}, so their labels "
                "would mean nothing. Put {class} into the prompt, or rename a class."
            )
        classes[prompt] = name
    return {name: prompt for prompt, name in classes.items()}


@dataclass
class Generate:
    """The shard task: sample whole batches, encode."""

    sampler: Sampler
    prompts: Mapping[str, str]
    batch: int
    seed: int
    format: str
    quality: int

    def __call__(self, keys: Sequence[str]) -> Iterator[Image | Failure]:
        """Yield one result per key ``<class>/<index>``."""
        side = self.sampler.side
        for start in range(0, len(keys), self.batch):
            group = keys[start : start + self.batch]
            labels = [key.rpartition("/")[0] for key in group]
            seeds = [seed_for(self.seed, "generate", key) % 2**63 for key in group]
            options = self.sampler.options([self.prompts[label] for label in labels], seeds)
            images = self.sampler.pipeline(height=side, width=side, **options).images
            for key, label, seed, image in zip(group, labels, seeds, images, strict=True):
                row = {"label": label, "prompt": self.prompts[label], "seed": seed, **self.sampler.describe()}
                yield finished(key, image, row, self.format, self.quality)
