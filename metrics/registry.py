"""Names to objects: near names for unknown ones, and what other packages add through entry points."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import InputError


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not registered, with near names and all known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return InputError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")


@cache
def plugins(kind: str) -> dict[str, EntryPoint]:
    """What installed packages add under the entry points ``reverse_stylize.<kind>``, by name; nothing is imported."""
    return {point.name: point for point in entry_points(group=f"reverse_stylize.{kind}")}


def load_plugin(kind: str, name: str) -> Any:
    """The object behind an entry point of :func:`plugins`.

    Returns:
        The object.

    Raises:
        InputError: it cannot be imported; names the package.
    """
    point = plugins(kind)[name]
    package = point.dist.name if point.dist else point.value
    try:
        return point.load()
    except Exception as error:  # whatever a stranger's module raises
        raise InputError(
            f"{name!r} of the package {package} cannot be loaded from {point.value} ({type(error).__name__}: {error}). "
            f"Repair or uninstall it: pip uninstall {package}"
        ) from error


def known(kind: str, own: Iterable[str]) -> tuple[str, ...]:
    """The names of ``own`` and those that installed packages add."""
    return tuple(dict.fromkeys((*own, *plugins(kind))))


def find(what: str, kind: str, own: Mapping[str, Any], name: str) -> Any:
    """The entry of ``own``, or the object that a package adds under this name.

    Returns:
        The entry or object.

    Raises:
        InputError: neither; near names are suggested. Or the package's object cannot be imported.
    """
    if name in own:
        return own[name]
    if name in plugins(kind):
        return load_plugin(kind, name)
    raise unknown(what, name, known(kind, own))
