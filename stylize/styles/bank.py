"""A style bank: statistics of crops of real photos, learnt once, saved in one small file, moved onto any image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metrics.errors import MAX_ERRORS, InputError
from metrics.extractors.float_precision import ieee_float32
from metrics.image_sets.items import ImageSet
from metrics.image_sets.ledger import check_allowed, licences
from metrics.image_sets.open import open_images
from metrics.seed import seed_for
from metrics.threads import one_thread

from . import DEFAULT_METHOD, LEARNT, style_file
from .assignment import colours, descriptor
from .flat import is_flat, with_mean
from .gamut import soft_gamut
from .methods import MethodModule, known_methods, stages, style_method
from .photos import PhotoCrops, without_copies
from .plausible import fault
from .rows import Rows

CROPS = 8
SIZE = 256


@dataclass(frozen=True)
class StyleBank:
    """M styles: where each comes from, its descriptor ``float32 [M,D]`` and the methods' statistics ``[M,...]``.

    Attributes:
        sources: M times ``key`` (``photo#crop``), ``photo`` and ``box`` (left, top, side in pixels of the photo).
        descriptors: ``float32 [M,D]``, by which styles are assigned.
        statistics: by method, of those that were asked for when it was learnt.
        header: the learning configuration, ``licences`` (ledger rows), ``unlicensed`` (photos without one;
            ``unasserted`` has their rows), ``skipped`` (photos that could not be read, with the reason), ``notes``
            (what was passed over) and ``encoders`` (name and fingerprint of the network behind a method's statistics).
    """

    sources: tuple[Mapping[str, Any], ...]
    descriptors: torch.Tensor
    statistics: Mapping[str, Mapping[str, torch.Tensor]]
    header: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.sources)

    def transfer(
        self,
        images: torch.Tensor,
        keys: Sequence[str],
        strength: float = 1.0,
        *,
        method: str = DEFAULT_METHOD,
        plan: Mapping[str, int] | None = None,
        network: Path | None = None,
    ) -> torch.Tensor:
        """Give every image the statistics of one style.

        Args:
            images: ``uint8 [N,3,H,W]`` sRGB.
            keys: the images' keys, N of them.
            strength: 0 (unchanged) to 1 (all of the style's statistics).
            method: a name in :data:`stylize.styles.methods.METHODS`, or several joined by ``+``, applied in that order.
            plan: style index per key, as balanced assignment over a whole set gives; without it each key draws its
                style at random, from the bank's seed and the key alone.
            network: weights of the method ``network``, from ``stylize train``; None: those that come along.

        Returns:
            ``uint8 [N,3,H,W]``, on the images' device. An image's result depends on nothing else in the batch.

        Raises:
            InputError: unknown method, a method whose statistics the bank does not hold, strength outside [0, 1],
                wrong dtype or shape.
        """
        self.check_holds(method)
        check_strength(strength)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or len(images) != len(keys):
            raise InputError(
                f"expected uint8 [{len(keys)},3,H,W] images, one per key; got {images.dtype} {list(images.shape)}."
            )
        chosen = [self.random_style(key) if plan is None else plan[key] for key in keys]
        each = zip(images, keys, chosen, strict=True)
        with ieee_float32():
            return torch.cat([images[:0], *(self._transfer_one(*one, strength, method, network) for one in each)])

    def _transfer_one(
        self, image: torch.Tensor, key: str, index: int, strength: float, method: str, network: Path | None
    ) -> torch.Tensor:
        """One image at a time, in tensors of its own: matrix libraries round by batch size and memory alignment."""
        result = image.unsqueeze(0).float().div_(255)
        own_mean, flat = result.mean((0, 2, 3)), is_flat(result.var((0, 2, 3), correction=0))
        for stage, options in stages(self.painted(method, index, network)):
            module = _module(stage)
            style = self._style(module.STATISTICS, index, image.device)
            seeds = [seed_for(int(self.header["seed"]), stage, key)]
            own = {"network": _painter(stage, network)} if network and style_method(stage).fallback else options
            result = soft_gamut(result, module.transfer(result, style, strength, seeds, **own))
        mean, variance = (values[0].to(image.device) for values in colours(self.descriptors[[index]]))
        if flat or is_flat(variance):
            result = with_mean(result, torch.lerp(own_mean, mean, strength))
        return result.mul(255).round_().to(torch.uint8)

    def painted(self, method: str, index: int, network: Path | None = None) -> str:
        """The method that a style gets, which is another where a network knows no such styles.

        Args:
            method: a name in :data:`stylize.styles.methods.METHODS`, or several joined by ``+``.
            index: of the style.
            network: weights of the method ``network``; None: those that come along.

        Returns:
            ``method``, with the fallback of every stage whose network does not know the style.
        """
        return "+".join(self._known(word, index, network) for word in method.split("+"))

    def _known(self, word: str, index: int, network: Path | None) -> str:
        name = word.partition(":")[0]
        fallback = style_method(name).fallback
        if fallback is None:
            return word
        style = self._style(_module(name).STATISTICS, index, self.descriptors.device)
        return word if _painter(name, network).knows(style) else fallback

    def _style(self, group: str, index: int, device: torch.device) -> dict[str, torch.Tensor]:
        return {name: values[[index]].to(device) for name, values in self.statistics[group].items()}

    def check_holds(self, method: str) -> None:
        """Refuse a method that this bank cannot paint.

        Args:
            method: a name in :data:`stylize.styles.methods.METHODS`, or several joined by ``+``.

        Raises:
            InputError: an unknown method, or one whose statistics were not learnt.
        """
        for stage, _ in stages(method):
            if _module(stage).STATISTICS not in self.statistics:
                raise InputError(
                    f"the style file holds no statistics for the method {stage!r}, only {', '.join(self.statistics)}. "
                    f"Learn it again with: stylize learn PHOTOS STYLE.safetensors --method {method}"
                )

    def random_style(self, key: str) -> int:
        """The style that an image draws when there is no plan.

        Args:
            key: the image's key.

        Returns:
            Index of the style, from the bank's seed and the key alone.
        """
        return seed_for(int(self.header["seed"]), "style", key) % len(self)

    def save(self, path: str | Path) -> None:
        """Write the bank as safetensors, its header as JSON metadata; the same bank gives the same bytes.

        Args:
            path: the file to write; it is replaced in one step.
        """
        tensors = {f"{method}/{name}": t for method, held in self.statistics.items() for name, t in held.items()}
        tensors["descriptors"] = self.descriptors
        style_file.write(Path(path), {**self.header, "sources": list(self.sources)}, tensors)

    @staticmethod
    def load(path: str | Path) -> StyleBank:
        """Read a bank that :meth:`save` wrote.

        Args:
            path: the file.

        Returns:
            The bank, with the statistics of the methods that it was learnt for.

        Raises:
            InputError: missing, not safetensors, not a style bank, of another version, or damaged.
        """
        path = Path(path)
        header, tensors = style_file.read(path, lambda header, entries: _check_entries(path, header, entries))
        return _assembled(path, header, tensors)


def learn(
    photos: str | Path | ImageSet,
    *,
    methods: Sequence[str] = LEARNT,
    crops: int = CROPS,
    size: int = SIZE,
    seed: int = 0,
    max_errors: int = MAX_ERRORS,
    allow: Sequence[str] = (),
) -> StyleBank:
    """Learn the statistics that ``methods`` need from ``crops`` square crops of every photo.

    Byte-identical photos count once. Memory holds one photo at a time, and the statistics.

    Args:
        photos: a folder of real images, or an image set.
        methods: names in :data:`stylize.styles.methods.METHODS`, or several joined by ``+``.
        crops: crops per photo; each is one style.
        size: side of a crop in pixels, after resizing; best the side of the images to be stylised.
        seed: decides the crops, and the style that a key draws at random.
        max_errors: how many photos that cannot be read are left out and listed before learning stops.
        allow: licences that photos may have, as SPDX names them; any, or none, where this is empty.

    Returns:
        One style for every crop, with the licences of the photos.

    Raises:
        InputError: no readable photo, or too many that are not; a photo under no licence that is allowed; unknown
            method; crops < 1; size outside 16..4096.
    """
    groups = sorted({_module(stage).STATISTICS for method in methods for stage, _ in stages(method)})
    if crops < 1 or not 16 <= size <= 4096:
        raise InputError(f"crops = {crops}, size = {size}: expected crops >= 1 and a size of 16 to 4096 pixels.")
    images = without_copies(photos if isinstance(photos, ImageSet) else open_images(photos))
    one_style = _reference(groups).items()
    style_file.check_bytes(images.root, {n: (t.dtype, (len(images) * crops, *t.shape[1:])) for n, t in one_style})
    held = licences(images)
    check_allowed(images.root, held, allow)
    cropped = PhotoCrops(images, crops, size, seed, max_errors)
    sources: list[dict[str, Any]] = []
    rows = Rows(len(cropped))
    for item, pixels in cropped:
        image = to_batch(pixels).float() / 255
        with one_thread():
            rows.append({"descriptors": descriptor(image), **_learn_all(image, groups)})
        assert item.crop is not None
        box = [item.crop.left, item.crop.top, item.crop.side]
        sources.append({"key": item.key, "photo": item.photo, "box": box})
    header = {
        "crops": crops,
        "size": size,
        "seed": seed,
        **held.without(cropped.losses).header(),
        "skipped": cropped.losses,
        "notes": list(images.notes),
        "encoders": _encoders(groups),
    }
    return _assembled(images.root, {**header, "sources": sources}, rows.tensors())


def check_strength(strength: float) -> None:
    """Raises InputError unless the strength lies in [0, 1]."""
    if not 0 <= strength <= 1:
        raise InputError(f"strength {strength:g}: expected 0 (unchanged) to 1 (all of the style's statistics).")


def to_batch(image: np.ndarray) -> torch.Tensor:
    """``uint8 [H,W,3]`` to ``uint8 [1,3,H,W]``."""
    return torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0).contiguous()


def to_image(batch: torch.Tensor) -> np.ndarray:
    """``uint8 [1,3,H,W]`` to ``uint8 [H,W,3]``."""
    return batch[0].permute(1, 2, 0).contiguous().cpu().numpy()


def _module(method: str) -> MethodModule:
    return style_method(method).load()


def _painter(method: str, network: Path | None) -> Any:
    """The network of a trained method: that of a file, or the one that comes along."""
    module: Any = _module(method)
    return module.load() if network is None else module.load(network)


def _learn_all(image: torch.Tensor, groups: Sequence[str]) -> dict[str, torch.Tensor]:
    learnt = {name: _module(name).learn(image) for name in groups}
    return {f"{group}/{name}": t for group, held in learnt.items() for name, t in held.items()}


def _encoders(groups: Sequence[str]) -> dict[str, dict[str, str]]:
    """Name and fingerprint of the encoder behind the statistics of the groups that have one."""
    modules: dict[str, Any] = {group: _module(group) for group in groups if style_method(group).encoder}
    used = {group: module.encoder() for group, module in modules.items()}
    return {group: {"name": one.name, "fingerprint": one.fingerprint} for group, one in used.items()}


def _reference(groups: Sequence[str]) -> dict[str, torch.Tensor]:
    """The entries of one style, of an image without anything in it."""
    image = torch.zeros(1, 3, 16, 16)
    return {**_learn_all(image, groups), "descriptors": descriptor(image)}


def _check_entries(path: Path, header: dict[str, Any], entries: style_file.Entries) -> None:
    """Raises InputError for entries that are not those of this program's methods, or of another number of styles."""
    groups = sorted({name.split("/", 1)[0] for name in entries} - {"descriptors"})
    known = all(
        group in known_methods() and group == _module(group).STATISTICS for group in groups
    )  # imports no other method
    if not groups or not known:
        raise InputError(
            f"{path}: style bank with statistics of {', '.join(groups) or 'no method'}; this program knows "
            f"{', '.join(known_methods())}. Learn it again: stylize learn PHOTOS {path}"
        )
    held = header.get("encoders", {})
    for group, wanted in _encoders(groups).items():
        if not isinstance(held, dict) or held.get(group) != wanted:
            raise InputError(
                f"{path}: its statistics for {group} are not those of this program's encoder {wanted['name']} "
                f"(fingerprint {wanted['fingerprint']}). Learn it again: stylize learn PHOTOS {path} --method {group}"
            )
    reference = _reference(groups)
    if strangers := sorted(entries.keys() - reference.keys()):
        raise InputError(f"{path}: damaged style bank: unknown entry {strangers[0]!r}. Learn it again.")
    for name, expected in reference.items():
        shape = (len(header["sources"]), *expected.shape[1:])
        if entries.get(name) != (expected.dtype, shape):
            raise InputError(f"{path}: damaged style bank: no {expected.dtype} tensor {name!r} of shape {list(shape)}.")


def _assembled(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> StyleBank:
    sources = header.pop("sources")
    for name, values in tensors.items():
        if wrong := fault(name, values):
            raise InputError(f"{path}: damaged style bank: {name!r} {wrong}. Learn it again.")
    groups = sorted({name.split("/", 1)[0] for name in tensors} - {"descriptors"})
    statistics = {
        group: {name.split("/", 1)[1]: t for name, t in tensors.items() if name.startswith(f"{group}/")}
        for group in groups
    }
    return StyleBank(tuple(sources), tensors["descriptors"], statistics, header)
