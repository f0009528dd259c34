"""RCDB, the radial contour data base: noisy polygons that grow outward from a point, grey on white.

Source: Kataoka et al., "Replacing Labeled Real-Image Datasets with Auto-Generated Contours" (CVPR 2022), with the
numbers of its published rendering script. A class is (q, K, eta, w):

    vertices q = floor(Exp(mean 100)), redrawn until 3 <= q <= 200;    polygons K ~ U{1..200};
    noise coefficient eta ~ U(0, 4);    step ("line width") w ~ U(0, 0.1).

An instance draws the start ellipse, radius U{0..100} times U(1, 2) in x and in y, the centre (512 + U{-400..400}) / 2
in x and in y, a grey U{0..256} (256 shows as 255) for each polygon and the noise. Each polygon is the one before with
every vertex moved by cos t (w + eta - 2 eta P(u)) in x and sin t (w + eta - 2 eta P(u')) in y, and is drawn over it as
lines of one pixel, not anti-aliased; see ``_contours`` for P, for the lines and for other sizes than 512.

Deviations from the script: its class parameters also name an ellipse and a centre, which only the first instance uses
and all others redraw; here every instance draws them. Its classes with next to no contour are drawn again: a class is
kept if at the smallest radius and in the middle its contours touch at least 0.5 % of the canvas (87 % of the draws do).
``sample_class(..., min_ink=0)`` keeps every draw, as the script does. Random numbers are our own.

Measured over 400 classes at 512 pixels: half of the images have 11 to 32 % of their pixels touched,
nine in ten 3 to 45 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from metrics.seed import generator, seed_for

from ._class_checks import check_identity, check_number
from ._contours import CANVAS, MAX_POLYGONS, MAX_VERTICES, MIN_INK, Stack, draw, search, three_channels, vertex_count
from ._plain_numbers import plain_numbers

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RCDB:
    """One class.

    Attributes:
        seed, class_id: where the class came from; its instances draw from them too.
        vertices: q, of each polygon.
        polygons: K, how often the contour grows.
        noise: eta, in pixels of the 512-pixel canvas.
        step: w, in the same pixels.
        draws: parameters drawn until these were kept; 1 / mean(draws) over classes is the acceptance rate.
    """

    seed: int
    class_id: int
    vertices: int
    polygons: int
    noise: float
    step: float
    draws: int

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered: InputError."""
        check_identity(self)
        check_number("vertices", self.vertices, int, 3, MAX_VERTICES)
        check_number("polygons", self.polygons, int, 1, MAX_POLYGONS)
        check_number("noise", self.noise, float, 0, 8)
        check_number("step", self.step, float, 0, 8)
        check_number("draws", self.draws, int, 1, 2**31)


Parameters = RCDB


@plain_numbers
def sample_class(seed: int, class_id: int, *, min_ink: float = MIN_INK) -> RCDB:
    """The class ``class_id`` of the data set ``seed``.

    Args:
        seed: of the data set.
        class_id: number of the class, from 0.
        min_ink: share of the canvas that the smallest contours of a class must touch; 0 keeps the first draw.

    Returns:
        The class.

    Raises:
        InputError: no draw touched so much within 1000 draws, or ``min_ink`` outside [0, 1].
    """
    rng = generator(seed, "rcdb class", str(class_id))

    def candidate(draws: int) -> tuple[RCDB, Stack]:
        params = RCDB(
            seed=seed,
            class_id=class_id,
            vertices=vertex_count(rng, 200),
            polygons=int(rng.integers(1, 201)),
            noise=rng.uniform(0, 4),
            step=rng.uniform(0, 0.1),
            draws=draws,
        )
        return params, _stack(params, (0.0, 0.0), (0.0, 0.0), 0)

    return search(candidate, min_ink, f"class {class_id} of seed {seed}")


def place(params: RCDB, instance: int) -> tuple[list[Stack], np.ndarray]:
    """What one instance draws: its one stack, and the greys uint8 [1+K] of the background and of each polygon."""
    key = f"{params.class_id}/{instance}"
    rng = generator(params.seed, "rcdb instance", key)
    radius = int(rng.integers(0, 101))
    oval = rng.uniform(1, 2, 2).tolist()
    x, y = ((CANVAS + offset) / 2 for offset in rng.integers(-400, 401, 2).tolist())
    greys = np.full(1 + params.polygons, 255, np.uint8)
    greys[1:] = np.minimum(rng.integers(0, 257, params.polygons), 255)
    stack = _stack(params, (radius * oval[0], radius * oval[1]), (x, y), seed_for(params.seed, "rcdb noise", key))
    return [stack], greys


@plain_numbers
def render(params: RCDB, instance: int, size: int) -> np.ndarray:
    """One image, uint8 [size,size,3]; ``size`` is 8 to 8192 pixels, or InputError."""
    stacks, greys = place(params, instance)
    return three_channels(draw(stacks, size, greys))


@plain_numbers
def render_torch(params: RCDB, instances: Sequence[int], size: int, device: str = "cpu") -> torch.Tensor:
    """The same images on a device, uint8 [N,3,size,size], bit for bit; on a CPU slower than ``render``."""
    from . import _contours_torch as fast

    return fast.render([place(params, instance) for instance in instances], size, device)


def _stack(params: RCDB, radius: tuple[float, float], centre: tuple[float, float], key: int) -> Stack:
    return Stack(
        vertices=params.vertices,
        polygons=params.polygons,
        advance=params.step + params.noise,
        noise=2 * params.noise,
        radius=radius,
        centre=centre,
        key=key,
    )
