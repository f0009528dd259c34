"""Stylise an image set: balanced assignment of contents to styles, then one sharded pass over the set."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from metrics.errors import MAX_ERRORS, InputError
from metrics.extractors.extractor import check_device
from metrics.files import path_text, write_atomically
from metrics.image_sets.decode import ImageError, sha256
from metrics.image_sets.file_list import fixed_folder
from metrics.image_sets.items import BESIDE, ImageSet, Item
from metrics.image_sets.ledger import ledger_rows, write_ledger
from metrics.image_sets.open import open_images
from metrics.progress import Callback, iterates, silent, to_the_end
from metrics.registry import unknown

from ..engines.local import check_going_on, in_parallel
from ..styles import ASSIGNMENTS, chosen
from ..styles.assignment import assign, costs, descriptor
from ..styles.bank import StyleBank, check_strength, to_batch, to_image
from ..styles.methods import stages, style_method
from ..styles.methods.network import read_network
from ..styles.photos import check_losses
from ..version import __version__
from .encode import SUFFIXES, check_format, encode
from .job import SHARD_SIZE, Failure, Image, Job, Progress
from .manifest import carried
from .output_names import claim
from .size_limit import failure, read_for


@iterates
def iter_apply(
    style: str | Path,
    synthetic: Any,
    out: str | Path,
    *,
    method: str | None = None,
    strength: float | None = None,
    assignment: str = "balanced",
    network: str | Path | None = None,
    workers: int = 1,
    format: str = "png",
    quality: int = 90,
    device: str = "cpu",
    shard_size: int = SHARD_SIZE,
    max_errors: int = MAX_ERRORS,
    progress: Callback = silent,
) -> Iterator[Progress]:
    """Write a stylised copy of ``synthetic`` with the same tree, keys and labels.

    OUT gets the images, ``metadata.jsonl`` (every column of the input's, and the provenance of each image, see
    :func:`stylize.writing.manifest.carried`), copies of the masks and other companions that the input's
    ``metadata.jsonl`` names in columns ending in ``_file_name``, ``run.json`` (the configuration), ``ledger.json`` (the
    real photos behind the style) and, if items failed, ``errors.jsonl``. A run that was interrupted continues where it
    stopped. Workers, shard size and order never change a pixel.

    Args:
        style: a style bank, as :meth:`StyleBank.save` writes it.
        synthetic: a folder of images, or another source that :func:`metrics.image_sets.open.open_images` reads.
        out: the folder to fill; new, empty, or an earlier run of the same configuration.
        method: one of :data:`stylize.styles.methods.METHODS`, or several joined by ``+``.
        strength: 0 (unchanged) to 1 (all of the style's statistics). Without method and strength: the preset ``fast``.
        assignment: ``balanced`` (optimal transport between contents and styles) or ``random``.
        network: weights of the method ``network``, from ``stylize train``; None: those that come along.
        workers: processes of one thread each.
        format: ``png``, ``jpeg`` or ``webp``.
        quality: 1 to 100, for JPEG and WebP.
        device: where the transfer runs, e.g. ``cuda``.
        shard_size: images per shard, the unit of resuming.
        max_errors: how many unreadable images are skipped and listed before the run stops.
        progress: called with every step, too.

    Yields:
        How far the run is, at its start and after every shard.

    Raises:
        InputError: see :class:`stylize.writing.job.Job`; unknown method or format; strength or quality out of range.
    """
    method, strength = chosen(method, strength)
    check_network(method, network)
    check_strength(strength)
    if assignment not in ASSIGNMENTS:
        raise unknown("assignment", assignment, ASSIGNMENTS)
    check_format(format, quality)
    check_device(device)
    style, out = Path(style), Path(out)
    bank = StyleBank.load(style)
    bank.check_holds(method)
    images = open_contents(synthetic, out, max_errors)
    _claim(out, images, SUFFIXES[format])
    config = {
        "command": "apply",
        "version": __version__,
        "style": sha256(style),
        "images": content_digest(images),
        "method": method,
        "strength": strength,
        "assignment": assignment,
        "network": None if network is None else sha256(Path(network)),
        "format": format,
        "quality": None if format == "png" else quality,
    }
    with Job(out, config, {"synthetic": path_text(images.root)}, images) as job:
        if job.finished:
            yield job.summary
            return
        plan = job.remember("plan", lambda: make_plan(bank, images, assignment, workers, method))
        write_atomically(out / "ledger.json", write_ledger(ledger_rows(bank.header)))
        weights = None if network is None else Path(network)
        task = Stylise(style, images.root, method, strength, format, quality, device, weights)
        pairs = {item.key: (item, plan.get(item.key)) for item in images}
        yield from job.run(task, pairs, workers=workers, shard_size=shard_size, max_errors=max_errors)


apply = to_the_end(iter_apply)


def open_contents(source: Any, out: Path, max_errors: int) -> ImageSet:
    """The images of ``source``, of which ``out`` gets a copy; raises InputError if more than so many are lost."""
    images = open_images(source)
    check_losses(images.root, dict(images.losses), max_errors)
    check_outside(out, source)
    return images


def _claim(out: Path, images: ImageSet, suffix: str) -> None:
    beside = ((name, f"the {column} of {item.key}") for item in images for column, name in item.companions.items())
    claim(out, (item.key + suffix for item in images), beside)


def check_network(method: str, network: str | Path | None) -> None:
    """Raises InputError for an unknown method, or weights that the method does not use or that cannot be used."""
    trained = [name for name, _ in stages(method) if style_method(name).fallback]
    if network is None:
        return
    if not trained:
        raise InputError(f"{network}: the method {method} uses no network. Leave --network out, or: --method network")
    read_network(Path(network))


def check_outside(out: Path, source: Any) -> None:
    """Raises InputError if ``out`` lies in ``source``, a folder or pattern: the next run would read its results."""
    folder = source.root if isinstance(source, ImageSet) else source
    if not isinstance(folder, str | Path):
        return
    if not Path(folder).exists():
        folder = fixed_folder(str(folder))
    if not Path(folder).is_dir():
        return
    if Path(folder).resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"{out}: lies inside the input folder {folder}. Name an output folder outside it.")


def make_plan(
    bank: StyleBank, images: ImageSet, assignment: str = "balanced", workers: int = 1, method: str | None = None
) -> dict[str, int]:
    """The style index of every readable image of the set, except those that are too large for the method.

    ``balanced``: by :func:`stylize.styles.assignment.assign`; ``random``: each key's own draw.

    Args:
        bank: the styles.
        images: the contents.
        assignment: ``balanced`` or ``random``.
        workers: processes that describe the contents.
        method: whose largest image counts.

    Returns:
        A style by key.
    """
    if assignment == "random":
        return {item.key: bank.random_style(item.key) for item in images}
    chunks = [images.items[start : start + SHARD_SIZE] for start in range(0, len(images), SHARD_SIZE)]
    found: dict[str, np.ndarray] = {}
    for part in in_parallel(_Costs(bank.descriptors.numpy(), method), chunks, workers):
        found |= part
    keys = [item.key for item in images if item.key in found]
    if not keys:
        return {}
    styles = assign(np.stack([found[key] for key in keys]))
    return dict(zip(keys, styles.tolist(), strict=True))


def content_digest(images: ImageSet) -> str:
    """A digest of the set's files, labels and other columns: resuming on another input is refused."""
    digest = hashlib.sha256()
    for number, item in enumerate(images):
        row: list[Any] = [item.key, Path(item.location).suffix, item.label, _digest(item)]
        row += sorted(item.companions.items())
        columns = {name: value for name, value in carried(item, {}).items() if name != "label"}
        row += [columns] if columns else []
        digest.update(("\n" * (number > 0) + json.dumps(row, sort_keys=True)).encode())
    return digest.hexdigest()


def _digest(item: Item) -> str:
    try:
        return item.digest()
    except ImageError:  # the shard pass meets the image again and lists it
        return "unreadable"


@dataclass
class Stylise:
    """The shard task on pairs of an item and the index of its style: read, transfer, encode."""

    style: Path
    root: Path
    method: str
    strength: float
    format: str
    quality: int
    device: str
    network: Path | None = None

    @cached_property
    def bank(self) -> StyleBank:
        """Loaded once per process."""
        return StyleBank.load(self.style)

    def __call__(self, pairs: Sequence[tuple[Item, int | None]]) -> Iterator[Image | Failure]:
        """Yield one result per pair."""
        for item, index in pairs:
            try:
                yield self._stylise(item, index)
            except Exception as error:
                if (reason := failure(error)) is None:
                    raise
                yield Failure(item.key, reason)

    def _stylise(self, item: Item, index: int | None) -> Image:
        beside = {column: (name, item.load_companion(column)) for column, name in item.companions.items()}
        content = to_batch(read_for(item, self.method)).to(self.device)
        if index is None:
            raise ImageError("could not be read when styles were assigned, and can now; run again into a new folder")
        options: dict[str, Any] = {"method": self.method, "plan": {item.key: index}, "network": self.network}
        result = self.bank.transfer(content, [item.key], self.strength, **options)
        data = encode(to_image(result), self.format, self.quality)
        return Image(item.key, item.key + SUFFIXES[self.format], data, self._row(item, index), beside)

    def _row(self, item: Item, index: int) -> dict[str, Any]:
        own = {
            "source": _source(self.root, item),
            "style": dict(self.bank.sources[index]),
            "method": self.bank.painted(self.method, index, self.network),
            "strength": self.strength,
            "seed": self.bank.header["seed"],
            "version": __version__,
        }
        return carried(item, own)


def _source(root: Path, item: Item) -> str:
    """The image's name below the root: of a file, or of a member of an archive."""
    if isinstance(item.content, Path):
        return Path(os.path.relpath(item.content, root)).as_posix()
    return item.location.rpartition(BESIDE)[2]


@dataclass
class _Costs:
    """The costs ``float64 [M]`` of every readable content and the styles; much less to keep than descriptors."""

    styles: np.ndarray
    method: str | None

    def __call__(self, items: Sequence[Item]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for item in items:
            check_going_on()
            try:
                image = item.read() if self.method is None else read_for(item, self.method)
                described = descriptor(to_batch(image).float().div_(255)).numpy()
            except Exception as error:
                if failure(error) is None:
                    raise
                continue  # the shard pass meets it again and lists it
            found[item.key] = costs(described, self.styles)[0]
        return found
