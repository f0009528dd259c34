"""Neural fractals: which points c of the plane stay small under z <- g(z) + c, for a random complex network g.

Recurrence, network shape and Monte-Carlo coverage follow what is published of "Stylized Structural Patterns for
Improved Neural Network Pre-training" (arXiv 2506.19465): z_0 = 0, g = six hidden layers of three complex tanh neurons,
output cubed; a pixel holds the share of its area with |z_T| <= tau. Weights and biases are N(0,1) + j N(0,1), as in the
earlier package nfractal. A threshold that adapts to each network is described without its constants, so our rule for
it and everything below is our own choice:

- tau is the modulus below which a drawn share (``fill``) of a 64 x 64 probe of the very window lies, so that the
  pattern never depends on the scale of g's output, which spans two orders of magnitude between networks;
- a draw is kept only if its probe is neither empty, full, bare nor dust (``Probe.good``); about three in ten are;
- ``split`` tanh (of the real and the imaginary part) is the default: it gives curves, edges and folded sheets.
  ``holomorphic`` tanh, the earlier formulation, gives Julia-like islands and much dust;
- T is drawn per class from 6 to 20: few steps give smooth folds, many give filaments.

A class is a network with a base window; an instance moves, zooms and turns the window and draws fill and colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metrics.errors import InputError
from metrics.registry import unknown
from metrics.seed import generator, seed_for

from . import _neural_fractal_kernel as kernel
from ._plain_numbers import plain_numbers, whole
from ._shading import ranks, shade

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

STRATA = 4  # samples per pixel = STRATA^2
PROBE = 64  # side of the probe, in samples
TILE = 8  # side of the probe's tiles
COVERAGE = (0.1, 0.9)  # of the probe's samples inside
EDGES = (0.04, 0.2)  # share of neighbouring samples on different sides of the threshold; dust has up to 0.5
ROUGH = 0.16  # mean rank difference of neighbouring samples, at most; white noise has 1/3, a ramp 0.01
SPREAD = 0.5  # share of the tiles that hold an edge, at least
MAX_DRAWS = 400  # of a class; three draws in ten are good, so this bound only ends a search that something else broke
MAX_MOVES = 16  # of an instance's window; then it keeps its class's own window, which is known to be good
MAX_SIZE = 8192
ACTIVATIONS = ("split", "holomorphic")


class Field(NamedTuple):
    """A rendered pattern, float32 [H,W] each.

    coverage: share of the pixel inside the pattern, in [0,1].
    magnitude: mean of |z_T| / (|z_T| + tau) over the pixel, in [0,1]; 1/2 at the threshold, smaller inside.
    """

    coverage: np.ndarray
    magnitude: np.ndarray


class Window(NamedTuple):
    """A square of the plane and the share of it that the dynamic threshold puts inside. ``angle`` is in radians."""

    x: float
    y: float
    side: float
    angle: float
    fill: float


@dataclass(frozen=True)
class NeuralFractal:
    """One class: a network, its base window and its threshold rule.

    Attributes:
        seed, class_id: where the class came from; its instances draw from them too.
        activation: "split" or "holomorphic".
        weights: 140 floats, (re, im) pairs in the order of the kernel: per neuron its weights, then its bias.
        window: where its instances look, more or less.
        iterations: T.
        tau: fixed threshold instead, or None.
        draws: networks drawn until this one was good; 1 / mean(draws) over classes is the acceptance rate.
    """

    seed: int
    class_id: int
    activation: str
    weights: tuple[float, ...]
    window: Window
    iterations: int
    tau: float | None
    draws: int

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered: InputError."""
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        _numbers("weights", self.weights, kernel.WEIGHTS, -100, 100)
        _numbers("window", self.window, len(Window._fields), -1e3, 1e3)
        _numbers("window side", self.window[2:3], 1, 1e-4, 1e3)
        _numbers("window fill", self.window[4:5], 1, 0.05, 0.95)
        if self.tau is not None:
            _numbers("tau", (self.tau,), 1, 1e-6, 1e6)
        for name, least, most in (
            ("seed", -(2**63), 2**64),
            ("class_id", 0, 2**63),
            ("iterations", 1, 1000),
            ("draws", 1, 2**31),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise InputError(f"{name} is {value!r}; expected an integer from {least} to {most}.")


Parameters = NeuralFractal


def _numbers(name: str, values: Any, count: int, least: float, most: float) -> None:
    """Check ``count`` finite numbers from ``least`` to ``most``."""
    if not isinstance(values, tuple) or len(values) != count:
        got = f"{len(values)} of them" if isinstance(values, tuple) else type(values).__name__
        raise InputError(f"{name}: expected {count} numbers; got {got}.")
    for value in values:
        if type(value) not in (int, float) or not least <= value <= most:  # NaN compares false
            raise InputError(f"{name} holds {value!r}; expected finite numbers from {least:g} to {most:g}.")


@plain_numbers
def sample_class(
    seed: int, class_id: int, *, activation: str = "split", tau: float | None = None, max_draws: int = MAX_DRAWS
) -> NeuralFractal:
    """The class ``class_id`` of the data set ``seed``.

    Args:
        seed: of the data set.
        class_id: number of the class, from 0.
        activation: "split" or "holomorphic".
        tau: fixed threshold, for comparison with the earlier formulation (its default is 2.0), which also had no
            selection: the first draw is the class. None: dynamic threshold and selection.
        max_draws: networks to try.

    Returns:
        The class.

    Raises:
        InputError: unknown activation, or no network was good within ``max_draws``.
    """
    rng = generator(seed, "neural-fractal class", str(class_id))
    for draws in range(1, max_draws + 1):
        weights = rng.standard_normal(kernel.WEIGHTS).astype(np.float32)
        x, y = rng.normal(0, 1.5, 2).tolist()
        window = Window(
            x=x,
            y=y,
            side=math.exp(rng.uniform(math.log(1.5), math.log(12))),
            angle=rng.uniform(0, 2 * math.pi),
            fill=rng.uniform(0.25, 0.6),
        )
        params = NeuralFractal(
            seed=seed,
            class_id=class_id,
            activation=activation,
            weights=tuple(weights.tolist()),
            window=window,
            iterations=int(rng.integers(6, 21)),
            tau=tau,
            draws=draws,
        )
        if tau is not None or probe(params, window).good:
            return params
    raise InputError(
        f"class {class_id} of seed {seed}: 0 of {max_draws} random {activation} networks gave a pattern that is "
        "neither empty, full, bare nor dust (acceptance 0 %; about 30 % is usual). "
        f"Raise max_draws (default {MAX_DRAWS}) or take another seed."
    )


class Probe(NamedTuple):
    """What a low-resolution pass says about a window."""

    tau: float  # dynamic threshold
    coverage: float
    edges: float
    rough: float
    spread: float

    @property
    def good(self) -> bool:
        """Neither empty, full (coverage), bare (edges, spread) nor dust (edges, rough)."""
        return (
            COVERAGE[0] <= self.coverage <= COVERAGE[1]
            and EDGES[0] <= self.edges <= EDGES[1]
            and self.rough <= ROUGH
            and self.spread >= SPREAD
        )


def probe(params: NeuralFractal, window: Window) -> Probe:
    """Render the window with one sample for each of 64 x 64 cells; set the threshold and measure the structure."""
    field = _orbits(params, window, PROBE, 1, 1.0, 0).magnitude  # |z| / (|z| + 1)
    level = float(np.quantile(field, window.fill, method="lower"))
    tau = level / max(1 - level, 1e-6)
    inside, rank = field <= level, ranks(field, field.ravel())
    down, across = inside[1:] != inside[:-1], inside[:, 1:] != inside[:, :-1]
    edge = np.zeros_like(inside)
    edge[1:] |= down
    edge[:, 1:] |= across
    tiles = edge.reshape(PROBE // TILE, TILE, PROBE // TILE, TILE).any(axis=(1, 3))
    steps = [np.abs(np.diff(rank, axis=axis)).mean(dtype=np.float64) for axis in (0, 1)]
    return Probe(
        tau=min(max(tau, 1e-6), 1e6),
        coverage=float(inside.mean()),
        edges=float(down.mean() + across.mean()) / 2,
        rough=float(sum(steps)) / 2,
        spread=float(tiles.mean()),
    )


def place(params: NeuralFractal, instance: int) -> tuple[Window, float]:
    """The instance's own window and threshold: the class's window moved, zoomed and turned until its probe is good."""
    rng = generator(params.seed, "neural-fractal window", f"{params.class_id}/{instance}")
    base = params.window
    for _ in range(MAX_MOVES):
        dx, dy, zoom, turn, fill = rng.uniform(-1, 1, 5).tolist()
        window = Window(
            x=base.x + 0.3 * base.side * dx,
            y=base.y + 0.3 * base.side * dy,
            side=base.side * 1.5**zoom,
            angle=base.angle + 0.5 * turn,
            fill=min(max(base.fill + 0.1 * fill, 0.05), 0.95),
        )
        if params.tau is not None:
            return window, params.tau
        found = probe(params, window)
        if found.good:
            return window, found.tau
    return base, probe(params, base).tau


@plain_numbers
def render_field(params: NeuralFractal, instance: int, size: int, *, strata: int = STRATA) -> Field:
    """The pattern of one instance before colour; a pure function of its arguments on any machine.

    Args:
        params: the class.
        instance: number of the image within the class.
        size: side of the image, 8 to 8192 pixels.
        strata: the Monte-Carlo estimate takes strata^2 jittered samples per pixel, one in each cell of a grid; 1 to 16.

    Returns:
        Coverage and magnitude, ``float32 [size,size]`` each.

    Raises:
        InputError: a size or a number of strata outside its range.
    """
    _check(size, strata)
    window, tau = place(params, instance)
    return _orbits(params, window, size, strata, tau, _jitter(params, instance))


@plain_numbers
def render(params: NeuralFractal, instance: int, size: int, *, strata: int = STRATA) -> np.ndarray:
    """One image, uint8 [size,size,3] sRGB: ``render_field`` and random colours. Arguments and errors as there."""
    field = render_field(params, instance, size, strata=strata)
    return shade(*field, _colours(params, instance))


@plain_numbers
def render_torch(
    params: NeuralFractal,
    instances: Sequence[int],
    size: int,
    device: str | torch.device = "cpu",
    *,
    strata: int = STRATA,
) -> torch.Tensor:
    """The images of ``render``, bit for bit, as uint8 [N,3,size,size] on ``device``. Errors as there.

    Windows are placed on the CPU (a probe of 64 x 64 samples or a few); samples, coverage and colours are made on the
    device, 2^20 samples at a time.

    Args:
        params: the class.
        instances: numbers of the images within the class.
        size: side of the images in pixels.
        device: where to draw, e.g. ``cuda``.
        strata: samples per pixel = strata^2.

    Returns:
        The images.
    """
    import torch

    from . import _neural_fractal_torch as tensors

    _check(size, strata)
    images = torch.empty(len(instances), 3, size, size, dtype=torch.uint8, device=device)
    if not instances:
        return images
    windows, taus = zip(*(place(params, instance) for instance in instances), strict=True)
    coverage, magnitude = tensors.orbits(
        params.weights,
        np.stack([_frame(window, size) for window in windows]),
        [_jitter(params, instance) for instance in instances],
        taus,
        size,
        strata,
        params.iterations,
        params.activation == "holomorphic",
        device,
    )
    for k, instance in enumerate(instances):
        images[k] = tensors.shade(coverage[k], magnitude[k], _colours(params, instance))
    return images


def _check(size: int, strata: int) -> None:
    if not 8 <= whole("size", size) <= MAX_SIZE:
        raise InputError(f"size is {size}; expected 8 to {MAX_SIZE} pixels.")
    if not 1 <= whole("strata", strata) <= 16:
        raise InputError(f"strata is {strata}; expected 1 to 16 (strata^2 samples per pixel).")


def _jitter(params: NeuralFractal, instance: int) -> int:
    """The key of an instance's sample points, below 2^32."""
    return seed_for(params.seed, "neural-fractal jitter", f"{params.class_id}/{instance}") & 0xFFFFFFFF


def _colours(params: NeuralFractal, instance: int) -> np.random.Generator:
    return generator(params.seed, "neural-fractal colour", f"{params.class_id}/{instance}")


def _frame(window: Window, size: int) -> np.ndarray:
    """Pixels to points, float32 [6], as the kernel takes it; the imaginary axis points up."""
    cos, sin = (window.side / size * f(window.angle) for f in (math.cos, math.sin))
    x, y = window.x - size / 2 * (cos + sin), window.y - size / 2 * (sin - cos)
    return np.array([x, cos, sin, y, sin, -cos], np.float32)


def _orbits(params: NeuralFractal, window: Window, size: int, strata: int, tau: float, jitter: int) -> Field:
    """Run the kernel over a square of pixels."""
    out = np.empty((2, size * size), np.float32)
    kernel.orbits(
        np.array(params.weights, np.float32),
        _frame(window, size),
        np.uint32(jitter),
        size,
        strata,
        params.iterations,
        np.float32(tau),
        params.activation == "holomorphic",
        out,
    )
    return Field(*out.reshape(2, size, size))
