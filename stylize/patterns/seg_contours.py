"""SegRCDB: images of many radial contours with the class of each pixel, for segmentation.

Source: Shinoda et al., "SegRCDB: Semantic Segmentation via Formula-Driven Supervised Learning" (ICCV 2023), with the
numbers of its published scripts. A label set has 254 categories (0 is the background, 255 stays free for "ignore"):

    vertices q = floor(Exp(mean 100)), redrawn until 3 <= q <= 500;    polygons K ~ U{1..50};
    noise coefficient eta ~ U(0, 4);    step ("line width") w ~ U(0, 0.1);
    start radius r ~ U{0..50};    oval factors ox, oy ~ U(1, 2).

An image shows 32 contours on black, the later over the earlier. Each draws its category, the centre
(512 + U{-512..512}) / 2 in x and in y, a grey U{0..255} for each polygon and the noise, and grows like those of RCDB:
by cos t (w + eta - 2 eta P(u)) in x and the same with sin t and another u in y, drawn as lines of one pixel, not
anti-aliased; see ``_contours`` for P, for the lines and for other sizes than 512.

Masks: "lines" (M1 of the script, its recommendation) marks the pixels of the lines; "ring" (M2) the area between the
first and the last polygon, whose hole becomes background, and both lines; "disc" (M3) the inside of the last polygon.
Inside means an odd number of crossings, as in Pillow, and the edge belongs to the area.

A class of this family is a whole label set: class 0 of a seed is one SegRCDB, class 1 another with other categories.

Deviations from the script: categories with next to no contour are drawn again. A category is kept if in the middle it
touches at least 0.5 % of the canvas (87 % of the draws do); ``sample_class(..., min_ink=0)`` keeps every draw, as the
script does. A ring of one polygon is its line, where the script leaves it out of the mask. Random numbers are our own.

Measured: lines cover 70 to 85 % of an image of 512 pixels. Of the pixels of a mask, Pillow's polygons would set fewer
than 0.01 % (ring) and 0.1 to 0.2 % (disc) differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metrics.errors import InputError
from metrics.registry import unknown
from metrics.seed import generator, seed_for

from ._class_checks import check_identity, check_number
from ._compiled import compiled
from ._contours import (
    CANVAS,
    MAX_POLYGONS,
    MAX_VERTICES,
    MIN_INK,
    Stack,
    add,
    draw,
    ordinals,
    outline,
    search,
    three_channels,
    vertex_count,
)
from ._plain_numbers import plain_numbers

if TYPE_CHECKING:
    import torch

MASKS = ("lines", "ring", "disc")
MAX_CONTOURS = 128  # times MAX_POLYGONS they can be numbered in 16 bits


class Category(NamedTuple):
    """What the contours of one label have in common; lengths in pixels of the 512-pixel canvas."""

    vertices: int
    polygons: int
    noise: float
    step: float
    radius: float
    oval_x: float
    oval_y: float


BOUNDS: dict[str, tuple[float, float, type]] = {
    "vertices": (3, MAX_VERTICES, int),
    "polygons": (1, MAX_POLYGONS, int),
    "noise": (0, 8, float),
    "step": (0, 8, float),
    "radius": (0, CANVAS, float),
    "oval_x": (0.25, 4, float),
    "oval_y": (0.25, 4, float),
}


@dataclass(frozen=True)
class SegContours:
    """One label set.

    Attributes:
        seed, class_id: where the label set came from; its images draw from them too.
        categories: 1 to 254 tuples with the fields of ``Category``; the first has the label 1.
        contours: contours in an image, 1 to 128.
        mask: "lines", "ring" or "disc", see above.
        draws: categories drawn until there were enough good ones; len(categories) / draws is the acceptance rate.
    """

    seed: int
    class_id: int
    categories: tuple[tuple[Any, ...], ...]
    contours: int
    mask: str
    draws: int

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered: InputError."""
        check_identity(self)
        check_number("contours", self.contours, int, 1, MAX_CONTOURS)
        if self.mask not in MASKS:
            raise unknown("mask", self.mask, MASKS)
        check_number("draws", self.draws, int, 1, 2**31)
        if not isinstance(self.categories, tuple) or not 1 <= len(self.categories) <= 254:
            raise InputError("categories: expected a tuple of 1 to 254 of them.")
        for label, values in enumerate(self.categories, 1):
            if not isinstance(values, tuple) or len(values) != len(Category._fields):
                raise InputError(f"category {label} is {values!r}; expected {', '.join(Category._fields)}.")
            for name, value in zip(Category._fields, values, strict=True):
                least, most, kind = BOUNDS[name]
                check_number(f"{name} of category {label}", value, kind, least, most)


