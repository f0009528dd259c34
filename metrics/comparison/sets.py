"""The sets of a comparison, by role: opened, cropped, checked, and turned into features."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..extractors.extractor import Extractor
from ..features.cache import FeatureCache
from ..features.extraction import FeatureSet, extract
from ..features.feature_source import is_feature_file, read_feature_file
from ..features.identical import LEAST, joined
from ..image_sets.decode import ImageError
from ..image_sets.items import ImageSet
from ..image_sets.open import open_images
from ..progress import Callback, Count
from ..registry import unknown
from ..spread import spread
from ..statistics.low_level import LEAST_SIDE

PHOTOS = ("real", "floor")  # the roles that real photos play
LOOKED_AT = 50  # images whose size is looked at
NAMES = {"real": "real", "after": "under test", "before": "before", "floor": "floor"}


@dataclass(frozen=True)
class Sets:
    """Sources by role. ``whole`` holds images as they were given, ``images`` what is measured of them, crops or all.

    ``ready`` holds the features that were given instead of images; ``crop_size`` the side of the crops, if any.
    """

    whole: Mapping[str, ImageSet]
    images: Mapping[str, ImageSet]
    ready: Mapping[str, FeatureSet]
    crop_size: int | None

    def only(self, *roles: str) -> Sets:
        """The sets of these roles.

        Returns:
            Those sets.

        Raises:
            InputError: one of them is no set of images.
        """
        for role in roles:
            if role not in self.images:
                raise InputError(f"the set {NAMES[role]} was given as features. Layers take images.")
        return replace(self, images={role: self.images[role] for role in roles}, ready={})

    def extract(
        self, network: Extractor | None, batch_size: int, cache: FeatureCache | None, progress: Callback
    ) -> dict[str, FeatureSet]:
        """Features of every role; ``network`` may be None where all were given.

        Returns:
            By role, the features of that set.

        Raises:
            InputError: no image of a set could be read, or fewer than two independent ones.
        """
        features = dict(self.ready)
        for role, images in self.images.items():
            assert network is not None
            tell = partial(_tell, progress, f"features: {NAMES[role]}")
            features[role] = extract(images, network, batch_size=batch_size, cache=cache, progress=tell)
        for one in features.values():
            if len(set(one.groups)) < 2:
                raise InputError(
                    f"{one.root}: {len(one)} readable images of {len(set(one.groups))} photos; at least 2 "
                    "independent ones are needed. Repair or add images."
                )
        return features

    def check(self, network: Extractor | None, slices: Sequence[str]) -> None:
        """Before any image is decoded: features that were given fit the network, and slices exist.

        Raises:
            InputError: features of another extractor, or a slice of which the images know nothing.
        """
        for one in self.ready.values():
            if network is not None and one.fingerprint != network.fingerprint:
                raise InputError(
                    f"{one.root}: features of {one.extractor}, fingerprint {one.fingerprint}, cannot be compared with "
                    f"those of {network.name}, {network.fingerprint}. Extract them again: domain-gap stats IMAGES -o F"
                )
        known: set[str] = set()
        if "after" in self.images:
            items = self.images["after"]
            known = {name for item in items for name in item.tags}
            known |= {"label"} if any(label is not None for label in items.labels) else set()
        elif "after" in self.ready:
            one = self.ready["after"]
            known = {name for tags in one.tags for name in tags}
            known |= {"label"} if any(label is not None for label in one.labels) else set()
        for name in slices:
            if name not in known:
                raise (
                    unknown("slice", name, known)
                    if known
                    else InputError(
                        f"slice {name!r}: the images under test have no labels and no metadata. Put them into one "
                        "folder per class, or add a metadata.jsonl."
                    )
                )

    def notes(self) -> tuple[str, ...]:
        """What the sizes of the images do to a distance, where they differ."""
        if "after" not in self.images or "real" not in self.images:
            return ()
        ours, theirs = (_sides(self.images[role]) for role in ("after", "real"))
        if not ours or not theirs:
            return ()
        a, b = (float(np.median([shown for _, shown in sides])) for sides in (ours, theirs))
        found = []
        if min(shown for _, shown in (*ours, *theirs)) < LEAST_SIDE:
            found.append(f"Low-level differences are not measured: an image is smaller than {LEAST_SIDE} px.")
        if max(a, b) > 1.5 * min(a, b):
            found.append(
                f"The images under test have a short side of {a:.0f} px and the real ones of {b:.0f} px: resizing "
                "alone makes a gap. Bring both to one size."
            )
        if np.median([shown / source for source, shown in theirs]) > 1.5:
            found.append(
                "Crops of the real photos were enlarged, which blurs them. Use larger photos or smaller images."
            )
        return tuple(found)

    def digest(self, features: FeatureSet) -> str:
        """Names the reference: by the content, crops and groups of its images and the network, or by its features."""
        whole = hashlib.sha256(features.fingerprint.encode())
        if "real" not in self.images:
            whole.update(features.features.contiguous().numpy().tobytes())
            whole.update(repr(features.groups).encode())
            return whole.hexdigest()[:16]
        items = {item.key: item for item in self.images["real"]}
        stored: dict[str, str] = {}  # many crops share a photo
        for key in features.keys:
            item = items[key]
            if item.location not in stored:
                stored[item.location] = item.digest()
            whole.update(repr((key, stored[item.location], item.crop, item.group)).encode())
        return whole.hexdigest()[:16]


def open_sets(sources: Mapping[str, Any], crops: int, seed: int) -> Sets:
    """Open every source, cut crops of the photos, and check that there are enough independent images.

    Crops are as large as the short side of the first image under test.

    Returns:
        The sets by role.

    Raises:
        InputError: as the readers; crops of features, or fewer than none; too few images.
    """
    if crops < 0:
        raise InputError(f"crops = {crops}: expected 0 (whole photos) or more.")
    given = {role: source for role, source in sources.items() if isinstance(source, FeatureSet)}
    files = {role: source for role, source in sources.items() if is_feature_file(source)}
    whole = {
        role: source if isinstance(source, ImageSet) else open_images(source)
        for role, source in sources.items()
        if role not in given and role not in files
    }
    size = None
    if crops:
        if "after" not in whole or not all(role in whole for role in PHOTOS if role in sources):
            raise InputError("crops are cut of images, and one of the sets was given as features. Use crops = 0.")
        size = _side(whole["after"])
    images = dict(whole)
    if size is not None:
        images |= {role: whole[role].crops(crops, size, seed) for role in PHOTOS if role in whole}
    ready = {**given, **{role: read_feature_file(Path(source)) for role, source in files.items()}}
    for role in sources:
        groups = {item.group for item in images[role]} if role in images else set(ready[role].groups)
        root = images[role].root if role in images else ready[role].root
        _check_groups(str(root), len(groups), halved=role == "real" and "floor" not in sources)
    return Sets(whole, images, ready, size)


def pair_up(features: dict[str, FeatureSet]) -> tuple[str, ...]:
    """Keep only the keys that 'before' and 'after' share, in one order; says what was left out."""
    if "before" not in features:
        return ()
    before, after = features["before"], features["after"]
    places = {key: index for index, key in enumerate(before.keys)}
    shared = [index for index, key in enumerate(after.keys) if key in places]
    if len(shared) < 2:
        return ("No two images of 'before' have the same key here, so the two sets are treated as unrelated.",)
    left_out = len(before) + len(after) - 2 * len(shared)
    after, before = after.subset(shared), before.subset([places[after.keys[index]] for index in shared])
    features["after"], features["before"] = _same_groups(after, before)
    return (f"{left_out} images without a partner of the same key in the other set were left out.",) if left_out else ()


def _same_groups(after: FeatureSet, before: FeatureSet) -> tuple[FeatureSet, FeatureSet]:
    """Pairs are left out together, so that the images of one group on either side are of one on both."""
    groups = joined(after.groups, before.groups)
    if len(set(groups)) < LEAST:
        groups = after.keys
    return replace(after, groups=groups), replace(before, groups=groups)


def _sides(images: ImageSet) -> list[tuple[int, int]]:
    """(Pixels of the photo, pixels that are measured) on the short side, of LOOKED_AT images spread evenly."""
    found = []
    for row in spread(len(images), LOOKED_AT):
        item = images[row]
        try:
            side = min(item.dimensions()) if item.crop is None else item.crop.side
        except ImageError:
            continue
        found.append((side, side if item.crop is None else item.crop.size))
    return found


def _side(images: ImageSet) -> int:
    for item in images:
        try:
            return min(item.dimensions())
        except ImageError:
            continue
    raise InputError(f"{images.root}: none of {len(images)} images can be read.")


def _check_groups(root: str, groups: int, *, halved: bool) -> None:
    """Before any network runs: enough independent images."""
    if groups >= (4 if halved else 2):
        return
    if halved:
        why = "4 are needed to be halved for the floor; add photos, or name other real images: --floor FOLDER"
    else:
        why = "2 are needed to be measured; add images (crops of one photo are not independent)"
    raise InputError(f"{root}: {groups} independent image(s), and at least {why}.")


def _tell(progress: Callback, what: str, step: Count) -> None:
    progress(replace(step, what=what))
