"""The shard contract: sharded, resumable, deterministic work that fills a folder with images.

A *task* is a picklable callable ``task(keys) -> iterable of Image or Failure``; that is all a distributed engine needs
to know. Where a task needs more than the key of an item, it gets that instead. The keys are cut into shards. Each file
is written under a temporary name and renamed, and a finished shard is marked by a JSON file in ``OUT/.job``. Starting
the same command again skips marked shards; another configuration is refused. The last step folds the markers into
``metadata.jsonl``, ``errors.jsonl`` and ``run.json`` and removes ``.job``, so a finished folder is byte for byte the
same whatever happened on the way.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metrics.errors import InputError
from metrics.files import TEMPORARY, write_atomically
from metrics.images import companions, natural, read_metadata

SHARD_SIZE = 32
MAX_ERRORS = 100
SHARDS_PER_WORKER = 4  # a new process costs some seconds of imports, as much as this many shards
CHANGED = {
    "images": "the input images have changed since",
    "style": "the style file has changed since",
    "parameters": "the file of classes has changed since",
    "version": "it was made by another version of this program",
}


@dataclass(frozen=True)
class Image:
    """One finished image: file name below OUT, encoded bytes, and its row of ``metadata.jsonl``.

    ``companions`` are files that belong to it, such as its mask: column of the row, which ends in ``_file_name``, to
    file name below OUT and bytes.
    """

    key: str
    file_name: str
    data: bytes
    row: Mapping[str, Any]
    companions: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """One item that could not be processed, and why, in one line."""

    key: str
    reason: str


Task = Callable[[Sequence[Any]], Iterable[Image | Failure]]


@dataclass(frozen=True)
class Progress:
    """How far a run is: finished and failed items out of ``total``."""

    done: int
    failed: int
    total: int


class Job:
    """One run into one folder. Use it as a context manager: it holds the folder's lock.

    Args:
        out: the folder to fill; created when missing.
        config: everything that decides the output, JSON-able; written to ``run.json``.
        notes: more for ``run.json``; another run may differ in them.

    Raises:
        InputError: OUT holds something else, another run is at work in it, or an earlier run had another config.
    """

    def __init__(self, out: Path, config: Mapping[str, Any], notes: Mapping[str, Any] | None = None) -> None:
        self.out, self.config, self.notes = Path(out), json.loads(json.dumps(config)), dict(notes or {})
        self.state = self.out / ".job"

    def __enter__(self) -> Job:
        self.finished = self._check_finished()
        if not self.finished:
            self._open_state()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.finished:
            self._lock.close()

    def remember(self, name: str, compute: Callable[[], Any]) -> Any:
        """The JSON value that ``compute`` returns, computed once per run even if the run is resumed."""
        path = self.state / f"{name}.json"
        if not path.exists():
            write_atomically(path, to_json(compute()))
        return json.loads(path.read_text(encoding="utf-8"))

    def run(
        self,
        task: Task,
        keys: Sequence[str] | Mapping[str, Any],
        *,
        workers: int = 1,
        shard_size: int = SHARD_SIZE,
        max_errors: int = MAX_ERRORS,
    ) -> Iterator[Progress]:
        """Process every key and publish the folder; yields progress after each shard.

        The task gets the keys of a shard, or, of a mapping, its values: a worker holds no more than its own shards.
        Neither ``workers``, ``shard_size`` nor the order of completion changes a byte of the result.

        Raises:
            InputError: more than ``max_errors`` items failed, or all of them; finished shards are kept.
        """
        if self.finished:
            return
        names = list(keys)
        shards = [tuple(names[start : start + shard_size]) for start in range(0, len(names), shard_size)]
        markers = {shard: self.state / f"{_digest(shard)}.json" for shard in shards}
        done = failed = 0
        for shard in shards:
            if markers[shard].exists():
                marker = json.loads(markers[shard].read_text(encoding="utf-8"))
                done, failed = done + len(marker["rows"]), failed + len(marker["errors"])
        self._stop_on_errors(markers.values(), failed, max_errors)
        yield Progress(done, failed, len(keys))
        todo = [shard for shard in shards if not markers[shard].exists()]
        work = [(shard, [keys[key] for key in shard] if isinstance(keys, Mapping) else shard) for shard in todo]
        for finished, broken in in_parallel(_PublishShard(task, self.out), work, workers):
            done, failed = done + finished, failed + broken
            yield Progress(done, failed, len(keys))
            self._stop_on_errors(markers.values(), failed, max_errors)
        if not done:
            self._stop_on_errors(markers.values(), failed, 0)
        self._publish([markers[shard] for shard in shards])

    def _check_finished(self) -> bool:
        finished = self.out / "run.json"
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: is a file. Name a folder that does not exist yet.")
        if finished.exists() and not self.state.exists():
            shutil.rmtree(self.out / ".job-done", ignore_errors=True)
            self._refuse_other(_read_config(finished), "holds a finished run")
            self._refuse_incomplete()
            return True
        if self.out.exists() and not self.state.exists() and any(self.out.iterdir()):
            raise InputError(
                f"{self.out}: not empty, and what it holds is not a run of this command. Name a new or empty folder."
            )
        return False

    def _refuse_incomplete(self) -> None:
        rows = read_metadata(self.out).values()
        names = [str(row["file_name"]) for row in rows] + [name for row in rows for name in companions(row).values()]
        missing = [name for name in names if not (self.out / name).is_file()]
        if missing:
            raise InputError(
                f"{self.out}: holds a finished run, but {len(missing)} of its files are gone, e.g. {missing[0]}. "
                "Remove the folder and repeat the command, or name another one."
            )

    def _open_state(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        self._lock = (self.state / "lock").open("w", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise InputError(
                f"{self.out}: another process is at work in it. Wait for it, or name another folder."
            ) from None
        try:
            self._check_started(self.state / "config.json")
        except BaseException:
            self._lock.close()
            raise

    def _check_started(self, started: Path) -> None:
        if started.exists():
            self._refuse_other(_read_config(started), "holds an unfinished run")
        else:
            write_atomically(started, to_json(self.config))

    def _refuse_other(self, other: Mapping[str, Any], what: str) -> None:
        for name in sorted({*other, *self.config}):
            if other.get(name) != self.config.get(name):
                if name in CHANGED:
                    raise InputError(f"{self.out}: {what}, and {CHANGED[name]}. Name another folder.")
                raise InputError(
                    f"{self.out}: {what} with {name} = {_short(other.get(name))}, and this command says "
                    f"{name} = {_short(self.config.get(name))}. Repeat the earlier setting to continue that run, "
                    "or name another folder."
                )

    def _stop_on_errors(self, markers: Iterable[Path], failed: int, limit: int) -> None:
        if failed > limit:
            errors = [
                row
                for path in markers
                if path.exists()
                for row in json.loads(path.read_text(encoding="utf-8"))["errors"]
            ]
            first = min(errors, key=lambda row: natural(row["key"]))
            repair = "Repeat the command with a larger --max-errors to continue, or" if limit else "Or"
            raise InputError(
                f"{failed} items failed (at most {limit} allowed); the first: {first['key']}: {first['error']}. "
                f"{repair} repair the input and name a new folder."
            )

    def _publish(self, markers: Sequence[Path]) -> None:
        for left_by_a_kill in self.out.rglob(f"*{TEMPORARY}"):
            left_by_a_kill.unlink()
        rows: list[tuple[str, str]] = []  # name and line: parsed rows would take several times the memory
        errors: list[tuple[str, str]] = []
        for path in markers:
            marker = json.loads(path.read_text(encoding="utf-8"))
            rows += [(row["file_name"], _line(row)) for row in marker["rows"]]
            errors += [(row["key"], _line(row)) for row in marker["errors"]]
        write_atomically(self.out / "metadata.jsonl", _sorted_lines(rows))
        if errors:
            write_atomically(self.out / "errors.jsonl", _sorted_lines(errors))
        summary = {"config": self.config, **self.notes, "images": len(rows), "errors": len(errors)}
        write_atomically(self.out / "run.json", to_json(summary))
        shutil.rmtree(self.state.rename(self.out / ".job-done"))  # renamed first: half a state is never resumed


def in_parallel(task: Callable[[Any], Any], arguments: Sequence[Any], workers: int) -> Iterator[Any]:
    """``task(argument)`` for every argument, in order of completion, on ``workers`` processes of one thread each.

    Fewer are started when there is too little work for them, and for one the work is done in this process. The task is
    sent to each process once and may keep what it loads.
    """
    count = min(workers, len(arguments) // SHARDS_PER_WORKER)
    if count <= 1:
        with one_thread():
            yield from map(task, arguments)
        return
    context = multiprocessing.get_context("spawn")  # fork is unsafe once torch or numba has started threads
    with ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(task,)) as pool:
        with _interrupts_ignored():  # by the workers, which inherit it; this process stops them
            futures = [pool.submit(_work, argument) for argument in arguments]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def to_json(value: Any) -> bytes:
    """Canonical, readable JSON."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True)
