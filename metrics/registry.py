"""Names to objects: tables of ``name -> "package.module:attribute"``, imported when first asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from .errors import InputError


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not registered, with near names and all known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return InputError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")


def resolve(kind: str, table: Mapping[str, str], name: str) -> Any:
    """Import and return the object that ``table`` registers under ``name``.

    Raises:
        InputError: the name is not registered; near names are suggested.
    """
    if name not in table:
        raise unknown(kind, name, table)
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
