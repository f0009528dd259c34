"""Fractals sampled by singular values, coloured, over a random background, with one or several labels an image.

Anderson & Farrell, "Improving Fractal Pre-training" (WACV 2022). Class: N ~ U{2,3,4} maps A_i x + b_i with
A_i = U_i diag(s_i1, s_i2) V_i, U and V rotations ~ U(-pi,pi) times random signs, 1 > s_i1 >= s_i2 >= 0, b ~ U(-1,1)^2.
The singular values share a sigma-factor alpha = sum(s_i1 + 2 s_i2) ~ U((5+N)/2, (6+N)/2), handed out map by map
(``singular_values``). All maps contract, so every draw converges and none is searched for (``draws`` is always 1).

Image: 100,000 points of the chaos game, chances proportional to |det A|, from the fixed point of map 0 and so on the
attractor from the first point; each adds one to the pixels of a 3 x 3 mask drawn once per image. The count over its
greatest value is the density; colour is HSV with hue 255 density + a random shift (mod 256), s ~ U(.3,1), v ~ U(.5,1).
The background is a diamond-square plasma, decay ~ U(.4,.8), with its own hue, saturation and value ranges.

Instance: one map scaled by U(.8,1.1) (up to 4 tries to stay contracting, else none); a window of U(.5,2) times the
bounding box on each axis, moved by up to 0.2 of it; flips and transposition; a 3 x 3 Gaussian blur, sigma ~ U(.5,1), on
half of the images. ``render_many`` puts 1 to 5 fractals of side U(.15,.6) anywhere; its label is multi-hot.

Deviations: (1) the game is played in 128 chains. (2) A window that catches fewer than ``min_fill`` of 64 x 64 cells is
redrawn, at most 15 times, then the bounding box is taken; ``min_fill=0`` switches this off. (3) The 3 x 3 mask is never
empty. (4) ``render_many`` draws each fractal at the side it has, instead of resizing one of 112 px, and redraws a place
that leaves less than 0.3 of its pixels inside, so that no label lacks its fractal. (5) The plasma's own details
(uniform noise, one field for hue, saturation and value, stretched to [0,1]) are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from metrics.errors import InputError
from metrics.seed import generator, seed_for

from . import _chaos_game as game
from ._class_checks import MAX_SIZE, check_class, check_number, check_size
from ._contractions import draw_maps, fixed_point, largest_singular_value
from ._plain_numbers import plain_numbers
from ._plasma import blur, blur_weight, hsv_table, paste, plasma

if TYPE_CHECKING:
    from torch import Tensor

CELLS = 64  # side at which the filter looks, in pixels
PROBE = 10_000  # points of the filter
MAX_WINDOWS = 15
MOST = 5  # fractals in an image of several
SHOWN = 0.3  # share of a fractal's pixels that its place must leave inside the image
BATCH = 16  # images that a device works on at once


@dataclass(frozen=True)
class FractalSVD:
    """One class.

    Attributes:
        seed, class_id: where it came from; its instances draw from them too.
        maps: 1 to 16 tuples (a, b, c, d, e, f): (x, y) <- (a x + b y + c, d x + e y + f).
        points: points of an image.
        background: plasma behind the fractal; else black.
        min_fill: least share of 64 x 64 cells that an instance's window hits; 0 switches the rule off.
        draws: always 1.
    """

    seed: int
    class_id: int
    maps: tuple[tuple[float, ...], ...]
    points: int
    background: bool
    min_fill: float
    draws: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered: InputError."""
        check_class(self, 16, 6)
        check_number("min_fill", self.min_fill, float, 0, 0.5)
        if type(self.background) is not bool:
            raise InputError(f"background is {self.background!r}; expected true or false.")
        first = np.array(self.maps[0]).reshape(2, 3)
        if largest_singular_value(first[:, :2]) >= 1:
            raise InputError(f"map 0 is {self.maps[0]}; expected a contraction (singular values below 1).")


Parameters = FractalSVD


@plain_numbers
def sample_class(
    seed: int, class_id: int, *, points: int = 100_000, background: bool = True, min_fill: float = 0.05
) -> FractalSVD:
    """The class ``class_id`` of the data set ``seed``.

    Args:
        seed: of the data set.
        class_id: number of the class, from 0.
        points: of an image; see :class:`FractalSVD` for this and what follows.
        background: plasma, or black.
        min_fill: of an instance.

    Returns:
        The class.

    Raises:
        InputError: an option out of range.
    """
    rng = generator(seed, "fractal-svd class", str(class_id))
    count = int(rng.integers(2, 5))
    maps = draw_maps(rng, count, rng.uniform((5 + count) / 2, (6 + count) / 2))
    rows = tuple(tuple(row) for row in maps.reshape(-1, 6).tolist())
    return FractalSVD(seed, class_id, rows, points, background, min_fill)


