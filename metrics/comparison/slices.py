"""Slices of a set by label and by tag, and Holm's correction for looking at many of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEAST = 10  # images that a slice needs
LABEL = "label"


@dataclass(frozen=True)
class Slices:
    """``rows`` maps ``label: cat`` or ``weather: rain`` to indices; ``small`` counts the images of the others."""

    rows: Mapping[str, tuple[int, ...]]
    small: Mapping[str, int]


def slices(labels: Sequence[str | int | None], tags: Sequence[Mapping[str, str]] = (), *, least: int = LEAST) -> Slices:
    """The images of each label and of each value of each tag, in the order of their first image.

    A value with fewer than ``least`` images is counted in ``small`` instead, and a value that every image has is no
    slice. Images without a label or a tag are in none of its slices.

    Args:
        labels: N labels, None for an image without one.
        tags: the tags of N images, or nothing.
        least: images that a slice needs.

    Returns:
        Row numbers by slice, and how many images small values have.
    """
    found: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        named = {} if label is None else {LABEL: str(label)}
        for name, value in {**named, **(tags[row] if tags else {})}.items():
            found.setdefault(f"{name}: {value}", []).append(row)
    partial = {name: rows for name, rows in found.items() if len(rows) < len(labels)}
    return Slices(
        {name: tuple(rows) for name, rows in partial.items() if len(rows) >= least},
        {name: len(rows) for name, rows in partial.items() if len(rows) < least},
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of Holm's step-down procedure (Scand. J. Statist. 6, 1979), in the order given.

    With the values sorted, ``p(1) <= ... <= p(m)``, the i-th becomes ``max over j <= i of min(1, (m − j + 1) p(j))``.
    Rejecting where it is at most alpha keeps the chance of any false rejection at alpha, however the tests depend.

    Returns:
        As many values as there were given, each at most 1.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
