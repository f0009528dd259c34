"""WebDataset shards: plain tar files whose members of one sample share the name before the first dot."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..decode import SUFFIXES, ImageError, one_line, unreadable
from ..errors import InputError
from ..images import ImageSet, natural
from .assemble import item
from .member import Stamp, check_size, check_stamp, location, refused_kind, safe_name, stamp

_PACKED = {b"\x1f\x8b": "gzip -d", b"BZ": "bzip2 -d", b"\xfd7": "xz -d", b"\x28\xb5": "zstd -d"}
_IMAGES = frozenset(suffix[1:] for suffix in SUFFIXES)


@dataclass(frozen=True)
class TarMember:
    """A file in a tar: where its bytes are."""

    archive: Path
    name: str
    offset: int
    size: int
    stamp: Stamp

    @property
    def location(self) -> str:
        """``shard-000.tar::a/b.png``."""
        return location(self.archive, self.name)

    def load(self) -> bytes:
        """The bytes; a handle per call, so threads and processes share none. Raises ImageError."""
        try:
            with self.archive.open("rb") as file:
                check_stamp(Path(file.name).stat(), self.stamp)
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise unreadable(error) from error
        if len(data) != self.size:
            raise ImageError("damaged archive member (the archive ends within it)")
        return data


class _Bounded:
    """A file that is never asked for more bytes than it has: headers of a crafted tar may claim any size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell
        self._size = os.fstat(file.fileno()).st_size

    def read(self, count: int = -1) -> bytes:
        left = max(self._size - self.tell(), 0)
        return self._file.read(min(count, left) if count >= 0 else left)


def open_tars(paths: Sequence[Path], root: Path) -> ImageSet:
    """The samples of tar shards that hold an image; samples that hold none are listed as unreadable.

    The label is the sample's ``.cls``, else ``label`` in its ``.json``, else the folder in its key; other values of
    the ``.json`` are its metadata. Further members of a sample are passed over.
    """
    samples: dict[str, dict[str, TarMember]] = {}
    for path in paths:
        for key, fields in _samples(path).items():
            if key in samples:
                other = next(iter(samples[key].values())).archive
                raise InputError(f"{root}: the key {key!r} is in {other.name} and in {path.name}. Keys must be unique.")
            samples[key] = fields
    items, without = [], []
    for key in sorted(samples, key=natural):
        images = [name for name in samples[key] if name in _IMAGES]
        if len(images) > 1:
            raise InputError(
                f"{root}: the sample {key!r} holds {len(images)} images ({', '.join(images)}), expected one."
            )
        if images:
            items.append(item(root, key, samples[key][images[0]], _row(samples[key])))
        else:
            without.append((key, f"a sample without an image, only {', '.join(samples[key])}"))
    if not items:
        raise InputError(
            f"{root}: no sample with an image among {len(samples)}. Expected members named KEY.png, KEY.jpg or such."
        )
    return ImageSet(root, items, without)


def tar_members(path: Path) -> dict[str, TarMember]:
    """The files of a tar by their names.

    Raises:
        InputError: no tar, compressed, damaged, links or devices, unsafe names, two members of one name.
    """
    members: dict[str, TarMember] = {}
    try:
        with path.open("rb") as file:
            if tool := _PACKED.get(file.read(2)):
                raise InputError(f"{path}: compressed, so its members cannot be found. Unpack it once: {tool} {path}")
            file.seek(0)
            with tarfile.open(fileobj=cast("BinaryIO", _Bounded(file)), mode="r:") as archive:
                at = stamp(path.stat())
                for info in _regular(path, archive):
                    name = safe_name(path, info.name)
                    if name in members:
                        raise InputError(f"{path}: two members are named {name!r}. Names must be unique.")
                    members[name] = TarMember(path, name, info.offset_data, info.size, at)
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable tar ({one_line(error)}). Pack it again.") from error
    return members


def _regular(path: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The plain files of a tar, after a check that nothing else but folders is in it."""
    end = -1
    for info in archive:
        safe_name(path, info.name)
        if info.size < 0 or info.offset <= end:  # a crafted size that leads back
            raise InputError(f"{path}: damaged: the member {info.name!r} has an impossible size. Pack it again.")
        end = info.offset
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            kind = "link" if info.issym() or info.islnk() else "device or other special file"
            raise refused_kind(path, info.name, kind)
        check_size(path, info.name, info.size, info.size)
        yield info


def _samples(path: Path) -> dict[str, dict[str, TarMember]]:
    samples: dict[str, dict[str, TarMember]] = {}
    for name, member in tar_members(path).items():
        folder, _, base = name.rpartition("/")
        if any(part.startswith(".") for part in name.split("/")) or "." not in base:
            continue
        stem, _, field = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        fields = samples.setdefault(key, {})
        if field.lower() in fields:
            raise InputError(f"{path}: the sample {key!r} holds two members .{field.lower()}. Expected one of a kind.")
        fields[field.lower()] = member
    return samples


def _row(sample: Mapping[str, TarMember]) -> dict[str, Any]:
    row = _json(sample["json"]) if "json" in sample else {}
    if "cls" in sample:
        text = _read(sample["cls"]).decode("utf-8", "replace").strip()
        row["label"] = int(text) if text.isdecimal() else text
    return row


def _json(member: TarMember) -> dict[str, Any]:
    try:
        row = json.loads(_read(member))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{member.location}: not JSON ({one_line(error)}). Repair or remove it.") from error
    return row if isinstance(row, dict) else {}


def _read(member: TarMember) -> bytes:
    try:
        return member.load()
    except ImageError as error:
        raise InputError(f"{member.location}: {error}. Pack the archive again.") from error
