"""Hugging Face datasets: a folder that ``save_to_disk`` wrote, or a ``datasets.Dataset``."""

from __future__ import annotations

import math
import sys
import threading
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import InputError
from .arrays import row_keys
from .assemble import item
from .decode import ImageError, one_line, read_file
from .items import BESIDE, ImageSet

_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, eq=False)
class DatasetRow:
    """The encoded image in one row of an image column."""

    dataset: Any
    column: str
    index: int
    location: str

    def load(self) -> bytes:
        """The encoded image; raises ImageError."""
        with _ONE_AT_A_TIME:
            cell = self.dataset[self.index][self.column]
        if cell is None:
            raise ImageError("no image in this row")
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        return read_file(Path(cell["path"]))


def is_dataset(source: Any) -> bool:
    """Whether ``source`` is an object of the package datasets."""
    return type(source).__module__.partition(".")[0] == "datasets" and "datasets" in sys.modules


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote the folder."""
    saved = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return saved or (folder / "dataset_dict.json").is_file()


def open_saved(folder: Path) -> ImageSet:
    """The images of a folder that ``save_to_disk`` wrote.

    Returns:
        The images in the order of the rows.

    Raises:
        InputError: the package datasets is missing, a damaged folder, or one of several splits.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(path.name for path in folder.iterdir() if path.is_dir() and is_saved(path))
        raise InputError(
            f"{folder}: a dataset of several splits ({', '.join(splits)}). Name the folder of one of them."
        )
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise InputError(
            f"{folder}: a Hugging Face dataset, and the package datasets is missing. "
            "Install it: pip install 'reverse-stylize[datasets]'"
        ) from error
    try:
        dataset = datasets.load_from_disk(str(folder))
    except Exception as error:  # datasets and pyarrow raise many types on damaged files
        raise InputError(f"{folder}: a damaged Hugging Face dataset ({one_line(error)}). Save it again.") from error
    return open_dataset(dataset, folder)


def open_dataset(dataset: Any, folder: Path | None = None) -> ImageSet:
    """The images of a ``datasets.Dataset``: keys are row numbers, other columns are labels, groups and tags.

    Returns:
        The images in the order of the rows.

    Raises:
        InputError: no dataset of rows, empty, no image column, or several and none is named ``image``.
    """
    datasets = import_module("datasets")
    if not isinstance(dataset, datasets.Dataset):
        raise InputError(f"got a {type(dataset).__name__}. Expected a datasets.Dataset: one split that is on disk.")
    column = _image_column(dataset, datasets.Image)
    if not len(dataset):
        raise InputError("got a dataset without rows. Expected at least one image.")
    root = folder or Path(f"(dataset of {len(dataset)})")
    images = dataset.with_format(None).select_columns([column]).cast_column(column, datasets.Image(decode=False))
    rows = _rows(dataset, column, datasets)
    return ImageSet(
        root,
        [
            item(root, key, DatasetRow(images, column, index, f"{root}{BESIDE}{key}"), row)
            for index, (key, row) in enumerate(zip(row_keys(len(dataset)), rows, strict=True))
        ],
    )


def _image_column(dataset: Any, kind: type) -> str:
    columns = [name for name, feature in dataset.features.items() if isinstance(feature, kind)]
    if len(columns) == 1:
        return str(columns[0])
    named = next((name for name in ("image", "img") if name in columns), None)
    if named is None:
        found = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in dataset.features.items())
        raise InputError(f"got a dataset with the columns {found}. Expected one image column, or one named 'image'.")
    return named


def _rows(dataset: Any, image: str, datasets: Any) -> list[dict[str, Any]]:
    """The columns of JSON values by row, with class numbers as names; a lone class column is the label."""
    features = dataset.features
    classes = {name: feature for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    kept = [name for name, feature in features.items() if name in classes or _is_plain(name, feature, datasets)]
    renamed = {"label": next(iter(classes))} if len(classes) == 1 and "label" not in kept else {}
    rows: list[dict[str, Any]] = [{} for _ in range(len(dataset))]
    if kept:
        rows = [_json(row) for row in dataset.with_format(None).select_columns(kept)]
    for row in rows:
        for name, feature in classes.items():
            row[name] = feature.int2str(row[name]) if row[name] is not None and row[name] >= 0 else None
        for to, name in renamed.items():
            row[to] = row.pop(name)
    return rows


def _is_plain(name: str, feature: Any, datasets: Any) -> bool:
    """Whether a column is of texts and numbers, or of lists and mappings of such, like boxes: neither media nor bytes.

    Label and group are single values.

    Returns:
        Whether it is.
    """
    if isinstance(feature, datasets.Value):
        return "binary" not in feature.dtype
    if name in ("label", "group") or feature is None:
        return False
    parts = list(feature.values()) if isinstance(feature, dict) else [getattr(feature, "feature", None)]
    return all(isinstance(part, datasets.ClassLabel) or _is_plain("", part, datasets) for part in parts)


def _json(value: Any) -> Any:
    """A cell as JSON has it: dates as text, and no number where it is not finite."""
    if isinstance(value, dict):
        return {name: _json(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
