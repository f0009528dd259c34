"""What makes the gap: the images on either side that stand out, low-level differences in words, a map of both sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..features.extraction import FeatureSet
from ..image_sets.decode import ImageError
from ..image_sets.items import ImageSet, Item
from ..progress import Callback, counted
from ..spread import spread
from ..statistics.low_level import LEAST_SIDE, common_side, low_level_gaps, measure_low_level
from ..statistics.measurement import LowLevel
from .embedding_map import embedding_map
from .gap_report import Explained, Point
from .witness import witness

EXPLAINED = 12  # images named on either side
MEASURED = 200  # images whose low-level properties are measured, spread evenly over each set
MAPPED = 1000  # points of each set on the map, spread evenly


@dataclass(frozen=True)
class Causes:
    """The fields of a GapReport with these names."""

    low_level: tuple[LowLevel, ...] = ()
    most_synthetic: tuple[Explained, ...] = ()
    least_covered: tuple[Explained, ...] = ()
    points: tuple[Point, ...] = ()


def causes(
    images: tuple[ImageSet | None, ImageSet | None],
    features: tuple[FeatureSet, FeatureSet],
    count: int,
    progress: Callback,
) -> Causes:
    """What makes the gap between the set under test and the reference; ``count`` images are named on either side.

    Both arguments hold the set under test first; images are None where features were given instead, and then nothing
    can be said of low-level differences. Nothing at all where ``count`` is 0.

    Returns:
        The images to blame on either side, low-level differences, and the map.
    """
    if count == 0:
        return Causes()
    after, real = features
    ours, theirs = (_named(one, own) for one, own in zip(images, features, strict=True))
    scores = witness(after.features, real.features, groups_x=after.groups, groups_y=real.groups)
    most = _worst(scores.synthetic, scores.nearest_real, ours, theirs, count)
    low = _low_level(_items(ours), _items(theirs), progress) if images[0] and images[1] else ()
    least = _worst(scores.real, scores.nearest_synthetic, theirs, ours, count)
    return Causes(low, most, least, _points(after, real))


@dataclass(frozen=True)
class _Named:
    """An image by its key and group; ``item`` is None where only its features are known."""

    key: str
    group: str
    item: Item | None

    @property
    def file(self) -> str:
        return "" if self.item is None else self.item.location

    @property
    def box(self) -> tuple[int, int, int] | None:
        crop = None if self.item is None else self.item.crop
        return None if crop is None else (crop.left, crop.top, crop.side)


def _named(images: ImageSet | None, features: FeatureSet) -> list[_Named]:
    """The images behind the rows of the features."""
    items = {item.key: item for item in images or ()}
    return [_Named(key, group, items.get(key)) for key, group in zip(features.keys, features.groups, strict=True)]


def _items(named: Sequence[_Named]) -> list[Item]:
    return [one.item for one in named if one.item is not None]


def _worst(
    scores: npt.NDArray[np.float64],
    nearest: npt.NDArray[np.int64],
    own: Sequence[_Named],
    others: Sequence[_Named],
    count: int,
) -> tuple[Explained, ...]:
    """The images of the highest scores, one of each group, so that crops of one photo do not fill the list."""
    found: dict[str, Explained] = {}
    for row in np.argsort(-scores, kind="stable"):
        one, other = own[row], others[nearest[row]]
        if one.group not in found:
            found[one.group] = Explained(
                one.key, one.file, float(scores[row]), other.key, other.file, one.box, other.box
            )
        if len(found) == count:
            break
    return tuple(found.values())


def _low_level(after: Sequence[Item], real: Sequence[Item], progress: Callback) -> tuple[LowLevel, ...]:
    """Low-level gaps between MEASURED images of each set; none where an image is too small for them."""
    after, real = ([items[row] for row in spread(len(items), MEASURED)] for items in (after, real))
    sizes = [_size(item) for item in (*after, *real)]
    if min(map(min, sizes)) < LEAST_SIDE:
        return ()
    side = common_side(sizes)
    steps = iter(counted(sizes, "low-level", progress))
    ours, theirs = (measure_low_level(_read(items, steps), side=side) for items in (after, real))
    for _ in steps:  # lets the bar end
        pass
    groups = [item.group for item in after], [item.group for item in real]
    return low_level_gaps(ours, theirs, groups_synthetic=groups[0], groups_real=groups[1])


def _size(item: Item) -> tuple[int, int]:
    try:
        return item.dimensions() if item.crop is None else (item.crop.size, item.crop.size)
    except ImageError:  # read for its features, and gone since
        return (0, 0)


def _read(items: Sequence[Item], steps: Iterator[Any]) -> Iterator[npt.NDArray[np.uint8]]:
    for item in items:
        next(steps, None)
        yield item.read()


def _points(after: FeatureSet, real: FeatureSet) -> tuple[Point, ...]:
    rows = [spread(len(features), MAPPED) for features in (after, real)]
    chart = embedding_map(after.features[rows[0]], real.features[rows[1]])
    return tuple(
        Point(features.keys[row], role, float(x), float(y))
        for role, features, own, places in (("after", after, rows[0], chart.x), ("real", real, rows[1], chart.y))
        for row, (x, y) in zip(own, places, strict=True)
    )
