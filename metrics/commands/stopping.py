"""Signals that end a command become an exception, so that it cleans up as after Ctrl-C."""

from __future__ import annotations

import signal
import sys
from typing import Any

EXIT = 128  # plus the number of the signal, as shells have it
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
STOPPED = {EXIT + number: number.name for number in [signal.SIGINT, *SIGNALS]}  # exit codes of a stopped command


def stop_on_signals() -> None:
    """Let SIGTERM and SIGHUP end this process by ``SystemExit`` with the code of :data:`STOPPED`.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored. To be called in the main thread.
    """
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: cleaning up is not to be interrupted
    sys.exit(EXIT + number)
