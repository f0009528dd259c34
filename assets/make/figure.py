"""Draw the README's figure from a finished demo: raw image, the style crop that it received, and the result.

make demo && .venv/bin/python assets/make/figure.py demo assets/photos/learn assets/figures/demo.jpg
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from metrics.image_sets.decode import decode
from metrics.image_sets.items import Crop, cut
from metrics.image_sets.open import open_images

COLUMNS, SIDE, GAP = 8, 192, 4


def main(demo: Path, photos: Path, out: Path) -> None:
    rows = [json.loads(line) for line in (demo / "stylised/metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    paths = {item.key: item.path for item in open_images(photos)}
    step = len(rows) // COLUMNS
    sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP) - GAP, 3 * (SIDE + GAP) - GAP), "white")
    for column, row in enumerate(rows[step // 2 :: step][:COLUMNS]):
        left, top, side = row["style"]["box"]
        cells = [
            decode(demo / "patterns" / row["source"]),
            cut(decode(paths[row["style"]["photo"]]), Crop(left, top, side, SIDE)),
            decode(demo / "stylised" / row["file_name"]),
        ]
        for line, cell in enumerate(cells):
            sheet.paste(_thumbnail(cell), (column * (SIDE + GAP), line * (SIDE + GAP)))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, quality=88)


def _thumbnail(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
