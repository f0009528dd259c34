"""Reports to test with, and how their pages are read."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from metrics.comparison.gap_report import (
    Example,
    Explained,
    GapReport,
    Kept,
    Permuted,
    Point,
    Resampled,
    Row,
    SetSummary,
    Slice,
)
from metrics.report import to_html
from metrics.statistics.measurement import LowLevel, Measurement

KID = "kid@efficientnet-lite0"
FID = "fid@efficientnet-lite0"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>|`a`|[x](javascript:alert(3))\n# @everyone\x1b[31m"


def measured(value, se=None, name=KID, warnings=(), p=None):
    low, high = (None, None) if se is None else (value - 2 * se, value + 2 * se)
    return Measurement(name, value, se, low, high, 1000, 500, tuple(warnings), p)


def row(role, *measurements, skipped=()):
    return Row(role, SetSummary(f"/data/{role}", 1000, 80, tuple(skipped)), measurements)


def report(before=(0.0482, 0.0011), after=(0.029, 0.0009), floor=(0.0013, 0.0004), closed=(0.41, 0.06), **fields):
    values = {"before": before, "after": after, "floor": floor}
    rows = tuple(row(role, measured(*value)) for role, value in values.items() if value is not None)
    shares = () if closed is None else (measured(*closed),)
    extractor = {"name": "efficientnet-lite0", "fingerprint": "9f3c", "resize": "bicubic 224"}
    config = {"seed": 0, "crops": None, "metrics": ["kid"], "versions": {"torch": "2.9"}}
    return replace(GapReport(SetSummary("/data/real", 500, 500), rows, shares, extractor, config), **fields)


def save(path, image):
    Image.fromarray(image).save(path)
    return str(path)


FACTS = {"accuracy before": 0.98, "accuracy after": 0.86, "chance": 0.05, "classes": 20.0}
KEPT = (
    Kept("gradient-correlation", 0.9213, 0.0061, 0.91, 0.932, 200),
    Kept("edge-f-score", 0.892, 0.012, 0.868, 0.916, 200, {}, ("3 pairs of images of different size were left out.",)),
    Kept("label-probe@efficientnet-lite0", 0.88, 0.02, 0.84, 0.92, 240, FACTS),
)


SATURATION = LowLevel("saturation", "%", 61.2, 31.4, 29.9, 2.1, 2.2, "The synthetic images are more saturated: 61 %.")
LIGHTNESS = LowLevel("lightness", "L*", 48.2, 51.9, 5.0, -0.22, None)
SLOPE = LowLevel("spectral slope", "", -2.31, -2.02, 0.33, -2.5, 0.06, "The power spectrum falls faster.")


def parts(text="plain", file="gone.png"):
    """The fields that explain a gap; ``text`` stands wherever untrusted text may stand, ``file`` is every image."""
    return {
        "change": (measured(-0.0192, 0.0006),),
        "permuted": Permuted(0.005, 199, ("kid", "rbf", "energy"), ("Whole groups were permuted.",)),
        "profile": tuple(measured(v, v / 10, f"{KID}/{layer}") for layer, v in (("stem", 0.2), ("head", 0.05))),
        "slices": (
            Slice(f"bark {text}", "all real images", measured(0.01, 0.004, p=0.3), 0.6),
            Slice(f"rock {text}", "all real images", measured(0.04, 0.005, p=0.002), 0.006),
            Slice(f"empty {text}", "all real images", measured(float("nan"), warnings=["Only one image."])),
        ),
        "low_level": (LIGHTNESS, SATURATION, SLOPE),
        "most_synthetic": (Explained(f"s/1 {text}", file, 0.2061, f"photo {text}", file),),
        "least_covered": (Explained(f"photo {text}", file, 0.14, f"s/2 {text}", file),),
        "points": (
            Point(f"s/1 {text}", "after", 0.0, 0.0),
            Point(f"s/2 {text}", "after", 1.0, 0.5),
            Point(f"photo {text}", "real", 2.0, 1.0),
        ),
        "resampled": (Resampled("kid", (0.1, 0.2), (0.3,)),),
    }


def full_report():
    licence = {"key": "a", "licence": "CC0-1.0", "author": "A. Photographer", "source": "https://example.org/a"}
    example = Example("c/1", "in.png", "style.png", (3, 4, 50), "out.png")
    bare = Example("c/2", None, None, None, "out.png")
    rows = (
        row("before", measured(0.05, 0.001), measured(123.4, name=FID, warnings=["n is small"])),
        row("after", measured(0.03, 0.001), skipped=[("c/3", "empty file (0 bytes)")]),
    )
    return report(rows=rows, licences=(licence,), examples=(example, bare), kept=KEPT, **parts())


def hostile_report(text):
    rows = tuple(
        Row(role, SetSummary(text, 10, 10, ((text, text),)), (measured(0.03, 0.01, name=text, warnings=[text]),))
        for role in ("before", "after", "floor")
    )
    licence = dict.fromkeys(("key", "title", "licence", "author", "source"), text)
    return GapReport(
        SetSummary(text, 5, 5, ((text, text),)),
        rows,
        (measured(0.3, 0.05, name=text),),
        {"name": text},
        {text: text},
        (licence,),
        (Example(text, text, text, None, text),),
        kept=(Kept(text, 0.9, 0.1, 0.7, 1.0, 9, {text: 0.5, "classes": 2.0}, (text,)),),
        **{
            **parts(text, text),
            "change": (measured(0.1, name=text, warnings=[text]),),
            "profile": (measured(0.1, name=text),),
            "permuted": Permuted(0.01, 99, (text,), (text,)),
            "slices": (
                Slice(text, text, measured(0.1, name=text, warnings=[text]), 0.5),
                Slice(text, f"{text}2", measured(0.2, name=text), 0.5),
            ),
            "low_level": (LowLevel(text, text, 1.0, 2.0, 1.0, -1.0, 0.1, text),),
        },
    )


MARKUP = st.text(st.sampled_from("ab<>/\"'`*_[]()!|\\&#@~-+=:.1)\n\r\t \x00\x1b\u202e\udcffé"), min_size=1, max_size=24)


class Page(HTMLParser):
    """Tags with attribute names, addresses, ids and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.addresses, self.texts, self.links = [], [], [], []
        self.skip = 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag != "wbr":
            self.tags.append((tag, tuple(name for name, _ in attributes)))
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                self.addresses.append((tag, name, value))
        self.skip += tag in ("style", "script", "title")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.texts.append(" ")
        self.skip -= tag in ("style", "script", "title")

    def handle_data(self, data):
        if not self.skip:
            self.texts.append(data)


