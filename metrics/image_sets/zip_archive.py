"""Image sets packed as ``.zip``: read in place, by the offsets of the central directory."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .assemble import Found, assemble, top_folder
from .decode import ImageError, one_line, unreadable
from .file_kinds import is_hidden, is_hidden_image
from .items import ImageSet
from .member import Stamp, check_size, check_stamp, location, refused_kind, safe_name, stamp

_HEADER = 30  # bytes of a local header before name and extra field
_SIGNATURE = b"PK\x03\x04"
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


@dataclass(frozen=True)
class ZipMember:
    """A file in a zip: where its local header is, its length packed and unpacked, and its CRC-32."""

    archive: Path
    name: str
    offset: int
    packed: int
    size: int
    deflated: bool
    crc: int
    stamp: Stamp

    @property
    def location(self) -> str:
        """``set.zip::a/b.png``."""
        return location(self.archive, self.name)

    def load(self) -> bytes:
        """The unpacked bytes, never more than the directory says; raises ImageError."""
        packed = self._packed()
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, self.size + 1) if self.deflated else packed
        except zlib.error as error:
            raise ImageError(f"damaged archive member ({one_line(error)})") from error
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise ImageError("damaged archive member (its checksum does not match)")
        return data

    def _packed(self) -> bytes:
        """A handle per call: threads and processes share none, and none stays open."""
        try:
            with self.archive.open("rb") as file:
                check_stamp(Path(file.name).stat(), self.stamp)
                file.seek(self.offset)
                header = file.read(_HEADER)
                if len(header) < _HEADER or not header.startswith(_SIGNATURE):
                    raise ImageError("damaged archive member (no local header)")
                file.seek(sum(struct.unpack("<HH", header[26:30])), 1)
                return file.read(self.packed)
        except OSError as error:
            raise unreadable(error) from error


def open_zip(path: Path) -> ImageSet:
    """The images of a zip, with what files of metadata in it say; a folder that holds all of it is not part of keys."""
    members = zip_members(path)
    visible = {name: member for name, member in members.items() if not is_hidden(name)}
    top = top_folder(visible)
    files = {name.removeprefix(top): member for name, member in visible.items()}
    return assemble(path, Found(files, hidden=sum(map(is_hidden_image, members))), "archive")


def zip_members(path: Path) -> dict[str, ZipMember]:
    """The files of a zip by their names.

    Returns:
        Where each file lies in the zip; nothing is unpacked.

    Raises:
        InputError: no zip, damaged, encrypted, compressed by another method than deflate, links, unsafe names, bombs,
            members that overlap or have one name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
        at = stamp(path.stat())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise InputError(f"{path}: not a readable zip ({one_line(error)}). Pack the images again.") from error
    members: dict[str, ZipMember] = {}
    for info in infos:
        name = safe_name(path, info.filename)
        _check_kind(path, info)
        if info.is_dir():
            continue
        if name in members:
            raise InputError(f"{path}: two members are named {name!r}. Names must be unique: pack the images again.")
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        members[name] = ZipMember(
            path, name, info.header_offset, info.compress_size, info.file_size, deflated, info.CRC, at
        )
    _check_overlaps(path, members)
    return members


def read(member: ZipMember) -> bytes:
    """The bytes of a member that is no image; raises InputError."""
    try:
        return member.load()
    except ImageError as error:
        raise InputError(f"{member.location}: {error}. Pack the archive again.") from error


def _check_kind(path: Path, info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refused_kind(path, info.filename, "link" if kind == stat.S_IFLNK else "device or other special file")
    if info.flag_bits & 0x1:
        raise InputError(f"{path}: the member {info.filename!r} is encrypted. Pack the images without a password.")
    if info.compress_type not in _METHODS:
        raise InputError(
            f"{path}: the member {info.filename!r} is compressed by method {info.compress_type}. "
            "Expected store (0) or deflate (8), as zip -r does."
        )
    check_size(path, info.filename, info.file_size, info.compress_size)


def _check_overlaps(path: Path, members: dict[str, ZipMember]) -> None:
    """Members that share bytes are how a small zip unpacks to a huge one."""
    end = 0
    for member in sorted(members.values(), key=lambda member: member.offset):
        if member.offset < end:
            raise InputError(
                f"{path}: the member {member.name!r} overlaps another: a zip bomb. Nothing was read from it."
            )
        end = member.offset + _HEADER + member.packed
    if end > path.stat().st_size:
        raise InputError(
            f"{path}: shorter than its directory says: a download that was cut off? Pack or fetch it again."
        )
