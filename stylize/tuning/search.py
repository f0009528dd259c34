"""Metric-guided search: which method, at what strength, closes most of the gap while structure and labels survive.

The objective is the KID between stylised contents and the ``tune`` photos, by one network. A point must keep the
budgets: mean gradient correlation with the content, the label probe, and the rate of copied patches. Optuna's TPE
sampler proposes points (where a method has several scales, also how many take part), and a median rule stops one early
that is worse than its predecessors on part of the contents.
The search never sees the ``judge`` photos (:class:`stylize.tuning.splits.SealedPhotos`) nor the judge network; once
they have been asked, the study is closed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.comparison.label_probe import label_probe
from metrics.comparison.structure import gradient_correlation
from metrics.copy_audit.audit import audit
from metrics.errors import MAX_ERRORS, InputError
from metrics.extractors import load_extractor
from metrics.extractors.extractor import Extractor
from metrics.features.extraction import FeatureSet, extract
from metrics.files import write_atomically
from metrics.image_sets.items import ImageSet, Item
from metrics.image_sets.open import open_images
from metrics.progress import Callback, iterates, silent, twin_of
from metrics.seed import seed_for
from metrics.statistics.kid import kid
from metrics.threads import one_thread

from ..styles import ASSIGNMENTS, TUNED
from ..styles.bank import StyleBank, learn, to_batch, to_image
from ..styles.methods import style_method
from ..styles.photos import check_losses
from ..version import __version__
from ..writing.apply import content_digest, make_plan
from .splits import split_photos
from .study import STARTUP, Constraints, Trial, best, ended, import_optuna, locked, open_study, read_config, record

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial as OptunaTrial

CROPS = 16  # of every photo that a distance is measured to
PER_CLASS = 10  # contents of one class: enough for the label probe's folds
RUNGS = (0.25, 0.5, 1.0)  # shares of the contents after which a bad trial may be stopped
NOTHING = "none"
AUDITED, PATCHES = 24, 8  # results, and patches of each at each scale, that the copy audit looks at


@iterates
def iter_tune(
    real: Any,
    synthetic: Any,
    out: str | Path,
    *,
    trials: int = 40,
    images: int = 100,
    methods: Sequence[str] = TUNED,
    budget: Constraints | None = None,
    extractor: str = "efficientnet-lite0",
    crops: int = 8,
    size: int = 256,
    seed: int = 0,
    device: str = "cpu",
    max_errors: int = MAX_ERRORS,
    progress: Callback = silent,
) -> Iterator[Trial]:
    """Search for the method and strength that close most of the gap within a budget; continues where it stopped.

    OUT gets ``style.safetensors`` (learnt from the ``learn`` photos), ``study.sqlite3`` (Optuna's storage) and
    ``config.json``. The sequence of trials depends on the arguments alone, also across interruptions.

    Args:
        real: photos, from any source that :func:`metrics.image_sets.open.open_images` reads; see
            :func:`stylize.tuning.splits.split_photos`.
        synthetic: the images to stylise, from any such source.
        out: folder of the study; new, empty, or an earlier search of the same configuration.
        trials: ended trials, those of earlier runs included.
        images: contents that every trial stylises, at least 20; classes of ten where there are labels.
        methods: methods to choose one or two of, in any order.
        budget: what a result must keep.
        extractor: network of the objective.
        crops: crops per learn photo.
        size: side of the crops in pixels; best that of the synthetic images.
        seed: decides splits, crops, contents and proposals.
        device: where the network runs.
        max_errors: how many images of a set may be lost; ``errors.jsonl`` and the notes of the first trial name them.
        progress: called with every trial, too.

    Yields:
        Every trial as it ends.

    Raises:
        InputError: too many images are lost, Optuna is missing, bad photos, images or numbers, OUT lies among the
            images, or holds another study, or one that has been judged.
    """
    out, budget = Path(out), budget or Constraints()
    if trials < 1 or images < 20:
        raise InputError(f"trials = {trials}, images = {images}: expected at least 1 trial and 20 images.")
    budget.check()
    import_optuna()
    _check_outside(out, real, synthetic)
    photos, targets, _ = split_photos(real, seed)
    everything = open_images(synthetic)
    contents = choose_contents(everything, images, seed)
    config = {
        "version": __version__,
        "learn": content_digest(photos),
        "tune": content_digest(targets),
        "contents": content_digest(contents),
        "images": images,
        "methods": list(methods),
        "budget": asdict(budget),
        "extractor": extractor,
        "crops": crops,
        "size": size,
        "seed": seed,
    }
    with locked(out, config):
        bank_file = out / "style.safetensors"
        if not bank_file.exists():
            learn(photos, methods=methods, crops=crops, size=size, seed=seed, max_errors=max_errors).save(bank_file)
        bank = StyleBank.load(bank_file)
        objective = Objective(bank, contents, photos, targets, extractor, size, seed, device)
        lost = {
            "learn": {**dict(photos.losses), **bank.header["skipped"]},
            "tune": dict(objective.target.skipped),
            "contents": {**dict(everything.losses), **dict(objective.raw.skipped)},
        }
        notes = _account(out, lost, (*photos.notes, *targets.notes, *everything.notes), max_errors)
        for trial in _search(open_study(out), objective, methods, budget, trials, seed):
            yield replace(trial, notes=notes)
            notes = ()


@twin_of(iter_tune, "The best trial of the study, of")
def tune(real: Any, synthetic: Any, out: str | Path, **options: Any) -> Trial:
    """Search for the method and strength that close most of the gap within a budget; continues where it stopped.

    Args:
        real: photos, as :func:`iter_tune` takes them.
        synthetic: the images to stylise.
        out: folder of the study.
        **options: the others of :func:`iter_tune`.

    Returns:
        The best trial of the study.

    Raises:
        InputError: as :func:`iter_tune`; no trial keeps the budget.
    """
    for _ in iter_tune(real, synthetic, out, **options):
        pass
    budget = Constraints(**read_config(Path(out))["budget"])
    return best(ended(open_study(Path(out)), budget), budget)


def _account(out: Path, lost: Mapping[str, Mapping[str, str]], notes: Sequence[str], most: int) -> tuple[str, ...]:
    """Write what is lost of every set of a study, and refuse too much of it; lines for people."""
    rows = [{"set": name, "key": key, "error": why} for name, part in lost.items() for key, why in part.items()]
    if rows:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(out / "errors.jsonl", lines.encode())
    for name, part in lost.items():
        check_losses(Path(name), part, most)
    return (*(f"skipped {row['key']}: {row['error']}" for row in rows), *dict.fromkeys(notes))


class Objective:
    """Stylises the contents at a point and measures the result; holds what all points share."""

    def __init__(
        self,
        bank: StyleBank,
        contents: ImageSet,
        photos: ImageSet,
        targets: ImageSet,
        extractor: str,
        size: int,
        seed: int,
        device: str,
    ) -> None:
        self.bank, self.network = bank, load_extractor(extractor, device=device)
        self.target = features_of(targets.crops(CROPS, size, seed), self.network)
        self.raw = features_of(contents, self.network)
        self.photos, self.targets = photos, targets
        readable = set(self.raw.keys)
        self.contents = ImageSet(contents.root, [item for item in contents if item.key in readable])
        floor = features_of(photos.crops(CROPS, size, seed), self.network)
        self.gap, self.floor = self.distance(self.raw), self.distance(floor)
        if self.gap <= self.floor:
            raise InputError(
                f"{contents.root}: already as near to the tune photos as the learn photos are (KID {self.gap:.4f}, "
                f"floor {self.floor:.4f}): there is no gap to close."
            )
        with one_thread():
            self.plans = {name: make_plan(bank, self.contents, name) for name in ASSIGNMENTS}

    def distance(self, features: FeatureSet) -> float:
        """KID of features to the tune photos."""
        return kid(features.features, self.target.features, groups_x=features.groups, groups_y=self.target.groups).value

    def closed(self, value: float) -> float:
        """The share of the gap that a KID leaves closed."""
        return 1 - (value - self.floor) / (self.gap - self.floor)

    def stylise(self, items: Sequence[Item], method: str, strength: float, assignment: str) -> list[Item]:
        """The contents ``items``, stylised in memory."""
        results: list[Item] = []
        with one_thread():
            for item in items:
                image = to_batch(item.read())
                done = self.bank.transfer(image, [item.key], strength, method=method, plan=self.plans[assignment])
                results.append(StylisedItem(item.key, item.content, item.label, item.group, image=to_image(done)))
        return results

    def copies(self, results: Sequence[Item]) -> float:
        """The share of copied patches; the tune photos, which cannot have been copied, calibrate it."""
        images = ImageSet(self.contents.root, results)
        with one_thread():
            return audit(images, self.photos, held_out=self.targets, images=AUDITED, patches=PATCHES).rate

    def labels(self, features: FeatureSet) -> float | None:
        """The label probe, None where the contents have no two classes of five images."""
        try:
            value = label_probe(features, self.raw).value
        except InputError:
            return None
        return None if math.isnan(value) else value


@dataclass(frozen=True)
class StylisedItem(Item):
    """An item whose pixels, ``uint8 [H,W,3]``, are in memory."""

    image: np.ndarray | None = None

    def load(self) -> np.ndarray:
        """The pixels."""
        assert self.image is not None
        return self.image


def _check_outside(out: Path, *sources: Any) -> None:
    """What a study writes would be found in a folder of images the next time."""
    for source in sources:
        if not isinstance(source, str | Path) or not Path(source).is_dir():
            continue
        if Path(source).resolve() in (out.resolve(), *out.resolve().parents):
            raise InputError(f"{out}: lies inside the folder of images {source}. Name a folder outside it.")


def choose_contents(images: ImageSet, count: int, seed: int) -> ImageSet:
    """``count`` images in an order drawn from ``seed`` and the keys: from few classes, PER_CLASS of each."""
    drawn = sorted(images, key=lambda item: seed_for(seed, "tune contents", item.key))
    labels = sorted({str(item.label) for item in images}, key=lambda label: seed_for(seed, "tune class", label))
    wanted = set(labels[: max(2, count // PER_CLASS)])
    chosen = [item for item in drawn if str(item.label) in wanted][:count]
    if len(chosen) < 20:
        raise InputError(f"{images.root}: {len(chosen)} usable images; a search needs at least 20.")
    return ImageSet(images.root, chosen)


def features_of(images: ImageSet, network: Extractor) -> FeatureSet:
    """Features of a whole set."""
    return extract(images, network)


def _search(
    study: Study, objective: Objective, methods: Sequence[str], budget: Constraints, trials: int, seed: int
) -> Iterator[Trial]:
    optuna = import_optuna()
    failed = optuna.trial.TrialState.FAIL
    for left in study.trials:
        if not left.state.is_finished():  # by an interruption
            study.tell(left.number, state=failed)
    counted = [one for one in study.trials if one.state != failed]
    for done in range(len(counted), trials):
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=STARTUP, seed=seed_for(seed, "tune", str(done)) % 2**32
        )
        trial = study.ask()
        try:
            value = _run(trial, objective, methods, budget)
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except BaseException:
            study.tell(trial, state=failed)
            raise
        else:
            study.tell(trial, value)
        yield record(study.trials[trial.number], budget, done + 1, trials)


def _run(trial: OptunaTrial, objective: Objective, methods: Sequence[str], budget: Constraints) -> float:
    """The objective at the point that the trial proposes; reports it after each rung."""
    first = trial.suggest_categorical("first", list(methods))
    second = trial.suggest_categorical("second", [NOTHING, *methods])
    names = [first] if second in (NOTHING, first) else [first, second]
    levelled = {name: most for name in names if (most := style_method(name).levels) > 1}
    levels = trial.suggest_int("levels", 1, max(levelled.values())) if levelled else 1
    method = "+".join(f"{name}:{levels}" if levels < levelled.get(name, 0) else name for name in names)
    strength = trial.suggest_float("strength", 0.2, 1.0)
    assignment = trial.suggest_categorical("assignment", list(ASSIGNMENTS))
    trial.set_user_attr("method", method)
    contents = objective.contents.items
    results: list[Item] = []
    value = math.nan
    ends = [0, *(math.ceil(share * len(contents)) for share in RUNGS)]
    for rung, (start, end) in enumerate(pairwise(ends)):
        results += objective.stylise(contents[start:end], method, strength, assignment)
        features = features_of(ImageSet(objective.contents.root, results), objective.network)
        value = objective.distance(features)
        trial.report(value, rung)
        if end < len(contents) and trial.should_prune():
            raise import_optuna().TrialPruned
    kept = [gradient_correlation(a.read(), b.read()) for a, b in zip(contents, results, strict=True)]
    structure, labels = float(np.mean(kept)), objective.labels(features)
    trial.set_constraint("structure", budget.structure - structure)
    copies = objective.copies(results)
    trial.set_constraint("copies", copies - budget.copies)
    trial.set_constraint("labels", 0.0 if labels is None else budget.labels - labels)
    found = {"closed": objective.closed(value), "structure": structure, "labels": labels, "copies": copies}
    for name, number in found.items():
        trial.set_user_attr(name, number)
    return value
