"""Image sets that are named file by file: a list in a text file, a glob pattern, or paths."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..images import Content, ImageSet
from ..metadata import read_metadata
from .assemble import assemble, is_image_name

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

    Errors call the list ``name``.

    Raises:
        InputError: none named, one named twice, or not a file.
    """
    if not paths:
        raise InputError(f"{name or 'an empty sequence of paths'}: no images named. Expected at least one path.")
    absolute = [os.path.abspath(path) for path in paths]  # noqa: PTH100, as resolve would follow links
    base = os.path.abspath(root) if root else os.path.commonpath([os.path.dirname(path) for path in absolute])  # noqa: PTH100, PTH120
    contents: dict[str, Path | Content] = {}
    for path, full in zip(paths, absolute, strict=True):
        if not path.is_file():
            raise InputError(f"{path}: no such file. Expected an image.")
        below = Path(os.path.relpath(full, base)).as_posix()
        if below in contents:
            raise InputError(f"{name or base}: {path} is named twice. Remove one of the two.")
        contents[below] = path
    return assemble(root or Path(base), contents, read_metadata(Path(base)), "list")


def open_pattern(pattern: str, paths: Sequence[Path]) -> ImageSet:
    """The images among ``paths`` that ``pattern`` matched; keys are relative to the pattern's fixed folders."""
    fixed = re.split(r"[*?\[{]", pattern, maxsplit=1)[0]
    root = Path(fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else "."))
    images = [path for path in paths if is_image_name(Path(os.path.relpath(path, root)).as_posix())]
    if not images:
        raise InputError(f"{pattern}: no images match this pattern. Quote it, or try: '{root}/**/*.png'")
    return open_files(images, root, Path(pattern))


def expand(pattern: str) -> list[Path] | None:
    """The files that a glob (``*``, ``?``, ``[ab]``, ``**``) or brace (``{000..003}``, ``{a,b}``) pattern names.

    None where the text is no pattern.

    Raises:
        InputError: nothing matches, or a file that a brace pattern names does not exist.
    """
    names = _braces(pattern)
    if names == [pattern] and not glob.has_magic(pattern):
        return None
    found: list[Path] = []
    for name in names:
        if glob.has_magic(name):
            found += [Path(path) for path in sorted(glob.glob(name, recursive=True)) if Path(path).is_file()]  # noqa: PTH207
        elif not Path(name).is_file():
            raise InputError(f"{pattern}: {name}: no such file, and the pattern names it.")
        else:
            found.append(Path(name))
    if not found:
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
