"""The chunks of a PNG: what the pixels need, checked by its checksums; the rest is left out before it is decoded.

Pillow does not check the checksums of pixel data, so that a half that was overwritten becomes black; and it refuses
images whose texts or profile are larger than a megabyte, although their pixels are sound.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST_PROFILE = 16 * 2**20  # bytes, unpacked; printers' profiles have up to four million
LARGEST_TEXT = 2**16  # of an XMP packet or an EXIF block written as text
_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_EXIF_AS_TEXT = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})


class DamagedPng(ValueError):
    """The chunks do not follow the format or do not match their checksums."""


@dataclass(frozen=True)
class Png:
    """``data``: the file without what pixels do not need. ``profile``: its ICC profile. ``bits``: per sample.

    ``oriented``: whether something in it may say how to turn the image.
    """

    data: bytes
    profile: bytes | None
    bits: int
    oriented: bool


def read_png(data: bytes) -> Png:
    """Check a PNG and reduce it to one frame, its transparency, profile and orientation.

    Args:
        data: the file; begins with SIGNATURE.

    Returns:
        One frame as a plain PNG, with what was in it beside the pixels.

    Raises:
        DamagedPng: cut off, a checksum that does not match, no pixels.
    """
    before: list[bytes] = [SIGNATURE]
    after: list[bytes] = []
    profile, bits, oriented, pixels = None, 8, False, False
    for kind, start, end in _chunks(data):
        whole, body = data[start:end], data[start + 8 : end - 4]
        if kind in _PIXELS:
            if kind == b"IHDR" and len(body) == 13:
                bits = body[8]
            pixels |= kind == b"IDAT"
            (after if pixels else before).append(whole)
        elif kind == b"iCCP":
            profile = _profile(body)
        elif kind == b"eXIf" or (kind in _TEXTS and body.startswith(_EXIF_AS_TEXT) and len(body) <= LARGEST_TEXT):
            before.append(whole)  # before the pixels, where it can be read without them
            oriented = True
    if not pixels:
        raise DamagedPng("no pixels in it")
    return Png(b"".join([*before, *after]), profile, bits, oriented)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of every chunk, up to IEND; pixels and what they need must match their checksums."""
    place, view = len(SIGNATURE), memoryview(data)
    while True:
        kind = data[place + 4 : place + 8]
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data) or len(kind) < 4:
            raise DamagedPng("it ends in the middle")
        if kind in _PIXELS and zlib.crc32(view[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise DamagedPng(f"the checksum of a chunk {kind.decode('latin-1')} does not match")
        if not kind.isalpha():
            raise DamagedPng("a chunk of no kind")
        yield kind, place, end
        if kind == b"IEND":
            return
        place = end


def _profile(body: bytes) -> bytes | None:
    """The ICC profile in a chunk iCCP; None where it is damaged or too large, as for a file without one."""
    packed = body.partition(b"\0")[2][1:]
    try:
        profile = zlib.decompressobj().decompress(packed, LARGEST_PROFILE + 1)
    except zlib.error:
        return None
    return profile if 0 < len(profile) <= LARGEST_PROFILE else None
