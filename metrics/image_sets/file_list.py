"""Image sets that are named file by file: a list in a text file, a glob pattern, or paths."""

from __future__ import annotations

import glob
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ..errors import InputError
from ..files import name_of, text_of
from .assemble import File, Loss, companion_names, items, read_rows
from .file_kinds import HEAD, OTHER, is_hidden, is_image_name, passed_over, suffix_of, why_unread
from .items import ImageSet
from .metadata import NAMES as METADATA
from .metadata import is_metadata

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
MOST = 1_000_000  # names that one brace pattern may stand for


def open_list(path: Path) -> ImageSet:
    """The images that a text file names, one path per line, relative to the file's folder."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8. Expected one path per line.") from error
    paths = [(number, path.parent / line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    for number, named in paths:
        if not named.is_file():
            raise InputError(f"{path}:{number}: {named}: no such file. Expected one image per line.")
    inside = all(Path(os.path.normpath(named)).is_relative_to(os.path.normpath(path.parent)) for _, named in paths)
    return open_files([named for _, named in paths], path.parent if inside else None, path)


def open_files(paths: Sequence[Path], root: Path | None = None, name: Path | None = None) -> ImageSet:
    """The images at ``paths``; keys are relative to ``root``, or to the folder that all paths have in common.

    Metadata are read in that folder and in those between it and the images. Errors call the list ``name``.

    Args:
        paths: of the images.
        root: what keys are relative to; None: what all paths have in common.
        name: of the list, for errors.

    Returns:
        The images, with losses and notes.

    Raises:
        InputError: none named, one named twice, or not a file.
    """
    if not paths:
        raise InputError(f"{name or 'an empty sequence of paths'}: no images named. Expected at least one path.")
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file. Expected an image.")
    return _listed(paths, root, name, (), ())


def open_pattern(pattern: str, paths: Sequence[Path]) -> ImageSet:
    """The images among ``paths`` that ``pattern`` matched; keys are relative to the pattern's fixed folders."""
    root = fixed_folder(pattern)
    images, over, folders = [], [], 0
    losses: list[tuple[str, str]] = []
    for path in paths:
        name = _below(path, root)
        if path.is_dir():
            folders += 1
        elif not path.is_file():
            losses.append((name, "a link to a file that is gone" if path.is_symlink() else "not a regular file"))
        elif is_image_name(name):
            images.append(path)
        elif why := why_unread(name, b"" if suffix_of(name) in OTHER else path.read_bytes()[:HEAD]):
            losses.append((name, why))
        elif not is_metadata(name):
            over.append(name)
    if not images:
        raise InputError(f"{pattern}: no images match this pattern. Quote it, or try: '{root}/**/*.png'")
    notes = passed_over(over, 0)
    if folders and "**" not in pattern:
        notes.append(f"{pattern} matches {folders} folders, which it does not look into; '{root}/**/*' does")
    return _listed(images, root, Path(pattern), losses, notes)


def fixed_folder(pattern: str) -> Path:
    """The folder of a pattern that holds no placeholder: all that it matches lies below it."""
    fixed = re.split(r"[*?\[{]", pattern, maxsplit=1)[0]
    return Path(fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else "."))


def _listed(
    paths: Sequence[Path], root: Path | None, name: Path | None, losses: Sequence[Loss], notes: Sequence[str]
) -> ImageSet:
    absolute = [os.path.abspath(path) for path in paths]  # noqa: PTH100, as resolve would follow links
    base = Path(os.path.abspath(root) if root else os.path.commonpath([os.path.dirname(path) for path in absolute]))  # noqa: PTH100, PTH120
    files: dict[str, File] = {}
    for path, full in zip(paths, absolute, strict=True):
        below = _below(Path(full), base)
        if below in files:
            raise InputError(f"{name or base}: {path} is named twice. Remove one of the two.")
        files[below] = path
    metadata = read_rows(base, _metadata_of(files, base), lambda below: (base / name_of(below)).is_file())
    beside = companion_names(metadata)
    images = {below: file for below, file in files.items() if below not in beside}
    if not images:
        raise InputError(f"{name or base}: every file named is a companion of an image. Name the images.")
    found = items(root or base, images, metadata.rows, lambda below: _companion(base, below))
    return ImageSet(root or base, found, losses, [*notes, *metadata.notes])


def _below(path: Path, base: Path) -> str:
    """The path's name below ``base``, as text."""
    below = Path(os.path.relpath(path, base)).as_posix()
    return text_of(below) or below


def _metadata_of(files: Iterable[str], base: Path) -> dict[str, File]:
    """The files of metadata in ``base`` and in the folders between it and the images."""
    folders = {str(folder) for name in files for folder in PurePosixPath(name).parents if ".." not in folder.parts}
    places = (posixpath.join(folder if folder != "." else "", one) for folder in sorted(folders) for one in METADATA)
    return {place: base / name_of(place) for place in places if (base / name_of(place)).is_file()}


def _companion(base: Path, name: str) -> Path | None:
    """The file of a companion; None where it is missing, hidden, or outside ``base``."""
    path = (base / name_of(name)).resolve()
    inside = path.is_relative_to(base.resolve()) and not is_hidden(name)
    return path if inside and path.is_file() else None


def expand(pattern: str) -> list[Path] | None:
    """What a glob (``*``, ``?``, ``[ab]``, ``**``) or brace (``{000..003}``, ``{a,b}``) pattern names.

    Files, and what a glob matches beside them: folders and dangling links.

    None where the text is no pattern.

    Returns:
        Paths in the order of the pattern, or None.

    Raises:
        InputError: nothing matches, or a file that a brace pattern names does not exist.
    """
    names = _braces(pattern)
    if names == [pattern] and not glob.has_magic(pattern):
        return None
    found: list[Path] = []
    for name in names:
        if glob.has_magic(name):
            found += [Path(path) for path in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
        elif not Path(name).is_file():
            raise InputError(f"{pattern}: {name}: no such file, and the pattern names it.")
        else:
            found.append(Path(name))
    if not any(path.is_file() for path in found):
        raise InputError(f"{pattern}: no such folder or file, and as a pattern it matches nothing.")
    return found


def _braces(pattern: str) -> list[str]:
    done: list[str] = []
    waiting = [pattern]
    while waiting:
        text = waiting.pop()
        choices = _choices(text)
        if choices is None:
            done.append(text)
        elif len(done) + len(waiting) + len(choices) > MOST:
            raise InputError(f"{pattern}: stands for more than {MOST} names.")
        else:
            waiting += reversed(choices)
    return done


def _choices(text: str) -> list[str] | None:
    """The texts that the first brace of ``text`` stands for; None where there is none."""
    if match := _RANGE.search(text):
        first, last = match.groups()
        if int(last) - int(first) > MOST:
            raise InputError(f"{text}: stands for more than {MOST} names.")
        values = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    elif match := _CHOICE.search(text):
        values = match.group(1).split(",")
    else:
        return None
    return [text[: match.start()] + value + text[match.end() :] for value in values]
