"""How far each pattern family is from real photos before any styling, by two networks.

    python benchmarks/family_gap.py --images 200      # 20 classes x 10 instances of every family
    python benchmarks/family_gap.py --rows "neural-fractal, earlier formulation"

Reference: 16 crops of each photo in assets/photos/judge. efficientnet-lite2 comes with the test extra.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from metrics.extractors import load_extractor
from metrics.features.extraction import extract
from metrics.image_sets.items import ImageSet
from metrics.image_sets.open import open_images
from metrics.statistics.jackknife import interval
from metrics.statistics.kid import kid
from stylize import render
from stylize.patterns import FAMILIES

EXTRACTORS = ("efficientnet-lite0", "efficientnet-lite2")
PHOTOS = Path(__file__).parent.parent / "assets" / "photos"
OPTIONS: dict[str, dict[str, object]] = {"one-image": {"photo": str(PHOTOS / "learn" / "cat.jpg")}}
EARLIER = "neural-fractal, earlier formulation"  # holomorphic tanh, fixed threshold, no selection
ROWS: dict[str, tuple[str, dict[str, object]]] = {name: (name, OPTIONS.get(name, {})) for name in FAMILIES}
ROWS[EARLIER] = ("neural-fractal", {"activation": "holomorphic", "tau": 2.0})
PER_CLASS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sets = {row: _rendered(row, Path(folder), options.images, options.workers) for row in options.rows}
        sets["(style photos)"] = open_images(PHOTOS / "learn").crops(16, 256)
        judge = open_images(PHOTOS / "judge").crops(16, 256)
        table: dict[str, list[str]] = {name: [] for name in sets}
        for extractor in EXTRACTORS:
            network = load_extractor(extractor)
            real = extract(judge, network)
            for name, images in sets.items():
                own = extract(images, network)
                distance = kid(own.features, real.features, groups_x=own.groups, groups_y=real.groups)
                low, high = interval(distance.value, distance.error) or (float("nan"), float("nan"))
                error = f"{1000 * distance.value:.0f} ± {1000 * (distance.se or float('nan')):.0f}"
                table[name].append(f"{error} | {1000 * low:.0f} to {1000 * high:.0f}")
    print(f"| family | {' | '.join(f'KID x 1000, {name} | 95 % CI' for name in EXTRACTORS)} |")
    print("|---" * (1 + 2 * len(EXTRACTORS)) + "|")
    for name, cells in table.items():
        print(f"| {name} | {' | '.join(cells)} |")


def _rendered(row: str, folder: Path, images: int, workers: int) -> ImageSet:
    family, options = ROWS[row]
    classes = images // PER_CLASS
    render(family, folder / row, classes=classes, per_class=PER_CLASS, options=options, workers=workers)
    return open_images(folder / row)


if __name__ == "__main__":
    main()
