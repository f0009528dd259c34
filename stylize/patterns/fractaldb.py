"""FractalDB: 2-D iterated function systems that fill at least a fifth of their image.

Category (Kataoka et al., "Pre-training without Natural Images", ACCV 2020 and IJCV 2022): N ~ U{2..7} maps
(x, y) <- (a x + b y + c, d x + e y + f), six numbers each ~ U(-1,1), chances proportional to |ae - bd|, no test of
contraction. One orbit of 100,000 points from the origin, start and transient included, is drawn on 512 x 512 pixels,
x and y stretched on their own to the image less 6 pixels a side; the draw is a category if at least 0.2 of the pixels
hold a point. About 2.3 % of the draws are.

Instance: 25 weight rows x 4 flips x any number of patch draws (published: 10, so 1,000 instances). Row 0 is the
category itself; the others multiply one of the six numbers in all maps by 1-2k, 1-k, 1+k or 1+2k, k = 0.4. The chances
stay. 200,000 points are pasted as opaque 3 x 3 patches, each one of the 511 that are not empty, grey 127 on black.
The map choices are the same for all classes and instances of a data set, as published. Other published renderers:
single pixels, and hues that repeat every 128 points.

Deviations: (1) rendering plays the game in 128 chains instead of one (see ``_chaos_game``). (2) A weight that leaves
less than ``min_fill`` of the pixels holding a point (diverging or near-empty; with k = 0.4, a fifth of the weights) is
moved half-way towards 1 until it does not; ``min_fill=0`` keeps every weight as the original does. (3) Patches are
centred on their point, not two pixels beside it. (4) Colours are HSV (s = v = 0.75); the original's are "HSI-like".
(5) A search first looks at the first 4,096 and 16,384 points of the same orbit on coarse pixels (``PROBES``) and passes
over those far below what an accepted system shows there. In 34,678 draws the 802 accepted ones reached at least 0.329
and 0.266 of the coarse pixels; the limits are 0.28 and 0.23, and none of the 802 was lost.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.errors import InputError
from metrics.registry import unknown
from metrics.seed import generator, seed_for

from . import _chaos_game as game
from ._class_checks import check_class, check_number, check_size
from ._plain_numbers import plain_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

SIDE, POINTS = 512, 100_000  # of the search
RATE = 0.2
PROBES = ((4096, 32, 0.28), (16384, 128, 0.23))  # points, side in coarse pixels, least filling rate
MAX_DRAWS = 5000
HALVINGS = 5  # of a weight's distance from 1; then the row is the category itself
ROWS, FLIPS = 25, 4
MARKERS = ("patch", "point")
BATCH = 16  # images that a device works on at once: 0.3 GB


@dataclass(frozen=True)
class FractalDB:
    """One category.

    Attributes:
        seed, class_id: where it came from; its instances draw from them too.
        maps: 1 to 16 tuples (a, b, c, d, e, f).
        interval: k of the weights, 0 to 0.5.
        points: points of an image.
        marker: "patch" or "point".
        colour: hues instead of grey.
        min_fill: least filling rate of an instance; 0 switches the rule off.
        draws: systems drawn until this one was accepted; 1 / mean(draws) over classes is the acceptance rate.
    """

    seed: int
    class_id: int
    maps: tuple[tuple[float, ...], ...]
    interval: float
    points: int
    marker: str
    colour: bool
    min_fill: float
    draws: int

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered: InputError."""
        check_class(self, 16, 6)
        check_number("interval", self.interval, float, 0, 0.5)
        check_number("min_fill", self.min_fill, float, 0, 0.2)
        if self.marker not in MARKERS:
            raise unknown("marker", self.marker, MARKERS)
        if type(self.colour) is not bool:
            raise InputError(f"colour is {self.colour!r}; expected true or false.")


Parameters = FractalDB


@plain_numbers
def sample_class(
    seed: int,
    class_id: int,
    *,
    interval: float = 0.4,
    points: int = 200_000,
    marker: str = "patch",
    colour: bool = False,
    min_fill: float = 0.05,
    max_draws: int = MAX_DRAWS,
) -> FractalDB:
    """The category ``class_id`` of the data set ``seed``: the first of its random systems that fills 0.2 of its image.

    Args:
        seed: of the data set.
        class_id: number of the class, from 0.
        interval: k; see :class:`FractalDB` for this and what follows.
        points: of an image.
        marker: "patch" or "point".
        colour: hues instead of grey.
        min_fill: of an instance.
        max_draws: systems to try.

    Returns:
        The class.

    Raises:
        InputError: an option out of range, or no system accepted within ``max_draws``.
    """
    rng = generator(seed, "fractaldb class", str(class_id))
    for draws in range(1, max_draws + 1):
        maps = draw_maps(rng)
        if accepted(game.system(maps), orbit_key(seed)):
            rows = tuple(tuple(row) for row in maps.reshape(-1, 6).tolist())
            return FractalDB(seed, class_id, rows, interval, points, marker, colour, min_fill, draws)
    raise InputError(
        f"class {class_id} of seed {seed}: 0 of {max_draws} random systems had a filling rate of {RATE} "
        f"(acceptance 0 %; about 2 % is usual). Raise max_draws (default {MAX_DRAWS}) or take another seed."
    )


