"""The shard contract: sharded, resumable, deterministic work that fills a folder with images.

A *task* is a picklable callable ``task(keys) -> iterable of Image or Failure``; that is all a distributed engine needs
to know. Where a task needs more than the key of an item, it gets that instead. The keys are cut into shards. Each file
is written under a temporary name and renamed, and a finished shard is marked by a JSON file in ``OUT/.job``. Starting
the same command again skips marked shards; another configuration is refused. The last step folds the markers into
``metadata.jsonl``, ``errors.jsonl`` and ``run.json`` and removes ``.job``, so a finished folder is byte for byte the
same whatever happened on the way.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metrics.errors import MAX_ERRORS, InputError
from metrics.files import TEMPORARY, name_of, write_atomically
from metrics.image_sets.items import ImageSet, natural
from metrics.image_sets.metadata import companions, read_metadata

from ..engines.local import check_going_on, in_parallel
from ..locks import alone

SHARD_SIZE = 32
CHANGED = {
    "images": "the input images or their metadata have changed since",
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
    """How far a run is: finished and failed items out of ``total``, and what people should know of its input."""

    done: int
    failed: int
    total: int
    notes: tuple[str, ...] = ()


class Job:
    """One run into one folder. Use it as a context manager: it holds the folder's lock.

    Args:
        out: the folder to fill; created when missing.
        config: everything that decides the output, JSON-able; written to ``run.json``.
        notes: more for ``run.json``; another run may differ in them.
        images: the set that the run is about: its losses count and are listed like items that fail, its notes are said.

    Raises:
        InputError: OUT holds something else, another run is at work in it, or an earlier run had another config.
    """

    def __init__(
        self,
        out: Path,
        config: Mapping[str, Any],
        notes: Mapping[str, Any] | None = None,
        images: ImageSet | None = None,
    ) -> None:
        self.out, self.config, self.notes = Path(out), json.loads(json.dumps(config)), dict(notes or {})
        self.losses, self.remarks = (images.losses, images.notes) if images is not None else ((), ())
        self.state = self.out / ".job"
        self.summary = Progress(0, 0, 0)  # of a run that is finished

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
        """Process every key and publish the folder.

        The task gets the keys of a shard, or, of a mapping, its values: a worker holds no more than its own shards.
        Neither ``workers``, ``shard_size`` nor the order of completion changes a byte of the result.

        Args:
            task: what makes the images of a shard.
            keys: of all items, or items by key.
            workers: processes of one thread each.
            shard_size: items per shard, the unit of resuming.
            max_errors: how many items may fail before the run stops.

        Yields:
            How far the run is, at its start and after every shard.

        Raises:
            InputError: more than ``max_errors`` items failed, or all of them; finished shards are kept.
        """
        if self.finished:
            yield self.summary
            return
        names = list(keys)
        shards = [tuple(names[start : start + shard_size]) for start in range(0, len(names), shard_size)]
        markers = {shard: self.state / f"{_digest(shard)}.json" for shard in shards}
        done, errors, total = 0, _as_errors(self.losses), len(keys) + len(self.losses)
        for shard in shards:
            if markers[shard].exists():
                marker = json.loads(markers[shard].read_text(encoding="utf-8"))
                done, errors = done + len(marker["rows"]), errors + marker["errors"]
        _stop_on_errors(errors, max_errors)
        yield Progress(done, len(errors), total, self.remarks)
        todo = [shard for shard in shards if not markers[shard].exists()]
        work = [(shard, [keys[key] for key in shard] if isinstance(keys, Mapping) else shard) for shard in todo]
        publish = _PublishShard(task, self.out, max_errors - len(errors))
        try:
            with closing(in_parallel(publish, work, workers)) as results:
                for finished, broken in results:
                    done, errors = done + finished, errors + broken
                    yield Progress(done, len(errors), total, self.remarks)
                    _stop_on_errors(errors, max_errors)
        except BaseException:
            self._sweep()
            raise
        if not done:
            _stop_on_errors(errors, 0)
        self._publish([markers[shard] for shard in shards])

    def _check_finished(self) -> bool:
        finished = self.out / "run.json"
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: is a file. Name a folder that does not exist yet.")
        if finished.exists() and not self.state.exists():
            shutil.rmtree(self.out / ".job-done", ignore_errors=True)
            self._refuse_other(_read_config(finished), "holds a finished run")
            self._refuse_incomplete()
            self.summary = _read_summary(finished)
            return True
        if self.out.exists() and not self.state.exists() and any(self.out.iterdir()):
            raise InputError(
                f"{self.out}: not empty, and what it holds is not a run of this command. Name a new or empty folder."
            )
        return False

    def _refuse_incomplete(self) -> None:
        rows = read_metadata(self.out).values()
        names = [str(row["file_name"]) for row in rows] + [name for row in rows for name in companions(row).values()]
        missing = [name for name in names if not (self.out / name_of(name)).is_file()]
        if missing:
            raise InputError(
                f"{self.out}: holds a finished run, but {len(missing)} of its files are gone, e.g. {missing[0]}. "
                "Remove the folder and repeat the command, or name another one."
            )

    def _open_state(self) -> None:
        refusal = f"{self.out}: another process is at work in it. Wait for it, or name another folder."
        with ExitStack() as stack:
            stack.enter_context(alone(self.state / "lock", refusal))
            self._check_started(self.state / "config.json")
            self._lock = stack.pop_all()

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

    def _publish(self, markers: Sequence[Path]) -> None:
        self._sweep()
        rows: list[tuple[str, str]] = []  # name and line: parsed rows would take several times the memory
        errors = [(row["key"], _line(row)) for row in _as_errors(self.losses)]
        for path in markers:
            marker = json.loads(path.read_text(encoding="utf-8"))
            rows += [(row["file_name"], _line(row)) for row in marker["rows"]]
            errors += [(row["key"], _line(row)) for row in marker["errors"]]
        write_atomically(self.out / "metadata.jsonl", _sorted_lines(rows))
        if errors:
            write_atomically(self.out / "errors.jsonl", _sorted_lines(errors))
        summary = {"config": self.config, **self.notes, "images": len(rows), "errors": len(errors)}
        if self.remarks:
            summary["notes"] = list(self.remarks)
        write_atomically(self.out / "run.json", to_json(summary))
        if sys.platform == "win32":
            self._lock.close()  # an open file would keep its folder from being renamed
        shutil.rmtree(self.state.rename(self.out / ".job-done"))  # renamed first: half a state is never resumed

    def _sweep(self) -> None:
        """Remove what a kill left half written: the folder is this run's alone."""
        for path in self.out.rglob(f".*{TEMPORARY}"):
            path.unlink(missing_ok=True)


