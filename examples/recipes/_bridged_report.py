"""The page of ``bridged_transfer.py``: table, verdict, learning curves and the domain gap of the synthetic set."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from html import escape

import numpy as np
from scipy.stats import t as student

from metrics import compare


def domain_gap(options: argparse.Namespace) -> str:
    """KID × 1000 of the synthetic set to the real training images."""
    real = options.real / "train" if (options.real / "train").is_dir() else options.real
    found = compare(options.synthetic, real, metrics=["kid"]).row("after").measurements[0]
    return f"{1000 * found.value:.1f} ± {1000 * found.se:.1f}"


CONTROLS = {"matched": "vanilla with as many steps", "matched+mixup": "vanilla with as many steps and Mixup"}


def verdicts(cells: Sequence[dict]) -> list[str]:
    """A line per bridged regime and control, paired by seed; a regime with Mixup meets both controls."""
    scores: dict[str, dict[int, float]] = {}
    for cell in cells:
        scores.setdefault(cell["regime"], {})[cell["seed"]] = cell["test"]
    lines = []
    for name in filter(lambda name: name.startswith("bridged"), scores):
        for control, words in CONTROLS.items():
            if control == "matched" or "+mixup" in name:
                lines.append(compare_to(name, scores[name], words, scores.get(control, {}), control))
    return lines or ["No verdict: no bridged regime was run."]


def compare_to(name: str, bridged: dict[int, float], words: str, vanilla: dict[int, float], control: str) -> str:
    """Whether the mean difference over shared seeds lies outside its 95 % interval (Student's t)."""
    difference = np.array([bridged[seed] - vanilla[seed] for seed in sorted(bridged.keys() & vanilla.keys())])
    if len(difference) < 2:
        return f"No verdict on {name} over {words}: it takes two seeds of it and of {control}."
    mean, se = 100 * difference.mean(), 100 * difference.std(ddof=1) / math.sqrt(len(difference))
    half = student.ppf(0.975, len(difference) - 1) * se
    found = "helps" if mean > half else "hurts" if -mean > half else "is not resolved"
    seeds = f"{len(difference)} seeds, paired; 95 % interval ± {half:.1f}"
    return f"{name} {found}: {mean:+.1f} ± {se:.1f} points over {words} ({seeds})."


def write_page(cells: list[dict], options: argparse.Namespace) -> None:
    """report.md, report.html with the learning curves, and curves.csv."""
    names = [name for name in options.regimes if any(cell["regime"] == name for cell in cells)]
    cells = [cell for cell in cells if cell["regime"] in names]
    facts = (
        f"KID × 1000 of the synthetic set to the real training images: {domain_gap(options)}. {options.shots or 'All'} "
        f"shots per class, {options.backbone}, {options.size} px; the test images took part in no choice. Each "
        "interval is for its line alone."
    )
    rows = [_row(name, [cell for cell in cells if cell["regime"] == name]) for name in names]
    lines = ["| " + " | ".join(row) + " |" for row in (HEAD, ["---"] * len(HEAD), *rows)]
    found = verdicts(cells)
    text = "\n".join([*(f"- **{line}**" for line in found), "", facts, "", *lines, ""])
    (options.out / "report.md").write_text(text, encoding="utf-8")
    page = PAGE.format(
        verdicts="".join(f"<li>{_emphasised(line)}</li>" for line in found),
        facts=escape(facts),
        head="".join(f"<th>{escape(title)}</th>" for title in HEAD),
        body="".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows),
        curves=curves(cells, names),
    )
    (options.out / "report.html").write_text(page, encoding="utf-8")
    with (options.out / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        looks = ((c["regime"], c["seed"], *look) for c in cells for look in c["curve"])
        csv.writer(file).writerows([("regime", "seed", "step", "loss", "validation accuracy"), *looks])
    print(f"\n{text}")


HEAD = ["regime", "test accuracy", "best validation", "LEEP before → after", "steps", "seconds"]


def _emphasised(line: str) -> str:
    head, _, rest = escape(line).partition(":")
    return f"<strong>{head}</strong>:{rest.replace(' ± ', '&nbsp;±&nbsp;')}"


def _row(name: str, cells: list[dict]) -> list[str]:
    leeps = " → ".join(f"{np.mean(values):.2f}" for values in zip(*(cell["leep"] for cell in cells), strict=True))
    validation = [max(accuracy for _, _, accuracy in cell["curve"]) for cell in cells]
    steps, seconds = np.mean([cell["curve"][-1][0] for cell in cells]), np.mean([cell["seconds"] for cell in cells])
    test = [cell["test"] for cell in cells]
    return [name, mean_se(test), mean_se(validation), leeps, f"{steps:.0f}", f"{seconds:.0f}"]


def mean_se(values: Sequence[float]) -> str:
    error = f" ± {100 * np.std(values, ddof=1) / math.sqrt(len(values)):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{error} %"


def curves(cells: list[dict], names: list[str]) -> str:
    """Validation accuracy over the steps of the last stage, a line per regime, the mean over seeds."""
    last = max(look[0] for cell in cells for look in cell["curve"])
    drawn = [f'<text x="260" y="316">steps of the last stage, up to {last}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = 290 - 270 * share
        drawn.append(f'<path d="M40 {y}H600" stroke="#8886"/><text x="4" y="{y + 4}">{share:.0%}</text>')
    for index, name in enumerate(names):
        found: dict[int, list[float]] = {}
        for step, _, accuracy in (look for cell in cells if cell["regime"] == name for look in cell["curve"]):
            found.setdefault(step, []).append(accuracy)
        means = {step: np.mean(values) for step, values in sorted(found.items())}
        points = " ".join(f"{40 + 560 * step / last:.1f},{290 - 270 * mean:.1f}" for step, mean in means.items())
        colour = f"hsl({360 * index / len(names):.0f} 65% 45%)"
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<text x="612" y="{28 + 20 * index}" fill="{colour}">{escape(name)}</text>')
    return f'<svg viewBox="0 0 800 320" role="img" aria-label="Learning curves">{"".join(drawn)}</svg>'


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Bridged transfer</title><style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui;margin:2rem auto;
max-width:60rem;padding:0 1rem}}div{{overflow-x:auto}}table{{border-collapse:collapse}}td,th{{padding:.3rem .8rem;
text-align:left;border-bottom:1px solid #8886;white-space:nowrap}}svg{{max-width:100%;min-width:48rem}}
svg text{{font-size:13px}}svg text:not([fill]){{fill:currentColor}}</style><h1>Bridged transfer</h1>
<ul>{verdicts}</ul><p>{facts}</p>
<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>
<h2>Validation accuracy</h2><div>{curves}</div></html>
"""
