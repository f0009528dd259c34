"""Classes as JSON: a pattern dataset is a formula and its parameters, so it can be published as a few kilobytes.

``{"schema": 1, "family": "neural-fractal", "classes": [{...}, ...]}``; each class holds the fields of the family's
``Parameters`` dataclass, which checks arity and ranges itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, get_type_hints

from metrics.errors import InputError

from . import load_family

SCHEMA = 1


def to_json(family: str, classes: Sequence[Any]) -> str:
    """The document of these classes of one family; ``from_json`` gives equal classes back."""
    document = {"schema": SCHEMA, "family": family, "classes": [asdict(params) for params in classes]}
    return json.dumps(document, allow_nan=False) + "\n"


def from_json(text: str | bytes) -> tuple[str, list[Any]]:
    """The family's name and the classes of a document.

    Returns:
        Name and classes, in the document's order.

    Raises:
        InputError: not such a document, an unknown family, or parameters that are missing or out of range.
    """
    try:
        document = json.loads(text)
        schema, family, classes = document["schema"], document["family"], document["classes"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"not a JSON document of pattern classes ({type(error).__name__}: {error}). "
            "Expected the output of: stylize patterns FAMILY --class 0"
        ) from error
    if schema != SCHEMA or not isinstance(classes, list) or not classes:
        raise InputError(
            f"pattern classes of schema {schema!r} with {type(classes).__name__} of classes; "
            f"expected schema {SCHEMA} and a list of at least one class."
        )
    parameters = load_family(str(family)).Parameters
    return str(family), [_class(parameters, value, f"class {index}") for index, value in enumerate(classes)]


def _class(parameters: type[Any], value: Any, where: str) -> Any:
    names = sorted(field.name for field in fields(parameters))
    if not isinstance(value, dict) or sorted(value) != names:
        got = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise InputError(f"{where}: a {parameters.__name__} needs exactly the keys {', '.join(names)}; got {got}.")
    hints = get_type_hints(parameters)
    try:
        return parameters(**{name: _shaped(hints[name], _tuples(part)) for name, part in value.items()})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: parameters of the wrong type ({error}).") from error


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _shaped(hint: Any, value: Any) -> Any:
    """A named tuple where the field is one and the arity fits; the dataclass refuses what does not fit."""
    names = getattr(hint, "_fields", None)
    return hint(*value) if names and isinstance(value, tuple) and len(value) == len(names) else value
