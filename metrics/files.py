"""Files that this program writes: always whole. A file is absent, or the old one, or complete, whatever happens."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

TEMPORARY = ".part.tmp"  # ends the name of a file that is being written; what a kill left behind may be removed


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is either absent, or the old one, or complete, also after a loss of power.

    Missing folders are made. A write that fails leaves nothing behind.

    Args:
        path: the file.
        data: all of its bytes.

    Raises:
        OSError: the file cannot be written: no room, no permission, a read-only place. It names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A short name, as that of the file itself may be as long as allowed.
    temporary = path.with_name(f".{os.getpid()}-{threading.get_ident()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def text_of(name: str) -> str | None:
    """A file name that the system gave, as text; None where its bytes are not UTF-8.

    Where Python decodes names by a locale other than UTF-8, the name of ``café.png`` arrives as ``cafÃ©.png``.

    Returns:
        The name, or None.
    """
    try:
        return os.fsencode(name).decode("utf-8")
    except UnicodeDecodeError:
        return None


def name_of(text: str) -> str:
    """The inverse of :func:`text_of`: what to pass to the system for the file of this name, whatever the locale."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, as JSON can hold: no file has such a name
        data = text.encode("utf-8", "surrogatepass")
    return os.fsdecode(data)


def path_text(path: Path) -> str:
    """A path as it is written down for people and other machines: UTF-8, whatever the locale decodes names by."""
    return text_of(str(path)) or str(path)
