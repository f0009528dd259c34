"""Image sets in folders, searched recursively."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import InputError
from ..files import text_of
from .assemble import File, Found, Loss, assemble
from .decode import one_line
from .file_kinds import OTHER, is_hidden, is_hidden_image, is_image_name, suffix_of
from .items import ImageSet

MOST_LINKS = 16  # names under which one folder is read: links among folders could otherwise stand for endlessly many


def open_folder(root: Path) -> ImageSet:
    """The image set of a folder; links to folders are followed, and a loop of them is entered once."""
    return assemble(root, _Search(root).found())


class _Search:
    """One walk through a folder and all below it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, File] = {}
        self.losses: list[Loss] = []
        self.visits: dict[str, int] = {}
        self.hidden = 0

    def found(self) -> Found:
        """Everything below the root."""
        self._waiting = [(self.root, "", frozenset[str]())]
        while self._waiting:
            self._enter(*self._waiting.pop())
        return Found(self.files, self.losses, (), self.hidden)

    def _enter(self, folder: Path, below: str, above: frozenset[str]) -> None:
        """Read a folder whose name below the root is ``below``; ``above`` are the real places of those it lies in."""
        real = os.path.realpath(folder)
        if real in above:
            return  # a loop of links: everything in it is being read
        self.visits[real] = self.visits.get(real, 0) + 1
        if self.visits[real] > MOST_LINKS:
            raise InputError(f"{folder}: more than {MOST_LINKS} links lead to {real}. Remove some of them.")
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if not below:
                raise InputError(f"{folder}: cannot be listed ({error.strerror}). Change its permissions.") from error
            self.losses.append((below, f"a folder that cannot be listed ({error.strerror})"))
            return
        for entry in entries:
            self._take(entry, below, above | {real})

    def _take(self, entry: os.DirEntry[str], below: str, above: frozenset[str]) -> None:
        text = text_of(entry.name)
        name = (
            below
            + "/" * bool(below)
            + (entry.name.encode(errors="backslashreplace").decode() if text is None else text)
        )
        if is_hidden(name):
            self.hidden += is_hidden_image(name)
            return
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            gone = entry.is_symlink() and isinstance(error, FileNotFoundError)
            self._lose(name, "a link to a file that is gone" if gone else f"cannot be opened ({one_line(error)})")
            return
        if text is None:
            self._lose(name, "its name is not valid UTF-8. Rename it")
        elif stat.S_ISDIR(mode):
            self._waiting.append((Path(entry.path), name, above))
        elif stat.S_ISREG(mode):
            self.files[name] = Path(entry.path)
        elif is_image_name(name):
            self._lose(name, "not a regular file, but a pipe, socket or device")

    def _lose(self, name: str, reason: str) -> None:
        if suffix_of(name) not in OTHER:
            self.losses.append((name, reason))
