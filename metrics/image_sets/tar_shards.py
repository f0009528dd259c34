"""WebDataset shards: plain tar files whose members of one sample share the name before the first dot."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import InputError
from .assemble import Loss, companion_names, item, missing_files, no_images, read_rows, splits, top_folder
from .decode import ImageError, one_line, unreadable
from .file_kinds import HEAD, OTHER, SUFFIXES, is_hidden, is_hidden_image, passed_over, suffix_of, why_unread
from .items import ImageSet, natural
from .member import Stamp, check_size, check_stamp, location, refused_kind, safe_name, stamp
from .metadata import BESIDE, is_metadata

_PACKED = {b"\x1f\x8b": "gzip -d", b"BZ": "bzip2 -d", b"\xfd7": "xz -d", b"\x28\xb5": "zstd -d"}


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


SAMPLE = frozenset({"cls", "json", "npy", "npz", "pyd", "pth"})  # fields that only samples have


class _Bounded:
    """A file that is never asked for more bytes than it has: headers of a crafted tar may claim any size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell
        self._size = os.fstat(file.fileno()).st_size

    def read(self, count: int = -1) -> bytes:
        left = max(self._size - self.tell(), 0)
        return self._file.read(min(count, left) if count >= 0 else left)


def open_tars(paths: Sequence[Path], root: Path) -> ImageSet:
    """The samples of tar shards that hold an image; samples that hold none are losses.

    A sample is what shares the name before the first dot. Where no member of it is a plain image (``frame.1.png``,
    ``frame.2.png``), each is a sample of its own, named by all but its last suffix. The label is the sample's ``.cls``,
    else ``label`` in its ``.json``, else as a folder has it; other values of the ``.json``, and the image's row in a
    file of metadata in the shard, are its metadata. Images beside a plain one (``a.seg.png`` beside ``a.jpg``) are its
    companions; further members are passed over, and noted.

    Args:
        paths: of the shards.
        root: of the set, for people.

    Returns:
        The images, with losses and notes.
    """
    shards = [_shard(path) for path in paths]
    samples: dict[str, Sample] = {}
    for shard in shards:
        for key, sample in shard.samples.items():
            if key in samples:
                first, second = (one.image.archive.name for one in (samples[key], sample))
                raise InputError(f"{root}: the key {key!r} is in {first} and in {second}. Keys must be unique.")
            samples[key] = sample
    losses = [loss for shard in shards for loss in shard.losses]
    notes = [note for shard in shards for note in shard.notes]
    notes += passed_over([name for shard in shards for name in shard.over], sum(shard.hidden for shard in shards))
    if not samples:
        raise no_images(root, "archive", losses, [name for shard in shards for name in shard.over])
    split = splits(samples)
    items = [item(root, key, samples[key].image, *samples[key].row(), split) for key in sorted(samples, key=natural)]
    return ImageSet(root, items, losses, notes)


@dataclass(frozen=True)
class Sample:
    """An image of a shard, what belongs to it by field, its row of metadata, and all files of the shard."""

    image: TarMember
    fields: Mapping[str, str]
    metadata: Mapping[str, Any]
    files: Mapping[str, TarMember]

    def row(self) -> tuple[dict[str, Any], Callable[[str], TarMember | None]]:
        """All that is known about the image, and what gives its companions."""
        row = {**self.metadata, **(_json(self.files[self.fields["json"]]) if "json" in self.fields else {})}
        for field, name in self.fields.items():
            if "." in field:  # seg.png is what metadata would call seg_file_name
                row.setdefault(f"{field.rpartition('.')[0].replace('.', '_')}{BESIDE}", name)
        if "cls" in self.fields:
            text = _read(self.files[self.fields["cls"]]).decode("utf-8", "replace").strip()
            row["label"] = int(text) if text.isdecimal() else text
        return row, self.files.get


@dataclass(frozen=True)
class _Shard:
    samples: Mapping[str, Sample]
    losses: Sequence[Loss]
    notes: Sequence[str]
    over: Sequence[str]
    hidden: int


