"""Writing the files of a report so that a reader never sees half of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError
from ..files import write_atomically


def write_files(folder: str | Path, texts: Mapping[str, str]) -> None:
    """Write ``texts`` by file name into ``folder``, which is made when missing.

    Each file replaces its predecessor in one step. Characters that UTF-8 cannot hold (from undecodable file names) are
    written as backslash escapes.

    Args:
        folder: where to write.
        texts: by name of the file.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_atomically(folder / name, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise InputError(
            f"{folder}: the report cannot be written ({error.strerror or error}). Give a folder that can be written to."
        ) from error
