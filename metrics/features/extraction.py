"""Features of an image set: extraction that yields its progress, and a file format that refuses to mislead."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ..errors import InputError
from ..extractors.extractor import Extractor
from ..files import path_text
from ..image_sets.decode import MAX_PIXELS, ImageError
from ..image_sets.items import ImageSet, Item, content_digest
from ..image_sets.open import open_images
from ..memory import PixelBudget
from ..progress import Callback, Count, silent
from .cache import FeatureCache
from .identical import join_copies
from .tensor_file import write_tensors

SCHEMA = "reverse-stylize/features/1"
MOST_SILENT = 256  # images from the cache between two steps of progress


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of the images of one root that could be read, in the set's order, and where they come from.

    Attributes:
        features: ``float32 [N,D]`` on the CPU.
        keys: N of them, as of the images.
        labels: N of them.
        groups: N of them; images of one group are not independent.
        extractor: the extractor's name.
        fingerprint: of its weights and preprocessing.
        preprocessing: the extractor's own, for people.
        root: the set, as people know it.
        skipped: each whole image that belongs to the set and could not be had, and why.
        tags: N of them, or none where nothing is known about the images.
        photos: whole images that were read; 0: as many as rows.
        notes: what was passed over and is no image.
    """

    features: torch.Tensor
    keys: tuple[str, ...]
    labels: tuple[str | int | None, ...]
    groups: tuple[str, ...]
    extractor: str
    fingerprint: str
    preprocessing: Mapping[str, str]
    root: str
    skipped: tuple[tuple[str, str], ...] = ()
    tags: tuple[Mapping[str, str], ...] = ()
    photos: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def subset(self, rows: Sequence[int]) -> FeatureSet:
        """The features of some rows; ``skipped``, ``photos`` and ``notes`` stay as they are.

        Args:
            rows: their positions, in the order that is wanted.

        Returns:
            The set of these rows.
        """
        return replace(
            self,
            features=self.features[list(rows)],
            keys=tuple(self.keys[row] for row in rows),
            labels=tuple(self.labels[row] for row in rows),
            groups=tuple(self.groups[row] for row in rows),
            tags=tuple(self.tags[row] for row in rows) if self.tags else (),
        )

    def save(self, path: Path) -> None:
        """Write a ``.safetensors`` file: the facts in its header, one JSON record of all rows as a byte tensor.

        Args:
            path: the file to write; it is replaced in one step.
        """
        rows = {
            "keys": self.keys,
            "labels": self.labels,
            "groups": self.groups,
            "skipped": self.skipped,
            "tags": [dict(tags) for tags in self.tags],
            "photos": self.photos,
            "notes": self.notes,
        }
        packed = torch.frombuffer(bytearray(json.dumps(rows).encode()), dtype=torch.uint8)
        header = {
            "schema": SCHEMA,
            "extractor": self.extractor,
            "fingerprint": self.fingerprint,
            "preprocessing": json.dumps(dict(self.preprocessing)),
            "root": self.root,
        }
        write_tensors(path, {"features": self.features, "rows": packed}, header)

    @classmethod
    def load(cls, path: Path) -> FeatureSet:
        """Read what ``save`` wrote.

        Args:
            path: the file.

        Returns:
            The set that was saved.

        Raises:
            InputError: no such file, damaged, another schema, or rows that do not match the features.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such file. Expected a file that FeatureSet.save wrote.")
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                schema = header.get("schema")
                if schema != SCHEMA:
                    raise InputError(f"{path}: schema {schema!r}. Expected {SCHEMA!r}: extract the features again.")
                features, packed = file.get_tensor("features"), file.get_tensor("rows")
            rows = json.loads(packed.numpy().tobytes())
            result = cls(
                features,
                tuple(rows["keys"]),
                tuple(rows["labels"]),
                tuple(rows["groups"]),
                header["extractor"],
                header["fingerprint"],
                json.loads(header["preprocessing"]),
                header["root"],
                tuple((key, reason) for key, reason in rows["skipped"]),
                tuple(rows.get("tags", ())),
                int(rows.get("photos", 0)),
                tuple(map(str, rows.get("notes", ()))),
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: damaged feature file ({error}). Extract the features again.") from error
        lengths = {len(result.keys), len(result.labels), len(result.groups), len(result.tags or result.keys)}
        if features.ndim != 2 or features.dtype != torch.float32 or lengths != {len(features)}:
            raise InputError(f"{path}: damaged, its rows do not match its features. Extract the features again.")
        return result


@dataclass
class _Read:
    """An image that was read: the network's input, or its features where the cache had them."""

    item: Item
    digest: str
    prepared: torch.Tensor | None
    features: torch.Tensor | None


