"""What a file in an image set is, by its suffix and, where that says nothing, by its first bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

_READ = """
    png apng  jpg jpeg jpe jfif  webp avif  bmp dib  tif tiff  gif  ppm pgm pbm pnm  jp2 j2k j2c  tga
"""
_TO_CONVERT = "heic heif hif jxl jxr wdp psd xcf svg eps pcx ico icns dds qoi"
_WITHOUT_WHITE = "exr hdr pfm"
_RAW = "dng cr2 cr3 nef arw raw rw2 orf raf pef srw"
_FILMS = "mp4 mov avi mkv webm m4v mpg mpeg wmv"
_OTHER = """
    txt json jsonl csv tsv xml yaml yml toml ini md rst html css js py ipynb sh log license lock npy npz pkl pickle
    pt pth safetensors onnx h5 hdf5 mat parquet arrow feather db sqlite bin zip tar gz tgz bz2 xz zst 7z rar pdf doc
    docx xlsx obj ply stl blend mtl wav mp3
"""


def _suffixes(words: str) -> list[str]:
    return [f".{word}" for word in words.split()]


SUFFIXES = frozenset(_suffixes(_READ))
UNREAD = {  # images and films that are not read, and what to do with them
    **dict.fromkeys(_suffixes(_TO_CONVERT), "convert it to PNG"),
    **dict.fromkeys(_suffixes(_WITHOUT_WHITE), "its values have no white: tone-map it to PNG"),
    **dict.fromkeys(_suffixes(_RAW), "develop it to JPEG or PNG"),
    **dict.fromkeys(_suffixes(_FILMS), "extract its frames"),
}
OTHER = frozenset(_suffixes(_OTHER))  # never images: these are not opened to see what they are
OWN = frozenset({"ledger.json", "run.json", "errors.jsonl"})  # of this program: nothing to mention
HEAD = 16  # bytes that tell an image
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")


def suffix_of(name: str) -> str:
    """The last suffix in lower case; empty where there is none."""
    return PurePosixPath(name).suffix.lower()


def is_image_name(name: str) -> bool:
    """Whether a name below the root is that of a visible image file."""
    return not is_hidden(name) and suffix_of(name) in SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a part of the name begins with a dot, or is the folder of resource forks that macOS packs."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_hidden_image(name: str) -> bool:
    """Whether a name is that of an image but for being hidden; the ``._`` files of macOS are no images."""
    base = name.rpartition("/")[2]
    fork = base.startswith("._") or "__MACOSX" in name.split("/")
    return is_hidden(name) and not fork and suffix_of(base.lstrip(".")) in SUFFIXES


def looks_like_image(head: bytes) -> bool:
    """Whether a file's first HEAD bytes are those of an image."""
    boxed = head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1")
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or boxed


def why_unread(name: str, head: bytes) -> str | None:
    """Why a file without one of SUFFIXES is an image that is lost; None where it is no image."""
    suffix = suffix_of(name)
    if suffix in UNREAD:
        return f"a {suffix} file, which is not read: {UNREAD[suffix]}"
    if suffix in OTHER or not looks_like_image(head):
        return None
    return f"an image by its first bytes, and {suffix or 'a name without suffix'} is not read: rename it"


def passed_over(names: Iterable[str], hidden: int) -> list[str]:
    """One note on the files that are no images, by suffix: ``passed over: 4 .txt, 1 README``."""
    counts: Mapping[str, int] = Counter(
        suffix_of(name) or PurePosixPath(name).name for name in names if PurePosixPath(name).name not in OWN
    )
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    kinds = [f"{count} {kind}" for kind, count in ranked[:6]]
    rest = sum(count for _, count in ranked[6:])
    kinds += [f"{rest} others"] if rest else []
    kinds += [f"{hidden} hidden image{'s' * (hidden > 1)}"] if hidden else []
    return [f"passed over, as no images of the set: {', '.join(kinds)}"] if kinds else []