Parameters = SegContours


@plain_numbers
def sample_class(
    seed: int,
    class_id: int,
    *,
    categories: int = 254,
    contours: int = 32,
    mask: str = "lines",
    min_ink: float = MIN_INK,
) -> SegContours:
    """The label set ``class_id`` of the data set ``seed``.

    Args:
        seed: of the data set.
        class_id: number of the label set, from 0.
        categories: labels, 1 to 254.
        contours: contours in an image, 1 to 128.
        mask: "lines", "ring" or "disc", see above.
        min_ink: share of the canvas that a category must touch; 0 keeps the first draw.

    Returns:
        The label set.

    Raises:
        InputError: a number out of range, an unknown mask, or no draw touched so much within 1000 draws.
    """
    check_number("categories", categories, int, 1, 254)
    found, total = [], 0
    for label in range(1, categories + 1):
        category, draws = _category(seed, f"{class_id}/{label}", min_ink)
        found.append(tuple(category))
        total += draws
    return SegContours(seed=seed, class_id=class_id, categories=tuple(found), contours=contours, mask=mask, draws=total)


def place(params: SegContours, instance: int) -> tuple[list[Stack], np.ndarray, np.ndarray]:
    """What one image shows: its stacks, and the greys and labels, uint8 [1+sum K], of background and polygons."""
    key = f"{params.class_id}/{instance}"
    rng = generator(params.seed, "seg-contours image", key)
    labels = rng.integers(1, len(params.categories) + 1, params.contours)
    centres = ((CANVAS + rng.integers(-CANVAS, CANVAS + 1, (params.contours, 2))) / 2).tolist()
    stacks = [
        _stack(
            Category(*params.categories[label - 1]),
            (x, y),
            seed_for(params.seed, "seg-contours noise", f"{key}/{number}"),
        )
        for number, (label, (x, y)) in enumerate(zip(labels.tolist(), centres, strict=True))
    ]
    owners = np.repeat(labels, [stack.polygons for stack in stacks])
    greys = rng.integers(0, 256, len(owners))
    return stacks, np.append(0, greys).astype(np.uint8), np.append(0, owners).astype(np.uint8)