class Extraction:
    """The work of ``extract``: iterate it for its steps, then take ``result``."""

    def __init__(
        self, images: ImageSet, extractor: Extractor, batch_size: int, workers: int, cache: FeatureCache | None
    ) -> None:
        self._images, self._extractor, self._batch_size, self._workers = images, extractor, batch_size, workers
        self._cache, self._room = cache, PixelBudget(MAX_PIXELS)
        self._steps = self._run()
        self._result: FeatureSet | None = None

    def __len__(self) -> int:
        """How many images there are to read."""
        return len(self._images)

    def __iter__(self) -> Iterator[Count]:
        return self._steps

    @property
    def result(self) -> FeatureSet:
        """The features; whatever is left to do is done first."""
        for _ in self._steps:
            pass
        if self._result is None:
            raise RuntimeError("the extraction was stopped before its end, so it has no result")
        return self._result

    def _run(self) -> Iterator[Count]:
        kept: list[_Read] = []
        waiting: list[_Read] = []
        skipped = dict.fromkeys(self._images.losses)  # in order; the crops of a photo are lost together
        last = 0
        for done, (item, outcome) in enumerate(self._prepared(), 1):
            if isinstance(outcome, ImageError):
                skipped[item.photo, str(outcome)] = None
            else:
                kept.append(outcome)
                if outcome.features is None:
                    waiting.append(outcome)
            full = len(waiting) == self._batch_size or done == len(self)
            if full and waiting:
                self._forward(waiting)
                waiting = []
            if full or done - last == MOST_SILENT:
                last = done
                yield Count("features", done, len(self))
        self._result = self._collected(kept, list(skipped))

    def _collected(self, kept: list[_Read], skipped: list[tuple[str, str]]) -> FeatureSet:
        if not kept:
            first = f" The first of {len(skipped)}: {skipped[0][0]}: {skipped[0][1]}." if skipped else ""
            raise InputError(f"{self._images.root}: no image could be read.{first} Expected at least one.")
        photos = [read.item.photo for read in kept]
        groups, told = join_copies([read.item.group for read in kept], photos, [read.digest for read in kept])
        return FeatureSet(
            torch.stack([read.features for read in kept if read.features is not None]),
            tuple(read.item.key for read in kept),
            tuple(read.item.label for read in kept),
            groups,
            self._extractor.name,
            self._extractor.fingerprint,
            self._extractor.preprocessing,
            path_text(self._images.root),
            tuple(skipped),
            tuple(read.item.tags for read in kept),
            len(set(photos)),
            (*self._images.notes, *((told,) if told else ())),
        )

    def _forward(self, waiting: list[_Read]) -> None:
        """Fill in the features of a batch, and keep them in the cache."""
        features = self._extractor.forward(torch.cat([read.prepared for read in waiting if read.prepared is not None]))
        features = features.cpu()
        finite = torch.isfinite(features).all(1).tolist()
        bad = [read.item.location for read, fine in zip(waiting, finite, strict=True) if not fine]
        if bad:
            raise InputError(
                f"{self._extractor.name} gives NaN or infinite features for {', '.join(bad)}. "
                "Remove these files, or check the weights."
            )
        for read, row in zip(waiting, features, strict=True):
            read.features, read.prepared = row, None
        if self._cache is not None:
            entries = [(read.digest, read.item.crop, row) for read, row in zip(waiting, features, strict=True)]
            self._cache.put(self._extractor.fingerprint, entries)

    def _prepared(self) -> Iterator[tuple[Item, _Read | ImageError]]:
        """Every item in order, read by threads at most one batch ahead of the network."""
        pending: deque[tuple[Item, Future[_Read | ImageError]]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="read-images")
        try:
            for item in self._images:
                pending.append((item, pool.submit(self._read, item)))
                if len(pending) == self._batch_size + self._workers:
                    first, future = pending.popleft()
                    yield first, future.result()
            for item, future in pending:
                yield item, future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, item: Item) -> _Read | ImageError:
        try:
            loaded = item.load()  # once, so that the digest is that of the pixels
            digest = content_digest(loaded)
            known = None if self._cache is None else self._cache.get(self._extractor.fingerprint, digest, item.crop)
            if known is not None:
                return _Read(item, digest, None, known)
            width, height = item.dimensions(loaded)
            with self._room.hold(width * height):
                return _Read(item, digest, self._prepare(item.pixels(loaded)), None)
        except ImageError as error:
            return error

    def _prepare(self, image: np.ndarray) -> torch.Tensor:
        return self._extractor.prepare(torch.tensor(image).permute(2, 0, 1)[None])


