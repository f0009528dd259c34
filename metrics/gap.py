"""Two image sets in, one GapReport out: the distance, its error, the floor, and how much of the gap was closed."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .extractors import DEFAULT, load_extractor
from .extractors.extractor import Extractor
from .features import FeatureSet, check_comparable, extract
from .frechet import frechet
from .gap_report import Example, GapReport, Kept, Measurement, Row, SetSummary
from .images import ImageError, ImageSet, dimensions, open_images, read_metadata
from .jackknife import Jackknife, interval, jackknife
from .kept import labels_kept, structure_kept
from .kid import Kid, kid
from .ledger import licences
from .registry import unknown
from .seed import generator

METRICS = ("kid", "fid")
PHOTOS = ("real", "floor")  # the roles that real photos play
HALVINGS = 20  # random halvings of the reference that make the floor when no floor set is given
EXAMPLES = 12  # rows of the image grid
FEW_GROUPS = 8  # below this many independent real photos, say so

Watch = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class _Part:
    """One measured set: its features, and its KID to the reference."""

    role: str
    features: FeatureSet
    kid: Kid | None = None


def compare(
    synthetic: str | Path | ImageSet,
    real: str | Path | ImageSet,
    *,
    before: str | Path | ImageSet | None = None,
    floor: str | Path | ImageSet | None = None,
    crops: int = 0,
    metrics: Sequence[str] = METRICS,
    extractor: str = DEFAULT,
    weights: Path | None = None,
    device: str = "cpu",
    batch_size: int = 32,
    seed: int = 0,
    watch: Watch = lambda steps, what: steps,
) -> GapReport:
    """Measure how far ``synthetic`` is from ``real``, and how much of the gap of ``before`` it closed.

    Args:
        synthetic: the images under test.
        real: real images that took no part in making them.
        before: the same images before stylising, matched by key; adds the gap closed, and how much of their structure
            (on :data:`metrics.kept.PAIRS` pairs at most) and of their labels, if any, survives.
        floor: other real images, best the style photos; their distance to ``real`` is the floor. Without it the floor
            is the mean over random halvings of ``real``.
        crops: cut this many square crops from every photo of ``real`` and ``floor``, as large as the synthetic images
            (0: whole photos). Errors are then estimated by leaving out photos, not crops.
        metrics: some of ``kid`` and ``fid``.
        extractor: a name of :mod:`metrics.extractors`.
        weights: a weights file for the extractor.
        device: where the network runs.
        batch_size: images per forward pass.
        seed: decides crops and halvings.
        watch: wraps every long iteration, e.g. to draw a progress bar: ``watch(steps, what)`` yields the steps.

    Raises:
        InputError: a set that is missing, empty or too small; unknown metric or extractor.
    """
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    if not metrics:
        raise InputError(f"no metric named. Expected some of: {', '.join(METRICS)}.")
    given = {"after": synthetic, "real": real, "before": before, "floor": floor}
    sets = {role: _opened(images) for role, images in given.items() if images is not None}
    cut = _cropped(sets, crops, seed)
    _check_groups(cut)
    network = load_extractor(extractor, weights=weights, device=device)
    features = {role: _extracted(images, network, batch_size, watch, role) for role, images in cut.items()}
    notes = _pair_up(features)
    kept = _kept(sets, features, seed, watch)
    parts = [
        _Part(role, features[role], _distance(features[role], features["real"]) if "kid" in metrics else None)
        for role in ("before", "after", "floor")
        if role in features
    ]
    rows = [_row(part, features["real"], metrics, notes if part.role == "after" else ()) for part in parts]
    if "floor" not in sets:
        rows.append(_split_floor(features["real"], metrics, seed))
    held = [licences(sets[role]) for role in PHOTOS if role in sets]
    return GapReport(
        reference=_summary(features["real"]),
        rows=tuple(rows),
        closed=tuple(_closed(name, rows, parts) for name in metrics) if "before" in sets else (),
        extractor={"name": network.name, "fingerprint": network.fingerprint, **network.preprocessing},
        config={
            **{role: str(images.root) for role, images in sets.items()},
            "crops": crops,
            "crop size": _side(sets["after"]) if crops else None,
            "metrics": list(metrics),
            "seed": seed,
            "device": device,
            "versions": {name: version(name) for name in ("reverse-stylize", "torch", "timm", "numpy", "Pillow")},
            "python": platform.python_version(),
        },
        licences=tuple(row for part in held for row in part.rows),
        unlicensed=tuple(key for part in held for key in part.unlicensed),
        examples=_examples(sets, features["after"]),
        kept=kept,
    )


def _cropped(sets: dict[str, ImageSet], crops: int, seed: int) -> dict[str, ImageSet]:
    """Crops of the photos of 'real' and 'floor', as large as the short side of the first image under test."""
    if crops < 0:
        raise InputError(f"crops = {crops}: expected 0 (whole photos) or more.")
    if crops == 0:
        return sets
    size = _side(sets["after"])
    return {role: images.crops(crops, size, seed) if role in PHOTOS else images for role, images in sets.items()}


def _opened(images: str | Path | ImageSet) -> ImageSet:
    return images if isinstance(images, ImageSet) else open_images(images)


def _side(images: ImageSet) -> int:
    """Short side of the first readable image: crops of real photos are made as large."""
    for item in images:
        try:
            return min(dimensions(item.path))
        except ImageError:
            continue
    raise InputError(f"{images.root}: none of {len(images)} images can be read.")


def _check_groups(sets: dict[str, ImageSet]) -> None:
    """Before any network runs: enough independent images on every side."""
    for role, images in sets.items():
        groups = len({item.group for item in images})
        needed = 4 if role == "real" and "floor" not in sets else 2
        if groups < needed:
            why = (
                "halved for the floor; add photos, or name other real images: --floor FOLDER"
                if needed == 4
                else ("measured; add images (crops of one photo are not independent)")
            )
            raise InputError(
                f"{images.root}: {groups} independent image(s), and at least {needed} are needed to be {why}."
            )


def _extracted(images: ImageSet, network: Extractor, batch_size: int, watch: Watch, role: str) -> FeatureSet:
    what = {"real": "real", "after": "under test", "before": "before", "floor": "floor"}[role]
    work = extract(images, network, batch_size=batch_size)
    for _ in watch(work, f"features: {what}"):
        pass
    features = work.result
    if len(set(features.groups)) < 2:
        raise InputError(
            f"{images.root}: {len(features)} readable images of {len(set(features.groups))} photos; at least 2 "
            "independent ones are needed. Repair or add images."
        )
    return features


def _pair_up(features: dict[str, FeatureSet]) -> tuple[str, ...]:
    """Keep only the keys that 'before' and 'after' share, in one order; says what was left out."""
    if "before" not in features:
        return ()
    before, after = features["before"], features["after"]
    places = {key: index for index, key in enumerate(before.keys)}
    shared = [index for index, key in enumerate(after.keys) if key in places]
    if len(shared) < 2:
        return ("No two images of 'before' have the same key here, so the two sets are treated as unrelated.",)
    left_out = len(before) + len(after) - 2 * len(shared)
    features["after"] = _subset(after, shared)
    features["before"] = _subset(before, [places[after.keys[index]] for index in shared])
    return (f"{left_out} images without a partner of the same key in the other set were left out.",) if left_out else ()


def _kept(sets: dict[str, ImageSet], features: dict[str, FeatureSet], seed: int, watch: Watch) -> tuple[Kept, ...]:
    """What of the raw images survives, where 'before' and 'after' are pairs."""
    before, after = features.get("before"), features["after"]
    if before is None or before.keys != after.keys:
        return ()
    structure = structure_kept(sets["before"], sets["after"], after.keys, watch)
    return (*structure, *labels_kept(before, after, seed))


def _subset(features: FeatureSet, rows: Sequence[int]) -> FeatureSet:
    def pick(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(values[row] for row in rows)

    return FeatureSet(
        features.features[list(rows)],
        pick(features.keys),
        pick(features.labels),
        pick(features.groups),
        features.extractor,
        features.fingerprint,
        features.preprocessing,
        features.root,
        features.skipped,
    )


def _distance(features: FeatureSet, real: FeatureSet) -> Kid:
    check_comparable(features, real)
    return kid(features.features, real.features, groups_x=features.groups, groups_y=real.groups)


def _row(part: _Part, real: FeatureSet, metrics: Sequence[str], notes: Sequence[str]) -> Row:
    found = [
        _kid_measurement(part.kid, part.features, real) if name == "kid" and part.kid else _fid(part.features, real)
        for name in metrics
    ]
    first = found[0]
    noted = Measurement(**{**vars(first), "warnings": (*notes, *first.warnings)})
    return Row(part.role, _summary(part.features), (noted, *found[1:]))


def _kid_measurement(distance: Kid, features: FeatureSet, real: FeatureSet) -> Measurement:
    warnings = [] if distance.error.reason is None else [f"No standard error: {distance.error.reason}."]
    groups = len(set(real.groups))
    if groups < FEW_GROUPS:
        warnings.append(
            f"Only {groups} independent real photos: the error bar covers how these photos vary, and is itself rough."
        )
    low, high = interval(distance.value, distance.error) or (None, None)
    name = f"kid@{features.extractor}"
    return Measurement(name, distance.value, distance.se, low, high, distance.n, distance.m, tuple(warnings))


def _fid(features: FeatureSet, real: FeatureSet) -> Measurement:
    distance = frechet(features.features, real.features)
    name = f"fid@{features.extractor}"
    return Measurement(name, distance.value, None, None, None, distance.n, distance.m, distance.warnings)


def _split_floor(real: FeatureSet, metrics: Sequence[str], seed: int) -> Row:
    """Real against real: the mean of each metric over HALVINGS random halvings of the reference by group."""
    groups = sorted(set(real.groups))
    values: dict[str, list[float]] = {name: [] for name in metrics}
    sizes: list[tuple[int, int]] = []
    for halving in range(HALVINGS):
        order = generator(seed, "halving", str(halving)).permutation(len(groups))
        chosen = {groups[index] for index in order[: len(groups) // 2]}
        a = _subset(real, [row for row, group in enumerate(real.groups) if group in chosen])
        b = _subset(real, [row for row, group in enumerate(real.groups) if group not in chosen])
        sizes.append((len(a), len(b)))
        for name in metrics:
            values[name].append(_distance(a, b).value if name == "kid" else frechet(a.features, b.features).value)
    found = [_spread(f"{name}@{real.extractor}", values[name], sizes) for name in metrics]
    return Row("floor", _summary(real), tuple(found))


def _spread(name: str, values: Sequence[float], sizes: Sequence[tuple[int, int]]) -> Measurement:
    n, m = (round(float(np.mean(side))) for side in zip(*sizes, strict=True))
    low, high = np.quantile(values, (0.025, 0.975))
    note = (
        f"Real against real: mean of {len(values)} random halvings of the reference; the interval holds 95 % of them."
    )
    return Measurement(name, float(np.mean(values)), None, float(low), float(high), n, m, (note,))


def _closed(metric: str, rows: Sequence[Row], parts: Sequence[_Part]) -> Measurement:
    """Gap closed = 1 − (after − floor) / (before − floor), with a jackknife that knows what the distances share."""
    values = {row.role: m for row in rows for m in row.measurements if m.name.startswith(f"{metric}@")}
    before, after, floor = values["before"], values["after"], values["floor"]
    if before.value <= floor.value:
        note = "There is no gap to close: the raw set is already at the floor."
        return Measurement(after.name, math.nan, None, None, None, after.n, after.m, (note,))
    value = _share(after.value, before.value, floor.value)
    if metric != "kid":
        note = "No error bar. Fréchet distances grow as sets shrink, so a floor from fewer images reads too high."
        return Measurement(after.name, value, None, None, None, after.n, after.m, (note,))
    error = _closed_error({part.role: part for part in parts}, floor.value)
    low, high = interval(value, error) or (None, None)
    return Measurement(after.name, value, error.se, low, high, after.n, after.m)


def _share(after: Any, before: Any, floor: Any) -> Any:
    return 1 - (after - floor) / (before - floor)


def _closed_error(parts: dict[str, _Part], floor_value: float) -> Jackknife:
    a, r = parts["after"].kid, parts["before"].kid
    assert a is not None and r is not None
    f = parts["floor"].kid if "floor" in parts else None
    reference = _share(a.loo_y, r.loo_y, floor_value if f is None else f.loo_y)
    if parts["after"].features.keys == parts["before"].features.keys:
        samples = [reference, _share(a.loo_x, r.loo_x, floor_value)]
    else:
        samples = [reference, _share(a.loo_x, r.value, floor_value), _share(a.value, r.loo_x, floor_value)]
    return jackknife(*samples, *([] if f is None else [_share(a.value, r.value, f.loo_x)]))


def _summary(features: FeatureSet) -> SetSummary:
    return SetSummary(features.root, len(features), len(set(features.groups)), features.skipped)


def _examples(sets: dict[str, ImageSet], after: FeatureSet) -> tuple[Example, ...]:
    """EXAMPLES results spread evenly over the set, each with its raw image and the crop of its style photo if known."""
    results = {item.key: item for item in sets["after"]}
    contents = {item.key: item for item in sets["before"]} if "before" in sets else {}
    styles = {item.key: item for item in sets["floor"]} if "floor" in sets else {}
    metadata = read_metadata(sets["after"].root)
    chosen = np.unique(np.linspace(0, len(after) - 1, EXAMPLES).round().astype(int))
    rows: list[Example] = []
    for key in (after.keys[index] for index in chosen):
        result = results[key]
        source = metadata.get(result.path.relative_to(sets["after"].root).as_posix(), {}).get("style")
        photo, box = _style_of(source)
        content = str(contents[key].path) if key in contents else None
        style = str(styles[photo].path) if photo in styles else None
        rows.append(Example(key, content, style, box if style else None, str(result.path)))
    return tuple(rows)


def _style_of(source: Any) -> tuple[str | None, tuple[int, int, int] | None]:
    """Photo key and box of a ``metadata.jsonl`` style entry; anything else is no style."""
    try:
        left, top, side = (int(number) for number in source["box"])
        return str(source["photo"]), (left, top, side)
    except (TypeError, KeyError, ValueError):
        return None, None
