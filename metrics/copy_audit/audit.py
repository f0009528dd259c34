"""The copy audit: which share of an image set's patches are near-verbatim copies of patches of given real photos.

A straight edge or a smooth ramp looks like a thousand others, so being similar to a photo proves nothing. A copy is far
more similar to one photo than to any other: the ratio test of Lowe ("Distinctive image features from scale-invariant
keypoints", IJCV 2004, section 7.1), whose second neighbour comes from another object. With r the best correlation of a
patch in any photo of REAL, and r' the best in any other photo of REAL or held out, its *distinctness* is
``(1 − r' + NOISE) / (1 − r + NOISE)``, or 0 if r < LEAST. A patch is a copy if its distinctness exceeds the threshold,
which is what only FALSE_ALARMS of the patches of held-out photos exceed against REAL, though at least SMALLEST.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ..errors import InputError
from ..files import path_text
from ..image_sets.decode import ImageError
from ..image_sets.items import ImageSet, Item, cut, draw_crop
from ..image_sets.open import open_images
from ..progress import Callback, counted, silent
from ..seed import generator
from ..spread import spread
from .patch_search import CONTRAST, SCALES, Descriptor, Scale, contrast, cut_patches, sample_patches, search
from .report import Case, CopyReport, ScaleRate

IMAGES = 300  # results looked at
PATCHES = 8  # patches drawn per image and scale
HELD_CROPS = 100  # crops of held-out photos that the threshold comes from
HELD_PHOTOS = 40  # held-out photos used
SAMPLES = 20_000  # patches of photos that the descriptor is learnt from
NOISE = 0.02  # 1 − r of a copy that was resampled, rounded and lies half a cell off the search grid
LEAST = 0.75  # correlation below which nothing is called a copy
FALSE_ALARMS = 0.01
SMALLEST = 1.5
SAME = 0.95  # correlation of 16 × 16 thumbnails from which two photos count as one
FEW_PHOTOS = 8  # below this many photos to tell copies by, say so
CASES = 12

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Patches:
    """Patches of one scale with their boxes, and the index of the image or photo that each is of."""

    values: torch.Tensor
    boxes: Array
    owners: Indices
    plain: int


@dataclass(frozen=True)
class _Found:
    """Best match of every query in every photo: ``correlation [Q,P]``, ``mirrored [Q,P]``, ``boxes [Q,P,3]``."""

    correlation: Array
    mirrored: Flags
    boxes: Array


@dataclass(frozen=True)
class _Pool:
    """The photos that can be read, REAL first; which are held out; and which of them are one and the same."""

    items: tuple[Item, ...]
    held: Flags
    same: Flags  # [P,P]
    descriptors: tuple[Descriptor, ...]  # one per scale


@dataclass(frozen=True)
class _Judged:
    """Per query: distinctness, the best photo of REAL, its correlation, and the best of any other photo."""

    distinctness: Array
    photo: Indices
    correlation: Array
    rival: Array


def audit(
    result: str | Path | ImageSet,
    real: str | Path | ImageSet,
    *,
    held_out: str | Path | ImageSet | None = None,
    images: int = IMAGES,
    patches: int = PATCHES,
    seed: int = 0,
    device: str = "cpu",
    progress: Callback = silent,
) -> CopyReport:
    """Search for patches of ``result`` in the photos ``real``: everywhere, mirrored or not, at several sizes.

    Brightness and contrast do not count. Photos are searched at the sizes that square crops of half to all of their
    short side have when resized to the result's, in steps of a quarter octave; other sizes and rotations are not.

    Args:
        result: the images under test.
        real: the photos that may have been copied, such as those that the style was learnt from.
        held_out: other photos, which cannot have been copied; at most HELD_PHOTOS are used. Without them, each photo of
            ``real`` is held out in turn.
        images: results looked at, spread evenly over the set.
        patches: patches drawn per image and scale, from the image's key alone.
        seed: decides patches and crops.
        device: where correlations are computed.
        progress: called with every step of every part of the work.

    Returns:
        The share of patches found in ``real``, the share of false alarms among held-out photos, and the clearest cases.

    Raises:
        InputError: a set that is missing or empty; fewer than three different photos in all, or two held out.
    """
    if images < 1 or patches < 1:
        raise InputError(f"images = {images}, patches = {patches}: expected at least 1 of each.")
    results, photos = _opened(result), _opened(real)
    others = None if held_out is None else _opened(held_out)
    sets = [one for one in (results, photos, others) if one is not None]
    chosen = _spread(results.items, images)
    unread: list[tuple[str, str]] = []
    looked_at = _readable(chosen, unread, progress, "read: results")
    ours = _cut(((number, chosen[number].key, image) for number, image in looked_at), patches, seed)
    lost = max(len(unread) / len(chosen), len(results.losses) / (len(results) + len(results.losses)))
    unseen: list[tuple[str, str]] = []
    pool = _pool(photos, others, unseen, progress)
    skipped = (*results.losses, *unread, *(loss for one in sets[1:] for loss in one.losses), *unseen)
    theirs = _cut(_held_crops(pool, min(chosen[0].dimensions()), seed), patches, seed)
    found = _searched(
        pool, [torch.cat([a.values, b.values]) for a, b in zip(ours, theirs, strict=True)], device, progress
    )
    rates, cases, flags = _by_scale(ours, theirs, found, chosen, pool)
    copied, images_of, false, photos_of = (np.concatenate(parts) for parts in zip(*flags, strict=True))
    rate, se = clustered(copied, images_of)
    calibration, calibration_se = clustered(false, photos_of)
    config = {
        "result": path_text(results.root),
        "real": path_text(photos.root),
        "held out": None if others is None else path_text(others.root),
        "photos": int((~pool.held).sum()),
        "held-out photos": int(pool.held.sum()),
        "images": images,
        "patches": patches,
        "seed": seed,
        "device": device,
        "versions": {name: version(name) for name in ("reverse-stylize", "torch", "numpy", "Pillow")},
    }
    seen = len(np.unique(images_of))
    worst = _worst(cases)
    return CopyReport(
        rate,
        se,
        calibration,
        calibration_se,
        seen,
        tuple(rates),
        worst,
        config,
        skipped,
        (*_warnings(pool), *_unseen(len(skipped) - len(results.losses) - len(unread))),
        lost,
        tuple(note for one in sets for note in one.notes),
    )


def _by_scale(
    ours: Sequence[_Patches], theirs: Sequence[_Patches], found: Sequence[_Found], chosen: Sequence[Item], pool: _Pool
) -> tuple[list[ScaleRate], list[tuple[float, Case]], list[tuple[Flags, Indices, Flags, Indices]]]:
    """Rates and cases of every scale, and per scale: copied patches, their images, false alarms, their photos."""
    rates: list[ScaleRate] = []
    cases: list[tuple[float, Case]] = []
    flags = []
    for scale, a, b, table in zip(SCALES, ours, theirs, found, strict=True):
        count = len(a.owners)
        judged = _judge(table.correlation[:count], np.zeros((count, len(pool.items)), bool), pool)
        honest = _judge(table.correlation[count:], pool.same[b.owners], pool)
        threshold = _threshold(honest.distinctness)
        copied, false = judged.distinctness > threshold, _false_alarms(honest.distinctness, b.owners)
        rates.append(_scale_rate(scale, threshold, copied, a, false, b))
        cases += _cases(scale, judged, threshold, a, table, chosen, pool)
        flags.append((copied, a.owners, false, b.owners))
    return rates, cases, flags


def clustered(flags: Flags, clusters: Indices) -> tuple[float, float | None]:
    """The share of set flags and its standard error with clusters as the independent units (a ratio of sums)."""
    if not len(flags):
        return 0.0, None
    rate = float(flags.mean())
    places = np.unique(clusters, return_inverse=True)[1]
    residuals = np.bincount(places, weights=flags - rate)
    count = len(residuals)
    if count < 2:
        return rate, None
    return rate, float(np.sqrt((residuals**2).sum() * count / (count - 1)) / len(flags))


def _opened(images: str | Path | ImageSet) -> ImageSet:
    return images if isinstance(images, ImageSet) else open_images(images)


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """``count`` items at most, spread evenly."""
    return [items[index] for index in spread(len(items), count)]


def _readable(
    items: Sequence[Item], skipped: list[tuple[str, str]], progress: Callback, what: str
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Index and pixels of every item that can be read; the others are added to ``skipped``."""
    for index, item in enumerate(counted(items, what, progress)):
        try:
            yield index, item.read()
        except ImageError as error:
            skipped.append((item.key, str(error)))


