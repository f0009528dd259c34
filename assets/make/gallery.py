"""Draw the README's gallery: every pattern family, one row each, one column per class.

python assets/make/gallery.py assets/figures/gallery.jpg
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from stylize.patterns import FAMILIES, load_family

COLUMNS, SIDE, GAP, TITLE = 8, 128, 4, 130
OPTIONS = {"one-image": {"photo": "assets/photos/learn/cat.jpg"}}


def main(out: Path) -> None:
    height = len(FAMILIES) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (TITLE + COLUMNS * (SIDE + GAP) - GAP, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for line, name in enumerate(FAMILIES):
        family, top = load_family(name), line * (SIDE + GAP)
        pen.text((4, top + SIDE // 2), name, fill="black", font=font, anchor="lm")
        for column in range(COLUMNS):
            params = family.sample_class(0, column, **OPTIONS.get(name, {}))
            image = Image.fromarray(family.render(params, 0, 2 * SIDE)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(image, (TITLE + column * (SIDE + GAP), top))
    sheet.save(out, quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