@plain_numbers
def render_with_mask(params: SegContours, instance: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One image, uint8 [size,size,3], and the labels of its pixels, uint8 [size,size], 0 for the background.

    Args:
        params: the label set.
        instance: number of the image.
        size: side of the image, 8 to 8192 pixels.

    Returns:
        Image and labels.

    Raises:
        InputError: a size out of range.
    """
    stacks, greys, labels = place(params, instance)
    canvas = draw(stacks, size, ordinals(stacks))
    image = three_channels(greys[canvas])
    if params.mask == "lines":
        return image, labels[canvas]
    starts = np.cumsum([1] + [stack.polygons for stack in stacks[:-1]])
    return image, _areas(stacks, labels[starts].tolist(), size, params.mask)


@plain_numbers
def render(params: SegContours, instance: int, size: int) -> np.ndarray:
    """One image without its mask, uint8 [size,size,3]; ``size`` is 8 to 8192 pixels, or InputError."""
    stacks, greys, _ = place(params, instance)
    return three_channels(draw(stacks, size, greys))


@plain_numbers
def render_with_mask_torch(
    params: SegContours, instances: Sequence[int], size: int, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images uint8 [N,3,size,size] and masks uint8 [N,size,size] on a device, bit for bit as on the CPU.

    On a CPU this is slower than ``render_with_mask``.

    Args:
        params: the class.
        instances: numbers of the images within the class.
        size: side of the images in pixels.
        device: where to draw, e.g. ``cuda``.

    Returns:
        Images and labels.

    Raises:
        InputError: a size out of range, or a mask other than "lines".
    """
    if params.mask != "lines":
        raise InputError(f"mask {params.mask!r} is drawn by render_with_mask only; expected 'lines' here.")
    from . import _contours_torch as fast

    placed = [place(params, instance) for instance in instances]
    return fast.render([p[:2] for p in placed], size, device), fast.render([p[::2] for p in placed], size, device)[:, 0]


@plain_numbers
def render_torch(params: SegContours, instances: Sequence[int], size: int, device: str = "cpu") -> torch.Tensor:
    """The images alone, uint8 [N,3,size,size]; on a CPU this is slower than ``render``."""
    from . import _contours_torch as fast

    return fast.render([place(params, instance)[:2] for instance in instances], size, device)


def _category(seed: int, key: str, min_ink: float) -> tuple[Category, int]:
    rng = generator(seed, "seg-contours category", key)

    def candidate(draws: int) -> tuple[tuple[Category, int], Stack]:
        category = Category(
            vertices=vertex_count(rng, 500),
            polygons=int(rng.integers(1, 51)),
            noise=rng.uniform(0, 4),
            step=rng.uniform(0, 0.1),
            radius=int(rng.integers(0, 51)),
            oval_x=rng.uniform(1, 2),
            oval_y=rng.uniform(1, 2),
        )
        return (category, draws), _stack(category, (0.0, 0.0), 0)

    return search(candidate, min_ink, f"category {key} of seed {seed}")


def _stack(category: Category, centre: tuple[float, float], key: int) -> Stack:
    return Stack(
        vertices=category.vertices,
        polygons=category.polygons,
        advance=category.step + category.noise,
        noise=2 * category.noise,
        radius=(category.radius * category.oval_x, category.radius * category.oval_y),
        centre=centre,
        key=key,
    )


def _areas(stacks: Sequence[Stack], labels: Sequence[int], size: int, mask: str) -> np.ndarray:
    """Ring or disc masks, uint8 [size,size], the later contours over the earlier."""
    areas, scratch = np.zeros((2, size, size), np.uint8)
    values = np.zeros(MAX_POLYGONS, np.uint8)
    for stack, label in zip(stacks, labels, strict=True):
        outer = add(scratch, stack, values)
        fill(areas, outer, label)
        if mask == "ring":
            inner = add(scratch, stack._replace(polygons=1), values)
            fill(areas, inner, 0)
            outline(areas.reshape(-1), size, inner, np.uint8(label))
        outline(areas.reshape(-1), size, outer, np.uint8(label))
    return areas


@compiled
def fill(areas: Any, pixels: Any, label: int) -> None:
    """Set the pixels that a closed chain, int32 [2,n], goes round an odd number of times in ``areas``, uint8 [H,W].

    In every row that a line crosses, the first pixel on or right of the line is marked; a pixel with an odd number of
    marks up to it is inside.
    """
    height, width = areas.shape
    marks = np.zeros((height, width + 1), np.uint8)
    top, bottom = max(pixels[1].min(), 0), min(pixels[1].max(), height)
    for v in range(pixels.shape[1] - 1):
        x, y, x1, y1 = pixels[0, v], pixels[1, v], pixels[0, v + 1], pixels[1, v + 1]
        if y > y1:
            x, y, x1, y1 = x1, y1, x, y
        for row in range(max(y, 0), min(y1, height)):  # without y1, where the next line starts
            column = x - (x - x1) * (row - y) // (y1 - y)
            marks[row, min(max(column, 0), width)] ^= 1
    for row in range(top, bottom):
        odd = 0
        for column in range(width):
            odd ^= marks[row, column]
            if odd:
                areas[row, column] = label
