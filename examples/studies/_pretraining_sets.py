"""The pre-training sets of ``study.py``: as many images for every row, rendered once and stylised once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from metrics import open_images
from metrics.errors import InputError
from metrics.image_sets.items import ImageSet, Item
from stylize import iter_apply, iter_render, learn
from stylize.styles import PRESETS

PHOTOS = Path(__file__).parents[2] / "assets" / "photos"
NEURAL = "neural-fractal"
# Name: family and its options; the earlier formulation has a holomorphic tanh, a fixed threshold and no selection.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "dead-leaves": ("dead-leaves", {}),
    "fractaldb": ("fractaldb", {}),
    "exfractaldb": ("exfractaldb", {}),
    "rcdb": ("rcdb", {}),
    "one-fractal": ("one-fractal", {}),
    "one-image": ("one-image", {"photo": str(PHOTOS / "learn" / "cat.jpg")}),
    "neural-fractal, earlier": (NEURAL, {"activation": "holomorphic", "tau": 2.0}),
    "neural-fractal": (NEURAL, {}),
}
STYLISED = {
    f"{base} + {preset}": (base, preset) for base in ("neural-fractal", "dead-leaves") for preset in ("fast", "strong")
}
HALF = "neural-fractal + fast, half"  # every second image as it was before
STYLE_PHOTOS = "style photos"  # the control: their crops alone, every photo a class
EARLIER = [name for name in FAMILIES if name != NEURAL]  # sets that were there before this project's
SETS = ("none", *FAMILIES, *STYLISED, HALF, STYLE_PHOTOS)


def made(name: str, work: Path, classes: int, per_class: int, size: int) -> list[Item]:
    """``classes × per_class`` labelled images of a set, rendered and stylised below ``work`` if need be."""
    folder = work / name.replace(" ", "").replace(",", "-").replace("+", "-")
    if name == STYLE_PHOTOS:
        return photo_crops(open_images(PHOTOS / "learn"), classes * per_class, size)
    if name == HALF:
        raw, stylised = (made(each, work, classes, per_class, size) for each in (NEURAL, f"{NEURAL} + fast"))
        return [pair[number % 2] for number, pair in enumerate(zip(raw, stylised, strict=True))]
    if name in STYLISED:
        base, preset = STYLISED[name]
        made(base, work, classes, per_class, size)
        method, strength = PRESETS[preset]
        style = work / f"{preset}.safetensors"
        if not style.is_file():
            learn(PHOTOS / "learn", methods=[method], size=size).save(style)
        finish(lambda: iter_apply(style, work / base, folder, method=method, strength=strength))
    elif name in FAMILIES:
        family, options = FAMILIES[name]
        drawn = {"classes": classes, "per_class": per_class, "size": size, "options": options}
        finish(lambda: iter_render(family, folder, **drawn))
    else:
        raise InputError(f"set {name!r}. Expected one of: {', '.join(SETS)}.")
    return list(open_images(folder))


def finish(work: Callable[[], Any]) -> None:
    for _ in work():
        pass


def photo_crops(photos: ImageSet, count: int, size: int) -> list[Item]:
    """``count`` crops of the photos, as many of each as of the others up to one; the label is the photo."""
    each = -(-count // len(photos))
    crops = [replace(item, label=item.photo) for item in photos.crops(each, size)]
    return sorted(crops, key=lambda item: (int(item.key.rpartition("#")[2]), item.key))[:count]
