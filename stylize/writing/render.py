"""Render a labelled pattern dataset: an ImageFolder tree with one folder per class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.errors import InputError
from metrics.image_sets.decode import sha256
from metrics.progress import Callback, iterates, silent, to_the_end

from ..patterns import load_family, render_with_mask
from ..patterns.dataset import class_name, resolve_classes
from ..version import __version__
from .encode import SUFFIXES, check_format, encode
from .job import SHARD_SIZE, Failure, Image, Job, Progress
from .output_names import claim

if TYPE_CHECKING:
    import torch

MOST = 20_000_000  # images in one folder: their names alone fill some gigabytes of memory

MAX_SIDE = 8192
SIDES = {  # of the families that need more memory per pixel than others, by benchmarks/memory.py
    "neural-fractal": 5000,
    "fractal-svd": 6600,
    "one-image": 3840,
    "spectrum-noise": 2800,
    "moire": 7000,
}


@iterates
def iter_render(
    family: str | Path,
    out: str | Path,
    *,
    classes: int | None = None,
    per_class: int = 30,
    size: int = 256,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    workers: int = 1,
    format: str = "png",
    quality: int = 90,
    device: str = "cpu",
    shard_size: int = SHARD_SIZE,
    progress: Callback = silent,
) -> Iterator[Progress]:
    """Write ``classes`` × ``per_class`` images of a pattern family.

    Every image is a pure function of (family, seed, class, instance, size). OUT gets ``<class>/<instance>.png``,
    ``metadata.jsonl`` and ``run.json``; a family with masks (seg-contours) also ``masks/<class>/<instance>.png``, 8-bit
    grey with the label of each pixel, named in the column ``mask_file_name`` of ``metadata.jsonl``. An interrupted run
    continues where it stopped.

    Args:
        family: a name in :data:`stylize.patterns.FAMILIES`, or a JSON file of classes from ``stylize patterns``.
        out: the folder to fill; new, empty, or an earlier run of the same configuration.
        classes: number of classes, at least 1; by default 10, or all of a JSON file.
        per_class: images per class, at least 1.
        size: side of the images in pixels, 16 to 8192, for some families less: see SIDES.
        seed: decides every class and instance; a JSON file brings its own.
        options: of the family's ``sample_class``, e.g. ``{"activation": "holomorphic"}``.
        workers: processes of one thread each.
        format: ``png``, ``jpeg`` or ``webp``.
        quality: 1 to 100, for JPEG and WebP.
        device: where images are drawn, e.g. ``cuda``, shard by shard in one process; but for moire and spectrum-noise,
            which may differ by a level of 255, the bytes are those of the CPU.
        shard_size: images per shard, the unit of resuming.
        progress: called with every step, too.

    Yields:
        How far the run is, at its start and after every shard.

    Raises:
        InputError: unknown family or format, a number out of range, or see :class:`stylize.writing.job.Job`.
    """
    name, given = resolve_classes(family, classes, options or {})
    classes = len(given) if given is not None else 10 if classes is None else classes
    check_format(format, quality)
    _check_device(name, device)
    if classes < 1 or per_class < 1:
        raise InputError(f"classes = {classes}, per_class = {per_class}: expected at least 1 of each.")
    if classes * per_class > MOST:
        raise InputError(
            f"classes = {classes}, per_class = {per_class}: {classes * per_class} images. Expected at most {MOST} in "
            "one folder."
        )
    most = SIDES.get(name, MAX_SIDE)
    if not 16 <= size <= most:
        raise InputError(f"size {size}: expected 16 to {most} pixels, with which a worker of {name} stays below 2 GB.")
    config = {
        "command": "render",
        "version": __version__,
        "family": name,
        "parameters": None if given is None else sha256(Path(family)),
        "options": dict(options or {}),
        "classes": classes,
        "per_class": per_class,
        "size": size,
        "seed": seed if given is None else None,
        "format": format,
        "quality": None if format == "png" else quality,
        **({} if device == "cpu" else {"device": device.partition(":")[0]}),
    }
    keys = [f"{class_name(label)}/{instance:05d}" for label in range(classes) for instance in range(per_class)]
    claim(Path(out), [f"{class_name(classes - 1)}/{per_class - 1:05d}{SUFFIXES[format]}"])
    with Job(Path(out), config) as job:
        task = Render(name, size, seed, dict(options or {}), format, quality, device, dict(enumerate(given or ())))
        yield from job.run(task, keys, workers=workers if device == "cpu" else 1, shard_size=shard_size)


render = to_the_end(iter_render)


@dataclass
class Render:
    """The shard task: sample a class once, or take it as given, and render its instances."""

    family: str
    size: int
    seed: int
    options: Mapping[str, Any]
    format: str
    quality: int
    device: str = "cpu"
    classes: dict[int, Any] = field(default_factory=dict)

    def __call__(self, keys: Sequence[str]) -> Iterator[Image | Failure]:
        """Yield one image per key ``<class>/<instance>``."""
        family = load_family(self.family)
        for class_id, group in groupby(keys, lambda key: int(key.split("/")[0])):
            if class_id not in self.classes:
                self.classes[class_id] = family.sample_class(self.seed, class_id, **self.options)
            instances = [int(key.split("/")[1]) for key in group]
            images = self._images(family, self.classes[class_id], instances)
            for instance, (image, mask) in zip(instances, images, strict=True):
                key = f"{class_name(class_id)}/{instance:05d}"
                data = encode(image, self.format, self.quality)
                companions = {} if mask is None else {"mask_file_name": (f"masks/{key}.png", encode(mask))}
                yield Image(key, key + SUFFIXES[self.format], data, self._row(class_id, instance), companions)

    def _images(
        self, family: Any, params: Any, instances: Sequence[int]
    ) -> Iterable[tuple[np.ndarray, np.ndarray | None]]:
        """Image and mask of every instance: one after the other on the CPU, all at once on another device."""
        if self.device == "cpu":
            return (render_with_mask(family, params, instance, self.size) for instance in instances)
        if hasattr(family, "render_with_mask_torch"):
            drawn, masks = family.render_with_mask_torch(params, instances, self.size, self.device)
            return zip(_as_images(drawn), masks.cpu().numpy(), strict=True)
        drawn = family.render_torch(params, instances, self.size, self.device)
        return ((image, None) for image in _as_images(drawn))

    def _row(self, class_id: int, instance: int) -> dict[str, Any]:
        params = self.classes[class_id]
        draws = {"draws": params.draws} if hasattr(params, "draws") else {}
        origin = {"family": self.family, "seed": params.seed, "class": params.class_id, "instance": instance}
        return {"label": class_name(class_id), **origin, **draws, "version": __version__}


def _as_images(batch: torch.Tensor) -> np.ndarray:
    """``uint8 [N,3,S,S]`` to ``uint8 [N,S,S,3]``."""
    return batch.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _check_device(name: str, device: str) -> None:
    if device == "cpu":
        return
    from metrics.extractors.extractor import check_device

    check_device(device)
    if not hasattr(load_family(name), "render_torch"):
        raise InputError(f"{name} is drawn on the CPU alone. Leave --device out.")
