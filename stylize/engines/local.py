"""Work on several processes that stops within the item at hand, and leaves none of them behind."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from metrics.errors import InputError
from metrics.threads import one_thread

SHARDS_PER_WORKER = 4  # a new process costs some seconds of imports, as much as this many shards
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
GRACE = 5  # seconds that a worker gets for the item at hand when the run stops


class Stopped(BaseException):
    """The run stops: whoever works on several items ends after the one at hand."""


def in_parallel(task: Callable[[Any], Any], arguments: Sequence[Any], workers: int) -> Generator[Any, None, None]:
    """``task(argument)`` for every argument, in order of completion, on ``workers`` processes of one thread each.

    Fewer are started when there is too little work for them, and for one the work is done in this process. The task is
    sent to each process once and may keep what it loads. Closing the iterator, or any exception, stops the workers:
    those that are still busy after GRACE seconds are killed.

    Args:
        task: a callable that can be sent to a process.
        arguments: what it is called with, one at a time.
        workers: processes at most.

    Yields:
        What ``task`` returned, as soon as it is there.

    Raises:
        InputError: a worker process died.
    """
    count = min(workers, len(arguments) // SHARDS_PER_WORKER)
    if count <= 1:
        with one_thread():
            yield from map(task, arguments)
        return
    context = multiprocessing.get_context("spawn")  # fork is unsafe once torch or numba has started threads
    others = set(multiprocessing.active_children())
    with _signals_held():
        stop = context.Event()  # starts multiprocessing's own process, which keeps this; and lets signals through
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(task, stop))
    try:
        with _signals_held():  # by the workers too, which inherit it; this process stops them
            futures = [pool.submit(_work, argument) for argument in arguments]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process died: killed, perhaps for want of memory, or started by a script that is not guarded by "
            "if __name__ == '__main__'. Finished work is kept: repeat the command with fewer workers, such as "
            f"--workers {count // 2}."
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        _end(set(multiprocessing.active_children()) - others)


def check_going_on() -> None:
    """To be called between items: raises Stopped in a worker whose run stops."""
    if _stop is not None and _stop.is_set():
        raise Stopped


_task: Callable[[Any], Any]
_stop: Any = None  # in a worker: the event that its run stops


def _start_worker(task: Callable[[Any], Any], stop: Any) -> None:
    global _task, _stop
    _task, _stop = task, stop
    for number in _SIGNALS:  # sent to the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"  # for what the task imports later
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    atexit.register(os._exit, 0)  # runs last; without it, torch takes seconds to be taken down


def _work(argument: Any) -> Any:
    try:
        check_going_on()
        return _task(argument)
    except Stopped:
        return None


def _end_with_parent() -> None:
    """A killed parent would leave its workers waiting for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _end(processes: set[Any]) -> None:
    """Wait for the processes, and kill those that take too long; a second interrupt kills them at once."""
    deadline = time.monotonic() + GRACE
    try:
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let signals that stop a run wait; where the system has no such thing, and for the main thread, ignore Ctrl-C."""
    if hasattr(signal, "pthread_sigmask"):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    elif threading.current_thread() is threading.main_thread():
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, handler)
    else:
        yield
