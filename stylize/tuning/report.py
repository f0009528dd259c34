"""What a search found: the winner, a page with the Pareto front, and the verdict by photos it never saw."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from metrics.comparison.compare import compare
from metrics.comparison.gap_report import GapReport
from metrics.errors import InputError
from metrics.files import write_atomically
from metrics.image_sets.decode import SUFFIXES as IMAGE_SUFFIXES
from metrics.image_sets.decode import ImageError
from metrics.image_sets.items import ImageSet
from metrics.image_sets.open import open_images
from metrics.progress import Callback, silent
from metrics.report import write_report
from metrics.report.chart import ticks_over
from metrics.seed import seed_for

from ..writing.apply import apply, content_digest
from ..writing.encode import encode
from ..writing.manifest import carried
from .search import CROPS, choose_contents
from .splits import split_photos
from .study import Constraints, Trial, best, check_same, ended, held, open_study, read_config

LISTED = 25  # trials in the page's table
FEW = 50  # contents that the search did not use, below which the judge takes all


def read_study(out: str | Path) -> tuple[list[Trial], Constraints]:
    """The ended trials of a study folder and its budget.

    Args:
        out: folder of the study.

    Returns:
        Trials in their order, and the budget.

    Raises:
        InputError: OUT holds no study, or a damaged one.
    """
    budget = Constraints(**read_config(Path(out))["budget"])
    return ended(open_study(Path(out)), budget), budget


def pareto(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials that no other beats in gap closed and structure both, by falling structure."""
    front: list[Trial] = []
    complete = [trial for trial in trials if trial.closed is not None and trial.structure is not None]
    for trial in sorted(complete, key=lambda trial: (-(trial.structure or 0), -(trial.closed or 0))):
        if not front or (trial.closed or 0) > (front[-1].closed or 0):
            front.append(trial)
    return front


def command(winner: Trial, out: Path, synthetic: Any) -> str:
    """The command line that stylises the whole set at the winning point."""
    source = str(synthetic) if isinstance(synthetic, str | Path) else "SYNTHETIC"  # which no command line names
    words = ["stylize", "apply", str(out / "style.safetensors"), source, "stylised"]
    words += ["--method", winner.method, "--strength", f"{winner.strength:.3g}", "--assignment", winner.assignment]
    return shlex.join(words)


def write_page(out: str | Path, synthetic: Any) -> Path:
    """Write ``tune.html``: the Pareto plot, the trials, the winner; needs no script and no network."""
    out = Path(out)
    trials, budget = read_study(out)
    complete = [trial for trial in trials if trial.state == "complete"]
    winner = best(trials, budget) if any(trial.feasible for trial in trials) else None
    x = ticks_over(*_ends([trial.structure or 0 for trial in complete] + [budget.structure]))
    y = ticks_over(*_ends([trial.closed or 0 for trial in complete]))
    environment = Environment(loader=PackageLoader("stylize.tuning"), autoescape=True, undefined=StrictUndefined)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.0f} %"
    page = environment.get_template("tune.html").render(
        trials=sorted(complete, key=lambda trial: (not trial.feasible, trial.kid))[:LISTED],
        count=len(trials),
        stopped=sum(trial.state == "pruned" for trial in trials),
        points=[(trial, _at(trial.structure, x), 100 - _at(trial.closed, y)) for trial in complete],
        front=[(_at(trial.structure, x), 100 - _at(trial.closed, y)) for trial in pareto(trials)],
        x_ticks=[(_at(tick, x), f"{tick:.2g}") for tick in x],
        y_ticks=[(100 - _at(tick, y), f"{100 * tick:.0f} %") for tick in y],
        least=_at(budget.structure, x),
        budget=budget,
        winner=winner,
        command=None if winner is None else command(winner, out, synthetic),
    )
    write_atomically(out / "tune.html", page.encode())
    return out / "tune.html"


def judge(
    real: Any,
    synthetic: Any,
    out: str | Path,
    *,
    extractor: str = "efficientnet-lite2",
    images: int = 300,
    workers: int = 1,
    progress: Callback = silent,
) -> list[GapReport]:
    """Close the study and measure its winner by the judge photos; returns a report per network.

    The winner stylises up to ``images`` contents that no trial has used (all contents, where fewer than 50 are left).
    OUT gets ``judged.json``, ``contents``, ``stylised`` and ``judge-NETWORK`` with a full report, for the network of
    the search and for ``extractor``, which the search has not seen.

    Args:
        real: the photos that the study was given.
        synthetic: the images that it was given.
        out: folder of the study.
        extractor: a network that the search has not seen.
        images: contents that the winner stylises, at most.
        workers: processes of one thread each.
        progress: called with every step.

    Returns:
        A report per network.

    Raises:
        InputError: no study, no feasible trial, other photos or images than the study's, judged before by other photos,
            a judge photo that the search has seen, or the search used ``extractor``.
    """
    out = Path(out)
    trials, budget = read_study(out)
    with held(out):
        config = read_config(out)
        if extractor == config["extractor"]:
            raise InputError(f"{extractor} has tuned this study and cannot judge it. Name another network.")
        winner = best(trials, budget)
        photos, targets, sealed = split_photos(real, config["seed"])
        everything = open_images(synthetic)
        chosen = choose_contents(everything, config["images"], config["seed"])
        digests = {"learn": photos, "tune": targets, "contents": chosen}
        check_same(out, config, {name: content_digest(one) for name, one in digests.items()})
        sealed.check_unseen(photos)
        sealed.check_unseen(targets)
        _write_contents(_fresh(everything, config, images), out / "contents")
        apply(
            out / "style.safetensors",
            out / "contents",
            out / "stylised",
            method=winner.method,
            strength=winner.strength,
            assignment=winner.assignment,
            workers=workers,
            progress=progress,
        )
        held_out = sealed.open(out)
        sets: dict[str, Any] = {"before": out / "contents", "floor": photos, "crops": CROPS}
        reports = []
        for network in (config["extractor"], extractor):
            report = compare(out / "stylised", held_out, **sets, extractor=network, progress=progress)
            write_report(report, out / f"judge-{network.replace(':', '-')}")
            reports.append(report)
    return reports


def _write_contents(contents: ImageSet, folder: Path) -> None:
    """The contents as a folder of files with their labels, whatever they come from; nothing is recoded."""
    rows = []
    for item in contents:
        try:
            loaded = item.load()
        except ImageError:  # as the search does
            continue
        suffix = Path(item.location).suffix
        name = item.key + (suffix if suffix.lower() in IMAGE_SUFFIXES else ".png")
        if not (folder / name).exists():
            write_atomically(folder / name, loaded if isinstance(loaded, bytes) else encode(loaded))
        rows.append(json.dumps({"file_name": name, **carried(item, {})}, sort_keys=True, ensure_ascii=False) + "\n")
    write_atomically(folder / "metadata.jsonl", "".join(rows).encode())


def _fresh(images: ImageSet, config: dict[str, object], count: int) -> ImageSet:
    seed = int(str(config["seed"]))
    used = {item.key for item in choose_contents(images, int(str(config["images"])), seed)}
    left = [item for item in images if item.key not in used]
    pool = left if len(left) >= FEW else list(images)
    drawn = sorted(pool, key=lambda item: seed_for(seed, "judge contents", item.key))
    return ImageSet(images.root, drawn[:count])


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _at(value: float | None, ticks: Sequence[float]) -> float:
    return round(100 * ((value or 0) - ticks[0]) / (ticks[-1] - ticks[0]), 2)
