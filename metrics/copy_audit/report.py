"""What a copy audit found, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 2


@dataclass(frozen=True)
class ScaleRate:
    """One patch size: ``share`` is the patch's side over the image's short side.

    ``rate`` of the ``patches`` looked at are copies, ± ``se`` over images; ``plain`` more were too plain to tell.
    ``calibration`` is the same rate among ``held_patches`` patches of real photos that are no copies, each photo judged
    by the threshold that the others give, ± ``calibration_se`` over photos. A standard error of a single one is None.
    """

    name: str
    share: float
    threshold: float
    rate: float
    se: float | None
    patches: int
    plain: int
    calibration: float
    calibration_se: float | None
    held_patches: int


@dataclass(frozen=True)
class Case:
    """A patch of a result beside its best match in the real photos; boxes are (left, top, side) in pixels.

    ``correlation`` is that of the match and ``rival`` the best with any other photo. ``style`` is the photo that the
    result's own metadata names, if any: a note, which takes no part in the decision.
    """

    key: str
    file: str
    box: tuple[int, int, int]
    photo: str
    photo_file: str
    photo_box: tuple[int, int, int]
    mirrored: bool
    scale: str
    correlation: float
    rival: float
    distinctness: float
    copied: bool
    style: str | None


@dataclass(frozen=True)
class CopyReport:
    """``rate`` ± ``se`` of the patches of all scales together are copies; ``calibration`` is that of honest photos.

    ``images`` results were looked at. ``cases`` are the patches nearest to a copy or beyond, one per image at most.
    ``skipped`` holds (key, reason) of every result and photo that could not be had, and ``lost`` is the share of the
    results among them, of those that were to be looked at or of all, whichever is larger. ``notes`` say what was passed
    over and is no image.
    """

    rate: float
    se: float | None
    calibration: float
    calibration_se: float | None
    images: int
    scales: tuple[ScaleRate, ...]
    cases: tuple[Case, ...]
    config: Mapping[str, Any]
    skipped: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    lost: float = 0.0
    notes: tuple[str, ...] = ()
    schema: int = field(default=SCHEMA)
