"""Pattern families as map-style PyTorch datasets: images are rendered when they are asked for.

``PatternDataset`` has one class per image, ``SegmentationDataset`` a mask (SegRCDB), ``MultiInstanceDataset`` a
multi-hot label (several fractals of Anderson and Farrell in one image).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from metrics.errors import InputError

from . import check_options, fractal_svd, load_family, render_with_mask
from ._plain_numbers import whole
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
        count = whole("classes", classes if self._given is None else len(self._given))
        self.instances, self.size, self.seed = whole("instances", instances), whole("size", size), whole("seed", seed)
        if count < 1 or self.instances < 1:
            raise InputError(f"classes = {count}, instances = {instances}: expected at least 1 of each.")
        self.transform, self.target_transform = transform, target_transform
        self.classes = [class_name(index) for index in range(count)]
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.targets = [index for index in range(count) for _ in range(instances)]
        self._sampled: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        label, instance = divmod(_position(index, len(self)), self.instances)
        pixels = load_family(self.family).render(self.parameters(label), instance, self.size)
        image, target = Image.fromarray(pixels), label
        sample = image if self.transform is None else self.transform(image)
        return sample, target if self.target_transform is None else self.target_transform(target)

    def parameters(self, label: int) -> Any:
        """The parameters of one class, searched for when first asked.

        Args:
            label: index of the class.

        Returns:
            An instance of the family's ``Parameters``.
        """
        if self._given is not None:
            return self._given[label]
        if label not in self._sampled:
            self._sampled[label] = load_family(self.family).sample_class(self.seed, label, **self.options)
        return self._sampled[label]


class SegmentationDataset(Dataset[tuple[Any, Any]]):
    """Images of one SegRCDB label set with the category of every pixel; like a segmentation set of torchvision.

    An item is ``(image, mask)``: PIL images in RGB and L, or what ``transforms`` makes of both. Label 0 is the
    background. An item depends on (family, seed, options, index, size) alone.

    Args:
        images: number of images.
        size: side in pixels.
        seed: decides the label set and every image.
        family: a family with masks, or a JSON file with one label set from ``stylize patterns``.
        options: of the family's ``sample_class``, e.g. ``{"mask": "ring", "categories": 20}``.
        transforms: ``(image, mask)`` to ``(sample, target)``, e.g. a joint transform of torchvision.

    Attributes:
        parameters: the label set.

    Raises:
        InputError: a family without masks, fewer than one image, or a family, option or file that is refused.
    """

    def __init__(
        self,
        images: int,
        size: int = 512,
        seed: int = 0,
        family: str | Path = "seg-contours",
        options: Mapping[str, Any] | None = None,
        transforms: Callable[[Image.Image, Image.Image], Any] | None = None,
    ) -> None:
        name, given = resolve_classes(family, None, options or {})
        self.family, self.transforms = load_family(name), transforms
        self.images, self.size = whole("images", images), whole("size", size)
        if not hasattr(self.family, "render_with_mask"):
            raise InputError(f"family {name} has no masks. Expected seg-contours.")
        if self.images < 1:
            raise InputError(f"images = {images}: expected at least 1.")
        self.parameters = given[0] if given else self.family.sample_class(seed, 0, **dict(options or {}))

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        pixels, mask = render_with_mask(self.family, self.parameters, _position(index, self.images), self.size)
        assert mask is not None
        image, target = Image.fromarray(pixels), Image.fromarray(mask)
        return (image, target) if self.transforms is None else self.transforms(image, target)


class MultiInstanceDataset(Dataset[tuple[Any, Any]]):
    """Images of one to ``most`` fractals each with a multi-hot label, float32 [classes], for binary cross entropy.

    Anderson & Farrell, "Improving Fractal Pre-training" (WACV 2022), section 3.3; see
    :func:`stylize.patterns.fractal_svd.render_many`. An item depends on (seed, classes, index, size) alone.

    Args:
        classes: number of classes to choose from.
        images: number of images.
        size: side in pixels.
        seed: decides every class and image.
        most: fractals in an image, at most.
        transform: PIL image to sample.

    Attributes:
        parameters: the classes.

    Raises:
        InputError: fewer than one class or image.
    """

    def __init__(
        self,
        classes: int,
        images: int,
        size: int = 224,
        seed: int = 0,
        most: int = 5,
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        self.images, self.size, self.seed = whole("images", images), whole("size", size), whole("seed", seed)
        self.most, self.transform = whole("most", most), transform
        if whole("classes", classes) < 1 or self.images < 1:
            raise InputError(f"classes = {classes}, images = {images}: expected at least 1 of each.")
        self.parameters = [fractal_svd.sample_class(self.seed, number) for number in range(classes)]

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        position = _position(index, self.images)
        pixels, label = fractal_svd.render_many(self.seed, position, self.parameters, self.size, most=self.most)
        image = Image.fromarray(pixels)
        return image if self.transform is None else self.transform(image), torch.from_numpy(label).float()


def _position(index: int, length: int) -> int:
    """A sequence's index, a whole number of any kind, as a position from 0.

    Returns:
        From 0 to one less than the length.

    Raises:
        IndexError: outside of the sequence.
        TypeError: no whole number.
    """
    index = operator.index(index)
    if not -length <= index < length:
        raise IndexError(f"index {index} of a dataset of {length} images")
    return index % length


def resolve_classes(family: str | Path, count: int | None, options: Mapping[str, Any]) -> tuple[str, list[Any] | None]:
    """(family, None) for a family's name; (family, its first ``count`` classes) for a JSON file of classes.

    Returns:
        The family's name, and the classes where a file has them.

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
