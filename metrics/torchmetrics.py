"""Distances that are fed batch by batch, as torchmetrics' are: ``update``, ``compute``, ``reset``, ``merge``.

For training and evaluation loops whose images never lie in a folder. The states are those of
:mod:`metrics.statistics.block_kid` and :mod:`metrics.statistics.moments`: they add up over batches, processes and
machines. Where ``torch.distributed`` runs, ``compute`` gathers the states of all processes first, and every process
gets the same value. The names are torchmetrics'; the numbers are those of ``metrics.compare``, error bar included.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import torch
import torch.distributed as distributed

from .extractors import DEFAULT, load_extractor
from .statistics.block_kid import BlockKid
from .statistics.frechet import frechet_from_moments
from .statistics.kid import kid
from .statistics.moments import Moments

BLOCK = 1000  # images of a block, as published KIDs have


@dataclass(frozen=True)
class Distance:
    """A distance of ``n`` images to ``m`` real ones; ``se`` is its standard error, None where there is none."""

    value: float
    se: float | None
    n: int
    m: int
    warnings: tuple[str, ...] = ()

    def __float__(self) -> float:
        return self.value


State = TypeVar("State")


class _Streamed(ABC, Generic[State]):
    """What both distances share: features of batches go into a mergeable state."""

    def __init__(self, extractor: Any = DEFAULT, *, device: str = "cpu") -> None:
        self.extractor = load_extractor(extractor, device=device) if isinstance(extractor, str) else extractor
        self._state: State = self._empty()

    def update(self, images: torch.Tensor, real: bool) -> None:
        """Add a batch.

        Args:
            images: ``uint8 [N,3,H,W]`` sRGB.
            real: whether these are real images, or those under test.

        Raises:
            InputError: no such batch, or features that are not finite.
        """
        if len(images):
            self._add(self.extractor(images), real)

    def merge(self, other: Self) -> None:
        """Add everything that ``other`` has seen; ``other`` stays as it is.

        Args:
            other: a distance with the same extractor, which has seen none of the same images.

        Raises:
            InputError: another extractor or block size.
        """
        self._state = self._merged([self._state, other._state])

    def compute(self) -> Distance:
        """The distance of all images so far, of all processes where ``torch.distributed`` runs.

        Returns:
            The value and, for KID, its standard error.

        Raises:
            InputError: fewer than two images on a side.
        """
        return self._distance(self._merged(_gathered(self._state)))

    def reset(self) -> None:
        """Forget all images."""
        self._state = self._empty()

    @abstractmethod
    def _empty(self) -> State: ...

    @abstractmethod
    def _add(self, features: torch.Tensor, real: bool) -> None: ...

    @abstractmethod
    def _merged(self, states: list[State]) -> State: ...

    @abstractmethod
    def _distance(self, state: State) -> Distance: ...


@dataclass
class _Blocks:
    """A block-KID, and how many images of either side have come."""

    kid: BlockKid
    seen: dict[str, int]


class KernelInceptionDistance(_Streamed[_Blocks]):
    """KID in blocks of ``block`` images, each image in one; all pairs where there is no whole block.

    Images that fill no block are left out, and a warning says how many.

    Args:
        extractor: a name of :mod:`metrics.extractors`, or an Extractor.
        block: images a side of a block.
        device: where a named extractor runs.
    """

    def __init__(self, extractor: Any = DEFAULT, *, block: int = BLOCK, device: str = "cpu") -> None:
        self.block = block
        super().__init__(extractor, device=device)

    def _empty(self) -> _Blocks:
        return _Blocks(BlockKid(self.extractor.dim, self.extractor.fingerprint, self.block), {"x": 0, "y": 0})

    def _add(self, features: torch.Tensor, real: bool) -> None:
        side = "y" if real else "x"
        self._state.kid.extend(side, features)
        self._state.seen[side] += len(features)

    def _merged(self, states: list[_Blocks]) -> _Blocks:
        whole = self._empty()
        for state in states:
            whole.kid.append(state.kid)
            whole.seen = {side: count + state.seen[side] for side, count in whole.seen.items()}
        return whole

    def _distance(self, state: _Blocks) -> Distance:
        n, m = state.seen["x"], state.seen["y"]
        if not state.kid.values:
            found = kid(state.kid.waiting("x"), state.kid.waiting("y"))
            return Distance(found.value, found.se, n, m)
        result = state.kid.result()
        told = (f"{result.left_out} images fill no block of {self.block} and are left out.",) * (result.left_out > 0)
        return Distance(result.value, result.error.se, n, m, told)


class FrechetInceptionDistance(_Streamed[tuple[Moments, Moments]]):
    """Fréchet distance of means and covariances; no error bar, and too high where images are few.

    Args:
        extractor: a name of :mod:`metrics.extractors`, or an Extractor; ``inception`` is the network of published FIDs.
        device: where a named extractor runs.
    """

    def _empty(self) -> tuple[Moments, Moments]:
        facts = self.extractor.dim, self.extractor.fingerprint
        return Moments(*facts), Moments(*facts)

    def _add(self, features: torch.Tensor, real: bool) -> None:
        self._state[real].update(features)

    def _merged(self, states: list[tuple[Moments, Moments]]) -> tuple[Moments, Moments]:
        whole = self._empty()
        for state in states:
            for ours, theirs in zip(whole, state, strict=True):
                ours.merge(theirs)
        return whole

    def _distance(self, state: tuple[Moments, Moments]) -> Distance:
        found = frechet_from_moments(*state)
        return Distance(found.value, None, state[0].n, state[1].n, found.warnings)


def _gathered(state: State) -> list[State]:
    """The states of all processes, in the order of their ranks."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(states, state)
    return states
