"""A gate result on GitHub: the job's step summary, and annotations beside the diff, both within GitHub's limits.

A step's summary holds at most 1 MiB, or GitHub drops it whole; here whole rows are left out, the worst kept. A step
shows at most 10 errors and 10 warnings; the last one says how many more there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..budget_gate.gate import Check, GateResult, worst_first
from ..comparison.gap_report import GapReport
from ..errors import InputError
from ..escapes import escaped
from .markdown import aligned, prose
from .table import notes, skipped

SUMMARY_BYTES = 1024 * 1024
ANNOTATIONS = 10  # of each type per step
MESSAGE = 4000  # characters of one annotation
MARKS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "⚠️ inconclusive"}
COMMANDS = {"fail": "error", "inconclusive": "warning"}
WORST = 5  # images named
NOTES = 20  # lines about the sets


def gate_markdown(result: GateResult, report: GapReport | None = None, limit: int = SUMMARY_BYTES) -> str:
    """The result as GitHub-flavoured Markdown of at most ``limit`` bytes of UTF-8: headline, table, reasons.

    ``report`` adds the images that explain the gap, where it names any, unless all passed. Names can inject no markup.

    Args:
        result: of ``gate``.
        report: of ``compare``.
        limit: bytes of UTF-8 at most.

    Returns:
        Markdown.
    """
    checks = worst_first(result.checks)
    shown = len(checks)
    while True:
        text = _writable(_page(result, checks[:shown], report))
        if len(text.encode()) <= limit or shown == 0:
            return text
        shown = shown * 2 // 3


def append_summary(result: GateResult, path: str | Path, report: GapReport | None = None) -> None:
    """Append the result to GitHub's summary file of this step (``$GITHUB_STEP_SUMMARY``), in what room it has left.

    Args:
        result: of ``gate``.
        path: the file to append to.
        report: of ``compare``.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    try:
        used = path.stat().st_size if path.exists() else 0
        text = "\n" * bool(used) + gate_markdown(result, report, SUMMARY_BYTES - used - 1)
        if used + len(text.encode()) <= SUMMARY_BYTES:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise InputError(f"{path}: the step summary cannot be written ({error.strerror or error}).") from error


def to_annotations(result: GateResult, file: str | None = None) -> list[str]:
    """GitHub workflow commands, one a line to print: an error per failed check, a warning per inconclusive one.

    ``file`` is the budgets file, relative to the repository, that they are pinned to.

    Args:
        result: of ``gate``.
        file: the budgets file that they are pinned to.

    Returns:
        Lines to print.
    """
    lines: list[str] = []
    for verdict, command in COMMANDS.items():
        checks = [check for check in result.checks if check.verdict == verdict]
        lines += [_annotation(command, check, file) for check in checks[: _shown(checks)]]
        more = len(checks) - _shown(checks)
        if more:
            lines.append(f"::{command} title=domain-gap::{more} more: see the step summary.")
    return lines


def _page(result: GateResult, checks: Sequence[Check], report: GapReport | None) -> str:
    head = ["verdict", "number", "value ± SE", f"bounds at {result.confidence * 100:g} %", "budget"]
    parts = [f"**{prose(result.headline)}**", "\n".join(aligned([head, *map(_row, checks)], 2))]
    reasons = [f"- {prose(check.sentence)}" for check in checks if check.verdict != "pass"]
    parts.append("\n".join(reasons))
    if len(checks) < len(result.checks):
        parts.append(f"{len(result.checks) - len(checks):,} more checks do not fit here.")
    if report is not None:
        parts.append(_left_out(report))
    if report is not None and result.verdict != "pass":
        parts.append(_images(report))
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(check: Check) -> list[str]:
    value = _number(check.value) + (f" ± {_number(check.se)}" if check.se is not None else "")
    bounds = "–" if check.low is None or check.high is None else f"{_number(check.low)} to {_number(check.high)}"
    sign = "≤" if check.budget.side == "max" else "≥"
    return [MARKS[check.verdict], prose(check.name), value, bounds, f"{sign} {check.budget.limit:g}"]


def _images(report: GapReport) -> str:
    lists = {"Most synthetic-looking": report.most_synthetic, "Least covered real images": report.least_covered}
    return "\n".join(
        f"- {title}: {', '.join(prose(image.key[:200]) for image in images[:WORST])}"
        for title, images in lists.items()
        if images
    )


def _left_out(report: GapReport) -> str:
    """How many images took no part, and what was passed over: a broken renderer must not pass in silence."""
    which = {
        "after": "under test",
        "reference": "of the reference",
        "before": "of the raw set",
        "floor": "of the floor",
    }
    counts: dict[str, int] = {}
    for role, _, _ in skipped(report):
        counts[which[role]] = counts.get(which[role], 0) + 1
    lines = [f"- {count:,} images {name} could not be read and took no part." for name, count in counts.items()]
    return "\n".join([*lines, *(f"- {role}: {prose(line[:500])}" for role, line in notes(report)[:NOTES])])


def _shown(checks: Sequence[Check]) -> int:
    return len(checks) if len(checks) <= ANNOTATIONS else ANNOTATIONS - 1


def _annotation(command: str, check: Check, file: str | None) -> str:
    place = f"file={_property(file)}," if file else ""
    title = _property(f"domain-gap: {check.name}"[:200])
    return f"::{command} {place}title={title}::{_data(check.sentence[:MESSAGE])}"


def _data(text: str) -> str:
    return "%0A".join(escaped(line).replace("%", "%25") for line in _writable(text).split("\n"))


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _writable(text: str) -> str:
    """Characters that UTF-8 cannot hold (from undecodable file names) as backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else "not measured"
