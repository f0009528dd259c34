"""The figure of ``study.py``: a panel per task, a line per set, mean ± standard error over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

PANEL, LEFT, TOP, LINE, GAP = 190, 210, 44, 24, 24
SPAN = 5  # scores that span more than this factor are drawn on a logarithmic scale
STYLE = """<style>
svg{background:#fff;font:13px system-ui,sans-serif}text{fill:#333}.axis{stroke:#ddd}.se{stroke:#5b7fb5;stroke-width:2}
circle{fill:#5b7fb5}.ours circle{fill:#c2410c}.ours .se{stroke:#c2410c}.title{font-weight:600}
</style>"""
Values = dict[str, dict[int, float]]  # set: seed: score
Panel = tuple[str, str, Values]  # title, format of a number, scores


def draw(names: Sequence[str], panels: Sequence[Panel], ours: Callable[[str], bool]) -> str:
    """SVG; a set without scores in a panel has no dot there."""
    width, height = LEFT + len(panels) * (PANEL + GAP) + GAP, TOP + LINE * len(names) + 40
    drawn = [text(LEFT - 12, TOP + LINE * (row + 0.5) + 4, name, "end") for row, name in enumerate(names)]
    for number, panel in enumerate(panels):
        drawn += drawn_panel(LEFT + number * (PANEL + GAP), height - 40, names, panel, ours)
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    label = 'role="img" aria-label="Scores of every pre-training set"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>{STYLE}{"".join(drawn)}</svg>\n'


def drawn_panel(
    left: float, bottom: float, names: Sequence[str], panel: Panel, ours: Callable[[str], bool]
) -> list[str]:
    title, form, values = panel
    means = {name: float(np.mean(list(own.values()))) for name, own in values.items()}
    errors = {name: error(list(own.values())) for name, own in values.items()}
    low, high = min(means[n] - errors[n] for n in means), max(means[n] + errors[n] for n in means)
    scale, back = (math.log, math.exp) if 0 < SPAN * low < high else (float, float)
    margin = 0.08 * (scale(high) - scale(low)) or 1.0
    low, high = scale(low) - margin, scale(high) + margin

    def x(value: float) -> float:
        return left + PANEL * (scale(value) - low) / (high - low)

    drawn = [text(left, TOP - 16, title, kind="title")]
    for share in (0.1, 0.5, 0.9):
        value = back(low + share * (high - low))
        drawn.append(f'<path class="axis" d="M{x(value):.1f} {TOP}V{bottom}"/>')
        drawn.append(text(x(value), bottom + 20, form.format(value), "middle"))
    for row, name in enumerate(names):
        if name in means:
            y, mean, spread = TOP + LINE * (row + 0.5), means[name], errors[name]
            bar = f'<path class="se" d="M{x(mean - spread):.1f} {y}H{x(mean + spread):.1f}"/>'
            kind = "ours" if ours(name) else "other"
            drawn.append(f'<g class="{kind}">{bar}<circle cx="{x(mean):.1f}" cy="{y}" r="4.5"/></g>')
    return drawn


def error(values: Sequence[float]) -> float:
    """Standard error of the mean; 0 of one value."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'
