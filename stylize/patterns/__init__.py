"""Formula-driven structure, by name: (seed, class, instance, size) -> image, the same pixels on any machine.

A family is a module of this package, named like the family with underscores, that has what :class:`Family`
says. To add one, write the module and add a line to the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol, cast

from metrics.registry import unknown

if TYPE_CHECKING:
    import numpy as np

FAMILIES = {
    "neural-fractal": "regions of the plane that stay small under iteration of a random complex network",
}


class Family(Protocol):
    """What a family's module offers."""

    Parameters: type[Any]  # a frozen dataclass of plain values that checks itself

    def sample_class(self, seed: int, class_id: int, **options: Any) -> Any:
        """The parameters of one class of the data set ``seed``; the family's own options have defaults."""

    def render(self, params: Any, instance: int, size: int) -> np.ndarray:
        """One image of the class, uint8 [size,size,3] sRGB."""


def load_family(name: str) -> Family:
    """The family called ``name``.

    Raises:
        InputError: the name is not in :data:`FAMILIES`; near names are suggested.
    """
    if name not in FAMILIES:
        raise unknown("pattern family", name, FAMILIES)
    return cast(Family, import_module(f".{name.replace('-', '_')}", __name__))


def check_options(name: str, options: Iterable[str]) -> None:
    """Raises InputError for an option that the family's ``sample_class`` does not have; near names are suggested."""
    known = list(signature(load_family(name).sample_class).parameters)[2:]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
