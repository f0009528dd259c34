"""Rows of an output's ``metadata.jsonl``: every column that the input has, with ours beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metrics.image_sets.items import Item

OLDER = "source_"  # before a column of the input whose name is ours


def carried(item: Item, own: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the image that was made of ``item``, but for file names: the input's columns, then ``own``.

    The names of the image and of its companions are left out, since the writer gives them. An input column with the
    name of one of ``own`` is kept as ``source_NAME``; one that has that name already becomes ``source_source_NAME``.
    The label and the group are written where the item has them from elsewhere than its row, such as its folder.

    Args:
        item: the source.
        own: the provenance of the result.

    Returns:
        A row for ``metadata.jsonl``.
    """
    row = {name: value for name, value in item.metadata.items() if name not in ("file_name", *item.companions)}
    if item.label is not None:
        row["label"] = item.label
    if row.get("group") is None and item.group != item.key:
        row["group"] = item.group
    for name in own:
        _make_room(row, name)
    return {**row, **own}


def _make_room(row: dict[str, Any], name: str) -> None:
    if name in row:
        _make_room(row, OLDER + name)
        row[OLDER + name] = row.pop(name)
