"""Dataset style inversion on the tiny model: does the learnt word bring generated images closer to a new style?

    python examples/studies/style_inversion.py work --figure assets/figures/dsi.jpg

A style that the model has neither seen nor heard named is painted onto test photos: half of them to learn from, half to
judge by. Compared are the sentence with the learnt word, the same sentence with the word as it was before learning, the
plain prompt, and, for orientation, the photos to learn from. Everything is repeated with several seeds. The command
continues where it was interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from metrics.commands.terminal import follow, say
from metrics.errors import InputError
from metrics.extractors import load_extractor
from metrics.features.extraction import FeatureSet, iter_extract
from metrics.image_sets.open import open_images
from metrics.statistics.kid import kid
from metrics.statistics.sliced_wasserstein import sliced_wasserstein
from stylize.diffusion.generate import iter_generate
from stylize.diffusion.invert import iter_invert
from stylize.diffusion.prompts import PLAIN_PROMPT
from stylize.diffusion.sampler import Sampler

sys.path.append(str(Path(__file__).parents[1] / "recipes"))
sys.path.append(str(Path(__file__).parents[2] / "assets" / "make"))
from _fashion import CLASSES, HELD_OUT, paint, photos
from fashion_classifier import accuracy, train_classifier

EXTRACTORS = ("efficientnet-lite0", "efficientnet-lite2")
CONDITIONS = ["learnt word", "untrained word", "plain prompt"]
CLASS_WISE = "a word per class"  # each learnt for as many steps as the one word: ten times the cost for ten classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--style", default="aurora", choices=HELD_OUT)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--vectors", type=int, default=1)
    parser.add_argument("--per-class", type=int, default=10, help="generated images")
    parser.add_argument("--real", type=int, default=30, help="painted photos per class, to learn from and to judge by")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--class-wise", action="store_true", help="learn a word per class as well")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    options.conditions = CONDITIONS + [CLASS_WISE] * options.class_wise
    learn, judge = (painted(options.work / part, options, part) for part in ("learn", "judge"))
    folders = {(name, seed): make(name, seed, learn, options) for seed in options.seeds for name in options.conditions}
    print(table(folders, learn, judge, options))
    if options.figure:
        figure(folders, judge, options)


def painted(folder: Path, options: argparse.Namespace, part: str) -> Path:
    """An ImageFolder of test photos in the held-out style."""
    grey, labels = photos("t10k")
    rng = np.random.default_rng(len(part))
    for number, label in enumerate(CLASSES):
        rows = np.flatnonzero(labels == number)[:: 1 if part == "learn" else -1][: options.real]
        (folder / label).mkdir(parents=True, exist_ok=True)
        for row, image in zip(rows, paint(grey[rows], HELD_OUT[options.style], rng), strict=True):
            Image.fromarray(image).save(folder / label / f"{row:05d}.png")
    return folder


def make(condition: str, seed: int, learn: Path, options: argparse.Namespace) -> Path:
    """Learn if that is the condition, and generate an ImageFolder."""
    work, embedding, prompt = options.work, None, PLAIN_PROMPT
    if condition != "plain prompt":
        embedding, prompt = work / f"learnt-{seed}.safetensors", None
        settings = {"steps": options.steps, "rate": options.rate}
        if condition == "untrained word":  # a rate too small to move a number
            embedding, settings = work / f"untrained-{seed}.safetensors", {"steps": 1, "rate": 1e-30}
        if condition == CLASS_WISE:
            embedding, settings["mode"] = work / f"class-wise-{seed}", "class-wise"
        kind = {"model": options.model, "vectors": options.vectors, "batch": 8, "seed": seed}
        start, step = time.monotonic(), None
        for step in follow(iter_invert(learn, embedding, **kind, **settings), f"{condition}, seed {seed}"):
            if step.done % 100 == 0:
                say(f"seed {seed}, step {step.done}: loss {step.fixed_loss:.4f}")
        if step:
            say(f"{condition}, seed {seed}: {step.total} steps in {time.monotonic() - start:.0f} s")
    out = work / f"{condition.replace(' ', '-')}-{seed}"
    sampler = Sampler(options.model, embedding, guidance=options.guidance)
    steps = iter_generate(learn, out, sampler, per_class=options.per_class, prompt=prompt, batch=10, seed=seed)
    for _ in follow(steps, f"{condition}, seed {seed}"):
        pass
    return out


def table(folders: dict[tuple[str, int], Path], learn: Path, judge: Path, options: argparse.Namespace) -> str:
    """Markdown: KID to the photos to judge by, times 1000, and the share of images of the class that was asked for."""
    features = {}
    for name in EXTRACTORS:
        extractor = load_extractor(name)
        for folder in (*folders.values(), learn, judge):
            features[name, folder] = features_of(extractor, folder)
    classifier = train_classifier()
    lines = [f"| | {' | '.join(f'KID·1000 @{name}' for name in EXTRACTORS)} | colours, SW₂ | class accuracy |"]
    lines += ["|---|---:|---:|---:|---:|"]
    for condition in options.conditions:
        rows = [folders[condition, seed] for seed in options.seeds]
        distances = [
            [1e3 * kid(features[n, f].features, features[n, judge].features).value for f in rows] for n in EXTRACTORS
        ]
        distances.append([colour_distance(folder, judge) for folder in rows])
        right = [100 * recognised(classifier, folder) for folder in rows]
        lines.append(f"| {condition} | {' | '.join(map(mean_and_error, [*distances, right]))} |")
    floor = [1e3 * kid(features[n, learn].features, features[n, judge].features).value for n in EXTRACTORS]
    floor.append(colour_distance(learn, judge))
    real = 100 * recognised(classifier, judge)
    lines.append(f"| photos to learn from (floor) | {' | '.join(f'{value:.1f}' for value in floor)} | {real:.1f} % |")
    return "\n".join(lines)


def features_of(extractor: object, folder: Path) -> FeatureSet:
    extraction = iter_extract(open_images(folder), extractor)
    for _ in follow(extraction, f"features of {folder.name}"):
        pass
    return extraction.result


def colour_distance(a: Path, b: Path) -> float:
    """Sliced Wasserstein distance of the pixels' colours, in levels of 0 to 255 (of one axis)."""
    x, y = (torch.from_numpy(np.concatenate([i.read().reshape(-1, 3) for i in open_images(f)])) for f in (a, b))
    return sliced_wasserstein(x.float(), y.float(), projections=64).value


def recognised(classifier: object, folder: Path) -> float:
    images = open_images(folder)
    labels = np.array([CLASSES.index(item.label) for item in images])
    return accuracy(classifier, np.stack([item.read() for item in images]), labels)


def mean_and_error(values: list[float]) -> str:
    error = f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{error}"


def figure(folders: dict[tuple[str, int], Path], judge: Path, options: argparse.Namespace) -> None:
    """One row of images, a class each, per condition; the photos to judge by first."""
    rows = [judge, *(folders[condition, options.seeds[0]] for condition in options.conditions)]
    cells = [[np.asarray(Image.open(sorted((row / label).glob("*.png"))[0])) for label in CLASSES] for row in rows]
    sheet = np.vstack([np.hstack(row) for row in cells])
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).resize((3 * sheet.shape[1], 3 * sheet.shape[0]), Image.Resampling.NEAREST).save(
        options.figure
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"style_inversion.py: {error}") from error
