"""The leaderboard of style methods: gap closed by two networks, structure, labels, copies and speed.

    python benchmarks/leaderboard.py run --seeds 0 1 2     # hours on two cores; continues where it stopped
    python benchmarks/leaderboard.py table                 # Markdown, and stylize/styles/leaderboard.json

Per seed: ``--images`` contents of 256 px in ten classes, styles from 8 crops of each photo in assets/photos/learn,
measured against 16 crops of each photo in assets/photos/judge, which took part in no choice. Every finished cell is a
line of assets/results/leaderboard.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _shapes import write_shapes

from metrics.copies import audit
from metrics.extractors import load_extractor
from metrics.features import FeatureSet, extract
from metrics.images import ImageSet, open_images
from metrics.kid import kid
from metrics.label_probe import label_probe
from metrics.structure import gradient_correlation
from stylize import render_patterns
from stylize.styles import METHODS

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "assets" / "photos"
RESULTS = ROOT / "assets" / "results" / "leaderboard.jsonl"
PACKAGED = ROOT / "stylize" / "styles" / "leaderboard.json"
EXTRACTORS = ("efficientnet-lite0", "efficientnet-lite2")
SETS = ("neural-fractal", "fractaldb", "shapes")
SIZE = 256
EXTRA = ("texture+pyramid", "regions@0.7", "pyramid@0.7", "network@0.7")  # points between methods
AUDITED = 100  # images that the copy audit looks at
SLOW = {"gatys": 24, "nnst": 24}  # contents of the methods that take seconds per image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--rows", nargs="+", default=["raw", *METHODS, *EXTRA, "style crops", "floor"])
    options = parser.parse_args()
    if options.what == "table":
        return print_tables()
    for seed in options.seeds:
        for name in options.sets:
            for cell in cells(name, seed, options.images, list(dict.fromkeys(options.rows))):
                RESULTS.parent.mkdir(parents=True, exist_ok=True)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(cell, sort_keys=True) + "\n")
                print(cell, flush=True)
    return None


def cells(name: str, seed: int, images: int, rows: list[str]) -> Iterator[dict[str, Any]]:
    """The cells of one set and seed that are not in RESULTS yet."""
    done = {(c["set"], c["seed"], c["row"]) for c in read_results()}
    todo = [row for row in rows if (name, seed, row) not in done]
    if not todo:
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_contents(folder / "raw", name, images, seed)
        yield from ({"set": name, "seed": seed, "row": row, **values} for row, values in measured(folder, seed, todo))


def measured(folder: Path, seed: int, rows: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(row, its numbers) for stylised copies of ``folder/raw``."""
    networks = [load_extractor(name) for name in EXTRACTORS]
    floor = open_images(PHOTOS / "learn").crops(16, SIZE, seed)
    judge = open_images(PHOTOS / "judge").crops(16, SIZE, seed)
    held_out = ImageSet(PHOTOS, [item for part in ("judge", "tune") for item in open_images(PHOTOS / part)])
    raw = open_images(folder / "raw")
    real, least, before = ([features(images, n) for n in networks] for images in (judge, floor, raw))
    for row in rows:
        if row == "floor":
            yield row, distances(least, real, least, before)
            continue
        if row == "style crops":
            # Measured like a result: pairs from one photo count, as they do among its stylised images.
            yield row, distances([ungrouped(one) for one in least], real, least, before)
            continue
        images, cost = (raw, {}) if row == "raw" else stylised(folder, row, seed)
        keys = {item.key for item in images}
        after = [features(images, n) for n in networks]
        contents = ImageSet(raw.root, [item for item in raw if item.key in keys])
        values = distances(after, real, least, before)
        kept = [gradient_correlation(a.read(), b.read()) for a, b in zip(contents, images, strict=True)]
        values |= {"images": len(images), "structure": float(np.mean(kept)), **cost}
        if len(images) == len(raw):
            values["labels"] = label_probe(after[0], before[0]).value
        values["copies"] = audit(images, PHOTOS / "learn", held_out=held_out, images=AUDITED, seed=seed).rate
        yield row, values


