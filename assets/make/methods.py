"""A figure of the style methods: contents, the style crops that they receive, and what each method makes of them.

python assets/make/methods.py assets/photos/learn assets/figures/methods.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from metrics.image_sets.open import open_images
from stylize.patterns import load_family
from stylize.styles.bank import learn, to_batch, to_image

CONTENTS = (("neural-fractal", 3), ("neural-fractal", 12), ("visual-atom", 1), ("dead-leaves", 2), ("fractaldb", 4))
METHODS = ("texture", "regions", "spectrum", "pyramid", "gatys", "network")
SIZE, LINE = 224, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("figure", type=Path)
    options = parser.parse_args()
    bank = learn(options.photos, methods=METHODS, crops=1, size=SIZE)
    crops = open_images(options.photos).crops(1, SIZE)
    rows = []
    for number, (family, class_id) in enumerate(CONTENTS):
        module, index = load_family(family), (2 * number + 2) % len(bank)
        content = module.render(module.sample_class(0, class_id), 0, SIZE)
        results = [
            to_image(bank.transfer(to_batch(content), [str(number)], method=method, plan={str(number): index}))
            for method in METHODS
        ]
        rows.append(np.hstack([content, crops[index].read(), *results]))
    titled(np.vstack(rows), ("content", "style", *METHODS)).save(options.figure, quality=85)


def titled(sheet: np.ndarray, titles: tuple[str, ...]) -> Image.Image:
    """The sheet below a line with the title of every column."""
    figure = Image.new("RGB", (sheet.shape[1], sheet.shape[0] + LINE), "white")
    figure.paste(Image.fromarray(sheet), (0, LINE))
    pen, font = ImageDraw.Draw(figure), ImageFont.load_default(22)
    for column, title in enumerate(titles):
        pen.text((column * SIZE + SIZE // 2, LINE // 2), title, fill="black", font=font, anchor="mm")
    return figure


if __name__ == "__main__":
    main()
