"""Whole numbers of any kind, such as numpy.int64, where a family takes a seed, a class, an instance or a size."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from metrics.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")
WHOLE = ("seed", "class_id", "instance", "index")


def plain_numbers(function: Callable[P, R]) -> Callable[P, R]:
    """Hand on Python's own numbers: WHOLE by ``operator.index``, ``instances`` one by one, other scalars by ``item``.

    Raises, when called:
        InputError: one of WHOLE is no whole number. A float is none, as for the index of a list; True is 1.

    Returns:
        The function, with its own name and docstring.
    """
    parameters = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = parameters.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _plain(name, value)
        return function(*bound.args, **bound.kwargs)

    return checked


def whole(name: str, value: Any) -> int:
    """``value`` as an int; raises InputError where it is no whole number."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} is {value!r}; expected an integer.") from error


def _plain(name: str, value: Any) -> Any:
    if name in WHOLE:
        return whole(name, value)
    if name == "instances":
        return [whole("an instance", one) for one in value]
    scalar = isinstance(value, np.generic) or (hasattr(value, "item") and getattr(value, "ndim", 1) == 0)
    return value.item() if scalar else value