def stylised(folder: Path, row: str, seed: int) -> tuple[ImageSet, dict[str, float]]:
    """The output of ``stylize apply`` in a process of its own, and what that took."""
    method, _, strength = row.partition("@")
    style = folder / f"{method}.safetensors"
    if not style.exists():
        command("learn", PHOTOS / "learn", style, "--method", method, "--seed", seed)
    contents = folder / "raw"
    if method in SLOW:
        contents = thinned(folder, SLOW[method])
    few = thinned(folder, 4)
    options = ["--method", method, "--workers", 1, *(["--strength", strength] if strength else [])]
    start = command("apply", style, few, folder / f"few-{row}", *options)
    seconds = command("apply", style, contents, folder / row, *options)
    images = open_images(folder / row)
    return images, {"seconds": (seconds - start) / (len(images) - len(open_images(few)))}


def thinned(folder: Path, count: int) -> Path:
    """A folder with ``count`` of the contents, spread evenly."""
    few = folder / f"raw-{count}"
    images = open_images(folder / "raw")
    for index in np.unique(np.linspace(0, len(images) - 1, count).astype(int)):
        target = few / images[index].path.relative_to(images.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(images[index].path, target)
    return few


def command(*words: Any) -> float:
    """Run ``stylize``; CPU seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from stylize.cli import main; main()", *map(str, words)],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"stylize {' '.join(map(str, words))} failed with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def distances(
    after: list[FeatureSet], real: list[FeatureSet], floor: list[FeatureSet], before: list[FeatureSet]
) -> dict[str, float]:
    """KID and gap closed by every network."""
    values = {}
    for name, *sets in zip(EXTRACTORS, after, floor, before, real, strict=True):
        own, least, raw = (distance(one, sets[-1]) for one in sets[:-1])
        values |= {f"kid@{name}": own, f"closed@{name}": 1 - (own - least) / (raw - least)}
    return values


def ungrouped(one: FeatureSet) -> FeatureSet:
    return replace(one, groups=one.keys)


def distance(x: FeatureSet, y: FeatureSet) -> float:
    return kid(x.features, y.features, groups_x=x.groups, groups_y=y.groups).value


def features(images: ImageSet, network: Any) -> FeatureSet:
    work = extract(images, network)
    for _ in work:
        pass
    return work.result


def make_contents(out: Path, name: str, images: int, seed: int) -> None:
    if name == "shapes":
        return write_shapes(out, images // 10, SIZE, seed)
    for _ in render_patterns(name, out, classes=10, per_class=images // 10, size=SIZE, seed=seed):
        pass
    return None


def read_results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def print_tables() -> None:
    """A table per set; the rows of the first set are packaged for ``stylize styles``."""
    results = read_results()
    for name in dict.fromkeys(cell["set"] for cell in results):
        rows = {row: [c for c in results if c["set"] == name and c["row"] == row] for row in order(results, name)}
        print(
            f"\n{name}\n\n| row | "
            + " | ".join(title for title, *_ in COLUMNS)
            + " |\n"
            + "|---" * (1 + len(COLUMNS))
            + "|"
        )
        for row, found in rows.items():
            print(f"| {row} | " + " | ".join(entry(found, *column[1:]) for column in COLUMNS) + " |")
        if name == SETS[0]:
            PACKAGED.write_text(json.dumps({row: summary(found) for row, found in rows.items()}, indent=2) + "\n")


LAST = ("style crops", "floor")
COLUMNS = (
    ("closed, lite0", "closed@efficientnet-lite0", 100, 0, " %"),
    ("closed, lite2", "closed@efficientnet-lite2", 100, 0, " %"),
    ("structure", "structure", 1, 2, ""),
    ("label probe", "labels", 100, 0, " %"),
    ("copies", "copies", 100, 1, " %"),
    ("ms/image", "seconds", 1000, 0, ""),
)


def order(results: list[dict[str, Any]], name: str) -> list[str]:
    rows = {c["row"]: c for c in results if c["set"] == name}
    ranked = sorted(rows, key=lambda row: rows[row].get("closed@efficientnet-lite2", 0))
    return [row for row in ranked if row not in LAST] + [row for row in LAST if row in rows]


def entry(found: list[dict[str, Any]], key: str, factor: float, digits: int, unit: str) -> str:
    values = [factor * c[key] for c in found if key in c]
    if not values:
        return ""
    error = ""
    if len(values) > 1 and key.startswith("closed"):
        error = f" ± {np.std(values, ddof=1) / np.sqrt(len(values)):.{digits}f}"
    return f"{np.mean(values):.{digits}f}{error}{unit}"


def summary(found: list[dict[str, Any]]) -> dict[str, float]:
    keys = [column[1] for column in COLUMNS]
    return {key: round(float(np.mean([c[key] for c in found])), 4) for key in keys if all(key in c for c in found)}


if __name__ == "__main__":
    main()
