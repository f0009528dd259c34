"""One fractal: a single iterated function system whose small perturbations are the classes (1p-frac).

Nakamura et al., "Scaling Backwards: Minimal Synthetic Pre-training?" (ECCV 2024). The base system has J = 2 maps drawn
by singular values (see ``fractal_svd``) with sigma-factor within 0.1 of ``sigma`` (3.5 in the paper; below 6; small
means complex). Class k is the base with each of its 6 J numbers w moved by a draw of its own:

- ``additive`` (the paper's equation, the default): w + eps, eps ~ U(-delta/2, delta/2);
- ``multiplicative`` (the authors' program): w * U(1 - delta, 1 + delta).

Each class has one image: 100,000 points of the chaos game from the origin, chances of the unperturbed base, drawn as in
FractalDB: opaque random 3 x 3 patches, grey 127 on black. A perturbation whose image at 512 px covers at most 0.05 of
the pixels is redrawn, as published. All classes share the map choices, as published.

Deviations: (1) the base itself must pass the same filter, since no class could otherwise (about half of the bases at
sigma 3.5 do); ``min_fill=0`` switches both off. (2) The game is played in 128 chains. (3) Instances after 0, which
is the published image, draw new patches. (4) Patches are centred on their point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from metrics.errors import InputError
from metrics.registry import unknown
from metrics.seed import generator, seed_for

from . import _chaos_game as game
from ._class_checks import check_class, check_maps, check_number, check_size
from ._contractions import draw_maps
from ._plain_numbers import plain_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MAPS = 2
SIDE = 512  # at which the filter looks
MAX_DRAWS = 500
VARIANTS = ("additive", "multiplicative")
COLOURS = np.array([[0] * 3, [game.GREY] * 3], np.uint8)
BATCH = 16  # images that a device works on at once

Maps = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class OneFractal:
    """One perturbation of the data set's fractal.

    Attributes:
        seed, class_id: where it came from; its instances draw from them too.
        maps: its maps (a, b, c, d, e, f): (x, y) <- (a x + b y + c, d x + e y + f).
        base: the unperturbed maps, which set the chances.
        points: points of an image.
        draws: perturbations drawn until this one passed the filter.
        base_draws: bases drawn until one passed.
    """

    seed: int
    class_id: int
    maps: Maps
    base: Maps
    points: int
    draws: int
    base_draws: int

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered: InputError."""
        check_class(self, 16, 6)
        check_maps("base", self.base, 16, 6)
        check_number("base_draws", self.base_draws, int, 1, 2**31)
        if len(self.base) != len(self.maps):
            raise InputError(f"base has {len(self.base)} maps; expected as many as maps, {len(self.maps)}.")


Parameters = OneFractal


@plain_numbers
def sample_class(
    seed: int,
    class_id: int,
    *,
    delta: float = 0.1,
    sigma: float = 3.5,
    variant: str = "additive",
    points: int = 100_000,
    min_fill: float = 0.05,
    max_draws: int = MAX_DRAWS,
) -> OneFractal:
    """The perturbation ``class_id`` of the one fractal of the data set ``seed``.

    Args:
        seed: of the data set.
        class_id: number of the class, from 0.
        delta: width of the perturbation, 0 to 100; 0.05 to 0.2 train well, 0.01 and less do not (paper).
        sigma: sigma-factor of the base, 0.2 to 5.8.
        variant: "additive" or "multiplicative".
        points: of an image.
        min_fill: an image must cover more of its pixels than this; 0 switches the filter off.
        max_draws: bases, and then perturbations, to try.

    Returns:
        The class.

    Raises:
        InputError: an option out of range, or nothing passed the filter within ``max_draws``.
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    check_number("delta", delta, float, 0, 100)
    check_number("sigma", sigma, float, 0.2, 5.8)
    check_number("min_fill", min_fill, float, 0, 0.9)
    check_number("points", points, int, 100, 10**8)
    base, base_draws = base_maps(seed, sigma, points, min_fill, max_draws)
    plain = game.system(base)
    rng = generator(seed, "one-fractal class", str(class_id))
    for draws in range(1, max_draws + 1):
        maps = perturb(base, delta, variant, rng)
        if min_fill == 0 or cover(game.System(maps, plain.thresholds), seed, class_id, points) > min_fill:
            return OneFractal(seed, class_id, _rows(maps), _rows(base), points, draws, base_draws)
    raise InputError(
        f"class {class_id} of seed {seed}: 0 of {max_draws} {variant} perturbations with delta {delta:g} covered more "
        f"than {min_fill:g} of their image (acceptance 0 %). Lower delta (0.1 in the paper) or set min_fill to 0."
    )


@lru_cache(maxsize=8)
def base_maps(seed: int, sigma: float, points: int, min_fill: float, max_draws: int) -> tuple[np.ndarray, int]:
    """The one fractal of a data set, float64 [2,2,3], and the draws it took. Errors as in ``sample_class``."""
    rng = generator(seed, "one-fractal base", "")
    for draws in range(1, max_draws + 1):
        maps = draw_maps(rng, MAPS, sigma + rng.uniform(-0.1, 0.1))
        if min_fill == 0 or cover(game.system(maps), seed, 0, points) > min_fill:
            maps.flags.writeable = False
            return maps, draws
    raise InputError(
        f"seed {seed}: 0 of {max_draws} base fractals with sigma {sigma:g} covered more than {min_fill:g} of their "
        "image (acceptance 0 %). Raise sigma (at most 5.8) or points, or set min_fill to 0."
    )


def perturb(base: np.ndarray, delta: float, variant: str, rng: np.random.Generator) -> np.ndarray:
    """One draw of either formula, float64 like ``base``."""
    move = rng.uniform(-1, 1, base.shape)
    return base + delta / 2 * move if variant == "additive" else base * (1 + delta * move)


def cover(candidate: game.System, seed: int, class_id: int, points: int) -> float:
    """Share of the pixels of instance 0 at 512 px that are not black."""
    where = game.pixels(game.orbit(candidate, orbit_key(seed), points), SIDE)
    image = game.paint_patches(where, game.u64(patch_key(seed, class_id, 0)), 1, SIDE)
    return float(np.count_nonzero(image)) / SIDE**2


def orbit_key(seed: int) -> int:
    """The one stream of map choices of a data set."""
    return seed_for(seed, "one-fractal orbit", "")


def patch_key(seed: int, class_id: int, instance: int) -> int:
    """The key of an image's patches."""
    check_number("instance", instance, int, 0, 2**63)
    return seed_for(seed, "one-fractal patch", f"{class_id}/{instance}")


