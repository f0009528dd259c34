"""A pattern family as a map-style PyTorch dataset: images are rendered when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from metrics.errors import InputError

from . import check_options, load_family
from .class_json import from_json


class PatternDataset(Dataset[tuple[Any, Any]]):
    """``classes`` × ``instances`` images of a family, like ``torchvision.datasets.ImageFolder`` without files.

    An item is ``(sample, target)``: a PIL image in RGB, or what ``transform`` makes of it, and the class index, or what
    ``target_transform`` makes of that. An image depends on (family, seed, class, instance, size) alone, so any number
    of DataLoader workers and any order give the same data.

    Args:
        family: a name in :data:`stylize.patterns.FAMILIES`, or a JSON file of classes from ``stylize patterns``.
        classes: number of classes; None takes all of a JSON file.
        instances: images per class.
        size: side in pixels.
        seed: decides every class and instance; a JSON file brings its own.
        options: of the family's ``sample_class``; a JSON file has its classes already.
        transform: PIL image to sample, e.g. a torchvision transform.
        target_transform: class index to target.

    Attributes:
        classes: class names, as folders of ``stylize render`` are named.
        class_to_idx: class name to index.
        targets: class index of every item, without rendering it.

    Raises:
        InputError: unknown family, fewer than one class or instance, or more classes than the file has.
    """

    def __init__(
        self,
        family: str | Path,
        classes: int | None = None,
        instances: int = 100,
        size: int = 256,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ) -> None:
        self.options = dict(options or {})
        self.family, self._given = resolve_classes(family, classes, self.options)
        count = classes if self._given is None else len(self._given)
        if count is None or count < 1 or instances < 1:
            raise InputError(f"classes = {count}, instances = {instances}: expected at least 1 of each.")
        self.instances, self.size, self.seed = instances, size, seed
        self.transform, self.target_transform = transform, target_transform
        self.classes = [class_name(index) for index in range(count)]
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.targets = [index for index in range(count) for _ in range(instances)]
        self._sampled: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a dataset of {len(self)} images")
        label, instance = divmod(index % len(self), self.instances)
        pixels = load_family(self.family).render(self.parameters(label), instance, self.size)
        image, target = Image.fromarray(pixels), label
        sample = image if self.transform is None else self.transform(image)
        return sample, target if self.target_transform is None else self.target_transform(target)

    def parameters(self, label: int) -> Any:
        """The parameters of one class, searched for when first asked."""
        if self._given is not None:
            return self._given[label]
        if label not in self._sampled:
            self._sampled[label] = load_family(self.family).sample_class(self.seed, label, **self.options)
        return self._sampled[label]


def resolve_classes(family: str | Path, count: int | None, options: Mapping[str, Any]) -> tuple[str, list[Any] | None]:
    """(family, None) for a family's name; (family, its first ``count`` classes) for a JSON file of classes.

    Raises:
        InputError: unknown family or option, options for a file, or a file that is missing, damaged or has too few
            classes.
    """
    if Path(family).suffix != ".json":
        check_options(str(family), options)
        return str(family), None
    path = Path(family)
    if options:
        raise InputError(f"{path}: its classes are fixed; got options {', '.join(options)}. Leave them out.")
    if not path.is_file():
        raise InputError(f"{path}: no such file. Write one with: stylize patterns FAMILY --classes 10 > {path}")
    name, classes = from_json(path.read_bytes())
    if count is not None and not 1 <= count <= len(classes):
        raise InputError(f"{path}: {count} classes were asked for; expected 1 to {len(classes)}, as many as it has.")
    return name, classes[:count]


def class_name(index: int) -> str:
    """The name and folder of a class."""
    return f"{index:05d}"
