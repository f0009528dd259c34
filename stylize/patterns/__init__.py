"""Formula-driven structure, by name: (seed, class, instance, size) -> image, the same pixels on any machine.

A family is a module of this package, named like the family with underscores, that has what :class:`Family`
says. To add one, write the module and add a line to the table. Another package adds one through the entry point
``reverse_stylize.families``, whose object is such a module; its first line says what it draws.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol, cast

from metrics.registry import find, known, unknown

if TYPE_CHECKING:
    import numpy as np

FAMILIES = {
    "neural-fractal": "regions of the plane that stay small under iteration of a random complex network",
    "fractaldb": "2-D iterated function systems that fill at least a fifth of the image",
    "exfractaldb": "3-D iterated function systems seen through a perspective camera",
    "one-fractal": "one iterated function system; its small perturbations are the classes",
    "fractal-svd": "contracting systems drawn by singular values, coloured, over a random background",
    "rcdb": "noisy polygons that grow outward from a point, grey lines on white",
    "visual-atom": "orbits of sine waves and noise that grow outward from an ellipse, grey lines on black",
    "seg-contours": "many overlapping radial contours on black, with the class of each pixel (SegRCDB)",
    "one-image": "edges of one real photo under random affine maps, each map a class (--option photo=FILE)",
    "dead-leaves": "opaque shapes of random size fall on each other until no ground shows",
    "spectrum-noise": "noise with a random power-law spectrum and random colours",
    "moire": "two gratings of rings beat against each other and the pixel grid",
}


class Family(Protocol):
    """What a family's module offers."""

    Parameters: type[Any]  # a frozen dataclass of plain values that checks itself

    def sample_class(self, seed: int, class_id: int, **options: Any) -> Any:
        """The parameters of one class of the data set ``seed``; the family's own options have defaults."""

    def render(self, params: Any, instance: int, size: int) -> np.ndarray:
        """One image of the class, uint8 [size,size,3] sRGB."""

    # A family for segmentation also has render_with_mask(params, instance, size) -> (image, uint8 [size,size]).


def known_families() -> tuple[str, ...]:
    """The names of all families, those of installed packages included."""
    return known("families", FAMILIES)


def family_summary(name: str) -> str:
    """What the family called ``name`` draws, in one line; raises InputError as :func:`load_family`."""
    return FAMILIES[name] if name in FAMILIES else (load_family(name).__doc__ or "").partition("\n")[0]


def load_family(name: str) -> Family:
    """The family called ``name``.

    Returns:
        The family's module.

    Raises:
        InputError: the name is neither in :data:`FAMILIES` nor that of an installed package; near names are suggested.
    """
    found = find("pattern family", "families", FAMILIES, name)
    return cast(Family, import_module(f".{name.replace('-', '_')}", __name__) if name in FAMILIES else found)


def render_with_mask(family: Family, params: Any, instance: int, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """One image, uint8 [size,size,3], and the label of each pixel, uint8 [size,size], where the family has masks."""
    if hasattr(family, "render_with_mask"):
        image, mask = family.render_with_mask(params, instance, size)
        return image, mask
    return family.render(params, instance, size), None


def check_options(name: str, options: Iterable[str]) -> None:
    """Raises InputError for an option that the family's ``sample_class`` does not have; near names are suggested."""
    options_of = list(signature(load_family(name).sample_class).parameters)[2:]
    for option in options:
        if option not in options_of:
            raise unknown(f"option of {name}", option, options_of)