def _cut(images: Iterable[tuple[int, str, npt.NDArray[np.uint8]]], count: int, seed: int) -> list[_Patches]:
    """``count`` patches per image and scale at places that the image's key draws; those too plain only counted."""
    kept: list[list[tuple[torch.Tensor, Array, Indices]]] = [[] for _ in SCALES]
    plain = [0 for _ in SCALES]
    for owner, key, image in images:
        for number, scale in enumerate(SCALES):
            places = generator(seed, f"audit {scale.name}", key).random((count, 2))
            values, boxes = cut_patches(image, scale, places)
            rich = contrast(values) >= CONTRAST
            plain[number] += int((~rich).sum())
            kept[number].append((values[rich], boxes[rich.numpy()], np.full(int(rich.sum()), owner)))
    parts = [tuple(zip(*parts, strict=True)) for parts in kept]
    if not all(parts):
        raise InputError("no image could be read. Expected at least one; see the reasons with: domain-gap compare")
    return [
        _Patches(torch.cat(values), np.concatenate(boxes), np.concatenate(owners), left_out)
        for (values, boxes, owners), left_out in zip(parts, plain, strict=True)
    ]


def _pool(photos: ImageSet, others: ImageSet | None, skipped: list[tuple[str, str]], progress: Callback) -> _Pool:
    spread = [] if others is None else _spread(others.items, HELD_PHOTOS)
    items = [*photos.items, *spread]
    each = SAMPLES // len(items) + 1
    kept, thumbnails = [], []
    samples: list[list[torch.Tensor]] = [[] for _ in SCALES]
    for number, image in _readable(items, skipped, progress, "read: photos"):
        kept.append(number)
        thumbnails.append(_thumbnail(image))
        for part, scale in zip(samples, SCALES, strict=True):
            part.append(sample_patches(image, scale, each))
    held = np.array([number >= len(photos) for number in kept], dtype=bool)
    same = np.atleast_2d(np.corrcoef(thumbnails)) > SAME
    _check_photos(photos, same, held, others is not None)
    descriptors = tuple(Descriptor(torch.cat(part)) for part in samples)
    return _Pool(tuple(items[number] for number in kept), held, same, descriptors)


