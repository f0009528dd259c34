"""Real photos in three parts: learn the style from one, tune on another, and judge by photos that tuning cannot see."""

from __future__ import annotations

from pathlib import Path

from metrics.errors import InputError
from metrics.images import ImageSet, natural, open_images, sha256
from metrics.seed import seed_for

from .job import to_json, write_atomically

PARTS = ("learn", "tune", "judge")
LEAST = 2  # photos that a distance to them needs
SEAL = "judged.json"


class SealedPhotos:
    """Judge photos. The only way to them ends the search: :meth:`open` first marks the study as judged."""

    def __init__(self, images: ImageSet) -> None:
        self.__images = images

    def __len__(self) -> int:
        return len(self.__images)

    def open(self, study: Path) -> ImageSet:
        """The photos, after writing ``study/judged.json``, with which no search continues."""
        keys = [item.key for item in self.__images]
        write_atomically(study / SEAL, to_json({"judged": True, "photos": keys}))
        return self.__images


def split_photos(real: str | Path, seed: int = 0) -> tuple[ImageSet, ImageSet, SealedPhotos]:
    """The photos to learn from, to tune on and to judge by; no photo is in two parts.

    A folder with the subfolders ``learn``, ``tune`` and ``judge`` is already split. Any other folder is split here:
    half of the photos, in an order drawn from ``seed`` and the file's content, is for learning, a quarter for each of
    the others.

    Raises:
        InputError: fewer than two photos for a part, or one file in two parts.
    """
    real = Path(real)
    if all((real / part).is_dir() for part in PARTS):
        sets = [open_images(real / part) for part in PARTS]
    else:
        sets = _dealt(open_images(real), seed)
    owner: dict[str, str] = {}
    for part, images in zip(PARTS, sets, strict=True):
        if part != "learn" and len(images) < LEAST:
            raise InputError(
                f"{real}: {len(images)} photos are left for {part!r}; at least {LEAST} are needed. "
                f"Add photos (8 or more split well), or make the subfolders {', '.join(PARTS)} yourself."
            )
        for item in images:
            digest = sha256(item.path)
            if owner.setdefault(digest, part) != part:
                raise InputError(
                    f"{item.path}: the same photo is in the parts {owner[digest]!r} and {part!r}. Remove it from one."
                )
    return sets[0], sets[1], SealedPhotos(sets[2])


def _dealt(photos: ImageSet, seed: int) -> list[ImageSet]:
    unique = {sha256(item.path): item for item in reversed(photos)}  # of equal files the first
    order = [unique[digest] for digest in sorted(unique, key=lambda digest: seed_for(seed, "split", digest))]
    quarter = max(len(order) // 4, min(LEAST, len(order) // 3))
    cuts = [order[2 * quarter :], order[:quarter], order[quarter : 2 * quarter]]
    return [ImageSet(photos.root, sorted(part, key=lambda item: natural(item.key))) for part in cuts]
