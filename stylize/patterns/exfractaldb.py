"""ExFractalDB and MV-FractalDB: 3-D iterated function systems seen through a perspective camera.

Kataoka et al., "Replacing Labeled Real-image Datasets with Auto-generated Contours" (CVPR 2022); Yamada et al.,
"MV-FractalDB" (2021). Category: N ~ U{2..7} maps x <- A x + b of R^3, twelve numbers each ~ U(-1,1) (row by row, b
last in its row), chances proportional to |det A|; one orbit of 10,000 points from the origin, scaled by its one
least and one greatest coordinate to [-1,1] and centred on its mean; accepted if each axis has a variance above 0.05.
About 1.2 % of the draws are.

Instance: one of 145 weight rows and a view. Row 0 is the category itself; the others multiply one of the twelve numbers
in all maps by 0.4, 0.5, ... 0.9, 1.1, ... 1.6. The chances stay. The camera stands at distance 4 and looks at the
origin: field of view 45 degrees, near plane 1, white pixels on black, no shading, 224 px as published.

- views = "random" (ExFractalDB, whose program is not published: "randomly selects and projects"): a uniform rotation;
- views = "ring" (MV-FractalDB): twelve azimuths 30 degrees apart about the y axis, elevation 0, each moved by up to
  3.14 degrees (the published program takes a draw from [-pi, pi] for degrees).

Deviations: (1) rendering plays the game in 128 chains instead of one. (2) A weight that leaves an axis a variance of at
most ``min_variance`` (one in twenty does) is moved half-way towards 1 until it does not; 0 keeps every weight, as the
original does. (3) Points that diverge are left out. (4) A search first looks at the first 1,000 points of the same
orbit (``PROBE``) and passes over systems whose least variance there is below 0.03; in 27,239 draws the 307 accepted
ones had at least 0.048, so none was lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
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

POINTS = 10_000  # of the search
VARIANCE = 0.05
PROBE = (1000, 0.03)
MAX_DRAWS = 20_000
HALVINGS = 5  # of a weight's distance from 1; then the row is the category itself
STEPS = 6  # of 0.1, up and down
ROWS = 1 + 12 * 2 * STEPS
VIEWS = ("random", "ring")
RING = 12
DISTANCE, NEAR = 4.0, 1.0
FOCAL = 1 + math.sqrt(2)  # 1 / tan(45 degrees / 2)
UNIT = 2.0**30  # fixed point of the mean, so that its sum does not depend on the order
COLOURS = np.array([[0] * 3, [255] * 3], np.uint8)
BATCH = 64  # images that a device works on at once


@dataclass(frozen=True)
class ExFractalDB:
    """One category.

    Attributes:
        seed, class_id: where it came from; its instances draw from them too.
        maps: 1 to 16 tuples of twelve numbers, the rows (A | b).
        points: points of an image.
        views: "random" or "ring".
        min_variance: least variance of an instance's axes; 0 switches the rule off.
        draws: systems drawn until this one was accepted; 1 / mean(draws) over classes is the acceptance rate.
    """

    seed: int
    class_id: int
    maps: tuple[tuple[float, ...], ...]
    points: int
    views: str
    min_variance: float
    draws: int

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered: InputError."""
        check_class(self, 16, 12)
        check_number("min_variance", self.min_variance, float, 0, VARIANCE)
        if self.views not in VIEWS:
            raise unknown("views", self.views, VIEWS)


Parameters = ExFractalDB


@plain_numbers
def sample_class(
    seed: int,
    class_id: int,
    *,
    points: int = POINTS,
    views: str = "random",
    min_variance: float = 0.02,
    max_draws: int = MAX_DRAWS,
) -> ExFractalDB:
    """The category ``class_id`` of the data set ``seed``: the first random system that is spread enough.

    Args:
        seed: of the data set.
        class_id: number of the class, from 0.
        points: of an image; see :class:`ExFractalDB` for this and what follows.
        views: "random" or "ring".
        min_variance: of an instance.
        max_draws: systems to try.

    Returns:
        The class.

    Raises:
        InputError: an option out of range, or no system accepted within ``max_draws``.
    """
    rng = generator(seed, "exfractaldb class", str(class_id))
    for draws in range(1, max_draws + 1):
        maps = draw_maps(rng)
        if accepted(game.system(maps), orbit_key(seed)):
            rows = tuple(tuple(row) for row in maps.reshape(-1, 12).tolist())
            return ExFractalDB(seed, class_id, rows, points, views, min_variance, draws)
    raise InputError(
        f"class {class_id} of seed {seed}: 0 of {max_draws} random systems had a variance above {VARIANCE} on each "
        f"axis (acceptance 0 %; about 1.2 % is usual). Raise max_draws (default {MAX_DRAWS}) or take another seed."
    )