class Look(NamedTuple):
    """One drawing of a class, all choices made."""

    system: game.System
    start: tuple[float, float]
    key: int
    window: np.ndarray  # float64 [2,2]: sides and shifts per axis, in sides of the bounding box
    flip: tuple[bool, bool, bool]  # rows, columns, transposed
    mask: int  # 9 bits
    colours: np.ndarray  # uint8 [256,3] by density


def look(params: FractalSVD, rng: np.random.Generator, key: int, *, whole: bool = False) -> Look:
    """Draw the choices of an instance; ``whole`` keeps the window on the bounding box."""
    maps = jittered(np.array(params.maps).reshape(-1, 2, 3), rng)
    system, start = game.system(maps), fixed_point(maps[0])
    flip = rng.integers(0, 2, 3).astype(bool).tolist()
    mask, shift = int(rng.integers(1, 512)), int(rng.integers(0, 256))
    saturation, value = rng.uniform(0.3, 1), rng.uniform(0.5, 1)
    colours = hsv_table((np.arange(256) + shift) % 256 / 255, np.full(256, saturation), np.full(256, value))
    window = np.array([[1.0, 1.0], [0.0, 0.0]])
    if not whole:
        points = game.orbit(system, key, PROBE, start=start)
        for _ in range(MAX_WINDOWS):
            drawn = np.stack([rng.uniform(0.5, 2, 2), rng.uniform(-0.2, 0.2, 2)])
            if np.count_nonzero(game.hits(locate(points, drawn, CELLS), CELLS)) >= params.min_fill * CELLS**2:
                window = drawn
                break
    return Look(system, start, key, window, (flip[0], flip[1], flip[2]), mask, colours)


