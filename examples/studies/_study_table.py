"""The table of ``study.py``: means with standard errors, what the sets cost, verdicts, and rank correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _pretraining_sets import EARLIER, HALF, NEURAL, SETS, STYLISED
from _study_figure import draw
from scipy.stats import spearmanr

# Task: the number of it that the table shows, its format, and the direction that is better.
TASKS: dict[str, tuple[str, str, int]] = {
    "gap": ("kid@efficientnet-lite0", "{:.3f}", -1),
    "pretrain": ("training accuracy", "{:.1%}", 1),
    "fashion-20": ("accuracy", "{:.1%}", 1),
    "patches": ("accuracy", "{:.1%}", 1),
    "fashion-10%": ("accuracy", "{:.1%}", 1),
    "fashion-all": ("accuracy", "{:.1%}", 1),
    "autoencoder": ("mse", "{:.4f}", -1),
    "diffusion": ("kid", "{:.3f}", -1),
}
DRAWN = ("fashion-20", "patches", "autoencoder", "diffusion")
AIMS = {"fashion-20": 0.10, "autoencoder": 0.20, "diffusion": 0.11}  # relative gain over the best earlier set
Row = dict[str, str]
Scores = dict[str, dict[int, float]]


def write_table(rows: Sequence[Row], folder: Path) -> None:
    """pretraining.md, also printed, and pretraining.svg."""
    if not rows:
        return
    text = "\n".join([*table(rows), "", *verdicts(rows), "", *correlations(rows), ""])
    (folder / "pretraining.md").write_text(text, encoding="utf-8")
    (folder / "pretraining.svg").write_text(figure(rows), encoding="utf-8")
    print(text)


def figure(rows: Sequence[Row]) -> str:
    """The scores of the tasks in DRAWN; an arrow points to the better side."""
    panels = []
    for task in (task for task in DRAWN if scores(rows, task)):
        metric, form, better = TASKS[task]
        title = f"{task}: {metric} →" if better > 0 else f"← {task}: {metric}"
        panels.append((title, form, scores(rows, task)))
    names = [name for name in SETS if any(name in values for _, _, values in panels)]
    return draw(names, panels, lambda name: name in (NEURAL, HALF) or name in STYLISED)


def scores(rows: Sequence[Row], task: str, metric: str | None = None) -> Scores:
    """Value by set and seed."""
    found: Scores = {}
    for row in rows:
        if row["task"] == task and row["metric"] == (metric or TASKS[task][0]):
            found.setdefault(row["set"], {})[int(row["seed"])] = float(row["value"])
    return found


def table(rows: Sequence[Row]) -> list[str]:
    """A row per set in the order of SETS; a cell is mean ± standard error over seeds."""
    shown = [task for task in TASKS if scores(rows, task)]
    other = "kid@efficientnet-lite2"
    head = [f"{task}: {TASKS[task][0]}" for task in shown]
    lines = [["pre-training set", *head, f"gap: {other}", "seeds", "minutes"]]
    for name in (name for name in SETS if any(row["set"] == name for row in rows)):
        own = {(row["seed"], row["task"]): float(row["seconds"]) for row in rows if row["set"] == name}
        seeds = {seed for seed, task in own if task != "gap"}
        second = scores(rows, "gap", other).get(name, {})
        cells = [mean_se(scores(rows, task).get(name, {}), TASKS[task][1]) for task in shown]
        lines.append([name, *cells, mean_se(second, "{:.3f}"), str(len(seeds)), f"{sum(own.values()) / 60:.1f}"])
    return ["| " + " | ".join(line) + " |" for line in (lines[0], ["---"] * len(lines[0]), *lines[1:])]


def mean_se(values: dict[int, float], form: str) -> str:
    if not values:
        return ""
    found = list(values.values())
    error = " ± " + form.format(np.std(found, ddof=1) / math.sqrt(len(found))) if len(found) > 1 else ""
    return form.format(np.mean(found)) + error


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Ours, plain and stylised, against the earlier set that is best at the task, paired by seed."""
    said = []
    for task, aim in AIMS.items():
        found = scores(rows, task)
        better = TASKS[task][2]
        rivals = {name: np.mean(list(found[name].values())) for name in EARLIER if name in found}
        ours = [name for name in (NEURAL, *STYLISED, HALF) if name in found and name.startswith(NEURAL)]
        if not rivals:
            continue
        best = max(rivals, key=lambda name: better * rivals[name])
        for name in ours:
            shared = sorted(set(found[name]) & set(found[best]))
            gains = [better * (found[name][seed] / found[best][seed] - 1) for seed in shared]
            if gains:
                said.append(
                    f"- {task}: {name} {gained(gains)} over {best}, the best earlier set; the aim is {aim:.0%}."
                )
    return said


def gained(gains: Sequence[float]) -> str:
    error = f" ± {np.std(gains, ddof=1) / math.sqrt(len(gains)):.1%}" if len(gains) > 1 else ""
    return f"gains {np.mean(gains):+.1%}{error} ({len(gains)} {'seed' if len(gains) == 1 else 'seeds'})"


def correlations(rows: Sequence[Row]) -> list[str]:
    """Spearman's ρ over sets of the domain gap with each score; a good proxy has −1 where more is better."""
    said = []
    for metric in ("kid@efficientnet-lite0", "kid@efficientnet-lite2"):
        gaps = scores(rows, "gap", metric)
        for task in (task for task in TASKS if task not in ("gap", "pretrain")):
            found = scores(rows, task)
            names = [name for name in found if name in gaps]
            if len(names) >= 4:
                x, y = ([float(np.mean(list(part[name].values()))) for name in names] for part in (gaps, found))
                rho, p = spearmanr(x, y)
                said.append(
                    f"- Rank correlation of {metric} and {task}: ρ = {rho:+.2f} (p = {p:.2f}, {len(names)} sets)."
                )
    return said
