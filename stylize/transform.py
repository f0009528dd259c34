"""Styles as data augmentation: a transform for torchvision and albumentations, a dataset stylised as it is read.

Every draw comes from (seed, epoch, image), so that workers, their number and how they are started change no pixel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sized
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from metrics.errors import InputError
from metrics.image_sets.open import open_images
from metrics.seed import generator, seed_for
from metrics.threads import one_thread

from .styles import chosen
from .styles.bank import StyleBank, check_strength, learn, to_batch, to_image
from .styles.methods import stages

PHOTO_SIDE = 512  # of the crop that one photo's style is learnt from, at most


class Stylize(v2.Transform):  # type: ignore[misc]
    """Gives an image the look of a photo, one of the bank's at random; a transform of torchvision v2.

    Takes and returns PIL images, ``uint8 [3,H,W]`` tensors and ``uint8 [H,W,3]`` arrays; in a structure with boxes,
    masks or labels these stay as they are. Called by keywords, ``stylize(image=array)``, it answers as albumentations'
    transforms do. An image's style depends on the seed, the epoch and the image's own pixels.

    Args:
        style: a style file, a StyleBank, or a folder of photos to learn from.
        method: see ``stylize styles``; several are joined by ``+``.
        strength: 0 (unchanged) to 1 (all of the style's statistics). Without method and strength: the preset ``fast``.
        p: the share of images that are stylised.
        seed: decides every draw.

    Raises:
        InputError: unsuitable style, method, strength or p.
    """

    def __init__(
        self,
        style: str | Path | StyleBank,
        method: str | None = None,
        strength: float | None = None,
        p: float = 1.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.method, self.strength = chosen(method, strength)
        check_strength(self.strength)
        if not 0 <= p <= 1:
            raise InputError(f"p = {p:g}: expected the share of images to stylise, 0 to 1.")
        self.p, self.seed = p, seed
        self.bank = style if isinstance(style, StyleBank) else _bank(Path(style), self.method)
        self.bank.check_holds(self.method)
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers that live on see it change

    def set_epoch(self, epoch: int) -> None:
        """Draw anew, as with DistributedSampler: the same images get other styles; reaches running workers.

        Args:
            epoch: any number; the same one draws the same styles.
        """
        self._epoch[0] = epoch

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Stylise the images among ``inputs``, or the array that is named ``image``.

        Args:
            *inputs: an image, or a structure with images, as torchvision's transforms take it.
            **named: ``image`` and whatever else belongs to the sample, as albumentations' transforms take it.

        Returns:
            The same structure, or the same dictionary, with its images stylised.

        Raises:
            InputError: an image of another kind.
        """
        if named:
            return {**named, "image": self.apply_to(named["image"])}
        if len(inputs) == 1 and isinstance(inputs[0], np.ndarray):
            return self.apply_to(inputs[0])
        return super().forward(*inputs)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """One input of a structure, as torchvision calls it.

        Args:
            inpt: an image or anything else.
            params: of torchvision's own; none is used.

        Returns:
            The image stylised, anything else as it is.
        """
        is_image = isinstance(inpt, Image.Image | tv_tensors.Image) or type(inpt) is torch.Tensor
        return self.apply_to(inpt) if is_image else inpt

    def apply_to(self, image: Any, key: str | None = None) -> Any:
        """One image, stylised or, with probability 1 − p, as it is.

        Args:
            image: PIL, ``uint8 [3,H,W]`` tensor or ``uint8 [H,W,3]`` array.
            key: what its draws come from; None: its pixels.

        Returns:
            The result, of the image's own kind and size.

        Raises:
            InputError: anything else.
        """
        batch = _as_batch(image)
        key = hashlib.sha256(batch.cpu().numpy().tobytes()).hexdigest() if key is None else key
        key = f"{int(self._epoch)}/{key}"
        if generator(self.seed, "stylize p", key).random() >= self.p:
            return image
        plan = {key: seed_for(self.seed, "stylize style", key) % len(self.bank)}
        with one_thread():
            result = self.bank.transfer(batch, [key], self.strength, method=self.method, plan=plan)
        return _like(image, result)


class StylizedDataset(Dataset[Any]):
    """A dataset whose images are stylised as they are read; everything else of a sample stays as it is.

    The style of a sample depends on the seed, the epoch and its index.

    Args:
        dataset: a map-style dataset of images, of tuples that begin with one, or of mappings with the key ``image``.
        style: a style file, a StyleBank, or a folder of photos to learn from.
        method: see ``stylize styles``.
        strength: 0 to 1. Without method and strength: the preset ``fast``.
        p: the share of samples that are stylised.
        seed: decides every draw.

    Raises:
        InputError: a stream, or unsuitable style, method, strength or p.
    """

    def __init__(
        self,
        dataset: Any,
        style: str | Path | StyleBank,
        method: str | None = None,
        strength: float | None = None,
        p: float = 1.0,
        *,
        seed: int = 0,
    ) -> None:
        if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
            raise InputError(
                f"got a {type(dataset).__name__}. Expected a map-style dataset, with len() and []; for a stream, map "
                "stylize.Stylize over it."
            )
        self.dataset = dataset
        self.transform = Stylize(style, method, strength, p, seed=seed)

    def set_epoch(self, epoch: int) -> None:
        """See :meth:`Stylize.set_epoch`.

        Args:
            epoch: any number; the same one draws the same styles.
        """
        self.transform.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        index = index if index >= 0 else index + len(self)
        sample, key = self.dataset[index], str(index)
        if isinstance(sample, Mapping) and "image" in sample:
            return {**sample, "image": self.transform.apply_to(sample["image"], key)}
        if isinstance(sample, tuple | list):
            parts = [self.transform.apply_to(sample[0], key), *sample[1:]]
            return type(sample)(*parts) if hasattr(sample, "_fields") else type(sample)(parts)
        return self.transform.apply_to(sample, key)


def transfer(image: Any, photo: Any, method: str | None = None, strength: float | None = None, *, seed: int = 0) -> Any:
    """Give one image the look of one photo; see ``learn`` and ``apply`` for sets.

    Args:
        image: PIL, ``uint8 [3,H,W]`` tensor or ``uint8 [H,W,3]`` array.
        photo: the same, or a file.
        method: see ``stylize styles``.
        strength: 0 to 1. Without method and strength: the preset ``fast``.
        seed: decides what is drawn, such as synthesised texture.

    Returns:
        The result, of the image's own kind and size.

    Raises:
        InputError: unsuitable image, photo, method or strength.
    """
    method, strength = chosen(method, strength)
    check_strength(strength)
    pixels = _as_batch(open_images([Path(photo)])[0].read() if isinstance(photo, str | Path) else photo)
    side = min(PHOTO_SIDE, *pixels.shape[2:])
    bank = learn(
        open_images(pixels), methods=[name for name, _ in stages(method)], crops=1, size=max(16, side), seed=seed
    )
    with one_thread():
        return _like(image, bank.transfer(_as_batch(image), ["image"], strength, method=method))


@lru_cache(maxsize=4)
def _bank(style: Path, method: str) -> StyleBank:
    return learn(style, methods=[name for name, _ in stages(method)]) if style.is_dir() else StyleBank.load(style)


def _as_batch(image: Any) -> torch.Tensor:
    """Any image as ``uint8 [1,3,H,W]``."""
    if isinstance(image, Image.Image):
        return to_batch(np.array(image.convert("RGB")))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return to_batch(np.array(image))  # a copy: the array may be read-only
    if isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3:
        return image.as_subclass(torch.Tensor)[None]
    what = f"{image.dtype} {list(image.shape)}" if hasattr(image, "dtype") else f"a {type(image).__name__}"
    raise InputError(
        f"got {what}. Expected a PIL image, a tensor uint8 [3,H,W] or an array uint8 [H,W,3]: stylise before images "
        "become floats."
    )


def _like(image: Any, result: torch.Tensor) -> Any:
    """The batch ``uint8 [1,3,H,W]`` as an image of the kind of ``image``."""
    if isinstance(image, Image.Image):
        return Image.fromarray(to_image(result))
    if isinstance(image, np.ndarray):
        return to_image(result)
    return tv_tensors.wrap(result[0], like=image) if isinstance(image, tv_tensors.Image) else result[0]
