"""Make images: formula-driven patterns, and the look of real photos moved onto them.

Functions do the work and return a result; ``progress=`` takes a callable, and twins ``iter_…`` yield the same steps.

===============================================  =====================================================================
``render``, ``PatternDataset``                   a labelled set of a pattern family: as files, or made when it is read
``learn``, ``StyleBank``                         the look of real photos
``apply``                                        a stylised copy of a set, with the same names and labels
``Stylize``, ``StylizedDataset``, ``transfer``   as augmentation in a data loader; one image and one photo
``tune``, ``Constraints``, ``train``              search for a method that keeps enough; train the network on own photos
``Sampler``, ``invert``, ``generate``,           dataset style inversion: learn a word for a whole set, generate with
``restyle``                                      it, restyle with it
===============================================  =====================================================================
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diffusion.generate import generate as generate
    from .diffusion.generate import iter_generate as iter_generate
    from .diffusion.invert import invert as invert
    from .diffusion.invert import iter_invert as iter_invert
    from .diffusion.restyle import iter_restyle as iter_restyle
    from .diffusion.restyle import restyle as restyle
    from .diffusion.sampler import Sampler as Sampler
    from .patterns.dataset import PatternDataset as PatternDataset
    from .styles.bank import StyleBank as StyleBank
    from .styles.bank import learn as learn
    from .training.train import iter_train as iter_train
    from .training.train import train as train
    from .transform import Stylize as Stylize
    from .transform import StylizedDataset as StylizedDataset
    from .transform import transfer as transfer
    from .tuning.search import iter_tune as iter_tune
    from .tuning.search import tune as tune
    from .tuning.study import Constraints as Constraints
    from .version import __version__ as __version__
    from .writing.apply import apply as apply
    from .writing.apply import iter_apply as iter_apply
    from .writing.render import iter_render as iter_render
    from .writing.render import render as render

_HOMES = {
    "Constraints": ".tuning.study",
    "__version__": ".version",
    "PatternDataset": ".patterns.dataset",
    "Sampler": ".diffusion.sampler",
    "StyleBank": ".styles.bank",
    "Stylize": ".transform",
    "StylizedDataset": ".transform",
    "apply": ".writing.apply",
    "generate": ".diffusion.generate",
    "invert": ".diffusion.invert",
    "iter_apply": ".writing.apply",
    "iter_generate": ".diffusion.generate",
    "iter_invert": ".diffusion.invert",
    "iter_render": ".writing.render",
    "iter_restyle": ".diffusion.restyle",
    "iter_train": ".training.train",
    "iter_tune": ".tuning.search",
    "learn": ".styles.bank",
    "render": ".writing.render",
    "restyle": ".diffusion.restyle",
    "train": ".training.train",
    "transfer": ".transform",
    "tune": ".tuning.search",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