def _shard(path: Path) -> _Shard:
    members = tar_members(path)
    visible = [name for name in members if not is_hidden(name)]
    top = top_folder(visible, by_metadata=True)  # the keys of samples have folders of their own
    files = {name.removeprefix(top): members[name] for name in visible}
    metadata = read_rows(path, files, files.__contains__)
    beside = companion_names(metadata)
    losses = missing_files(metadata, files.__contains__, set())
    samples: dict[str, Sample] = {}
    used = set(beside)
    for key, fields in _grouped(path, [name for name in files if name not in beside and not is_metadata(name)]).items():
        images = [field for field in fields if _is_image_field(field)]
        plain = [field for field in images if "." not in field]
        if len(plain) > 1:
            raise InputError(
                f"{path}: the sample {key!r} holds {len(plain)} images ({', '.join(plain)}), expected one."
            )
        known = {"cls", "json", *(field for field in images if plain and "." in field)}
        others = {field: fields[field] for field in fields if field in known}
        for field in plain or images:
            name = fields[field]
            own = key if plain else name.rpartition(".")[0]
            samples[own] = Sample(files[name], others, metadata.rows.get(name, {}), files)
            used.add(name)
        if images:
            used |= set(others.values())
        elif SAMPLE & fields.keys() and key.rpartition("/")[2].upper() not in ("README", "LICENSE"):
            losses.append((key, f"a sample without an image, only {', '.join(fields)}"))
            used |= set(fields.values())
    over = [name for name in files if name not in used and not is_metadata(name)]
    lost = [
        (name, why)
        for name in over
        if (why := why_unread(name, b"" if suffix_of(name) in OTHER else _head(files[name])))
    ]
    over = [name for name in over if name not in dict(lost)]
    return _Shard(samples, [*losses, *lost], metadata.notes, over, sum(map(is_hidden_image, members)))


def _head(member: TarMember) -> bytes:
    try:
        with member.archive.open("rb") as file:
            file.seek(member.offset)
            return file.read(min(HEAD, member.size))
    except OSError:
        return b""


def _is_image_field(field: str) -> bool:
    return f".{field.rpartition('.')[2]}" in SUFFIXES


def tar_members(path: Path) -> dict[str, TarMember]:
    """The files of a tar by their names.

    Returns:
        Where each file lies in the tar; nothing is read yet.

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
                _check_end(path, file, archive.offset)
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable tar ({one_line(error)}). Pack it again.") from error
    return members


def _check_end(path: Path, file: BinaryIO, end: int) -> None:
    """A whole tar ends with a block of zeros, and nothing but zeros follows.

    Raises:
        InputError: it ends earlier, or another archive was appended, of which nothing was read.
    """
    file.seek(end)
    mark = file.read(tarfile.BLOCKSIZE)
    if len(mark) < tarfile.BLOCKSIZE:
        raise InputError(f"{path}: cut off: it has no end mark. A download that broke off? Fetch or pack it again.")
    if any(mark):
        raise InputError(f"{path}: damaged: no member begins at byte {end}, nor does it end there. Pack it again.")
    while rest := file.read(2**20):
        if any(rest):
            raise InputError(f"{path}: data follow its end mark: archives that were joined? Pack the images again.")


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


def _grouped(path: Path, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Names by sample and field: ``a/b.seg.png`` is the field ``seg.png`` of ``a/b``."""
    samples: dict[str, dict[str, str]] = {}
    for name in names:
        folder, _, base = name.rpartition("/")
        stem, dot, field = base.partition(".")
        if not dot:
            continue
        fields = samples.setdefault(f"{folder}/{stem}" if folder else stem, {})
        if field.lower() in fields:
            raise InputError(
                f"{path}: the sample {folder}{'/' if folder else ''}{stem} holds two members .{field.lower()}. "
                "Expected one of a kind."
            )
        fields[field.lower()] = name
    return samples


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
