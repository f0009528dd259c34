"""Prompts: a class name and a placeholder in a sentence, and where class names come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metrics.errors import InputError
from metrics.image_sets.open import open_images

PROMPT = "A {class} photo in the style of {token}"  # Li et al., arXiv 2403.19866
STYLE_PROMPT = "A photo in the style of {token}"  # ours: without the class
PLAIN_PROMPT = "A good photo of the {class}"  # the paper's baseline, without inversion


def fill(template: str, label: str = "", token: str = "") -> str:
    """The template with ``{class}`` and ``{token}`` replaced; underscores of a class name become spaces."""
    return template.replace("{class}", label.replace("_", " ")).replace("{token}", token)


def check_template(template: str, embedding: bool) -> None:
    """Raises InputError when a template and the presence of an embedding do not go together."""
    if not embedding and "{token}" in template:
        raise InputError(f"prompt {template!r}: has {{token}}, and there is no embedding. Name one with --embedding.")
    if embedding and "{token}" not in template:
        raise InputError(f"prompt {template!r}: lacks {{token}}, so the embedding would do nothing. Add it.")


def check_label(label: object) -> str:
    """The class name of a label; raises InputError when it cannot stand in a prompt."""
    if not isinstance(label, str):
        raise InputError(
            f"label {label!r}: a prompt needs the name of the class. Use folders named after the classes, or write "
            "names into the column 'label' of metadata.jsonl."
        )
    if not label.replace("_", " ").strip() or any(mark in label for mark in "{}") or not label.isprintable():
        raise InputError(f"class name {label!r}: breaks the prompt. Expected printable words without braces.")
    return label


def check_folder_name(label: str) -> None:
    """Raises InputError when a file below a folder cannot be named after the class; ``a/b`` is a folder in a folder."""
    if label.startswith((".", "/")) or "\\" in label or ".." in Path(label).parts:
        raise InputError(f"class name {label!r}: cannot be the name of a folder. Rename it.")


def read_classes(source: str | Path) -> list[str]:
    """Class names from a text file with one a line, or the labels of a folder of images.

    Returns:
        Names in their order in the file, or sorted.

    Raises:
        InputError: missing or empty; a name twice; a name that breaks a prompt or cannot be a folder.
    """
    path = Path(source)
    if path.is_dir():
        names: Sequence[object] = sorted({item.label for item in open_images(path)}, key=str)
        if None in names:
            raise InputError(f"{path}: has images without a label. Expected one folder per class.")
    elif path.is_file():
        names = _lines(path)
    else:
        raise InputError(f"{path}: no such file. Expected a text file with one class name a line, or an ImageFolder.")
    if not names:
        raise InputError(f"{path}: names no class. Expected one a line.")
    checked = [check_label(name) for name in names]
    if len(set(checked)) < len(checked):
        twice = next(name for name in checked if checked.count(name) > 1)
        raise InputError(f"{path}: names the class {twice!r} twice. Remove one.")
    for name in checked:
        check_folder_name(name)
    return checked


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8. Expected one class name a line.") from error
