"""Does it pay? Pre-training sets × seeds × downstream tasks, at equal images and equal steps, beside the domain gap.

    python examples/studies/study.py work --dry-run              # what is left to do and what it costs
    python examples/studies/study.py work --minutes 85           # a slice; the same command continues at the next cell
    python examples/studies/study.py work --table                # the table of what is finished

Every set has ``classes × per-class`` images of ``size`` px. A small network is pre-trained on it for ``pretrain-steps``
and fine-tuned on Fashion-MNIST painted in colour (20 photos per class, a tenth, all) and on patches of photos (classes
are photos; trained on left halves, tested on right halves). An autoencoder learns from the set alone and meets real
photos in the test; a diffusion model goes on from the set to few real images. A cell is a set, a seed and a task; it
becomes lines of pretraining.csv in the results folder when it is finished. Seeds decide weights, order and shots.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _pretraining_sets import PHOTOS, SETS, made
from _study_table import TASKS, write_table

from metrics import open_images
from metrics.errors import InputError
from metrics.extractors import load_extractor
from metrics.features.extraction import FeatureSet, extract
from metrics.image_sets.arrays import Pixels
from metrics.image_sets.items import ImageSet, Item, cut, draw_crop
from metrics.seed import generator
from metrics.statistics.kid import kid

sys.path.append(str(Path(__file__).parents[1] / "recipes"))
import pretrain_classifier as classifier

EXTRACTORS = ("efficientnet-lite0", "efficientnet-lite2")
ORDER = (
    ("gap",),
    ("pretrain", "fashion-20", "patches"),
    ("fashion-10%", "fashion-all"),
    ("autoencoder",),
    ("diffusion",),
)
COLUMNS = ("set", "seed", "task", "metric", "value", "seconds")
# Seconds of a cell in one process, before any is measured.
GUESS = {
    "gap": 20,
    "pretrain": 60,
    "fashion-20": 25,
    "patches": 25,
    "fashion-10%": 40,
    "fashion-all": 60,
    "autoencoder": 85,
    "diffusion": 190,
}
Cell = tuple[str, int, str]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    rows = read(options)
    done = {(row["set"], int(row["seed"]), row["task"]): float(row["seconds"]) for row in rows}
    left = [cell for cell in cells(options) if cell not in done]
    if options.dry_run:
        return plan(left, done)
    begin = time.monotonic()
    for cell in [] if options.table else left:
        if time.monotonic() - begin + expected(cell, done) > 60 * options.minutes:
            break
        start = time.monotonic()
        found = run(cell, options)
        done[cell] = time.monotonic() - start
        rows += record(options, cell, found, done[cell])
        print(f"{', '.join(map(str, cell))}: {found} ({done[cell]:.0f} s)", flush=True)
    write_table(rows, options.results)
    return print(f"{len(done)} of {len(cells(options))} cells are finished; the same command continues.")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of the sets and the trained networks")
    parser.add_argument("--results", type=Path, default=PHOTOS.parent / "results")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=85, help="stop before a cell that would end later")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--per-class", type=int, default=50)
    parser.add_argument("--size", type=int, default=64, help="side of the images of a set")
    parser.add_argument("--train-size", type=int, default=32, help="side that networks see")
    parser.add_argument("--model", default="test_resnet", help="any timm model")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=8e-3, help="of the classifier, pre-training and fine-tuning")
    parser.add_argument("--pretrain-steps", type=int, default=1600)
    parser.add_argument("--few-steps", type=int, default=600, help="of fine-tuning at 20 shots and on patches")
    parser.add_argument("--steps", type=int, default=600, help="of fine-tuning on a tenth and on all photos")
    parser.add_argument("--test", type=int, default=5000, help="Fashion-MNIST test photos")
    parser.add_argument(
        "--gap-images", type=int, default=200, help="images of a set that its domain gap is measured on"
    )
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16", help="of autoencoder and diffusion")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only write the table of what is finished")
    parser.add_argument("--dry-run", action="store_true", help="print what is left to do and its cost")
    return parser.parse_args(words)


def cells(options: argparse.Namespace) -> list[Cell]:
    """What to do, the most telling first; the gap belongs to a set and not to a seed."""
    return [
        (name, seed, task)
        for group in ORDER
        for seed in (options.seeds[:1] if group == ("gap",) else options.seeds)
        for name in options.sets
        for task in group
        if task in options.tasks and not (name == "none" and task in ("gap", "pretrain", "autoencoder"))
    ]


def expected(cell: Cell, done: dict[Cell, float]) -> float:
    """Seconds of a cell: the median of its task so far, else a guess."""
    same = [seconds for (_, _, task), seconds in done.items() if task == cell[2]]
    return float(np.median(same)) if same else GUESS.get(cell[2], 120)


def plan(left: list[Cell], done: dict[Cell, float]) -> None:
    for task in TASKS:
        own = [cell for cell in left if cell[2] == task]
        if own:
            print(f"{task}: {len(own)} cells of about {expected(own[0], done):.0f} s")
    print(f"{sum(expected(cell, done) for cell in left) / 60:.0f} minutes in all for {len(left)} cells")


# ---- results ---------------------------------------------------------------------------------------------------------


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What every cell depends on."""
    names = (
        "classes",
        "per_class",
        "size",
        "train_size",
        "model",
        "batch_size",
        "lr",
        "pretrain_steps",
        "few_steps",
        "steps",
        "precision",
    )
    return {name: getattr(options, name) for name in (*names, "test", "gap_images")}


