"""Budgets of a gate: which number of a report may be how large or must be how large. Parsed from TOML or flags.

A table names a place of the report and a metric, and bounds it::

    confidence = 0.95              # of every one-sided bound; 0.95 if left out

    [after.kid]                    # the set under test against the real images
    max = 0.05                     # pass only if the upper confidence bound is at most 0.05

    [after."kid@efficientnet-lite0"]   # the same, of one extractor only: such names need quotes
    max = 0.05

    [after.fid]                    # has no error bar:
    max = 60
    value_only = true              # decide on the value alone, knowing that it has an error

    [closed.kid]                   # share of the gap closed; needs compare --before
    min = 0.3

    [kept.label-probe]             # share of labels or structure kept: label-probe, edge-f-score, gradient-correlation
    min = 0.95

    [change.kid]                   # after - before
    max = 0

    [slices.kid]                   # every class or tag; needs compare --slice label
    max = 0.08

    [baseline.kid]                 # this report less the report of --baseline
    max_increase = 0.002           # and max_decrease, for scores that are better when higher

All numbers are in the metric's own unit: a KID of 0.012 is printed as 12 in "KID × 1000". There is no budget for a
p-value: with few images it would pass anything, and with many images nothing.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..registry import unknown

PLACES = ("after", "closed", "kept", "change", "slices", "baseline")
KEYS = ("max", "min", "value_only")
BASELINE_KEYS = ("max_increase", "max_decrease", "value_only")
CONFIDENCE = 0.95
LARGEST = 1e300
EXAMPLE = "after.kid.max = 0.05"


@dataclass(frozen=True)
class Budget:
    """One bound: ``metric`` at ``place`` must be at most (``side`` 'max') or at least ('min') ``limit``.

    ``metric`` is a kind (kid) or a full name (kid@efficientnet-lite0). At the place 'baseline' the number is new − old.
    ``value_only`` decides on the value without an error bar.
    """

    place: str
    metric: str
    side: str
    limit: float
    value_only: bool = False

    def __str__(self) -> str:
        """``kid ≤ 0.05``, ``closed.kid ≥ 0.3``."""
        name = self.metric if self.place == "after" else f"{self.place}.{self.metric}"
        return f"{name} {'≤' if self.side == 'max' else '≥'} {self.limit:g}"


@dataclass(frozen=True)
class Budgets:
    """Bounds that all must hold.

    Attributes:
        budgets: at least one.
        confidence: the one-sided confidence at which each is decided.

    Raises:
        InputError: no budget, or a confidence out of range.
    """

    budgets: tuple[Budget, ...]
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        if not self.budgets:
            raise InputError(f"no budget given. Write one as --max kid=0.05, or into a file: {EXAMPLE}")
        _check_confidence(self.confidence)


def as_budgets(budgets: Budgets | str | Path | Mapping[str, Any]) -> Budgets:
    """Budgets as they are, as a TOML file has them, or as nested mappings: ``{"after": {"kid": {"max": 0.05}}}``.

    Args:
        budgets: any of the three.

    Returns:
        The budgets, checked.

    Raises:
        InputError: as ``read_budgets`` and ``from_mapping``.
    """
    if isinstance(budgets, Budgets):
        return budgets
    return from_mapping(budgets) if isinstance(budgets, Mapping) else read_budgets(budgets)


def read_budgets(path: str | Path) -> Budgets:
    """The budgets of a TOML file.

    Args:
        path: the file.

    Returns:
        The budgets, in the order of the file.

    Raises:
        InputError: the file cannot be read, or as ``parse_budgets``.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(
            f"{path}: budgets cannot be read ({reason}). Expected a TOML file such as: {EXAMPLE}"
        ) from error
    return parse_budgets(text, str(path))


