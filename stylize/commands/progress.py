"""What the commands of ``stylize`` say while a set is written, and at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from metrics.commands.terminal import follow, say

if TYPE_CHECKING:
    from ..writing.job import Progress


def finish(steps: Iterator[Progress], what: str, out: Path, quiet: bool = False) -> None:
    """Draw the bar of a job, sum it up on stderr and print the folder, unless ``quiet``."""
    start, first, last = time.monotonic(), None, None
    for last in follow(steps, what):
        first = first or last
    seconds = time.monotonic() - start
    assert first is not None and last is not None
    if first is last:
        say(f"{out}: already complete, nothing to do")
    else:
        fresh = last.done - first.done
        resumed = f", {first.done} of them earlier" if first.done else ""
        say(f"{what}: {last.done} images{resumed} in {seconds:.1f} s ({fresh / max(seconds, 1e-9):.1f} images/s)")
        for note in last.notes:
            say(f"note: {note}")
        if last.failed:
            say(f"{what}: {last.failed} items failed and are listed in {out / 'errors.jsonl'}")
    if not quiet:
        print(out)
