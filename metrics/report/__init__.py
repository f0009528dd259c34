"""A GapReport as files: JSON for machines, Markdown for logs and pull requests, HTML for people."""

from __future__ import annotations

from pathlib import Path

from ..comparison.gap_report import GapReport
from .audit import audit_to_html, audit_to_markdown, write_audit
from .document import from_json, to_json
from .files import write_files
from .html import to_html
from .markdown import to_markdown
from .reading import read_report
from .verdict import Headline, verdict

__all__ = [
    "Headline",
    "audit_to_html",
    "audit_to_markdown",
    "from_json",
    "read_report",
    "to_html",
    "to_json",
    "to_markdown",
    "verdict",
    "write_audit",
    "write_report",
]


def write_report(report: GapReport, folder: str | Path) -> None:
    """Write report.json, report.md and report.html into ``folder``, which is made when missing.

    Everything is rendered first and each file replaces its predecessor in one step, so that a reader never sees half
    a file. Characters that UTF-8 cannot hold (from undecodable file names) are written as backslash escapes.

    Args:
        report: of ``compare``.
        folder: where to write; earlier reports in it are replaced.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    texts = {
        "report.json": to_json(report),
        "report.md": to_markdown(report),
        "report.html": to_html(report),
    }
    write_files(folder, texts)
