"""Image sets behind ``torch.utils.data``: datasets and loaders of images, or of (image, label) pairs."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .arrays import in_memory, one_image, row_keys
from .decode import ImageError, one_line
from .items import BESIDE, ImageSet, Item

MOST = 4 * 2**30  # bytes of images kept in memory for a loader that can only be iterated
_ONE_AT_A_TIME = threading.Lock()  # datasets need not be safe for threads
_IMAGE_KEYS = ("image", "img", "pixel_values")


@dataclass(frozen=True, eq=False)
class DatasetImage:
    """The image of one index of a map-style dataset."""

    dataset: Any
    index: int
    location: str

    def load(self) -> np.ndarray:
        """The image, as the dataset gives it now; raises ImageError."""
        try:
            with _ONE_AT_A_TIME:
                sample = self.dataset[self.index]
            return one_image(image_of(sample))
        except ImageError:
            raise
        except Exception as error:  # a dataset is anybody's code
            raise ImageError(f"the dataset raised {type(error).__name__} ({one_line(error)})") from error


def is_dataset(source: Any) -> bool:
    """Whether ``source`` is a torch dataset or loader."""
    from torch.utils.data import DataLoader, Dataset

    return isinstance(source, Dataset | DataLoader)


def open_dataset(source: Any) -> ImageSet:
    """The images of a map-style dataset by index, or of a loader.

    A loader that visits its whole dataset in any order, with torch's own collation, is read as its dataset. Any other
    loader, and a dataset that can only be iterated, is iterated once and its images kept in memory.
    Labels come from ``targets`` where the dataset has them (torchvision); else every pair is read once for its label.

    Returns:
        The images in the order of the dataset.

    Raises:
        InputError: empty, float images, or a loader of more than 4 GiB.
    """
    from torch.utils.data import DataLoader, IterableDataset

    if isinstance(source, DataLoader):
        return (
            open_dataset(source.dataset)
            if _is_plain(source)
            else _held(source, batched=source.batch_sampler is not None)
        )
    if isinstance(source, IterableDataset):
        return _held(source, batched=False)
    return _indexed(source)


def image_of(sample: Any) -> Any:
    """The image of a sample: itself, the first of a tuple, or a dictionary's entry."""
    if isinstance(sample, Mapping):
        name = next((name for name in _IMAGE_KEYS if name in sample), None)
        if name is None:
            raise InputError(
                f"got samples with {', '.join(map(str, sample))}. Expected one of {', '.join(_IMAGE_KEYS)}."
            )
        return sample[name]
    return sample[0] if isinstance(sample, tuple | list) else sample


def _indexed(dataset: Any) -> ImageSet:
    name = f"({type(dataset).__name__} of {len(dataset)})"
    if not len(dataset):
        raise InputError(f"{name}: empty. Expected at least one image.")
    first = dataset[0]
    one_image(image_of(first))  # a dataset of floats is refused before any work
    keys = row_keys(len(dataset))
    items = []
    for index, (key, label) in enumerate(zip(keys, _labels(dataset, first), strict=True)):
        items.append(Item(key, DatasetImage(dataset, index, f"{name}{BESIDE}{key}"), label, key))
    return ImageSet(Path(name), items)


def _is_plain(loader: Any) -> bool:
    """Whether a loader only shuffles and batches: its dataset then holds the same images."""
    from torch.utils.data import BatchSampler, IterableDataset, RandomSampler, SequentialSampler, default_collate
    from torch.utils.data.dataloader import default_convert

    if isinstance(loader.dataset, IterableDataset) or loader.drop_last:
        return False
    sampler, batches = loader.sampler, loader.batch_sampler
    if batches is not None and not (type(batches) is BatchSampler and batches.sampler is sampler):
        return False
    whole = isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, RandomSampler) and not sampler.replacement and len(sampler) == len(loader.dataset)
    )
    return whole and loader.collate_fn in (default_collate, default_convert)


def _held(source: Any, *, batched: bool) -> ImageSet:
    images: list[np.ndarray] = []
    labels: list[str | int | None] = []
    total = 0
    for sample in source:
        for image, label in _unbatched(sample) if batched else [(image_of(sample), _label_of(sample))]:
            images.append(np.array(one_image(image)))
            labels.append(label)
            total += images[-1].nbytes
        if total > MOST:
            raise InputError(
                f"{type(source).__name__}: more than {MOST // 2**30} GiB of images, which can only be kept in memory. "
                "Pass a map-style Dataset: its images are read one by one."
            )
    name = f"({type(source).__name__} of {len(images)})"
    if not images:
        raise InputError(f"{name}: empty. Expected at least one image.")
    items = in_memory(name, images)
    return ImageSet(Path(name), [replace(item, label=label) for item, label in zip(items, labels, strict=True)])


def _unbatched(batch: Any) -> list[tuple[Any, str | int | None]]:
    images = image_of(batch)
    labels = batch.get("label") if isinstance(batch, Mapping) else batch[1] if _is_pair(batch) else None
    return [(image, None if labels is None else _plain(labels[row])) for row, image in enumerate(images)]


def _labels(dataset: Any, first: Any) -> Sequence[str | int | None]:
    known = _targets(dataset)
    if known is not None and len(known) == len(dataset):
        return [_plain(label) for label in known]
    if _label_of(first) is None:
        return [None] * len(dataset)
    return [_label_of(dataset[index]) for index in range(len(dataset))]


def _targets(dataset: Any) -> Sequence[Any] | None:
    from torch.utils.data import Subset

    if isinstance(dataset, Subset):
        inner = _targets(dataset.dataset)
        return None if inner is None else [inner[index] for index in dataset.indices]
    return getattr(dataset, "targets", None)


def _is_pair(sample: Any) -> bool:
    return isinstance(sample, tuple | list) and len(sample) > 1


def _label_of(sample: Any) -> str | int | None:
    if isinstance(sample, Mapping):
        return _plain(sample.get("label"))
    return _plain(sample[1]) if _is_pair(sample) else None


def _plain(label: Any) -> str | int | None:
    """A label as text or whole number; None for anything else, such as boxes or soft labels."""
    if hasattr(label, "item") and getattr(label, "ndim", 0) == 0:
        label = label.item()
    return label if isinstance(label, str | int) else None