def plain_text(html):
    return re.sub(r"\s+", " ", "".join(Page(html).texts).replace("\u00a0", " "))


def write_page(folder, text="class0001/instance_00012"):
    """A page with everything on it; ``text`` stands wherever untrusted text may stand."""
    rng = np.random.default_rng(0)
    for name, size in (("content", 48), ("style", 400), ("result", 224)):
        coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((size, size)).save(folder / f"{name}.png")
    content, style, result = (str(folder / f"{name}.png") for name in ("content", "style", "result"))
    long_path = "/data/projects/domain-gap/" + "very_long_folder_name_without_any_break_" * 3
    names = ("kid", "fid", "cmmd", "recall")
    rows = [
        replace(
            row(role, *(measured(v, v / 20, f"{name}@lite0", [f"Only 80 photos: {text}"], 0.02) for name in names)),
            set=SetSummary(long_path + text, 1_281_167, 80, ((text, "empty file (0 bytes)"),)),
        )
        for role, v in (("before", 0.0482), ("after", 0.029), ("floor", 0.0013))
    ]
    source = "https://commons.example.org/wiki/File:" + "a_rather_long_file_name_" * 5 + ".jpg"
    full = replace(
        full_report(),
        reference=SetSummary(long_path, 5_000, 100),
        rows=tuple(rows),
        closed=(measured(0.41, 0.06, "kid@lite0"),),
        extractor={"name": "efficientnet-lite0", "fingerprint": "sha256:" + "9f3c" * 16, "note": text},
        config={"seed": 0, "versions": {"torch": "2.9.0", text: text}},
        licences=({"key": text, "title": text, "licence": "CC0-1.0", "author": text, "source": source},),
        examples=(
            Example(f"a {text}", content, style, (100, 100, 200), result),
            Example(f"b {text}", str(folder / "gone.png"), None, None, result),
        ),
        **{name: part for name, part in parts(text, result).items() if name not in ("most_synthetic", "points")},
        most_synthetic=tuple(Explained(f"s/{i}", result, 1 - i / 10, f"p/{i}", style) for i in range(8)),
        points=(
            *(Point(f"s/{i}", "after", float(i), 0.0) for i in range(8)),
            *(Point(f"p/{i}", "real", float(i), 3.0) for i in range(8)),
        ),
    )
    page = folder / "report.html"
    page.write_text(to_html(full), encoding="utf-8")
    return page