def read(options: argparse.Namespace) -> list[dict[str, str]]:
    """The finished cells; refuses to mix settings in one table."""
    path, facts = options.results / "pretraining.csv", options.results / "pretraining.json"
    if not path.exists():
        return []
    kept = json.loads(facts.read_text(encoding="utf-8"))
    changed = [
        f"--{name.replace('_', '-')} {kept.get(name)}"
        for name, now in settings(options).items()
        if kept.get(name) != now
    ]
    if changed:
        raise InputError(f"{path} was made with {', '.join(changed)}. Use the same, or another --results.")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def record(options: argparse.Namespace, cell: Cell, found: dict[str, float], seconds: float) -> list[dict[str, str]]:
    """Append a finished cell, a line per number, in one write."""
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / "pretraining.csv"
    (options.results / "pretraining.json").write_text(json.dumps(settings(options), indent=1) + "\n", encoding="utf-8")
    name, seed, task = cell
    rows = [
        dict(zip(COLUMNS, (name, str(seed), task, metric, f"{value:.6g}", f"{seconds:.1f}"), strict=True))
        for metric, value in found.items()
    ]
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(rows)
    return rows


# ---- cells -----------------------------------------------------------------------------------------------------------


def run(cell: Cell, options: argparse.Namespace) -> dict[str, float]:
    """The numbers of one cell."""
    name, seed, task = cell
    items = (
        [] if name == "none" else made(name, options.work / "sets", options.classes, options.per_class, options.size)
    )
    return CELLS[task](name, seed, items, options)


def gap(name: str, seed: int, items: list[Item], options: argparse.Namespace) -> dict[str, float]:
    """KID of the set, as it is before training, to photos that nothing here learns from."""
    chosen = [items[index] for index in np.linspace(0, len(items) - 1, options.gap_images).astype(int)]
    found = {}
    for extractor in EXTRACTORS:
        network = load_extractor(extractor)
        kept = options.work / f"judge-{extractor}.safetensors"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            extract(open_images(PHOTOS / "judge").crops(60, options.size), network).save(kept)
        real, own = FeatureSet.load(kept), extract(ImageSet(Path(name), chosen), network)
        distance = kid(own.features, real.features, groups_x=own.groups, groups_y=real.groups)
        found[f"kid@{extractor}"] = distance.value
    return found


def recipe(what: str, out: Path, seed: int, options: argparse.Namespace, **given: Any) -> argparse.Namespace:
    """Options of the classifier recipe; study and recipe train by the same code."""
    made = classifier.parse([what, "", str(out), "--seed", str(seed)])
    own = {name: getattr(options, name) for name in ("model", "batch_size", "lr")} | {"size": options.train_size}
    return argparse.Namespace(**{**vars(made), **own, **given})


