"""GapReport <-> JSON: one schema-numbered document, read back strictly."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from ..comparison.gap_report import SCHEMA, GapReport
from ..errors import InputError

ROLES = ("before", "after", "floor")
POINT_ROLES = ("after", "real")


def to_json(report: GapReport) -> str:
    """The report as a JSON document that ends in a newline: same report, same bytes.

    ``schema`` comes first, then the dataclass fields as declared; mappings keep their order and text is ASCII with
    escapes. NaN and infinities become null.

    Args:
        report: of ``compare``.

    Returns:
        The document.

    Raises:
        TypeError: ``config`` holds something that JSON cannot say.
    """
    document = {"schema": report.schema, **plain(report)}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def from_json(text: str) -> GapReport:
    """The report that ``to_json`` wrote; ``from_json(to_json(r)) == r`` for finite numbers.

    Two things JSON cannot carry: a null ``value`` reads back as NaN, and a tuple inside ``config`` as a list.

    Returns:
        The report.

    Raises:
        InputError: not JSON, another schema, or a field that is missing, unknown or of the wrong type.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a report: {_one_line(error)}. Expected the report.json of a domain-gap run.") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if type(schema) is not int:
        raise InputError("not a report: no schema number found. Expected the report.json of a domain-gap run.")
    if schema != SCHEMA:
        raise InputError(
            f"this report has schema {schema}; this version reads schema {SCHEMA}. "
            "Make the report again with this version, or install the version that wrote it."
        )
    report: GapReport = _read(GapReport, document, "report")
    roles = [row.role for row in report.rows]
    if len(set(roles)) < len(roles) or not set(roles) <= set(ROLES):
        _fail("report.rows", f"each of {', '.join(ROLES)} at most once", roles)
    strange = {point.role for point in report.points} - set(POINT_ROLES)
    if strange:
        _fail("report.points", f"roles {' and '.join(POINT_ROLES)}", sorted(strange))
    return report


def plain(value: Any) -> Any:
    """Dataclasses, mappings and sequences as what JSON holds; numbers that are not finite become None."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _read(kind: Any, value: Any, where: str) -> Any:
    """``value`` from JSON as the annotated type ``kind``; ``where`` names the place in errors."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if origin in (Union, types.UnionType):  # X | None is the only union used
        return None if value is None else _read(arguments[0], value, where)
    if origin is tuple:
        return _read_tuple(arguments, value, where)
    if origin is Mapping:
        if not isinstance(value, dict):
            _fail(where, "an object", value)
        return {key: _read(arguments[1], entry, f"{where}.{key}") for key, entry in value.items()}
    if kind is float:
        return _read_float(value, where)
    if type(value) is not kind:
        _fail(where, {int: "a whole number", str: "text"}[kind], value)
    return value


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    hints = get_type_hints(kind)
    if not isinstance(value, dict) or set(value) != set(hints):
        got = sorted(value) if isinstance(value, dict) else value
        _fail(where, f"an object with exactly the fields {', '.join(hints)}", got)
    return kind(**{name: _read(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})


def _read_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _fail(where, "a list", value)
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        _fail(where, f"a list of {len(arguments)} entries", value)
    places = [f"{where}[{index}]" for index in range(len(value))]
    return tuple(map(_read, arguments, value, places))


def _read_float(value: Any, where: str) -> float:
    if value is None:
        return math.nan
    if type(value) not in (int, float):
        _fail(where, "a number or null", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        _fail(where, "a finite number or null", value)
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; a number that is not finite is written as null")


def _fail(where: str, expected: str, got: Any) -> NoReturn:
    raise InputError(f"malformed report at {where}: expected {expected}, got {repr(got)[:80]}. Make the report again.")


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