def jittered(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The maps with one of them scaled by U(.8,1.1), if one of four tries still contracts."""
    for _ in range(4):
        k, factor = int(rng.integers(len(maps))), rng.uniform(0.8, 1.1)
        if factor * largest_singular_value(maps[k, :, :2]) < 1:
            scaled = maps.copy()
            scaled[k] *= factor
            return scaled
    return maps


def locate(points: np.ndarray, window: np.ndarray, size: int) -> np.ndarray:
    """The pixel of each point; the window is stretched over [0, size - 1]."""
    box = game.bounds(points)
    origin, scale = frame(box[:, 0], box[:, 1], window, size)
    return np.asarray(game.place(points, origin, scale, 0, size))


def frame(least: np.ndarray, greatest: np.ndarray, window: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower left corner and pixels per unit of a window."""
    side = (greatest - least) * window[0]
    middle = (least + greatest) * 0.5 + (greatest - least) * window[1]
    # The whole box begins at its very least point, which middle - side / 2 may miss by a rounding.
    origin = np.where((window[0] == 1) & (window[1] == 0), least, middle - side * 0.5)
    return origin, game.slope(size - 1, side)


def spread_mask(counts: np.ndarray, mask: int) -> np.ndarray:
    """Add each pixel's count, int64 [S,S], to the pixels of the 3 x 3 mask around it."""
    size = len(counts)
    wide = np.pad(counts, 1)
    cells = [(k // 3, k % 3) for k in range(9) if mask >> k & 1]
    return np.asarray(sum(wide[i : i + size, j : j + size] for i, j in cells))


def count(seen: Look, points: int, size: int) -> np.ndarray:
    """Points on each pixel, int64 [size,size]."""
    where = locate(game.orbit(seen.system, seen.key, points, start=seen.start), seen.window, size)
    return np.asarray(game.hits(where, size))


def layer(counts: np.ndarray, seen: Look) -> np.ndarray:
    """Counts to densities in 255ths plus 1, and 0 where nothing is, int64 [size,size]: masked, flipped."""
    counts = spread_mask(counts, seen.mask)
    counts = np.where(counts > 0, 1 + 255 * counts // max(int(counts.max()), 1), 0)
    down, across, transposed = seen.flip
    counts = counts[:: 1 - 2 * down, :: 1 - 2 * across]
    return counts.T if transposed else counts


@plain_numbers
def render(params: FractalSVD, instance: int, size: int) -> np.ndarray:
    """One image, uint8 [size,size,3].

    Args:
        params: the class.
        instance: number of the image within the class.
        size: side of the image, 8 to 8192 pixels.

    Returns:
        The image.

    Raises:
        InputError: an instance or a size outside its range.
    """
    check_size(size)
    seen, image, weight = scene(params, instance, size)
    return finish(image, layer(count(seen, params.points, size), seen), seen.colours, weight)


def finish(image: np.ndarray, drawn: np.ndarray, colours: np.ndarray, weight: int) -> np.ndarray:
    """Draw a layer over the background ``image`` (changed) and blur the whole."""
    paste(image, drawn, colours, 0, 0)
    return blur(image, weight)


def scene(params: FractalSVD, instance: int, size: int) -> tuple[Look, np.ndarray, int]:
    """An instance's look, background uint8 [size,size,3] and blur weight."""
    check_number("instance", instance, int, 0, 2**63)
    name = f"{params.class_id}/{instance}"
    rng = generator(params.seed, "fractal-svd instance", name)
    seen = look(params, rng, seed_for(params.seed, "fractal-svd orbit", name))
    weight = blur_weight(rng)
    if params.background:
        return seen, plasma(generator(params.seed, "fractal-svd background", name), size), weight
    return seen, np.zeros((size, size, 3), np.uint8), weight


@plain_numbers
def render_many(
    seed: int, index: int, classes: int | Sequence[FractalSVD], size: int, *, most: int = MOST
) -> tuple[np.ndarray, np.ndarray]:
    """An image of 1 to ``most`` fractals and its multi-hot label.

    Args:
        seed: of the data set.
        index: number of the image.
        classes: how many classes of ``seed`` there are to choose from, or the classes themselves.
        size: side of the image, 16 to 8192 pixels.
        most: fractals in an image, 1 to 100.

    Returns:
        uint8 [size,size,3] and uint8 [C], 1 for every class that was drawn (a later fractal may hide an earlier one).

    Raises:
        InputError: a number outside its range, or no class.
    """
    total = classes if isinstance(classes, int) else len(classes)
    for name, value, least, greatest in (
        ("index", index, 0, 2**63),
        ("the number of classes", total, 1, 2**31),
        ("size", size, 16, MAX_SIZE),
        ("most", most, 1, 100),
    ):
        check_number(name, value, int, least, greatest)
    rng = generator(seed, "fractal-svd many", str(index))
    image = plasma(generator(seed, "fractal-svd many background", str(index)), size)
    labels = np.zeros(total, np.uint8)
    for number in range(int(rng.integers(1, most + 1))):
        label = int(rng.integers(total))
        params = sample_class(seed, label) if isinstance(classes, int) else classes[label]
        key = seed_for(seed, "fractal-svd many orbit", f"{index}/{number}")
        seen = look(params, rng, key, whole=True)
        side = max(round(size * rng.uniform(0.15, 0.6)), 2)
        drawn = layer(count(seen, params.points, side), seen)
        paste(image, drawn, seen.colours, *position(drawn > 0, size, rng))
        labels[label] = 1
    return blur(image, blur_weight(rng)), labels


def position(shape: np.ndarray, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of a layer [side,side]: up to half outside, but at least ``SHOWN`` of its shape inside."""
    side = len(shape)
    while True:
        top, left = (int(v) for v in rng.integers(-(side // 2), size - side // 2, 2))
        inside = shape[max(-top, 0) : size - top, max(-left, 0) : size - left]
        if np.count_nonzero(inside) >= SHOWN * np.count_nonzero(shape):
            return top, left


@plain_numbers
def render_torch(params: FractalSVD, instances: Sequence[int], size: int, device: str = "cpu") -> Tensor:
    """The images of ``render``, bit for bit, as uint8 [N,3,size,size] on ``device``. Errors as there.

    The game and the counting run on the device; the choices, the background and the blur are the CPU's.

    Args:
        params: the class.
        instances: numbers of the images within the class.
        size: side of the images in pixels.
        device: where to draw, e.g. ``cuda``.

    Returns:
        The images.
    """
    import torch

    from . import _chaos_game_torch as tensors

    check_size(size)
    out = torch.empty(len(instances), 3, size, size, dtype=torch.uint8, device=device)
    for first in range(0, len(instances), BATCH):
        scenes = [scene(params, instance, size) for instance in instances[first : first + BATCH]]
        looks = [seen for seen, _, _ in scenes]
        maps, thresholds, start, window = (
            torch.from_numpy(np.stack(part)).to(device)
            for part in zip(
                *((s.system.maps, s.system.thresholds, np.array(s.start), s.window) for s in looks), strict=True
            )
        )
        key = tensors.keys([seen.key for seen in looks], device)
        points = tensors.orbit(maps, thresholds, key, params.points, start)
        counts = tensors.hits(tensors.locate(points, window, size), size)
        for at, (seen, image, weight) in enumerate(scenes):
            drawn = layer(counts[at].cpu().numpy(), seen)
            out[first + at] = torch.from_numpy(finish(image, drawn, seen.colours, weight)).movedim(2, 0)
    return out
