"""How much of the domain gap each style method closes, by two networks: the table of the README.

    python benchmarks/gap_closed.py --seeds 3     # about twelve minutes on two cores

Per seed: 300 neural fractals of 256 px (10 classes), styles from 8 crops of each photo in assets/photos/learn, measured
against 16 crops of each photo in assets/photos/judge. efficientnet-lite2 comes with the test extra.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from metrics.extractors import load_extractor
from metrics.features import FeatureSet, extract
from metrics.images import ImageSet, open_images
from metrics.kid import Kid, kid
from stylize import apply_style, learn, render_patterns
from stylize.styles import METHODS

EXTRACTORS = ("efficientnet-lite0", "efficientnet-lite2")
PHOTOS = Path(__file__).parent.parent / "assets" / "photos"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    results: dict[tuple[str, str], list[float]] = {}
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            for key, value in one_seed(Path(folder), seed, options.workers):
                results.setdefault(key, []).append(value)
                print(seed, *key, f"{value:.4f}", flush=True)
    print(
        f"\n| set | {' | '.join(f'{name}, {what}' for name in EXTRACTORS for what in ('KID x 1000', 'gap closed'))} |"
    )
    print("|---" * (1 + 2 * len(EXTRACTORS)) + "|")
    for row in ("raw", *METHODS, "floor"):
        cells = [_cell(results, f"{what}@{name}", row) for name in EXTRACTORS for what in ("kid", "closed")]
        print(f"| {row} | {' | '.join(cells)} |")


def one_seed(folder: Path, seed: int, workers: int) -> Iterable[tuple[tuple[str, str], float]]:
    """((kid@network or closed@network, row), value) of one seed."""
    _exhaust(render_patterns("neural-fractal", folder / "raw", seed=seed, workers=workers))
    learn(PHOTOS / "learn", seed=seed).save(folder / "style.safetensors")
    for method in METHODS:
        _exhaust(
            apply_style(folder / "style.safetensors", folder / "raw", folder / method, method=method, workers=workers)
        )
    sets: dict[str, ImageSet] = {row: open_images(folder / row) for row in ("raw", *METHODS)}
    sets |= {"floor": open_images(PHOTOS / "learn").crops(16, 256, seed)}
    judge = open_images(PHOTOS / "judge").crops(16, 256, seed)
    for name in EXTRACTORS:
        network = load_extractor(name)
        real = extract(judge, network).result
        distances = {row: _distance(extract(images, network).result, real) for row, images in sets.items()}
        floor, raw = distances["floor"].value, distances["raw"].value
        for row, distance in distances.items():
            yield (f"kid@{name}", row), 1000 * distance.value
            yield (f"closed@{name}", row), 100 * (1 - (distance.value - floor) / (raw - floor))


def _distance(features: FeatureSet, real: FeatureSet) -> Kid:
    return kid(features.features, real.features, groups_x=features.groups, groups_y=real.groups)


def _cell(results: dict[tuple[str, str], list[float]], what: str, row: str) -> str:
    values = results[what, row]
    error = f" ± {np.std(values, ddof=1) / np.sqrt(len(values)):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{error}{' %' if what.startswith('closed') else ''}"


def _exhaust(steps: Iterable[Any]) -> None:
    for _ in steps:
        pass


if __name__ == "__main__":
    main()
