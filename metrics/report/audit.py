"""A CopyReport as files: JSON for machines, Markdown for logs, HTML with the worst cases for people."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..budget_gate.gate import UNREADABLE
from ..copy_audit.report import Case, CopyReport
from ..image_sets.decode import ImageError
from ..image_sets.open import read_location
from .document import plain
from .files import write_files
from .grid import Thumb, shown
from .html import environment, flatten
from .markdown import aligned, bullets, code, prose
from .verdict import Headline

CONTEXT = 3  # an excerpt is this many times as wide as the patch in it


def write_audit(report: CopyReport, folder: str | Path) -> None:
    """Write audit.json, audit.md and audit.html into ``folder``, which is made when missing.

    Args:
        report: of ``audit``.
        folder: where to write.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    texts = {
        "audit.json": json.dumps({"schema": report.schema, **plain(report)}, indent=2, allow_nan=False) + "\n",
        "audit.md": audit_to_markdown(report),
        "audit.html": audit_to_html(report),
    }
    write_files(folder, texts)


def audit_verdict(report: CopyReport) -> Headline:
    """``away`` if more patches are copies than among honest photos by two standard errors, else ``closed``."""
    rate, base = share(report.rate, report.se), share(report.calibration, report.calibration_se)
    spread = float(np.hypot(report.se or 0.0, report.calibration_se or 0.0))
    detail = (
        f"{rate} of the patches are near-verbatim copies of real ones. Among patches of real photos, which are none, "
        f"the same search names {base}. {report.images:,} images were looked at; ± is one standard error."
    )
    if not any(scale.patches for scale in report.scales):
        return Headline("unclear", "Nothing to audit: every patch is too plain to be recognised.", detail)
    if report.rate > report.calibration + 2 * spread:
        return Headline("away", f"Real photos were copied: {rate} of the patches.", detail)
    if report.lost > UNREADABLE:
        headline = f"Undecided: {100 * report.lost:.0f} % of the results could not be read. Repair or remove them."
        return Headline("unclear", headline, detail)
    return Headline("closed", "No more copies than among real photos that copy nothing.", detail)


def audit_to_markdown(report: CopyReport) -> str:
    """The audit as GitHub-flavoured Markdown, verdict first. Keys and paths can inject no markup."""
    result = audit_verdict(report)
    rows = [["patch side / short side", "copies ± SE", "real photos ± SE", "patches", "too plain"], *scale_rows(report)]
    parts = [
        [f"**{prose(result.headline)}**", prose(result.detail)],
        aligned(rows, 1),
        bullets("Caveats", [prose(sentence) for sentence in report.warnings], "audit.json"),
        bullets("Closest matches", [_sentence(case) for case in report.cases], "audit.json"),
        bullets("About the sets", [prose(line) for line in report.notes], "audit.json"),
        bullets("Skipped images", [f"{code(key)}: {prose(reason)}" for key, reason in report.skipped], "audit.json"),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def audit_to_html(report: CopyReport) -> str:
    """The audit as a page of its own: no script, no external request. All text is escaped."""
    return (
        environment()
        .get_template("audit.html")
        .render(
            verdict=audit_verdict(report),
            rows=scale_rows(report),
            cases=[(case, _excerpt(case.file, case.box, "result"), _real_excerpt(case)) for case in report.cases],
            warnings=[("", sentence) for sentence in (*report.warnings, *report.notes)],
            skipped=report.skipped[:200],
            skipped_count=len(report.skipped),
            config=flatten(report.config),
            schema=report.schema,
        )
    )


def scale_rows(report: CopyReport) -> list[list[str]]:
    """One row of text per patch size."""
    return [
        [
            f"{100 * scale.share:.0f} %",
            share(scale.rate, scale.se),
            share(scale.calibration, scale.calibration_se),
            f"{scale.patches:,}",
            f"{scale.plain:,}",
        ]
        for scale in report.scales
    ]


def share(rate: float, se: float | None) -> str:
    """``3.1 % ± 0.4 %``, with one digit more for smaller errors."""
    digits = 2 if se is not None and 0 < se < 0.0005 else 1
    return f"{100 * rate:.{digits}f} %" + ("" if se is None else f" ± {100 * se:.{digits}f} %")


def _sentence(case: Case) -> str:
    verb = "copies" if case.copied else "is nearest to"
    return (
        f"{code(case.key)} {prose(str(case.box))} {verb} {code(case.photo)} {prose(str(case.photo_box))}"
        f"{' mirrored' if case.mirrored else ''}, r = {case.correlation:.2f}, with any other photo {case.rival:.2f}"
    )


def _real_excerpt(case: Case) -> Thumb:
    return _excerpt(case.photo_file, case.photo_box, "real", case.mirrored)


def _excerpt(file: str, box: tuple[int, int, int], column: str, mirrored: bool = False) -> Thumb:
    """The patch with its surroundings, framed; mirrored when the match is, so that both read alike."""
    try:
        image = Image.fromarray(read_location(file))
    except ImageError as error:
        return Thumb(column, note=f"cannot be shown: {error}")
    left, top, side = box
    width = min(CONTEXT * side, *image.size)
    x = min(max(left + side // 2 - width // 2, 0), image.width - width)
    y = min(max(top + side // 2 - width // 2, 0), image.height - width)
    excerpt = image.crop((x, y, x + width, y + width)).resize((256, 256), Image.Resampling.BICUBIC)
    zoom = 256 / width
    x0, y0, x1, y1 = (round(value * zoom) for value in (left - x, top - y, left - x + side, top - y + side))
    draw = ImageDraw.Draw(excerpt)
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline="black", width=4)
    draw.rectangle((x0, y0, x1, y1), outline="white", width=2)
    if mirrored:
        excerpt = excerpt.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return shown(column, excerpt)
