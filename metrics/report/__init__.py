"""A GapReport as files: JSON for machines, Markdown for logs and pull requests, HTML for people."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from ..gap_report import GapReport
from .document import from_json, to_json
from .html import to_html
from .markdown import to_markdown
from .verdict import Verdict, verdict

__all__ = ["Verdict", "from_json", "to_html", "to_json", "to_markdown", "verdict", "write_report"]


def write_report(report: GapReport, folder: str | Path) -> None:
    """Write report.json, report.md and report.html into ``folder``, which is made when missing.

    Everything is rendered first and each file replaces its predecessor in one step, so that a reader never sees half
    a file. Characters that UTF-8 cannot hold (from undecodable file names) are written as backslash escapes.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    folder = Path(folder)
    texts = {
        "report.json": to_json(report),
        "report.md": to_markdown(report),
        "report.html": to_html(report),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            _replace(folder / name, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise InputError(
            f"{folder}: the report cannot be written ({error.strerror or error}). Give a folder that can be written to."
        ) from error


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