def _thumbnail(photo: npt.NDArray[np.uint8]) -> Array:
    """16 × 16 grey levels and a trace of a ramp, so that flat photos correlate too."""
    small = Image.fromarray(photo).convert("L").resize((16, 16), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).ravel() + np.arange(256) * 1e-6


def _check_photos(photos: ImageSet, same: Flags, held: Flags, given: bool) -> None:
    different, usable = _different(same), _held_out(same, held)
    held_different = _different(same[usable][:, usable])
    if different < 3 or held.all() or (given and held_different < 2):
        raise InputError(
            f"{photos.root}: {different} different photos in all, of which {held_different} are held out. A copy is "
            "told by being closer to one photo than to any other: expected three photos and, if any is held out, "
            "two such. Name other real photos: --held-out FOLDER"
        )


def _held_out(same: Flags, held: Flags) -> Flags:
    """The held-out photos that are not photos of REAL as well."""
    return np.asarray(held & ~same[:, ~held].any(1))


def _different(same: Flags) -> int:
    """How many photos are like none before them."""
    return int((~np.tril(same, -1).any(1)).sum())


def _held_crops(pool: _Pool, size: int, seed: int) -> Iterator[tuple[int, str, npt.NDArray[np.uint8]]]:
    """Random crops of the held-out photos, or of all photos if none is; a held-out photo that is of REAL gives none."""
    judged = np.flatnonzero(_held_out(pool.same, pool.held) if pool.held.any() else ~pool.held)
    for index in judged:
        item = pool.items[index]
        photo = item.read()
        for number in range(-(-HELD_CROPS // len(judged))):
            key = f"{item.key}#{number}"
            crop = draw_crop(photo.shape[1], photo.shape[0], size, generator(seed, "audit crop", key))
            yield int(index), key, cut(photo, crop)


def _searched(pool: _Pool, queries: Sequence[torch.Tensor], device: str, progress: Callback) -> list[_Found]:
    found: list[list[Any]] = [[] for _ in SCALES]
    for item in counted(pool.items, "search: photos", progress):
        photo = item.read()
        for part, scale, descriptor, patches in zip(found, SCALES, pool.descriptors, queries, strict=True):
            part.append(search(patches, photo, scale, descriptor, device))
    return [
        _Found(
            np.stack([one.correlation for one in part], 1).astype(np.float64),
            np.stack([one.mirrored for one in part], 1),
            np.stack([one.box for one in part], 1),
        )
        for part in found
    ]


def _judge(correlation: Array, own: Flags, pool: _Pool) -> _Judged:
    """Judge queries ``[Q,P]`` as if the photos marked in ``own [Q,P]`` did not exist."""
    rows = np.arange(len(correlation))
    allowed = np.where(own, -1.0, correlation)
    photo = np.where(pool.held, -2.0, allowed).argmax(1)
    best = allowed[rows, photo]
    rival = np.where(pool.same[photo], -1.0, allowed).max(1, initial=-1.0)
    distinctness = np.where(best >= LEAST, (1 - rival + NOISE) / (1 - best + NOISE), 0.0)
    return _Judged(distinctness, photo, best, rival)


def _threshold(distinctness: Array) -> float:
    return max(float(np.quantile(distinctness, 1 - FALSE_ALARMS)), SMALLEST) if len(distinctness) else SMALLEST


def _false_alarms(distinctness: Array, owners: Indices) -> Flags:
    """Which patches of each photo exceed the threshold that the other photos give."""
    flags = np.zeros(len(owners), dtype=bool)
    for owner in np.unique(owners):
        own = owners == owner
        flags[own] = distinctness[own] > _threshold(distinctness[~own])
    return flags


def _scale_rate(scale: Scale, threshold: float, copied: Flags, a: _Patches, false: Flags, b: _Patches) -> ScaleRate:
    rate, se = clustered(copied, a.owners)
    calibration, calibration_se = clustered(false, b.owners)
    return ScaleRate(
        scale.name, scale.share, threshold, rate, se, len(copied), a.plain, calibration, calibration_se, len(false)
    )


def _cases(
    scale: Scale, judged: _Judged, threshold: float, ours: _Patches, table: _Found, images: Sequence[Item], pool: _Pool
) -> list[tuple[float, Case]]:
    """The most distinct patch of every image, with its excess over the threshold."""
    order = np.argsort(-judged.distinctness, kind="stable")
    first = order[np.sort(np.unique(ours.owners[order], return_index=True)[1])]
    cases = []
    for row in first[: 2 * CASES]:
        item, photo = images[ours.owners[row]], pool.items[judged.photo[row]]
        excess = judged.distinctness[row] / threshold
        case = Case(
            item.key,
            item.location,
            _box(ours.boxes[row]),
            photo.key,
            photo.location,
            _box(table.boxes[row, judged.photo[row]]),
            bool(table.mirrored[row, judged.photo[row]]),
            scale.name,
            float(judged.correlation[row]),
            float(judged.rival[row]),
            float(judged.distinctness[row]),
            bool(excess > 1),
            _style_photo(item),
        )
        cases.append((float(excess), case))
    return cases


def _box(box: Array) -> tuple[int, int, int]:
    left, top, side = (int(number) for number in box.round())
    return left, top, side


def _worst(cases: Sequence[tuple[float, Case]]) -> tuple[Case, ...]:
    """The CASES worst, one per image."""
    chosen: dict[str, Case] = {}
    for _, case in sorted(cases, key=lambda pair: (-pair[0], pair[1].key)):
        chosen.setdefault(case.key, case)
    return tuple(chosen.values())[:CASES]


def _style_photo(item: Item) -> str | None:
    """The style photo that the metadata names, if any."""
    style = item.metadata.get("style")
    photo = style.get("photo") if isinstance(style, dict) else None
    return photo if isinstance(photo, str) else None


def _unseen(photos: int) -> tuple[str, ...]:
    return (f"{photos:,} photos could not be read: copies of them are not seen.",) * (photos > 0)


def _warnings(pool: _Pool) -> tuple[str, ...]:
    found = []
    leaked = np.flatnonzero(pool.held & ~_held_out(pool.same, pool.held))
    if len(leaked):
        names = ", ".join(pool.items[index].key for index in leaked)
        found.append(f"Held-out photos that are photos of REAL too took no part in the calibration: {names}.")
    different = _different(pool.same)
    if different < FEW_PHOTOS:
        found.append(f"Only {different} different photos to tell copies by: threshold and calibration rate are rough.")
    return tuple(found)
