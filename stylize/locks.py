"""One process at a time writes a folder or a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from metrics.errors import InputError


@contextmanager
def alone(lock: Path, refusal: str) -> Iterator[None]:
    """Hold the file ``lock``, or raise InputError with ``refusal`` where another process does."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise InputError(refusal) from None
    try:
        yield
    finally:
        held.release()


@contextmanager
def alone_on(out: Path) -> Iterator[None]:
    """Hold a file that training writes for hours, ``out``, by one beside it that is removed at the end."""
    lock = out.with_name(f".{out.name}.lock")
    with alone(lock, f"{out}: another process is training it. Wait for it, or name another file."):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows cannot remove what is open; there the lock itself does, when released
                lock.unlink()
