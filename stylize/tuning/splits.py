"""Real photos in three parts: learn the style from one, tune on another, and judge by photos that tuning cannot see."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from metrics.errors import InputError
from metrics.files import write_atomically
from metrics.image_sets.decode import ImageError, sha256
from metrics.image_sets.items import ImageSet, Item, natural
from metrics.image_sets.open import open_images
from metrics.seed import seed_for

from ..writing.job import to_json

PARTS = ("learn", "tune", "judge")
LEAST = 2  # photos that a distance to them needs
SEAL = "judged.json"
SAME = 0.98  # correlation of 16 × 16 thumbnails from which two files show one photo


class SealedPhotos:
    """Judge photos. The only way to them ends the search: :meth:`open` first marks the study as judged."""

    def __init__(self, images: ImageSet) -> None:
        self.__images = images

    def __len__(self) -> int:
        return len(self.__images)

    def open(self, study: Path) -> ImageSet:
        """The photos, after writing ``study/judged.json``, with which no search continues.

        Returns:
            The photos; the study takes no more trials.

        Raises:
            InputError: the study was judged by other photos before.
        """
        keys, seal = [item.key for item in self.__images], study / SEAL
        digests = sorted(photo_digest(item) for item in self.__images)
        if seal.exists() and json.loads(seal.read_text(encoding="utf-8")).get("sha256", digests) != digests:
            raise InputError(
                f"{study}: was judged by other photos before, named in {seal}. A study is judged once: restore those "
                "photos to see the same verdict again, or tune and judge a new study in another folder."
            )
        write_atomically(seal, to_json({"judged": True, "photos": keys, "sha256": digests}))
        return self.__images

    def check_unseen(self, seen: ImageSet) -> None:
        """Raises InputError where a judge photo shows what a photo of ``seen`` shows: resized, recoded or renamed.

        Equal files are refused by :func:`split_photos` already. This looks at pixels, so it belongs to judging.
        """
        theirs = {item.key: _thumbnail(item) for item in seen}
        for item in self.__images:
            own = _thumbnail(item)
            for key, other in theirs.items():
                if own is not None and other is not None and float(own @ other) > SAME:
                    raise InputError(
                        f"{item.location}: shows the same picture as {key}, which the search has seen, so it cannot "
                        "judge. Remove it from the judge photos and repeat the command; where the photos are not in "
                        f"the subfolders {', '.join(PARTS)}, tune again in another folder."
                    )


def split_photos(real: Any, seed: int = 0) -> tuple[ImageSet, ImageSet, SealedPhotos]:
    """The photos to learn from, to tune on and to judge by; no photo is in two parts.

    Photos below ``learn``, ``tune`` and ``judge``, of a folder, an archive or a list, are already split. Any others are
    split here: half of the groups (by default a photo each), in an order drawn from ``seed`` and the file's content, is
    for learning, a quarter for each of the others.

    Args:
        real: photos, from any source that :func:`metrics.image_sets.open.open_images` reads.
        seed: decides the split of photos that are not split yet.

    Returns:
        The parts, the last one sealed.

    Raises:
        InputError: fewer than two photos for a part, some of the three subfolders alone, one file in two parts, or a
            photo that cannot be opened.
    """
    sets = _given(Path(real)) if isinstance(real, str | Path) and Path(real).is_dir() else None
    if sets is None:
        photos = open_images(real)
        sets = _below_parts(photos) or _dealt(photos, seed)
    owner: dict[str, str] = {}
    for part, images in zip(PARTS, sets, strict=True):
        if part != "learn" and len(images) < LEAST:
            raise InputError(
                f"{images.root}: {len(images)} photos are left for {part!r}; at least {LEAST} are needed. "
                f"Add photos (8 or more split well), or make the subfolders {', '.join(PARTS)} yourself."
            )
        for item in images:
            digest = photo_digest(item)
            if owner.setdefault(digest, part) != part:
                raise InputError(
                    f"{item.location}: the same photo is in the parts {owner[digest]!r} and {part!r}. "
                    "Remove it from one."
                )
    return sets[0], sets[1], SealedPhotos(sets[2])


def photo_digest(item: Item) -> str:
    """SHA-256 of the photo as it is stored; nothing is decoded.

    Returns:
        64 hexadecimal digits.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        return sha256(item.content) if isinstance(item.content, Path) else item.digest()
    except (ImageError, OSError) as error:
        raise InputError(f"{item.location}: cannot be opened ({error}). Repair it or remove it.") from error


