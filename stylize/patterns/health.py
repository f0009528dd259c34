"""Is a rendered dataset fit for training? Fill, edges, rejected draws, duplicates, and classes that look alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from metrics.image_sets.items import Item
from metrics.image_sets.metadata import read_metadata
from metrics.image_sets.open import open_images

SAMPLE = 512  # images looked at, spread evenly over the set
THUMBNAIL = 32
SAME = 0.004  # root mean square difference of two thumbnails in [0, 1] below which images are duplicates (one level)
COARSE = 8  # side of the thumbnail that compares classes: coarse enough that the noise of drawn points averages out
# Classes have collapsed when for half of the images the nearest other class is nearer than ALIKE + NOISE / side: the
# noise of drawn points falls with the side in pixels. One perturbed fractal at delta 0.01, where training is known to
# collapse, gives 0.023 to 0.026, 0.009 to 0.012, 0.004 to 0.006, 0.003 to 0.004 at 64, 128, 256, 512 pixels; at delta
# 0.05, where it works, 0.030 to 0.037, 0.014 to 0.024, 0.008 to 0.018, 0.008 to 0.015 (12 and 100 classes, 3 seeds).
ALIKE, NOISE = 0.001, 1.6
SPARSE = 0.02  # fill below which an image counts as nearly empty


@dataclass(frozen=True)
class Health:
    """Statistics of the ``looked_at`` images; shares lie in [0, 1].

    ``fill``: share of pixels off the most common grey level, mean. ``edges``: share of pixels on an edge, mean.
    ``sparse``: share of images that are nearly empty. ``duplicates``: share of images that have a twin.
    ``nearest_class``: median difference to the most similar image of another class, None with one class; ``alike``:
    the difference below which classes of images of this size cannot be told apart.
    ``acceptance``: classes over draws of the class search, None where the family draws once.
    """

    looked_at: int
    fill: float
    edges: float
    sparse: float
    duplicates: float
    nearest_class: float | None
    alike: float
    acceptance: float | None

    def lines(self) -> list[str]:
        """The statistics as one line, and a warning per problem."""
        parts = [f"fill {self.fill:.0%}", f"edges {self.edges:.0%}", f"duplicates {self.duplicates:.1%}"]
        if self.acceptance is not None:
            parts.append(f"accepted draws {self.acceptance:.1%}")
        lines = [f"health of {self.looked_at} images: {', '.join(parts)}"]
        if self.sparse > 0.05:
            lines.append(f"warning: {self.sparse:.0%} of the images are nearly empty (fill below {SPARSE:.0%})")
        if self.duplicates > 0.01:
            lines.append(
                f"warning: {self.duplicates:.1%} of the images have a twin: raise the number of parameters drawn"
            )
        if self.nearest_class is not None and self.nearest_class < self.alike:
            lines.append(
                f"warning: the classes look alike (median difference {self.nearest_class:.3f} of the grey range, below "
                f"{self.alike:.3f}): training on them is likely to collapse; make the perturbation larger"
            )
        return lines


def health(out: Path) -> Health:
    """Look at up to SAMPLE images of a rendered folder, spread evenly over it."""
    images = open_images(out)
    metadata = read_metadata(out)
    chosen = [images[i] for i in np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int))]
    fills, edges, thumbnails, sides = zip(*(_measure(_grey(item)) for item in chosen), strict=True)
    labels = np.array([str(item.label) for item in chosen])
    distances = _distances(np.stack(thumbnails))
    return Health(
        looked_at=len(chosen),
        fill=float(np.mean(fills)),
        edges=float(np.mean(edges)),
        sparse=float(np.mean([fill < SPARSE for fill in fills])),
        duplicates=float((distances.min(1) < SAME).mean()) if len(chosen) > 1 else 0.0,
        nearest_class=_nearest_class(_distances(_coarse(np.stack(thumbnails))), labels),
        alike=ALIKE + NOISE / float(np.median(sides)),
        acceptance=_acceptance(list(metadata.values())),
    )


def _measure(grey: np.ndarray) -> tuple[float, float, np.ndarray, int]:
    return _fill(grey), _edges(grey), _thumbnail(grey), min(grey.shape)


def _grey(item: Item) -> np.ndarray:
    return np.asarray(Image.fromarray(item.read()).convert("L"))


def _thumbnail(grey: np.ndarray) -> np.ndarray:
    small = Image.fromarray(grey).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).ravel() / 255


def _coarse(thumbnails: np.ndarray) -> np.ndarray:
    step = THUMBNAIL // COARSE
    return np.asarray(thumbnails.reshape(-1, COARSE, step, COARSE, step).mean((2, 4)).reshape(len(thumbnails), -1))


def _fill(grey: np.ndarray) -> float:
    background = int(np.bincount(grey.ravel(), minlength=256).argmax())
    return float((np.abs(grey.astype(int) - background) > 8).mean())


def _edges(grey: np.ndarray) -> float:
    down, across = np.gradient(grey.astype(np.float64))
    return float((np.hypot(down, across) > 16).mean())


def _distances(thumbnails: np.ndarray) -> np.ndarray:
    """Root mean square differences between all pairs, infinite on the diagonal."""
    squares = (thumbnails**2).mean(1)
    gram = thumbnails @ thumbnails.T / thumbnails.shape[1]
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * gram, 0))
    np.fill_diagonal(distances, np.inf)
    return np.asarray(distances)


def _nearest_class(distances: np.ndarray, labels: np.ndarray) -> float | None:
    if len(set(labels.tolist())) < 2:
        return None
    return float(np.median(np.where(labels[:, None] == labels, np.inf, distances).min(1)))


def _acceptance(rows: Sequence[Mapping[str, object]]) -> float | None:
    draws = {str(row.get("class")): row["draws"] for row in rows if isinstance(row.get("draws"), int)}
    total = sum(int(str(value)) for value in draws.values())
    return len(draws) / total if total else None
