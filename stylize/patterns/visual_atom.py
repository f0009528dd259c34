"""VisualAtom: orbits with two sine waves and noise that grow outward from an ellipse, grey on black.

Source: Takashima et al., "Visual Atoms: Pre-training Vision Transformers with Sinusoidal Waves" (CVPR 2023), with the
numbers of its published rendering script in its best-practice call. A class is (q, K, eta, w, n1, n2, r, ox, oy):

    vertices q ~ U{200..1000};    orbits K ~ U{1..200};    noise coefficient eta ~ U(0, 4);
    step ("line width") w ~ U(0, 0.1);    start radius r ~ U{10..60};    oval factors ox, oy ~ U(1, 2);
    frequencies n1, n2 ~ U{0..20}, n2 redrawn while n1 = n2 unless both are 0.

An instance draws the centre (512 + U{-512..512}) / 2 in x and in y, a grey U{0..255} for each orbit and the noise. Each
orbit is the one before with every vertex moved by cos t (w + eta - eta P(u) + sin(n1 t)/2 + sin(n2 t)/2) in x and the
same with sin t and another u in y, and is drawn over it as lines of one pixel, not anti-aliased; see ``_contours`` for
P, for the lines and for other sizes than 512.

Deviation from the script: classes with next to no contour are drawn again. A class is kept if its orbits in the middle
touch at least 0.5 % of the canvas (99 % of the draws do); ``sample_class(..., min_ink=0)`` keeps every draw, as the
script does. Random numbers are our own.

Measured over 400 classes at 512 pixels: half of the images have 11 to 49 % of their pixels touched,
nine in ten 2 to 70 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from metrics.seed import generator, seed_for

from ._class_checks import check_identity, check_number
from ._contours import CANVAS, MAX_POLYGONS, MAX_VERTICES, MIN_INK, Stack, check_pair, draw, search, three_channels
from ._plain_numbers import plain_numbers

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class VisualAtom:
    """One class.

    Attributes:
        seed, class_id: where the class came from; its instances draw from them too.
        vertices: q, of each orbit.
        polygons: K, the number of orbits.
        noise: eta, in pixels of the 512-pixel canvas.
        step: w, in the same pixels.
        radius: r, in the same pixels.
        oval: factors of the radius in x and in y.
        waves: n1, n2, periods of the two sine waves around the orbit.
        draws: parameters drawn until these were kept; 1 / mean(draws) over classes is the acceptance rate.
    """

    seed: int
    class_id: int
    vertices: int
    polygons: int
    noise: float
    step: float
    radius: float
    oval: tuple[float, float]
    waves: tuple[int, int]
    draws: int

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered: InputError."""
        check_identity(self)
        check_number("vertices", self.vertices, int, 3, MAX_VERTICES)
        check_number("polygons", self.polygons, int, 1, MAX_POLYGONS)
        check_number("noise", self.noise, float, 0, 8)
        check_number("step", self.step, float, 0, 8)
        check_number("radius", self.radius, float, 0, CANVAS)
        check_pair("oval", self.oval, 0.25, 4, float)
        check_pair("waves", self.waves, 0, 1000)
        check_number("draws", self.draws, int, 1, 2**31)


Parameters = VisualAtom


@plain_numbers
def sample_class(seed: int, class_id: int, *, min_ink: float = MIN_INK) -> VisualAtom:
    """The class ``class_id`` of the data set ``seed``.

    Args:
        seed: of the data set.
        class_id: number of the class, from 0.
        min_ink: share of the canvas that the orbits of a class must touch; 0 keeps the first draw.

    Returns:
        The class.

    Raises:
        InputError: no draw touched so much within 1000 draws, or ``min_ink`` outside [0, 1].
    """
    rng = generator(seed, "visual-atom class", str(class_id))

    def candidate(draws: int) -> tuple[VisualAtom, Stack]:
        params = VisualAtom(
            seed=seed,
            class_id=class_id,
            vertices=int(rng.integers(200, 1001)),
            polygons=int(rng.integers(1, 201)),
            noise=rng.uniform(0, 4),
            step=rng.uniform(0, 0.1),
            radius=int(rng.integers(10, 61)),
            oval=(rng.uniform(1, 2), rng.uniform(1, 2)),
            waves=_frequencies(rng),
            draws=draws,
        )
        return params, _stack(params, (0.0, 0.0), 0)

    return search(candidate, min_ink, f"class {class_id} of seed {seed}")


def place(params: VisualAtom, instance: int) -> tuple[list[Stack], np.ndarray]:
    """What one instance draws: its one stack, and the greys uint8 [1+K] of the background and of each polygon."""
    key = f"{params.class_id}/{instance}"
    rng = generator(params.seed, "visual-atom instance", key)
    x, y = ((CANVAS + offset) / 2 for offset in rng.integers(-CANVAS, CANVAS + 1, 2).tolist())
    greys = np.zeros(1 + params.polygons, np.uint8)
    greys[1:] = rng.integers(0, 256, params.polygons)
    stack = _stack(params, (x, y), seed_for(params.seed, "visual-atom noise", key))
    return [stack], greys


@plain_numbers
def render(params: VisualAtom, instance: int, size: int) -> np.ndarray:
    """One image, uint8 [size,size,3]; ``size`` is 8 to 8192 pixels, or InputError."""
    stacks, greys = place(params, instance)
    return three_channels(draw(stacks, size, greys))


@plain_numbers
def render_torch(params: VisualAtom, instances: Sequence[int], size: int, device: str = "cpu") -> torch.Tensor:
    """The same images on a device, uint8 [N,3,size,size], bit for bit; on a CPU slower than ``render``."""
    from . import _contours_torch as fast

    return fast.render([place(params, instance) for instance in instances], size, device)


def _frequencies(rng: np.random.Generator) -> tuple[int, int]:
    first, second = rng.integers(0, 21, 2).tolist()
    while first == second != 0:
        second = int(rng.integers(0, 21))
    return first, second


def _stack(params: VisualAtom, centre: tuple[float, float], key: int) -> Stack:
    return Stack(
        vertices=params.vertices,
        polygons=params.polygons,
        advance=params.step + params.noise,
        noise=params.noise,
        radius=(params.radius * params.oval[0], params.radius * params.oval[1]),
        centre=centre,
        key=key,
        waves=params.waves,
    )
