"""Memory that threads share, and how its end shows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelBudget:
    """Lets threads hold ``most`` pixels of decoded images between them; an image that alone has more waits for none."""

    def __init__(self, most: int) -> None:
        self._most, self._held, self._changed = most, 0, threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for an image of so many pixels, and keep it while it is worked on."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + pixels <= self._most)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: torch raises RuntimeError for it, on the CPU without a type of its own."""
    words = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in words)
    )