def _given(folder: Path) -> list[ImageSet] | None:
    """The sets of the three subfolders; None where there is none of them."""
    found = [part for part in PARTS if (folder / part).is_dir()]
    _check_parts(folder, found)
    return [open_images(folder / part) for part in PARTS] if found else None


def _below_parts(photos: ImageSet) -> list[ImageSet] | None:
    """The photos of an archive or a list by the folder in which their keys part; None where none is that of a part.

    Their keys begin below that folder, as those of the subfolders of a folder do.

    Returns:
        A set per part, or None.
    """
    folders = [item.key.split("/")[:-1] for item in photos]
    least, most = min(folders), max(folders)  # as lists compare, what these two share is common to all
    depth = next((at for at, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))
    by_part: dict[str, list[Item]] = {part: [] for part in PARTS}
    for item, folder in zip(photos, folders, strict=True):
        if len(folder) > depth and folder[depth] in by_part:
            key = "/".join(item.key.split("/")[depth + 1 :])
            own = replace(item, key=key, group=key if item.group == item.key else item.group)
            by_part[folder[depth]].append(own)
    found = [part for part in PARTS if by_part[part]]
    _check_parts(photos.root, found)
    return _as_sets(photos, list(by_part.values())) if found else None


def _check_parts(root: Path, found: list[str]) -> None:
    missing = [part for part in PARTS if part not in found]
    if found and missing:
        raise InputError(
            f"{root}: has photos in {', '.join(found)}, and no {', '.join(missing)}. Expected all of "
            f"{', '.join(PARTS)}, or none of them, and then the photos are split here."
        )


def _dealt(photos: ImageSet, seed: int) -> list[ImageSet]:
    unique = {photo_digest(item): item for item in reversed(photos)}  # of equal files the first
    groups: dict[str, list[Item]] = {}
    first: dict[str, str] = {}
    for digest, item in reversed(unique.items()):
        groups.setdefault(item.group, []).append(item)
        first.setdefault(item.group, digest)
    order = sorted(groups, key=lambda group: seed_for(seed, "split", first[group]))
    quarter = max(len(order) // 4, min(LEAST, len(order) // 3))
    cuts = [order[2 * quarter :], order[:quarter], order[quarter : 2 * quarter]]
    parts = [[item for group in cut for item in groups[group]] for cut in cuts]
    return _as_sets(photos, [sorted(part, key=lambda item: natural(item.key)) for part in parts])


def _as_sets(photos: ImageSet, parts: Sequence[Sequence[Item]]) -> list[ImageSet]:
    """A set per part; the first takes what is lost of the whole, whose part nobody knows."""
    first, *others = parts
    whole = ImageSet(photos.root, first, photos.losses, photos.notes)
    return [whole, *(ImageSet(photos.root, part) for part in others)]


def _thumbnail(item: Item) -> np.ndarray | None:
    """16 × 16 grey levels, centred and of length one; None for a photo that is flat or cannot be read."""
    try:
        small = Image.fromarray(item.read()).convert("L").resize((16, 16), Image.Resampling.BOX)
    except ImageError:
        return None
    levels = np.asarray(small, dtype=np.float64).ravel()
    levels -= levels.mean()
    length = float(np.linalg.norm(levels))
    return levels / length if length > 1 else None