class _PublishShard:
    """Run the task on one shard, publish its files, then its marker; returns how many succeeded and failed."""

    task: Task
    out: Path

    def __call__(self, work: tuple[tuple[str, ...], Sequence[Any]]) -> tuple[int, int]:
        shard, parts = work
        start = time.perf_counter()
        rows: list[Mapping[str, Any]] = []
        errors: list[dict[str, str]] = []
        for result in self.task(parts):
            if isinstance(result, Failure):
                errors.append({"key": result.key, "error": result.reason})
            else:
                write_atomically(self.out / result.file_name, result.data)
                for name, data in result.companions.values():
                    write_atomically(self.out / name, data)
                names = {column: name for column, (name, _) in result.companions.items()}
                rows.append({"file_name": result.file_name, **names, **result.row})
        marker = {"rows": rows, "errors": errors, "seconds": round(time.perf_counter() - start, 3)}
        write_atomically(self.out / ".job" / f"{_digest(shard)}.json", to_json(marker))
        return len(rows), len(errors)


def _digest(shard: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(shard).encode()).hexdigest()[:24]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return dict(value["config"]) if path.name == "run.json" else dict(value)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not written by this command ({error}). Name another output folder.") from error


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n"


def _sorted_lines(named: list[tuple[str, str]]) -> bytes:
    named.sort(key=lambda pair: natural(pair[0]))
    return "".join(line for _, line in named).encode()


_task: Callable[[Any], Any]


def _start_worker(task: Callable[[Any], Any]) -> None:
    global _task
    _task = task
    os.environ["OMP_NUM_THREADS"] = "1"  # for what the task imports later
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent would leave its workers waiting for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _work(argument: Any) -> Any:
    return _task(argument)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread: sums then do not depend on the number of cores."""
    torch = sys.modules.get("torch")  # a task that computes with torch has imported it
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
