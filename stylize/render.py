"""Render a labelled pattern dataset: an ImageFolder tree with one folder per class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metrics.errors import InputError

from . import __version__
from .data.encode import SUFFIXES, check_format, encode
from .job import SHARD_SIZE, Failure, Image, Job, Progress
from .patterns import load_family


def render_patterns(
    family: str,
    out: str | Path,
    *,
    classes: int = 10,
    per_class: int = 30,
    size: int = 256,
    seed: int = 0,
    workers: int = 1,
    format: str = "png",
    quality: int = 90,
    shard_size: int = SHARD_SIZE,
) -> Iterator[Progress]:
    """Write ``classes`` × ``per_class`` images of a pattern family; yields progress.

    Every image is a pure function of (family, seed, class, instance, size). OUT gets ``<class>/<instance>.png``,
    ``metadata.jsonl`` and ``run.json``. An interrupted run continues where it stopped.

    Args:
        family: a name in :data:`stylize.patterns.FAMILIES`.
        out: the folder to fill; new, empty, or an earlier run of the same configuration.
        classes: number of classes, at least 1.
        per_class: images per class, at least 1.
        size: side of the images in pixels, 16 to 8192.
        seed: decides every class and instance.
        workers: processes of one thread each.
        format: ``png``, ``jpeg`` or ``webp``.
        quality: 1 to 100, for JPEG and WebP.
        shard_size: images per shard, the unit of resuming.

    Raises:
        InputError: unknown family or format, a number out of range, or see :class:`stylize.job.Job`.
    """
    load_family(family)
    check_format(format, quality)
    if classes < 1 or per_class < 1:
        raise InputError(f"classes = {classes}, per_class = {per_class}: expected at least 1 of each.")
    if not 16 <= size <= 8192:
        raise InputError(f"size {size}: expected 16 to 8192 pixels.")
    config = {
        "command": "render",
        "version": __version__,
        "family": family,
        "classes": classes,
        "per_class": per_class,
        "size": size,
        "seed": seed,
        "format": format,
        "quality": None if format == "png" else quality,
    }
    keys = [f"{label:05d}/{instance:05d}" for label in range(classes) for instance in range(per_class)]
    with Job(Path(out), config) as job:
        task = Render(family, size, seed, format, quality)
        yield from job.run(task, keys, workers=workers, shard_size=shard_size)


@dataclass
class Render:
    """The shard task: sample the class once, render its instances."""

    family: str
    size: int
    seed: int
    format: str
    quality: int
    _classes: dict[int, Any] = field(default_factory=dict, repr=False)

    def __call__(self, keys: Sequence[str]) -> Iterator[Image | Failure]:
        """Yield one image per key ``<class>/<instance>``."""
        family = load_family(self.family)
        for key in keys:
            class_id, instance = map(int, key.split("/"))
            if class_id not in self._classes:
                self._classes[class_id] = family.sample_class(self.seed, class_id)
            image = family.render(self._classes[class_id], instance, self.size)
            row = {"label": key.split("/")[0], "family": self.family, "seed": self.seed, "class": class_id}
            data = encode(image, self.format, self.quality)
            yield Image(key, key + SUFFIXES[self.format], data, {**row, "instance": instance, "version": __version__})
