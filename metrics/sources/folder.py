"""Image sets in folders, searched recursively."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from ..images import Content, ImageSet
from ..metadata import read_metadata
from .assemble import assemble, is_image_name


def open_folder(root: Path) -> ImageSet:
    """The image set of a folder; links to folders are followed, loops of them only once round."""
    paths: dict[str, Path | Content] = {}
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(folder).relative_to(root)
        for name in files:
            path = Path(folder, name)
            if is_image_name(name) and path.is_file():
                _check_unicode(root, name)
                paths[(inside / name).as_posix()] = path
    return assemble(root, paths, read_metadata(root))


def _check_unicode(root: Path, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{root}: the file name {os.fsencode(name)!r} is not valid UTF-8. Rename it.") from error
