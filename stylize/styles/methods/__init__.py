"""Style methods, one per file: ``learn`` statistics of photos, ``transfer`` them onto images.

:data:`METHODS` says of each what is known without running it. A package adds a method through the entry point
``reverse_stylize.methods``, whose object is a :class:`StyleMethod` that names the package's own module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from metrics.errors import InputError
from metrics.registry import find, known

if TYPE_CHECKING:
    import torch


class MethodModule(Protocol):
    """What a method's module offers; each image's result depends on nothing else in its batch."""

    STATISTICS: str  # the method whose ``learn`` gives the statistics: its own name, or another's

    def learn(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Statistics ``{name: [N, ...]}`` of ``images`` (``float32 [N,3,H,W]`` in [0, 1]), of any size."""

    def transfer(
        self,
        images: torch.Tensor,
        style: Mapping[str, torch.Tensor],
        strength: float,
        seeds: Sequence[int],
        **options: Any,
    ) -> torch.Tensor:
        """``images`` with the statistics of ``style``, ``float32 [N,3,H,W]``; nothing changes at strength 0."""

    # A method whose statistics are features of a network also has encoder() -> Encoder; one that is trained has
    # load(path) -> network, which ``transfer`` takes as the option ``network`` and whose knows(style) says which styles
    # it can paint.


@dataclass(frozen=True)
class StyleMethod:
    """What is known of a method without running it.

    Attributes:
        summary: what it does, in one line.
        module: where its :class:`MethodModule` lies; a name that begins with a dot is one of this package.
        megapixels: the largest image with which a worker stays below 2 GB (``benchmarks/memory.py`` measures it).
        levels: scales that it works on; ``name:1`` lets the finest alone take part.
        slow: takes a second or more per image.
        copies: its output and its style files hold pixels of the photos.
        baseline: a method that users know, to compare with.
        encoder: its statistics are features of a network.
        fallback: of a trained method: the one that paints the styles which its network does not know.
    """

    summary: str
    module: str
    megapixels: float
    levels: int = 1
    slow: bool = False
    copies: bool = False
    baseline: bool = False
    encoder: bool = False
    fallback: str | None = None

    def load(self) -> MethodModule:
        """Its module."""
        return cast(MethodModule, import_module(self.module, __name__))


METHODS = {
    "colour": StyleMethod(
        "Monge-Kantorovich map of the colour distribution: fastest, touches no texture", ".colour", 16.0
    ),
    "histogram": StyleMethod(
        "histogram matching of each channel: the baseline users know", ".histogram", 16.0, baseline=True
    ),
    "fda": StyleMethod(
        "Fourier domain adaptation: low-frequency amplitudes of the style (baseline)", ".fda", 14.0, baseline=True
    ),
    "patches": StyleMethod(
        "affine optimal transport of 3x3 patches at three scales: stretches what is there", ".patches", 14.0, levels=3
    ),
    "texture": StyleMethod(
        "patches, and a synthesised Gaussian texture where the content has no detail to stretch",
        ".texture",
        14.0,
        levels=3,
    ),
    "gmm": StyleMethod(
        "optimal transport between Gaussian mixtures of patches: flat, edge and textured patches apart",
        ".gmm",
        2.0,
        levels=3,
    ),
    "sliced": StyleMethod(
        "sliced optimal transport of patches: their distribution along many directions", ".sliced", 2.0, levels=3
    ),
    "spectrum": StyleMethod(
        "cross-channel spectrum of the style, noise where the content has no power, phases kept", ".spectrum", 6.5
    ),
    "pyramid": StyleMethod(
        "steerable-pyramid marginals (Heeger-Bergen), noise where the bands are empty", ".pyramid", 2.0
    ),
    "regions": StyleMethod(
        "regions of the content filled with texture synthesised from the photo's statistics", ".regions", 8.5
    ),
    "network": StyleMethod(
        "a small network, trained once, that paints a content in a style in one pass",
        ".network",
        4.2,
        fallback="texture",
    ),
    "gatys": StyleMethod(
        "optimisation of pixels to an encoder's feature statistics: about a second per image",
        ".gatys",
        1.5,
        slow=True,
        encoder=True,
    ),
    "nnst": StyleMethod(
        "optimisation of pixels to nearest style features, recombined: about two seconds per image",
        ".nnst",
        1.5,
        slow=True,
        encoder=True,
    ),
    "crops": StyleMethod(
        "regions filled with the photo's own pixels: COPIES BY DESIGN, the bar to reach without copying",
        ".crops",
        4.2,
        copies=True,
    ),
}


def known_methods() -> tuple[str, ...]:
    """The names of all methods, those of installed packages included."""
    return known("methods", METHODS)


def style_method(name: str) -> StyleMethod:
    """What is known of the method called ``name``.

    Returns:
        Its facts.

    Raises:
        InputError: unknown name (near names are suggested), or a package's method that breaks the contract.
    """
    found = find("style method", "methods", METHODS, name)
    if not isinstance(found, StyleMethod):
        raise InputError(
            f"style method {name!r} of another package: got {found!r:.80}. Expected a "
            "stylize.styles.methods.StyleMethod; stylize.validate.method says what is missing."
        )
    return found


def stages(method: str) -> list[tuple[str, dict[str, int]]]:
    """The methods that ``colour+texture:2`` names, in order, and their options, here the number of levels.

    Returns:
        A pair per method.

    Raises:
        InputError: a name that is no style method, or levels that it does not have.
    """
    return [_stage(word) for word in method.split("+")]


def _stage(word: str) -> tuple[str, dict[str, int]]:
    name, colon, levels = word.partition(":")
    most = style_method(name).levels
    if not colon:
        return name, {}
    if most == 1:
        levelled = ", ".join(other for other in METHODS if METHODS[other].levels > 1)
        raise InputError(f"method {word}: {name} has no levels to choose from; {levelled} have.")
    if levels not in map(str, range(1, most + 1)):
        raise InputError(f"method {word}: expected {name}:1 (the finest scale alone) to {name}:{most} (all).")
    return name, {"levels": int(levels)}
