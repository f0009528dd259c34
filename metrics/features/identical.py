"""Byte-identical images are one observation: counted apart, they make an error bar too small."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

LEAST = 4  # independent images that a reference must have to be halved; below, nothing is taken together
ONE = "1 image is a byte-identical copy of another in the set"

G = TypeVar("G", bound=Hashable)


def joined(groups: Sequence[G], *others: Sequence[Hashable]) -> tuple[G, ...]:
    """Groups such that rows that are alike in ``groups`` or in any of ``others`` are in one, named as its first row."""
    first: dict[tuple[int, Hashable], int] = {}
    parents = list(range(len(groups)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for kind, labels in enumerate((groups, *others)):
        for row, label in enumerate(labels):
            a, b = root(first.setdefault((kind, label), row)), root(row)
            parents[max(a, b)] = min(a, b)
    return tuple(groups[root(row)] for row in range(len(groups)))


def join_copies(groups: Sequence[str], photos: Sequence[str], digests: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The groups with byte-identical photos in one, and a note about them ('' where there are none).

    Args:
        groups: of every row.
        photos: the whole image that each row is of.
        digests: of the content of that image.

    Returns:
        A group per row, and the note.
    """
    copies = len(set(photos)) - len(set(digests))
    if copies <= 0:
        return tuple(groups), ""
    told = f"{copies:,} images are byte-identical copies of others in the set" if copies > 1 else ONE
    together = joined(groups, digests)
    if len(set(together)) < LEAST:
        return tuple(groups), f"{told}: too few are left to tell how uncertain a number is, so its error means little."
    return together, f"{told}: equal images count as one observation."
