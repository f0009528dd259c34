"""Standard streams that cannot change what a command decides: closed, without a reader, or short of characters."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EINVAL)  # the reader of a pipe went away; Windows says the second


def steady() -> None:
    """Make stdout and stderr of this process take any text, with or without a reader.

    Characters that their encoding lacks are written as backslash escapes. A stream that was closed swallows everything,
    and its number is taken, so that no file that is opened later is written to by mistake.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the end
        elif stream is getattr(sys, f"__{name}__"):  # not where somebody listens in, such as a test
            setattr(sys, name, _steadied(stream))


def calm() -> None:
    """Where the user's filters make errors of warnings, show them instead: a result does not depend on filters."""
    if any(entry[0] == "error" for entry in warnings.filters):
        warnings.simplefilter("default")


def _steadied(stream: TextIO) -> TextIO:
    stream.flush()
    raw = getattr(stream.buffer, "raw", stream.buffer)  # unbuffered streams have no other
    return io.TextIOWrapper(
        io.BufferedWriter(_Unheard(raw)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=getattr(stream, "line_buffering", False),
    )


class _Unheard(io.RawIOBase):
    """A stream that goes on when its reader is gone; any other fault is raised once."""

    def __init__(self, raw: Any) -> None:
        self._raw, self._over = raw, False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        return bool(self._raw.isatty())

    def write(self, data: Any) -> int | None:
        if self._over:
            return len(data)
        try:
            written: int | None = self._raw.write(data)
        except OSError as error:
            self._over = True
            if error.errno not in GONE:
                raise
            return len(data)
        return written