def _stop_on_errors(errors: Sequence[Mapping[str, str]], limit: int) -> None:
    if len(errors) > limit:
        first = min(errors, key=lambda row: natural(row["key"]))
        repair = "Repeat the command with a larger --max-errors to continue, or" if limit else "Or"
        raise InputError(
            f"{len(errors)} items failed (at most {limit} allowed); the first: {first['key']}: {first['error']}. "
            f"{repair} repair the input and name a new folder."
        )


def to_json(value: Any) -> bytes:
    """Canonical, readable JSON."""
    return _encoded(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _encoded(text: str) -> bytes:
    """UTF-8. Half of a surrogate pair, which a string of the input's metadata may hold, stays an escape of JSON."""
    return text.encode(errors="backslashreplace")


@dataclass(frozen=True)
class _PublishShard:
    """Run the task on one shard, publish its files, then its marker; returns how many succeeded, and what failed.

    As soon as more than ``allowed`` items of the shard have failed it stops, without a marker: the run ends.
    """

    task: Task
    out: Path
    allowed: int

    def __call__(self, work: tuple[tuple[str, ...], Sequence[Any]]) -> tuple[int, list[dict[str, str]]]:
        shard, parts = work
        start = time.perf_counter()
        rows: list[Mapping[str, Any]] = []
        errors: list[dict[str, str]] = []
        for result in self.task(parts):
            check_going_on()
            if isinstance(result, Failure):
                errors.append({"key": result.key, "error": result.reason})
                if len(errors) > self.allowed:
                    return len(rows), errors
            else:
                write_atomically(self.out / name_of(result.file_name), result.data)
                for name, data in result.companions.values():
                    write_atomically(self.out / name_of(name), data)
                names = {column: name for column, (name, _) in result.companions.items()}
                rows.append({"file_name": result.file_name, **names, **result.row})
        marker = {"rows": rows, "errors": errors, "seconds": round(time.perf_counter() - start, 3)}
        write_atomically(self.out / ".job" / f"{_digest(shard)}.json", to_json(marker))
        return len(rows), errors


def _as_errors(losses: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"key": key, "error": reason} for key, reason in losses]


def _digest(shard: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(shard).encode()).hexdigest()[:24]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return dict(value["config"]) if path.name == "run.json" else dict(value)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not written by this command ({error}). Name another output folder.") from error


def _read_summary(path: Path) -> Progress:
    value = json.loads(path.read_text(encoding="utf-8"))
    images, errors = int(value.get("images", 0)), int(value.get("errors", 0))
    return Progress(images, errors, images + errors, tuple(map(str, value.get("notes", ()))))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n"


def _sorted_lines(named: list[tuple[str, str]]) -> bytes:
    named.sort(key=lambda pair: natural(pair[0]))
    return _encoded("".join(line for _, line in named))