def _rows(maps: np.ndarray) -> Maps:
    return tuple(tuple(row) for row in maps.reshape(-1, 6).tolist())


def _system(params: OneFractal) -> game.System:
    base = game.system(np.array(params.base).reshape(-1, 2, 3))
    return game.System(np.array(params.maps).reshape(-1, 2, 3), base.thresholds)


@plain_numbers
def render(params: OneFractal, instance: int, size: int) -> np.ndarray:
    """One image, uint8 [size,size,3], grey 127 on black.

    Args:
        params: the class.
        instance: 0 is the published image; others draw new patches on the same points.
        size: side of the image, 8 to 8192 pixels.

    Returns:
        The image.

    Raises:
        InputError: an instance or a size outside its range.
    """
    check_size(size)
    key = game.u64(patch_key(params.seed, params.class_id, instance))
    where = game.pixels(game.orbit(_system(params), orbit_key(params.seed), params.points), size)
    return np.asarray(game.tint(game.paint_patches(where, key, 1, size), COLOURS))


@plain_numbers
def render_torch(params: OneFractal, instances: Sequence[int], size: int, device: str = "cpu") -> Tensor:
    """The images of ``render``, bit for bit, as uint8 [N,3,size,size] on ``device``. Errors as there."""
    return render_classes_torch([(params, instance) for instance in instances], size, device)


def render_classes_torch(images: Sequence[tuple[OneFractal, int]], size: int, device: str = "cpu") -> Tensor:
    """(class, instance) pairs of one data set, a whole data set say: uint8 [N,3,size,size], as ``render`` has them.

    Args:
        images: pairs of class and instance.
        size: side of the images in pixels.
        device: where to draw, e.g. ``cuda``.

    Returns:
        The images, in the order of the pairs.

    Raises:
        InputError: as ``render``, or classes of different data sets (seed, base or points).
    """
    import torch

    from . import _chaos_game_torch as tensors

    check_size(size)
    sets = {(params.seed, params.base, params.points) for params, _ in images}
    if len(sets) > 1:
        raise InputError(f"got classes of {len(sets)} data sets; expected one seed, base and number of points.")
    out = torch.empty(len(images), 3, size, size, dtype=torch.uint8, device=device)
    for first in range(0, len(images), BATCH):
        batch = images[first : first + BATCH]
        params, systems = batch[0][0], [_system(member) for member, _ in batch]
        maps = torch.from_numpy(np.stack([member.maps for member in systems])).to(device)
        thresholds = torch.from_numpy(systems[0].thresholds)[None].to(device)
        points = tensors.orbit(maps, thresholds, tensors.keys([orbit_key(params.seed)], device), params.points)
        seeds = [patch_key(member.seed, member.class_id, instance) for member, instance in batch]
        index = tensors.paint_patches(tensors.pixels(points, size), tensors.keys(seeds, device), 1, size)
        out[first : first + BATCH] = tensors.tint(index, COLOURS)
    return out
