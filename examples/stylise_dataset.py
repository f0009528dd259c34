"""Stylise a synthetic dataset with a few real photos, and measure how much closer it came to held-out ones.

    python examples/stylise_dataset.py tour

The output has the input's tree, names and labels. The same call continues where it was interrupted.
"""

import sys
from pathlib import Path

from metrics import compare, write_report
from stylize import apply, learn, render
from stylize.shipped import shipped


def main(work: Path, per_class: int = 20, size: int = 128) -> float:
    """Returns the share of the domain gap that is closed: 0 none, 1 as close as the style photos are."""
    photos = shipped("photos")  # learn/ and judge/ share no photo; use your own, 10 to 1000 of them
    synthetic = work / "synthetic"  # your own: any folder of images, zip, tar or Hugging Face dataset
    render("neural-fractal", synthetic, classes=5, per_class=per_class, size=size)

    style = work / "style.safetensors"
    learn(photos / "learn", size=size).save(style)  # crops of the size of the images
    done = apply(style, synthetic, work / "stylised")  # the preset `fast`; see `stylize styles` for others
    print(f"{done.done} images in {work / 'stylised'}")

    report = compare(
        work / "stylised",
        photos / "judge",  # took no part in learning
        before=synthetic,
        floor=photos / "learn",  # how far real photos are from other real photos
        crops=16,  # of each photo; error bars know that they are not independent
        metrics=["kid"],
    )
    write_report(report, work / "report")  # report.html, .md, .json: the images to blame, what survived of labels
    closed = report.closed[0]
    print(f"{closed.value:.0%} ± {closed.se:.0%} of the gap closed; {work / 'report' / 'report.html'}")
    return closed.value


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "tour"))