def draw_maps(rng: np.random.Generator) -> np.ndarray:
    """One candidate, float64 [N,2,3]."""
    return rng.uniform(-1, 1, (int(rng.integers(2, 8)), 2, 3))


def orbit_key(seed: int) -> int:
    """The one stream of map choices of a data set."""
    return seed_for(seed, "fractaldb orbit", "")


def accepted(candidate: game.System, key: int) -> bool:
    """Whether one orbit of 100,000 points fills 0.2 of 512 x 512 pixels; see deviation 5 for the quick looks."""
    looks = (*PROBES, (POINTS, SIDE, RATE))
    return all(game.fill(game.orbit(candidate, key, points, single=True), side) >= rate for points, side, rate in looks)


def weights(interval: float) -> np.ndarray:
    """The 25 weight rows, float64 [25,6]: ones, then four factors for each of the six numbers in turn."""
    table = np.ones((ROWS, 6))
    factors = [1 + step * interval for step in (-2, -1, 1, 2)]
    for row in range(1, ROWS):
        table[row, (row - 1) // 4] = factors[(row - 1) % 4]
    if interval == 0.5:
        table[table == 0] = 0.01  # as published: a factor of 0 would make maps singular
    return table


def instance_maps(params: FractalDB, row: int) -> game.System:
    """The system of a weight row, drawn back towards the category while it fills less than ``min_fill``."""
    maps = np.array(params.maps).reshape(-1, 2, 3)
    base = game.system(maps)
    weight = weights(params.interval)[row].reshape(2, 3)
    for _ in range(HALVINGS):
        weighted = game.System(maps * weight, base.thresholds)
        if params.min_fill == 0 or row == 0:
            return weighted
        if game.fill(game.orbit(weighted, orbit_key(params.seed), POINTS), SIDE) >= params.min_fill:
            return weighted
        weight = 1 + (weight - 1) / 2
    return base


def parts(params: FractalDB, instance: int) -> tuple[int, int, int]:
    """Weight row, flip and key of the patches of an instance."""
    check_number("instance", instance, int, 0, 2**63)
    key = seed_for(params.seed, "fractaldb patch", f"{params.class_id}/{instance}")
    return instance % ROWS, instance // ROWS % FLIPS, key


@plain_numbers
def render(params: FractalDB, instance: int, size: int) -> np.ndarray:
    """One image, uint8 [size,size,3], grey 127 or hues on black.

    Args:
        params: the class.
        instance: its first 1,000 are the published ones; later ones draw new patches.
        size: side of the image, 8 to 8192 pixels.

    Returns:
        The image.

    Raises:
        InputError: an instance or a size outside its range.
    """
    check_size(size)
    row, flip, key = parts(params, instance)
    where = game.pixels(game.orbit(instance_maps(params, row), orbit_key(params.seed), params.points), size)
    colours = palette(params.colour)
    index = draw(where, params.marker, key, len(colours) - 1, size)
    return np.asarray(game.tint(index[:: 1 - 2 * (flip & 1), :: 1 - (flip & 2)], colours))


def draw(where: np.ndarray, marker: str, key: int, hues: int, size: int) -> Any:
    """Draw the pixels ``where`` as patches or points, uint8 [size,size]: 0, or 1 + the hue's number."""
    if marker == "patch":
        return game.paint_patches(where, game.u64(key), hues, size)
    return game.paint_points(where, hues, size)


def palette(colour: bool) -> np.ndarray:
    """Black, then grey 127 or 128 hues: uint8 [2,3] or [129,3]."""
    if not colour:
        return np.array([[0] * 3, [game.GREY] * 3], np.uint8)
    hues = [colorsys.hsv_to_rgb(k / game.HUES, 0.75, 0.75) for k in range(game.HUES)]
    return np.array([(0.0, 0.0, 0.0), *hues]).__mul__(255).round().astype(np.uint8)


@plain_numbers
def render_torch(params: FractalDB, instances: Sequence[int], size: int, device: str = "cpu") -> Tensor:
    """The images of ``render``, bit for bit, as uint8 [N,3,size,size] on ``device``. Errors as there."""
    import torch

    from . import _chaos_game_torch as tensors

    check_size(size)
    colours, images = palette(params.colour), []
    for first in range(0, len(instances), BATCH):
        rows, flips, seeds = zip(*(parts(params, i) for i in instances[first : first + BATCH]), strict=True)
        systems = {row: instance_maps(params, row) for row in rows}
        maps = torch.from_numpy(np.stack([systems[row].maps for row in rows])).to(device)
        thresholds = torch.from_numpy(systems[rows[0]].thresholds)[None].to(device)
        where = tensors.pixels(
            tensors.orbit(maps, thresholds, tensors.keys([orbit_key(params.seed)], device), params.points), size
        )
        if params.marker == "patch":
            index = tensors.paint_patches(where, tensors.keys(list(seeds), device), len(colours) - 1, size)
        else:
            index = tensors.paint_points(where, len(colours) - 1, size)
        for picture, flip in zip(index, flips, strict=True):
            axes = [axis for axis in (0, 1) if flip >> axis & 1]
            images.append(tensors.tint(picture.flip(axes)[None], colours))
    return torch.cat(images) if images else torch.empty(0, 3, size, size, dtype=torch.uint8, device=device)
