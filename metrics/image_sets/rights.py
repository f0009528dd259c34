"""What lies beside or inside an image file about its rights: sidecars of REUSE, XMP and EXIF. Data from strangers.

A text counts as a licence if it is an expression of SPDX with a version in it, or an address of Creative Commons; any
other is kept as it is. XMP is searched for a few properties and not parsed, so that nothing in it is expanded.
"""

from __future__ import annotations

import html
import re
import tomllib
from collections.abc import Callable
from pathlib import PurePosixPath

from ..errors import InputError
from .decode import ImageError, exif_text
from .spdx import canonical, of_deed

SIDECAR = ".license"  # ``photo.jpg.license`` beside ``photo.jpg``: https://reuse.software/spec
REUSE = "REUSE.toml"
LARGEST = 2**18  # bytes of an XMP packet or a sidecar that are looked at
LONGEST = 1000  # characters of one text
COPYRIGHT, ARTIST = 0x8298, 0x013B  # EXIF tags
_TAG = re.compile(r"SPDX-(License-Identifier|FileCopyrightText):[ \t]*([^\r\n]{1,1000})")
_LICENCES = ("cc:license", "xmpRights:WebStatement")
_TEXTS = ("xmpRights:UsageTerms", "dc:rights")

Rights = dict[str, str]


def of_sidecar(data: bytes) -> Rights:
    """``licence`` (SPDX; several are joined by AND) and ``author`` of a REUSE sidecar; empty where it names none."""
    text = data[:LARGEST].decode("utf-8", "replace")
    found: dict[str, list[str]] = {"License-Identifier": [], "FileCopyrightText": []}
    for name, value in _TAG.findall(text):
        found[name].append(value.strip())
    return _stated(found["License-Identifier"], found["FileCopyrightText"])


def of_reuse(data: bytes, where: str) -> Callable[[str], Rights]:
    """What a ``REUSE.toml`` says about a file, named relative to it; its last annotation that fits counts.

    Returns:
        A function from a name to its rights.

    Raises:
        InputError: not such a file.
    """
    rules: list[tuple[list[re.Pattern[str]], Rights]] = []
    try:
        for row in tomllib.loads(data.decode("utf-8")).get("annotations", []):
            patterns = [_glob(path) for path in _listed(row["path"])]
            licences = _listed(row.get("SPDX-License-Identifier", []))
            rules.append((patterns, _stated(licences, _listed(row.get("SPDX-FileCopyrightText", [])))))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{where}: not a REUSE.toml ({type(error).__name__}: {error}). Expected [[annotations]] with path, "
            "SPDX-License-Identifier and SPDX-FileCopyrightText; repair or remove it."
        ) from error

    def look_up(name: str) -> Rights:
        fitting = [rights for patterns, rights in rules if any(pattern.fullmatch(name) for pattern in patterns)]
        return fitting[-1] if fitting else {}

    return look_up


def embedded(data: bytes) -> Rights:
    """What an image file says in itself: ``licence`` where that is clear, ``author``, and ``rights`` in its words."""
    packet = _xmp(data)
    texts = [*(_property(packet, name) for name in (*_LICENCES, *_TEXTS)), _exif(data, COPYRIGHT)]
    said = list(dict.fromkeys(text for text in texts if text))
    licences = {licence for text in said if (licence := _licence_in(text))}
    rights = {"rights": "; ".join(said)} if said else {}
    if len(licences) == 1:  # two different ones: nobody knows which
        rights["licence"] = licences.pop()
    author = _property(packet, "dc:creator") or _exif(data, ARTIST)
    return {**rights, "author": author} if rights and author else rights


def _stated(licences: list[str], authors: list[str]) -> Rights:
    if not licences:
        return {}
    joined = " AND ".join(f"({one})" if " " in one and len(licences) > 1 else one for one in licences)
    return {"licence": canonical(joined) or joined, "author": "; ".join(authors)}


def _listed(value: object) -> list[str]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"{value!r} is neither a text nor a list of texts")
    return words


def _glob(path: str) -> re.Pattern[str]:
    """``*`` is anything within a folder, ``**`` anything."""
    words = re.split(r"(\*+)", PurePosixPath(path).as_posix())
    return re.compile("".join({"*": "[^/]*"}.get(word, ".*") if "*" in word else re.escape(word) for word in words))


def _licence_in(text: str) -> str | None:
    return of_deed(text) or (canonical(text) if re.search(r"\d\.\d", text) else None)


def _xmp(data: bytes) -> str:
    """The packet of RDF in a file, decoded; empty where there is none."""
    start = data.find(b"<rdf:RDF")
    end = data.find(b"</rdf:RDF>", start, start + LARGEST) if start >= 0 else -1
    return data[start:end].decode("utf-8", "replace") if end >= 0 else ""


def _property(packet: str, name: str) -> str:
    """The text of an attribute, resource, element or first list entry of this name; the prefixes are the usual ones."""
    as_attribute = re.search(rf"\b{name}\s{{0,9}}=\s{{0,9}}[\"']([^\"'<>]{{1,{LONGEST}}})[\"']", packet)
    as_resource = re.search(rf"<{name}\s{{1,9}}rdf:resource=[\"']([^\"'<>]{{1,{LONGEST}}})[\"']", packet)
    entry = r"\s{0,99}<rdf:(?:Alt|Seq|Bag)>\s{0,99}<rdf:li\b[^<>]{0,99}>"
    as_element = re.search(rf"<{name}\b[^<>]{{0,99}}>(?:{entry})?([^<>]{{1,{LONGEST}}})<", packet)
    found = as_resource or as_attribute or as_element
    return " ".join(html.unescape(found[1]).split()) if found else ""


def _exif(data: bytes, tag: int) -> str:
    try:
        return " ".join(exif_text(data, tag).split())[:LONGEST]
    except ImageError:
        return ""
