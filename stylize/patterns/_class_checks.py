"""Checks that the classes of several families share: what was got, what was expected."""

from __future__ import annotations

from typing import Any

from metrics.errors import InputError

MAX_SIZE = 8192


def check_number(name: str, value: Any, kind: type, least: float, most: float) -> None:
    """Refuse anything but a finite int or float from ``least`` to ``most``: InputError."""
    kinds = (int,) if kind is int else (int, float)
    if type(value) not in kinds or not least <= value <= most:  # NaN compares false
        noun = "an integer" if kind is int else "a finite number"
        raise InputError(f"{name} is {value!r}; expected {noun} from {least:g} to {most:g}.")


def check_numbers(name: str, values: Any, count: int, least: float, most: float) -> None:
    """Refuse anything but a tuple of ``count`` finite numbers from ``least`` to ``most``: InputError."""
    if not isinstance(values, tuple) or len(values) != count:
        got = f"{len(values)} of them" if isinstance(values, tuple) else type(values).__name__
        raise InputError(f"{name}: expected {count} numbers; got {got}.")
    for value in values:
        check_number(f"an entry of {name}", value, float, least, most)


def check_identity(params: Any) -> None:
    """Check the fields ``seed`` and ``class_id``."""
    check_number("seed", params.seed, int, -(2**63), 2**64)
    check_number("class_id", params.class_id, int, 0, 2**63)


def check_class(params: Any, maps: int, entries: int) -> None:
    """Check the fields every family of this kind has: seed, class_id, points, draws and 1 to ``maps`` maps."""
    check_identity(params)
    check_number("points", params.points, int, 100, 10**8)
    check_number("draws", params.draws, int, 1, 2**31)
    check_maps("maps", params.maps, maps, entries)


def check_maps(name: str, rows: Any, maps: int, entries: int) -> None:
    """Check 1 to ``maps`` tuples of ``entries`` finite numbers."""
    if not isinstance(rows, tuple) or not 1 <= len(rows) <= maps:
        got = f"{len(rows)} of them" if isinstance(rows, tuple) else type(rows).__name__
        raise InputError(f"{name}: expected 1 to {maps} tuples of {entries} numbers; got {got}.")
    for row in rows:
        if not isinstance(row, tuple) or len(row) != entries:
            raise InputError(f"{name}: expected {entries} numbers in each map; got {row!r}.")
        for value in row:
            check_number(f"a number of {name}", value, float, -100, 100)


def check_size(size: int) -> None:
    """Refuse a size that no image can have: InputError."""
    check_number("size", size, int, 8, MAX_SIZE)
