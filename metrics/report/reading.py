"""A report from its folder or file."""

from __future__ import annotations

from pathlib import Path

from ..comparison.gap_report import GapReport
from ..errors import InputError
from .document import from_json


def read_report(path: str | Path) -> GapReport:
    """The report at ``path``: a report.json, or the folder that holds one.

    Raises:
        InputError: it cannot be read, or is no report of this version.
    """
    path = Path(path)
    file = path / "report.json" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(
            f"{file}: no report can be read ({reason}). Make one with domain-gap compare SET REAL -o REPORT."
        ) from error
    try:
        return from_json(text)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