def parse_budgets(text: str, source: str = "budgets") -> Budgets:
    """The budgets of a TOML document; ``source`` names it in errors.

    Args:
        text: the document.
        source: its name, for errors.

    Returns:
        The budgets, in the order of the document.

    Raises:
        InputError: no TOML (with line and column), an unknown table or key (with near names), a limit that is no finite
            number, or no budget at all.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        hint = ' Names with @ need quotes: [after."kid@dinov2"].' if "@" in text else ""
        raise InputError(f"{source}: {error or 'nested too deeply'}.{hint} Expected TOML such as: {EXAMPLE}") from error
    try:
        return from_mapping(document)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def from_mapping(document: Mapping[str, Any]) -> Budgets:
    """Budgets from nested mappings, as TOML reads them: ``{"after": {"kid": {"max": 0.05}}}``.

    Args:
        document: tables by place, metrics, and bounds.

    Returns:
        The budgets, in the order of the document.

    Raises:
        InputError: as ``parse_budgets``.
    """
    tables = {name: entry for name, entry in document.items() if name != "confidence"}
    found: list[Budget] = []
    for place, metrics in tables.items():
        if place not in PLACES:
            raise unknown("table", place, (*PLACES, "confidence"))
        for metric, bounds in _table(metrics, place).items():
            found += _bounds(place, metric, _table(bounds, f"{place}.{metric}"))
    confidence = document.get("confidence", CONFIDENCE)
    return Budgets(tuple(found), _number(confidence, "confidence"))


def from_flags(
    *,
    maximum: Iterable[str] = (),
    minimum: Iterable[str] = (),
    max_increase: Iterable[str] = (),
    max_decrease: Iterable[str] = (),
) -> tuple[Budget, ...]:
    """Budgets from ``name=number`` words: ``kid=0.05``, ``closed.kid=0.3``, ``kid@dinov2=0.1``.

    Args:
        maximum: what must not be larger.
        minimum: what must not be smaller.
        max_increase: over the baseline report.
        max_decrease: under the baseline report.

    Returns:
        A budget per word.

    Raises:
        InputError: a word of another form.
    """
    found = [_flag(word, side) for side, words in (("max", maximum), ("min", minimum)) for word in words]
    found += [_relative(_flag(word, "max"), 1.0) for word in max_increase]
    return (*found, *(_relative(_flag(word, "min"), -1.0) for word in max_decrease))


def combine(
    file: Budgets | None, flags: Sequence[Budget], confidence: float | None, value_only: Iterable[str]
) -> Budgets:
    """Budgets of a file and of flags together; a ``confidence`` that is not None overrides the file's.

    ``value_only`` names metrics that are decided without an error bar.

    Args:
        file: budgets of a file, or None.
        flags: budgets of flags.
        confidence: overrides the file's; None: it does not.
        value_only: metrics that are decided without an error bar.

    Returns:
        All budgets, those of the flags last.

    Raises:
        InputError: nothing to decide, or ``value_only`` names a metric without a budget.
    """
    bare = set(value_only)
    budgets = (*(file.budgets if file else ()), *flags)
    for name in bare:
        if name not in {budget.metric for budget in budgets}:
            raise unknown("metric of --value-only, without a budget,", name, {budget.metric for budget in budgets})
    chosen = tuple(replace(budget, value_only=True) if budget.metric in bare else budget for budget in budgets)
    given = confidence if confidence is not None else file.confidence if file else CONFIDENCE
    return Budgets(chosen, given)


def _bounds(place: str, metric: str, bounds: Mapping[str, Any]) -> list[Budget]:
    keys = BASELINE_KEYS if place == "baseline" else KEYS
    where = f"{place}.{metric}"
    for key in bounds:
        if key not in keys:
            raise unknown(f"key of [{where}]", key, keys)
    bare = bounds.get("value_only", False)
    if type(bare) is not bool:
        raise InputError(f"[{where}] value_only = {bare!r}. Expected true or false.")
    if place == "baseline":
        signs = {"max_increase": ("max", 1.0), "max_decrease": ("min", -1.0)}
    else:
        signs = {"max": ("max", 1.0), "min": ("min", 1.0)}
    found = [
        Budget(place, metric, side, sign * _number(bounds[key], f"[{where}] {key}"), bare)
        for key, (side, sign) in signs.items()
        if key in bounds
    ]
    if not found:
        raise InputError(f"[{where}] bounds nothing. Expected {' or '.join(signs)} = NUMBER in it.")
    if len(found) == 2 and found[1].limit > found[0].limit:
        raise InputError(f"[{where}]: the least allowed value, {found[1].limit:g}, is above the most allowed one.")
    return found


def _flag(word: str, side: str) -> Budget:
    name, equals, number = word.rpartition("=")
    place, dot, metric = name.partition(".")
    if not dot or place not in PLACES[:-1]:
        if dot and "@" not in place:
            raise unknown("place", place, PLACES[:-1])
        place, metric = "after", name
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not equals or not metric or not math.isfinite(limit):
        raise InputError(f"{word!r} is no budget. Expected NAME=NUMBER, such as kid=0.05 or closed.kid=0.3.")
    return Budget(place, metric, side, limit)


def _relative(budget: Budget, sign: float) -> Budget:
    if budget.place != "after":
        raise InputError(
            f"{budget.place}.{budget.metric}: only metrics of the set under test are compared with a baseline."
        )
    return replace(budget, place="baseline", limit=sign * budget.limit)


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} = {repr(value)[:40]}. Expected a table such as: {EXAMPLE}")
    return value


def _number(value: Any, where: str) -> float:
    if type(value) not in (int, float) or not abs(value) <= LARGEST:
        raise InputError(f"{where} = {repr(value)[:40]}. Expected a finite number.")
    return float(value)


def _check_confidence(confidence: float) -> None:
    if not 0.5 < confidence < 1:
        raise InputError(f"confidence = {confidence:g}. Expected more than 0.5 and less than 1, such as 0.95.")
