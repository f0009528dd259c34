"""Two image sets in, one GapReport out: the distance, its error, the floor, and how much of the gap was closed."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..extractors import DEFAULT, load_extractor, load_levels
from ..extractors.extractor import Extractor
from ..features.cache import FeatureCache
from ..features.extraction import FeatureSet
from ..image_sets.items import ImageSet
from ..image_sets.ledger import licences
from ..progress import Callback, silent
from ..spread import spread
from ..statistics.measure import Measured, check_metrics
from ..statistics.measurement import Measurement
from ..statistics.permutation import PermutationTest, permutation_test
from ..statistics.table import DEFAULT_METRICS, metric
from .closed import change, gap_closed
from .explain import EXPLAINED, causes
from .gap_report import Example, GapReport, Kept, Permuted, Resampled
from .kept import labels_kept, structure_kept
from .rows import measured, measured_rows, summary
from .sets import PHOTOS, open_sets, pair_up
from .sliced_gap import measure_slices

PERMUTATIONS = 199
TESTABLE = 10_000  # images of both sets up to which the permutation test is made: beyond, any difference is significant
HALVINGS = 20  # random splits of the reference that make the floor when no floor set is given
EXAMPLES = 12  # rows of the image grid


def compare(
    synthetic: Any,
    real: Any,
    *,
    before: Any = None,
    floor: Any = None,
    crops: int = 0,
    metrics: Sequence[str] = DEFAULT_METRICS,
    permutations: int = PERMUTATIONS,
    slices: Sequence[str] = (),
    profile: bool = False,
    explained: int = EXPLAINED,
    extractor: str = DEFAULT,
    weights: Path | None = None,
    precision: str = "float32",
    device: str = "cpu",
    batch_size: int = 32,
    cache: FeatureCache | None = None,
    seed: int = 0,
    progress: Callback = silent,
) -> GapReport:
    """Measure how far ``synthetic`` is from ``real``, and how much of the gap of ``before`` it closed.

    A set is whatever :func:`metrics.image_sets.open.open_images` takes, a folder, a zip, tar shards, a tensor and more;
    or features, as :func:`metrics.features.feature_source.open_features` reads them, about which less can be said.

    Args:
        synthetic: the images under test.
        real: real images that took no part in making them.
        before: the same images before stylising, matched by key; adds the gap closed, the change, and how much of their
            structure (on :data:`metrics.comparison.kept.PAIRS` pairs at most) and of their labels, if any, survives.
        floor: other real images, best the style photos; their distance to ``real`` is the floor. Without it the floor
            is the mean over random splits of ``real``, at the number of images under test if there are that many.
        crops: cut this many square crops from every photo of ``real`` and ``floor``, as large as the synthetic images
            (0: whole photos). Errors are then estimated by leaving out photos, not crops.
        metrics: names in :mod:`metrics.statistics.table`.
        permutations: deals of the permutation test that both sets come from one distribution; 0 leaves it out.
        slices: measure parts of the set under test too: by ``label`` or columns of its metadata.
        profile: measure the RBF distance at several layers of the network too, from low to high.
        explained: name this many images on either side that make the gap, and measure low-level differences; 0: none.
        extractor: a name of :mod:`metrics.extractors`.
        weights: a weights file for the extractor.
        precision: ``float32`` or ``bfloat16``, of the network.
        device: where the network runs.
        batch_size: images per forward pass.
        cache: keeps features for the next run.
        seed: decides crops, splits, permutations and projections.
        progress: called with every step of every part of the work, e.g. to draw a bar.

    Returns:
        Every number with its error bar, what survived, which images are to blame, and what the reader must know.

    Raises:
        InputError: a set that is missing, empty or too small; unknown metric, slice or extractor.
    """
    check_metrics(metrics)
    given = {"after": synthetic, "real": real, "before": before, "floor": floor}
    sets = open_sets({role: source for role, source in given.items() if source is not None}, crops, seed)
    how: dict[str, Any] = {"weights": weights, "device": device, "precision": precision}
    network = load_extractor(extractor, **how) if sets.images else None
    sets.check(network, slices)
    features = sets.extract(network, batch_size, cache, progress)
    _check_extractor(extractor, network, features["real"])
    notes = (*pair_up(features), *sets.notes())
    after, reference = features["after"], features["real"]
    if permutations and len(after) + len(reference) > TESTABLE:
        permutations, notes = 0, (*notes, f"No permutation test: more than {TESTABLE:,} images, any difference shows.")
    tested = _permuted(after, reference, permutations, seed)
    rows, found = measured_rows(features, metrics, seed, notes, tested.p_values if tested else {})
    paired = "before" in features and features["before"].keys == after.keys
    distances = [name for name in metrics if metric(name).distance and "before" in features]
    moved = [{role: found[role][name] for role in found} for name in distances]
    why = causes((sets.images.get("after"), sets.images.get("real")), (after, reference), explained, progress)
    layers: tuple[Measurement, ...] = ()
    if profile:
        levels = load_levels(extractor, **how)
        layers = _profile(sets.only("after", "real").extract(levels, batch_size, cache, progress), levels.columns)
    held = [licences(sets.whole[role]) for role in PHOTOS if role in sets.whole]
    return GapReport(
        reference=summary(reference, sets.digest(reference)),
        rows=rows,
        closed=tuple(gap_closed(one["before"], one["after"], one["floor"], paired=paired) for one in moved),
        extractor={"name": reference.extractor, "fingerprint": reference.fingerprint, **reference.preprocessing},
        config={
            **{role: one.root for role, one in features.items()},
            "crops": crops,
            "crop size": sets.crop_size,
            "metrics": list(metrics),
            "permutations": permutations,
            "slices": list(slices),
            "seed": seed,
            "device": device,
            **_versions(),
        },
        licences=tuple(row for part in held for row in part.rows),
        unlicensed=tuple(key for part in held for key in part.unlicensed),
        examples=_examples(sets.whole, after),
        kept=_kept(sets.whole, features, seed, progress) if paired else (),
        change=tuple(change(one["before"], one["after"], paired=paired) for one in moved),
        permuted=_combined(tested),
        profile=layers,
        slices=measure_slices(after, reference, slices, permutations, seed) if slices else (),
        **vars(why),
        resampled=_resampled(found["after"].values()),
    )


def _check_extractor(name: str, network: Extractor | None, real: FeatureSet) -> None:
    """Where all sets are given as features, a named extractor can only be theirs."""
    if network is None and name not in (DEFAULT, real.extractor):
        raise InputError(
            f"extractor {name!r}: all sets are given as features, of {real.extractor}. Leave it out, or give images."
        )


def _versions() -> dict[str, Any]:
    packages = ("reverse-stylize", "torch", "timm", "numpy", "Pillow")
    return {"versions": {name: version(name) for name in packages}, "python": platform.python_version()}


def _combined(test: PermutationTest | None) -> Permuted | None:
    if test is None:
        return None
    return Permuted(test.combined, test.permutations, tuple(test.p_values), test.warnings)


def _kept(
    sets: Mapping[str, ImageSet], features: dict[str, FeatureSet], seed: int, progress: Callback
) -> tuple[Kept, ...]:
    """What of the raw images survives, where 'before' and 'after' are pairs."""
    before, after = features["before"], features["after"]
    contents, results = sets.get("before"), sets.get("after")
    structure = structure_kept(contents, results, after.keys, progress) if contents and results else ()
    return (*structure, *labels_kept(before, after, seed))


def _permuted(after: FeatureSet, real: FeatureSet, permutations: int, seed: int) -> PermutationTest | None:
    if permutations == 0:
        return None
    return permutation_test(
        after.features,
        real.features,
        permutations=permutations,
        seed=seed,
        groups_x=after.groups,
        groups_y=real.groups,
    )


def _profile(features: Mapping[str, FeatureSet], columns: Mapping[str, slice]) -> tuple[Measurement, ...]:
    """Distance of the set under test at every level of the network, from low to high.

    By the RBF kernel, whose bandwidth follows the reference: KID's cubic kernel explodes on the large values inside a
    network.

    Returns:
        A measurement per level.
    """

    def level(one: FeatureSet, name: str) -> FeatureSet:
        return replace(one, features=one.features[:, columns[name]].contiguous(), extractor=name)

    return tuple(
        measured("rbf", level(features["after"], name), level(features["real"], name), 0).measurement
        for name in columns
    )


def _resampled(found: Iterable[Measured]) -> tuple[Resampled, ...]:
    return tuple(
        Resampled(one.measurement.name, tuple(one.mmd.loo_x.tolist()), tuple(one.mmd.loo_y.tolist()))
        for one in found
        if one.mmd is not None and one.mmd.se is not None
    )


def _examples(sets: Mapping[str, ImageSet], after: FeatureSet) -> tuple[Example, ...]:
    """EXAMPLES results spread evenly over the set, each with its raw image and the crop of its style photo if known."""
    if "after" not in sets:
        return ()
    results = {item.key: item for item in sets["after"]}
    contents = {item.key: item.location for item in sets.get("before", ())}
    styles = {item.key: item.location for item in sets.get("floor", ())}
    chosen = spread(len(after), EXAMPLES)
    rows: list[Example] = []
    for key in (after.keys[index] for index in chosen):
        photo, box = _style_of(results[key].metadata.get("style"))
        style = styles.get(photo) if photo else None
        rows.append(Example(key, contents.get(key), style, box if style else None, results[key].location))
    return tuple(rows)


def _style_of(source: Any) -> tuple[str | None, tuple[int, int, int] | None]:
    """Photo key and box of a ``metadata.jsonl`` style entry; anything else is no style."""
    try:
        left, top, side = (int(number) for number in source["box"])
        return str(source["photo"]), (left, top, side)
    except (TypeError, KeyError, ValueError):
        return None, None
