"""What the methods and presets were measured to do: the packaged rows of ``benchmarks/leaderboard.py`` as a table."""

from __future__ import annotations

import json
from importlib.resources import files

from . import PRESETS
from .methods import METHODS, known_methods, style_method

COLUMNS = {
    "closed@efficientnet-lite0": "lite0",
    "closed@efficientnet-lite2": "lite2",
    "structure": "structure",
    "labels": "labels",
    "copies": "copies",
    "seconds": "seconds",
    "mebibytes": " MiB",
}
LEVELLED = [name for name, method in METHODS.items() if method.levels > 1]
LEGEND = (
    "lite0, lite2: share of the gap to held-out photos closed, by two networks; structure: gradient correlation; "
    "labels: label probe; copies: share of copied patches; seconds: per image of 256 px on one core; MiB: peak memory. "
    f"Methods compose with a plus; of {', '.join(LEVELLED)} the finest scales can work alone ({LEVELLED[1]}:1)"
)


def table() -> str:
    """A line per method, composition and preset, each with its measured row; blank where nothing was measured."""
    summaries = {name: style_method(name).summary for name in known_methods()}
    measured = json.loads((files(__package__) / "leaderboard.json").read_text(encoding="utf-8"))
    rows = [(name, name, text) for name, text in summaries.items()]
    rows += [(name, name, "first the one, then the other") for name in measured if "+" in name]
    points = [(f"--preset {name}", *point) for name, point in PRESETS.items()]
    presets = [
        (title, method if strength == 1 else f"{method}@{strength:g}", f"--method {method} --strength {strength:g}")
        for title, method, strength in points
    ]
    width = max(len(title) for title, *_ in rows + presets)
    lines = [f"{'':{width}}  {'  '.join(COLUMNS.values())}"]
    lines += [f"{title:{width}}  {_cells(measured.get(row, {}))}  {text}" for title, row, text in rows]
    lines += ["", *(f"{title:{width}}  {_cells(measured.get(row, {}))}  {text}" for title, row, text in presets)]
    return "\n".join(lines)


def _cells(row: dict[str, float]) -> str:
    """The numbers of a row under the titles of their columns."""
    digits = {"copies": 3, "seconds": 3, "mebibytes": 0}
    cells = {key: f"{row[key]:.{digits.get(key, 2)}f}" if key in row else "" for key in COLUMNS}
    return "  ".join(f"{cells[key]:>{max(4, len(title))}}" for key, title in COLUMNS.items())
