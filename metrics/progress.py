"""The one protocol of progress: long work calls ``progress(step)``, where a step says how much of what is done.

A function that does long work takes ``progress``, a callable, and returns its result; its twin ``iter_…`` yields the
same steps. The maths never prints.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import closing
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Step(Protocol):
    """How far work is: ``done`` out of ``total``; kinds of work add their own fields, such as a loss."""

    @property
    def done(self) -> int:
        """How much is done."""
        ...

    @property
    def total(self) -> int | None:
        """Of how much; None where that is not known."""
        ...


S = TypeVar("S", bound=Step)
Callback = Callable[[Any], None]  # takes a Step


@dataclass(frozen=True)
class Count:
    """``done`` of ``total`` (None: not known) items of the part of the work that is called ``what``."""

    what: str
    done: int
    total: int | None


def silent(step: Step) -> None:
    """The callback of those who do not ask."""


def counted(items: Iterable[T], what: str, progress: Callback) -> Iterator[T]:
    """Pass ``items`` through and tell of every one that was worked on."""
    total = len(items) if isinstance(items, Sized) else None
    progress(Count(what, 0, total))
    for done, item in enumerate(items, 1):
        yield item
        progress(Count(what, done, total))


def iterates(work: Callable[P, Iterator[S]]) -> Callable[P, Iterator[S]]:
    """Make a generator of steps tell its keyword argument ``progress`` of each, too."""

    @wraps(work)
    def steps(*args: P.args, **options: P.kwargs) -> Iterator[S]:
        progress: Any = options.get("progress", silent)
        generator: Any = work(*args, **options)
        with closing(generator):  # whoever stops early lets go of its locks and workers at once
            for step in generator:
                progress(step)
                yield step

    return steps


def twin_of(iterate: Callable[P, Any], returns: str = "The last of") -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Give the function that does the whole work of ``iter_name`` its parameters, and the name without ``iter_``.

    Its docstring is that of ``iter_name`` with ``Returns``, which begins with ``returns``, in the place of ``Yields``.

    Returns:
        A decorator.
    """

    def named(work: Callable[..., T]) -> Callable[P, T]:
        @wraps(iterate)
        def twin(*args: P.args, **options: P.kwargs) -> T:
            return work(*args, **options)

        twin.__name__ = twin.__qualname__ = iterate.__name__.removeprefix("iter_")
        twin.__doc__ = of_twin(iterate.__doc__ or "", returns)
        return twin

    return named


def to_the_end(iterate: Callable[P, Iterator[S]]) -> Callable[P, S]:
    """The twin of ``iter_name`` that does the work and returns the last step."""

    @twin_of(iterate)
    def work(*args: Any, **options: Any) -> S:
        return deque(iterate(*args, **options), maxlen=1)[0]  # there is a step even when nothing was left to do

    return work


def of_twin(docstring: str, returns: str = "The last of") -> str:
    """The docstring of ``name``, made from that of ``iter_name``."""
    return re.sub(r"Yields:\n(\s+)(.)", lambda at: f"Returns:\n{at[1]}{returns}: {at[2].lower()}", docstring)