def draw_maps(rng: np.random.Generator) -> np.ndarray:
    """One candidate, float64 [N,3,4]."""
    return rng.uniform(-1, 1, (int(rng.integers(2, 8)), 3, 4))


def orbit_key(seed: int) -> int:
    """The one stream of map choices of a data set."""
    return seed_for(seed, "exfractaldb orbit", "")


def accepted(candidate: game.System, key: int) -> bool:
    """Whether one orbit of 10,000 points stays finite and has a variance above 0.05 on each axis."""
    points, least = PROBE
    if spread(game.orbit(candidate, key, points, single=True)) < least:
        return False
    return spread(game.orbit(candidate, key, POINTS, single=True)) > VARIANCE


def spread(points: np.ndarray) -> float:
    """The least variance of an axis of the scaled points [3,T]; 0 if a point diverges."""
    if not (np.abs(points) <= game.REACH).all():
        return 0.0
    least, greatest = points.min(), points.max()
    return float(points.var(axis=1).min() * (2 / (greatest - least)) ** 2) if greatest > least else 0.0


@cache
def weights() -> np.ndarray:
    """The 145 weight rows, float64 [145,12]."""
    table = np.ones((ROWS, 12))
    factors = [round(1 + 0.1 * m, 1) for m in range(-STEPS, STEPS + 1) if m]
    for row in range(1, ROWS):
        table[row, (row - 1) // len(factors)] = factors[(row - 1) % len(factors)]
    table.flags.writeable = False
    return table


def instance_maps(params: ExFractalDB, row: int) -> game.System:
    """The system of a weight row, drawn back towards the category while an axis varies too little."""
    maps = np.array(params.maps).reshape(-1, 3, 4)
    base = game.system(maps)
    weight = weights()[row].reshape(3, 4)
    for _ in range(HALVINGS):
        weighted = game.System(maps * weight, base.thresholds)
        if params.min_variance == 0 or row == 0:
            return weighted
        if spread(game.orbit(weighted, orbit_key(params.seed), POINTS)) > params.min_variance:
            return weighted
        weight = 1 + (weight - 1) / 2
    return base


def parts(params: ExFractalDB, instance: int) -> tuple[int, np.ndarray]:
    """Weight row and rotation, float64 [3,3], of an instance."""
    check_number("instance", instance, int, 0, 2**63)
    rng = generator(params.seed, "exfractaldb view", f"{params.class_id}/{instance}")
    if params.views == "random":
        return instance % ROWS, uniform_rotation(rng)
    degrees = 30 + 360 / RING * (instance // ROWS % RING) + rng.uniform(-math.pi, math.pi)
    turn = math.radians(-degrees)  # the camera turns one way, the scene the other
    cos, sin = round(math.cos(turn), 12), round(math.sin(turn), 12)  # the same on any machine
    return instance % ROWS, np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def uniform_rotation(rng: np.random.Generator) -> np.ndarray:
    """A uniform rotation, float64 [3,3], from a uniform point of the 4-ball: additions, products and divisions only."""
    norm = 0.0
    while not 0.01 < norm <= 1:
        w, x, y, z = rng.uniform(-1, 1, 4).tolist()
        norm = w * w + x * x + y * y + z * z
    rows = (
        (w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
    )
    return np.array(rows) / norm


def project(points: Any, rotation: Any) -> tuple[Any, Any, Any]:
    """Centred points and a rotation, arrays or tensors, to (x, y) in [-1,1] on the image and the depth."""
    x, y, z = (rotation[i][0] * points[0] + rotation[i][1] * points[1] + rotation[i][2] * points[2] for i in range(3))
    depth = DISTANCE - z
    return x * FOCAL / depth, y * FOCAL / depth, depth


def centred(points: np.ndarray) -> np.ndarray:
    """Points [3,T] scaled to [-1,1] and centred on their mean; those that diverge become NaN."""
    box = game.bounds(points)
    least, greatest = box[:, 0].min(), box[:, 1].max()
    extent = greatest - least if greatest > least else 1.0
    within = (np.abs(points) <= game.REACH).all(0)
    scaled = np.where(within, (points - least) / extent * 2 - 1, np.nan)
    total = np.rint(np.where(within, scaled, 0.0) * UNIT).astype(np.int64).sum(1)
    return np.asarray(scaled - (total / max(int(within.sum()), 1) * (1 / UNIT))[:, None])


@plain_numbers
def render(params: ExFractalDB, instance: int, size: int) -> np.ndarray:
    """One image, uint8 [size,size,3], white on black.

    Args:
        params: the class.
        instance: number of the image: weight row instance % 145 and a view of its own.
        size: side of the image, 8 to 8192 pixels.

    Returns:
        The image.

    Raises:
        InputError: an instance or a size outside its range.
    """
    check_size(size)
    row, rotation = parts(params, instance)
    points = centred(game.orbit(instance_maps(params, row), orbit_key(params.seed), params.points))
    x, y, depth = project(points, rotation)
    plane = np.where(depth >= NEAR, np.stack([x, y]), np.nan)
    where = game.place(plane, np.full(2, -1.0), np.full(2, size / 2), 0, size)
    return np.asarray(game.tint(game.paint_points(where, 1, size), COLOURS))


@plain_numbers
def render_torch(params: ExFractalDB, instances: Sequence[int], size: int, device: str = "cpu") -> Tensor:
    """The images of ``render``, bit for bit, as uint8 [N,3,size,size] on ``device``. Errors as there."""
    import torch

    from . import _chaos_game_torch as tensors

    check_size(size)
    out = torch.empty(len(instances), 3, size, size, dtype=torch.uint8, device=device)
    for first in range(0, len(instances), BATCH):
        rows, turns = zip(*(parts(params, i) for i in instances[first : first + BATCH]), strict=True)
        systems = {row: instance_maps(params, row) for row in rows}
        maps = torch.from_numpy(np.stack([systems[row].maps for row in rows])).to(device)
        thresholds = torch.from_numpy(systems[rows[0]].thresholds)[None].to(device)
        points = tensors.orbit(maps, thresholds, tensors.keys([orbit_key(params.seed)], device), params.points)
        rotation = torch.from_numpy(np.stack(turns)).to(device).movedim(0, 2)[..., None]  # [3,3,N,1]
        x, y, depth = project(_centred_torch(points).movedim(1, 0), rotation)
        plane = torch.where((depth >= NEAR)[:, None], torch.stack([x, y], 1), torch.nan)
        origin = torch.full((len(rows), 2), -1.0, dtype=torch.float64, device=device)
        where = tensors.place(plane, origin, torch.full_like(origin, size / 2), 0, size)
        out[first : first + BATCH] = tensors.tint(tensors.paint_points(where, 1, size), COLOURS)
    return out


def _centred_torch(points: Tensor) -> Tensor:
    """``centred`` for [N,3,T]; divisions have tensors on both sides, since a number's reciprocal would round twice."""
    import torch

    from . import _chaos_game_torch as tensors

    least, greatest = (part[:, None] for part in tensors.bounds(points))
    least, greatest = least.amin(2, keepdim=True), greatest.amax(2, keepdim=True)
    extent = torch.where(greatest > least, greatest - least, 1.0)
    within = (points.abs() <= game.REACH).all(1, keepdim=True)
    scaled = torch.where(within, (points - least) / extent * 2 - 1, torch.nan)
    total = torch.round(torch.where(within, scaled, 0.0) * UNIT).long().sum(2, keepdim=True)
    count = within.sum(2, keepdim=True).clamp(min=1)
    return scaled - total.double() / count.double() * (1 / UNIT)
