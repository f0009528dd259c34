"""A cache of feature vectors by content: SHA-256 of the image as stored, its crop, and the extractor's fingerprint.

One SQLite file holds all of them: twenty thousand vectors are one file, not twenty thousand. Every row carries a
checksum over its key and vector; a row that does not match is counted, never used, and computed again. The versions of
Pillow, torch and the decoding rules are part of the key, as they decide pixels and rounding. Whole images are hashed on
every run: nothing trusts a file's name or time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch

from ..errors import InputError
from ..image_sets.decode import VERSION, one_line
from ..image_sets.items import Crop

SCHEMA = 1
FILE = "features.sqlite"
MAX_BYTES = 2 * 2**30
PAGE = 32_768  # bytes; holds vectors of 1280 or 2048 numbers with little waste
WAIT = 2  # seconds for another process to finish writing; then the run goes on without the cache
FRESH = 24 * 3600  # a row used within this time is not marked as used again
_CHECK = 16  # bytes of checksum at the end of a row


def default_folder() -> Path:
    """``$REVERSE_STYLIZE_CACHE``, else ``reverse-stylize/features`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Returns:
        The folder; it need not exist.

    Raises:
        RuntimeError: neither is set, and this user has no home.
    """
    named = os.environ.get("REVERSE_STYLIZE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reverse-stylize" / "features"


@dataclass(frozen=True)
class CacheStats:
    """``entries`` and ``size`` (bytes) of the file, and what this object has met so far.

    ``damaged`` rows count as ``misses`` too; ``unsaved`` vectors could not be written.
    """

    path: Path
    entries: int
    size: int
    max_bytes: int
    hits: int
    misses: int
    damaged: int
    unsaved: int


class FeatureCache:
    """Feature vectors ``float32 [D]`` on disk; threads may share an object, processes a folder. A context manager.

    Writes are transactions: a killed process leaves the file as it was. When the file outgrows ``max_bytes``, the
    rows that were not used for the longest time are removed. A file that is locked or lost while it is in use is given
    up: ``fault`` says why, nothing is found in it and nothing saved from then on.

    Args:
        folder: where the file lies; created when missing. Default: :func:`default_folder`.
        max_bytes: bound of the file's size.

    Raises:
        InputError: the folder cannot be written, or the file is not a cache.
    """

    def __init__(self, folder: str | Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.path = (_default() if folder is None else Path(folder)) / FILE
        self.max_bytes = max_bytes
        self.fault = ""
        self.hits = self.misses = self.damaged = self.unsaved = 0
        self._used: set[bytes] = set()
        self._lock = threading.Lock()
        with _readable(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                _create(self.path)
            self._database = sqlite3.connect(self.path, timeout=WAIT, check_same_thread=False)
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute("SELECT key, used, vector FROM features LIMIT 0")

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def get(self, fingerprint: str, digest: str, crop: Crop | None = None) -> torch.Tensor | None:
        """The vector ``float32 [D]`` of an image, or None."""
        key = _key(fingerprint, digest, crop)
        with self._lock:
            row = self._row(key)
            vector = None if row is None else _unpacked(key, row[1])
            self.damaged += row is not None and vector is None
            self.hits += vector is not None
            self.misses += vector is None
            if row is not None and vector is not None and row[0] < time.time() - FRESH:
                self._used.add(key)
        return vector

    def put(self, fingerprint: str, entries: Iterable[tuple[str, Crop | None, torch.Tensor]]) -> None:
        """Keep vectors ``float32 [D]`` of (digest, crop, vector); a write that fails is counted as unsaved."""
        now = int(time.time())
        keyed = [(_key(fingerprint, digest, crop), vector) for digest, crop, vector in entries]
        rows = [(key, now, _packed(key, vector)) for key, vector in keyed]
        with self._lock:
            if self.fault:
                self.unsaved += len(rows)
                return
            used, self._used = sorted(self._used), set()
            try:
                with self._database:
                    self._database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", rows)
                    self._database.executemany(
                        "UPDATE features SET used = ? WHERE key = ?", [(now, key) for key in used]
                    )
                if self._bytes() > self.max_bytes:
                    self._shrink(self.max_bytes * 9 // 10)
            except sqlite3.Error as error:
                self.unsaved += len(rows)
                self._give_up(error)

    def stats(self) -> CacheStats:
        """What is in the file, and what this object has met."""
        with self._lock, _readable(self.path):
            (entries,) = self._database.execute("SELECT COUNT(*) FROM features").fetchone()
            size = self._bytes()
        return CacheStats(self.path, entries, size, self.max_bytes, self.hits, self.misses, self.damaged, self.unsaved)

    def prune(self, max_bytes: int | None = None) -> int:
        """Remove damaged rows, then the least recently used ones down to ``max_bytes``; how many were removed."""
        with self._lock, _readable(self.path):
            before = self._database.total_changes
            damaged = [
                (key,)
                for key, vector in self._database.execute("SELECT key, vector FROM features")
                if _unpacked(key, vector) is None
            ]
            with self._database:
                self._database.executemany("DELETE FROM features WHERE key = ?", damaged)
            self._shrink(self.max_bytes if max_bytes is None else max_bytes)
            return self._database.total_changes - before

    def clear(self) -> None:
        """Remove every row."""
        with self._lock, _readable(self.path):
            with self._database:
                self._database.execute("DELETE FROM features")
            self._give_back()

    def close(self) -> None:
        """Write down what was used and close the file."""
        self.put("", ())
        self._database.close()

    def _give_up(self, error: sqlite3.Error) -> None:
        """Use the file no more where it is locked, lost or cannot be written: waiting again would cost more time."""
        if isinstance(error, sqlite3.OperationalError):
            self.fault = one_line(error)

    def _row(self, key: bytes) -> tuple[int, bytes] | None:
        if self.fault:
            return None
        try:
            row: tuple[int, bytes] | None = self._database.execute(
                "SELECT used, vector FROM features WHERE key = ?", (key,)
            ).fetchone()
        except sqlite3.DatabaseError as error:  # a damaged page, or a writer that does not let go
            self._give_up(error)
            self.damaged += not self.fault
            return None
        return row

    def _shrink(self, target: int) -> None:
        """Remove the oldest rows until the rest fills at most ``target`` bytes."""
        while self._bytes() > target:
            (entries,) = self._database.execute("SELECT COUNT(*) FROM features").fetchone()
            if not entries:
                break
            surplus = -(-entries * (self._bytes() - target) // self._bytes())
            with self._database:
                self._database.execute(
                    "DELETE FROM features WHERE key IN (SELECT key FROM features ORDER BY used, rowid LIMIT ?)",
                    (surplus,),
                )
        self._give_back()

    def _bytes(self) -> int:
        """Bytes of the pages in use."""
        page, pages, free = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count", "freelist_count")
        )
        return int(page * (pages - free))

    def _give_back(self) -> None:
        """Return free pages to the disk."""
        self._database.executescript("PRAGMA incremental_vacuum")  # execute would free one page
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise InputError(
            f"{path}: cannot be used as a feature cache ({one_line(error)}). Remove this file, which is only a cache, "
            "set REVERSE_STYLIZE_CACHE to a folder that can be written, or use --no-cache."
        ) from error


def _default() -> Path:
    try:
        return default_folder()
    except RuntimeError as error:
        raise InputError(
            f"no folder for the feature cache ({one_line(error)}). Set REVERSE_STYLIZE_CACHE to a folder that can be "
            "written, or use --no-cache."
        ) from error


def _create(path: Path) -> None:
    """An empty database under its final name at once, whoever else does the same."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    part.unlink(missing_ok=True)
    try:
        database = sqlite3.connect(part, isolation_level=None)
        for command in (f"page_size = {PAGE}", "auto_vacuum = INCREMENTAL", "journal_mode = WAL"):
            database.execute(f"PRAGMA {command}").fetchall()
        database.execute("CREATE TABLE features (key BLOB PRIMARY KEY, used INTEGER NOT NULL, vector BLOB NOT NULL)")
        database.close()
        _name(part, path)
    finally:
        part.unlink(missing_ok=True)


def _name(part: Path, path: Path) -> None:
    """Give the file its name unless another process was faster; where there are no links, it may take its place."""
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    except OSError:
        part.replace(path)


def _key(fingerprint: str, digest: str, crop: Crop | None) -> bytes:
    box = None if crop is None else [crop.left, crop.top, crop.side, crop.size]
    facts = [SCHEMA, VERSION, PIL.__version__, torch.__version__, fingerprint, digest, box]
    return hashlib.sha256(json.dumps(facts).encode()).digest()


def _packed(key: bytes, vector: torch.Tensor) -> bytes:
    data = vector.numpy().astype("<f4").tobytes()
    return data + _checksum(key, data)


def _unpacked(key: bytes, packed: bytes) -> torch.Tensor | None:
    data, check = packed[:-_CHECK], packed[-_CHECK:]
    if not data or _checksum(key, data) != check:
        return None
    return torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32))


def _checksum(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECK, key=key).digest()