def iter_extract(
    images: Any,
    extractor: Extractor,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    cache: FeatureCache | None = None,
) -> Extraction:
    """The work of :func:`extract` as an iterable of steps.

    ::

        work = iter_extract("photos", load_extractor())
        for step in work:
            bar.update(step.done)
        features = work.result

    Args:
        images: as :func:`extract` takes them.
        extractor: of :func:`metrics.extractors.load_extractor`.
        batch_size: images per forward pass.
        workers: threads that read images; None: one for every processor, at most 8.
        cache: keeps features for the next run.

    Returns:
        An iterable of steps, whose ``result`` is there after the last.

    Raises:
        InputError: as :func:`extract`, while it is iterated.
    """
    if batch_size < 1 or (workers is not None and workers < 1):
        raise InputError(f"got batch_size={batch_size}, workers={workers}. Expected at least 1 of each.")
    return Extraction(open_images(images), extractor, batch_size, workers or min(8, os.cpu_count() or 1), cache)


def extract(
    images: Any,
    extractor: Extractor,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    cache: FeatureCache | None = None,
    progress: Callback = silent,
) -> FeatureSet:
    """Extract the features of ``images``; the sizes of the images may differ.

    Features are those of an uninterrupted run whatever ``workers`` is, to the bit; ``batch_size``, the order of the set
    and torch's own threads change them by float32 rounding only (1e-6 of a feature vector's length). An image that
    cannot be read is left out and listed in ``skipped``.

    With a ``cache``, images whose features are known are hashed, not decoded, and take no part in a batch; the rest are
    computed and kept. Features are then those of the run that computed them, bit for bit; as batches of the rest
    are composed otherwise, these differ by the same rounding as with another ``batch_size``.

    Args:
        images: whatever :func:`metrics.image_sets.open.open_images` takes.
        extractor: from :func:`metrics.extractors.load_extractor`.
        batch_size: images per forward pass.
        workers: threads (default: one per core, at most 8) that decode and resize ahead of the network, at most
            ``batch_size + workers`` images, and hold MAX_PIXELS decoded pixels between them at a time.
        cache: keeps features for the next run.
        progress: called with every step.

    Returns:
        Features ``float32 [N,D]`` with the keys, labels and groups of their images.

    Raises:
        InputError: no image could be read, or features are NaN or infinite (the files are named).
    """
    work = iter_extract(images, extractor, batch_size=batch_size, workers=workers, cache=cache)
    for step in work:
        progress(step)
    return work.result


def check_comparable(a: FeatureSet, b: FeatureSet) -> None:
    """Refuse two feature sets whose numbers do not mean the same.

    Args:
        a: one set.
        b: the other.

    Raises:
        InputError: the extractors' fingerprints differ; says in what.
    """
    if a.fingerprint == b.fingerprint:
        return
    ours, theirs = ({"extractor": s.extractor, **s.preprocessing} for s in (a, b))
    differences = [
        f"{key} {ours.get(key)!r} and {theirs.get(key)!r}"
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    ]
    raise InputError(
        f"features of {a.root} and {b.root} cannot be compared: fingerprints {a.fingerprint} and {b.fingerprint}, "
        f"{'; '.join(differences) or 'same preprocessing, other weights'}. Extract both with one extractor."
    )
