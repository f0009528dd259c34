"""The numbers of a report for experiment trackers: DVC's metrics.json, TensorBoard, Weights & Biases, MLflow.

write_scalars(report, "metrics.json")                            # dvc metrics show, dvc metrics diff
wandb.log(scalars(report), step=step)
mlflow.log_metrics(scalars(report), step=step)
for name, value in scalars(report).items():
    writer.add_scalar(name, value, step)                         # a TensorBoard SummaryWriter
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..budget_gate.gate import GateResult
from ..comparison.gap_report import GapReport, Kept
from ..statistics.measurement import Measurement
from .files import write_files

NUMBERS = ("value", "se", "low", "high", "p")


def scalars(report: GapReport, result: GateResult | None = None) -> dict[str, float]:
    """``{"after/kid/value": 0.012, "after/kid/se": ...}``: every finite number of the report, in its order.

    Places are before, after, floor, closed, change, kept, slices/NAME and permuted; ``gate/pass``, ``gate/fail`` and
    ``gate/inconclusive`` count the checks of ``result``. Names hold letters, digits and ``_ . / -`` only, which every
    tracker takes; two slices that then read alike are told apart by a number. The extractor is left out of the
    names: only numbers of one extractor make a curve.

    Args:
        report: of ``compare``.
        result: of ``gate``.

    Returns:
        Numbers by name.
    """
    found: dict[str, float] = {}
    for path, value in _numbers(report):
        if math.isfinite(value):
            found[_unused(found, "/".join(map(_plain, path)))] = value
    if result is not None:
        for verdict in ("pass", "fail", "inconclusive"):
            found[f"gate/{verdict}"] = float(sum(check.verdict == verdict for check in result.checks))
    return found


def write_scalars(report: GapReport, path: str | Path, result: GateResult | None = None) -> None:
    """Write ``scalars`` as nested JSON objects, as DVC reads them; the folder of ``path`` is made when missing.

    Args:
        report: of ``compare``.
        path: the file to write.
        result: of ``gate``.

    Raises:
        InputError: the file cannot be written.
    """
    tree: dict[str, Any] = {}
    for name, value in scalars(report, result).items():
        *folders, leaf = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = value
    write_files(Path(path).parent, {Path(path).name: json.dumps(tree, indent=2, allow_nan=False) + "\n"})


def _numbers(report: GapReport) -> Iterator[tuple[tuple[str, ...], float]]:
    for row in report.rows:
        yield from _of((row.role,), row.measurements)
    yield from _of(("closed",), report.closed)
    yield from _of(("change",), report.change)
    yield from _of(("kept",), report.kept)
    for part in report.slices:
        yield from _of(("slices", part.name), (part.measurement,))
    if report.permuted is not None:
        yield ("permuted", "p"), report.permuted.p


def _of(place: tuple[str, ...], entries: Sequence[Measurement | Kept]) -> Iterator[tuple[tuple[str, ...], float]]:
    for entry in entries:
        kind = entry.name.partition("@")[0]
        for number in NUMBERS:
            value = getattr(entry, number, None)
            if value is not None:
                yield (*place, kind, number), float(value)


def _plain(word: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", word) or "_"


def _unused(found: dict[str, float], name: str) -> str:
    """``name``, or ``place-2/leaf`` where another slice took it."""
    place, _, leaf = name.rpartition("/")
    count, free = 1, name
    while free in found:
        count += 1
        free = f"{place}-{count}/{leaf}"
    return free