def pretrain(name: str, seed: int, items: list[Item], options: argparse.Namespace) -> dict[str, float]:
    chosen = recipe("pretrain", trained(name, seed, options), seed, options, steps=options.pretrain_steps)
    classes = sorted({str(item.label) for item in items})
    accuracy = classifier.pretrain_on(classifier.Images(items, classes, chosen, train=True), classes, chosen)
    return {"training accuracy": accuracy}


def trained(name: str, seed: int, options: argparse.Namespace) -> Path:
    return options.work / "classifiers" / f"{name} {seed}"


def fashion(shots: int, steps: str) -> Callable[..., dict[str, float]]:
    """Fine-tune on ``shots`` photos per class (0: all)."""

    def cell(name: str, seed: int, items: list[Item], options: argparse.Namespace) -> dict[str, float]:
        train, test, classes = classifier.real_sets("fashion-mnist", argparse.Namespace(shots=shots, seed=seed))
        return finetuned(
            name, seed, f"fashion-{shots}", (train, test[: options.test], classes), getattr(options, steps), options
        )

    return cell


def patches(name: str, seed: int, items: list[Item], options: argparse.Namespace) -> dict[str, float]:
    train, test = photo_patches(20, "left", seed, options.train_size), photo_patches(60, "right", 0, options.train_size)
    classes = sorted({str(item.label) for item in train})
    return finetuned(name, seed, "patches", (train, test, classes), options.few_steps, options)


def finetuned(
    name: str,
    seed: int,
    task: str,
    sets: tuple[list[Item], list[Item], list[str]],
    steps: int,
    options: argparse.Namespace,
) -> dict[str, float]:
    start = None if name == "none" else trained(name, seed, options)
    if start is not None and not (start / "model.json").is_file():
        pretrain(
            name, seed, made(name, options.work / "sets", options.classes, options.per_class, options.size), options
        )
    chosen = recipe("finetune", options.work / task / f"{name} {seed}", seed, options, steps=steps, start=start)
    return {"accuracy": classifier.finetune_on(*sets, chosen)}


def photo_patches(each: int, half: str, seed: int, size: int) -> list[Item]:
    """``each`` patches of one half of every photo of judge and tune; the label is the photo."""
    found = []
    for item in (*open_images(PHOTOS / "judge"), *open_images(PHOTOS / "tune")):
        photo = item.read()
        height, width = photo.shape[:2]
        offset = 0 if half == "left" else width - width // 2
        for index in range(each):
            key = f"{item.key}#{index}"
            box = draw_crop(width // 2, height, size, generator(seed, half, key))
            patch = cut(photo, replace(box, left=box.left + offset))
            found.append(Item(key, Pixels(patch, key), item.key, item.key))
    return found


def autoencoder(name: str, seed: int, items: list[Item], options: argparse.Namespace) -> dict[str, float]:
    """Train on the set alone; reconstruct crops of photos that nothing here learns from."""
    import pretrain_autoencoder as recipe

    out = options.work / "autoencoders" / f"{name} {seed}"
    chosen = recipe.parse(["", "", str(out), "--seed", str(seed), "--precision", options.precision])
    return recipe.run_on(items, open_images(PHOTOS / "judge").crops(60, chosen.size), chosen)


def diffusion(name: str, seed: int, items: list[Item], options: argparse.Namespace) -> dict[str, float]:
    """Pre-train on the set, or not, go on with patches of left halves, and sample; measured against right halves."""
    import pretrain_diffusion as recipe

    out = options.work / "diffusion" / f"{name} {seed}"
    chosen = recipe.parse(["", "", "", str(out), "--seed", str(seed), "--precision", options.precision])
    real, held_out = photo_patches(20, "left", 0, chosen.size), photo_patches(30, "right", 0, chosen.size)
    return recipe.measured(recipe.stages(items, real, chosen), held_out, chosen)


CELLS: dict[str, Callable[..., dict[str, float]]] = {
    "gap": gap,
    "pretrain": pretrain,
    "fashion-20": fashion(20, "few_steps"),
    "fashion-10%": fashion(600, "steps"),
    "fashion-all": fashion(0, "steps"),
    "patches": patches,
    "autoencoder": autoencoder,
    "diffusion": diffusion,
}


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"study.py: {error}") from error
