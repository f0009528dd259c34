"""A report from its folder or file."""

from __future__ import annotations

from pathlib import Path

from ..comparison.gap_report import GapReport
from ..errors import InputError
from .document import from_json


def read_report(path: str | Path) -> GapReport:
    """Read a report that ``write_report`` wrote.

    Args:
        path: a report.json, or the folder that holds one.

    Returns:
        The report, equal to the one that was written.

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
