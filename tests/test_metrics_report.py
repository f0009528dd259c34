"""The report: JSON there and back, what the verdict says, and pages that no key or file can break."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from metrics.errors import InputError
from metrics.gap_report import Example, GapReport, Kept, Measurement, Row, SetSummary
from metrics.report import from_json, to_html, to_json, to_markdown, verdict, write_report
from metrics.report.chart import chart, ticks_over
from metrics.report.grid import ROWS, SIDE, grid
from metrics.report.html import flatten, link
from metrics.report.table import blocks, unit, warnings

KID = "kid@efficientnet-lite0"
FID = "fid@efficientnet-lite0"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>|`a`|[x](javascript:alert(3))\n# @everyone\x1b[31m"


def measured(value, se=None, name=KID, warnings=()):
    low, high = (None, None) if se is None else (value - 2 * se, value + 2 * se)
    return Measurement(name, value, se, low, high, 1000, 500, tuple(warnings))


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


# JSON


FACTS = {"accuracy before": 0.98, "accuracy after": 0.86, "chance": 0.05, "classes": 20.0}
KEPT = (
    Kept("gradient-correlation", 0.9213, 0.0061, 0.91, 0.932, 200),
    Kept("edge-f-score", 0.892, 0.012, 0.868, 0.916, 200, {}, ("3 pairs of images of different size were left out.",)),
    Kept("label-probe@efficientnet-lite0", 0.88, 0.02, 0.84, 0.92, 240, FACTS),
)


def full_report():
    licence = {"key": "a", "licence": "CC0-1.0", "author": "A. Photographer", "source": "https://example.org/a"}
    example = Example("c/1", "in.png", "style.png", (3, 4, 50), "out.png")
    bare = Example("c/2", None, None, None, "out.png")
    rows = (
        row("before", measured(0.05, 0.001), measured(123.4, name=FID, warnings=["n is small"])),
        row("after", measured(0.03, 0.001), skipped=[("c/3", "empty file (0 bytes)")]),
    )
    return report(rows=rows, licences=(licence,), examples=(example, bare), kept=KEPT)


def test_json_reads_back_exactly():
    original = full_report()
    assert from_json(to_json(original)) == original


@given(
    key=st.text(),
    value=st.floats(allow_nan=False, allow_infinity=False),
    config=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=4,
    ),
)
@settings(max_examples=30, deadline=None)
def test_any_text_number_and_setting_reads_back(key, value, config):
    original = report(
        rows=(row("after", measured(value), skipped=[(key, key)]),),
        config={key: config},
        examples=(Example(key, None, None, None, key),),
    )
    assert from_json(to_json(original)) == original


def test_file_names_that_are_not_unicode_read_back():
    original = report(examples=(Example("a\udcff", None, None, None, "b\udcfe"),))
    assert from_json(to_json(original)) == original


def test_a_report_read_back_renders_the_same():
    original = full_report()
    again = from_json(to_json(original))
    assert to_json(again) == to_json(original)
    assert to_markdown(again) == to_markdown(original)
    assert to_html(again) == to_html(original)


def test_numbers_that_json_lacks_become_null():
    text = to_json(report(config={"b": math.inf, "a": [math.nan]}, closed=(math.nan, None)))
    document = json.loads(text, parse_constant=pytest.fail)
    assert document["config"] == {"b": None, "a": [None]}
    assert document["closed"][0]["value"] is None
    assert list(document)[:3] == ["schema", "reference", "rows"]
    assert math.isnan(from_json(text).closed[0].value)


def test_config_that_json_cannot_say_is_refused():
    with pytest.raises(TypeError):
        to_json(report(config={"device": object()}))


def without(document, name):
    return {key: value for key, value in document.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {**d, "schema": 1}, "schema 1.*reads schema 3"),
        (lambda d: {**d, "schema": "1"}, "no schema number"),
        (lambda d: {**d, "schema": True}, "no schema number"),
        (lambda d: without(d, "schema"), "no schema number"),
        (lambda d: [d], "no schema number"),
        (lambda d: without(d, "rows"), "exactly the fields"),
        (lambda d: {**d, "extra": 1}, "exactly the fields"),
        (lambda d: {**d, "rows": {}}, "report.rows: expected a list"),
        (lambda d: {**d, "rows": d["rows"] * 2}, "at most once"),
        (lambda d: {**d, "rows": [{**d["rows"][0], "role": "behind"}]}, "each of before, after, floor"),
        (lambda d: {**d, "reference": {**d["reference"], "images": 1.5}}, "images: expected a whole number"),
        (lambda d: {**d, "reference": {**d["reference"], "images": True}}, "images: expected a whole number"),
        (lambda d: {**d, "reference": {**d["reference"], "skipped": [["key"]]}}, r"skipped\[0\]: expected a list of 2"),
        (lambda d: {**d, "closed": [{**d["closed"][0], "value": "0.4"}]}, r"closed\[0\].value: expected a number"),
        (lambda d: {**d, "closed": [{**d["closed"][0], "value": 10**400}]}, "expected a finite number"),
        (lambda d: {**d, "extractor": {"name": 3}}, "extractor.name: expected text"),
        (lambda d: {**d, "config": []}, "config: expected an object"),
        (lambda d: {**d, "examples": [None]}, r"examples\[0\]: expected an object"),
    ],
)
def test_malformed_documents_are_refused(change, message):
    document = json.loads(to_json(full_report()))
    with pytest.raises(InputError, match=message):
        from_json(json.dumps(change(document)))


@pytest.mark.parametrize("text", ["", "{", "NaN", "[" * 100_000, "null", '{"schema": 1, "config": Infinity}'])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(InputError, match="not a report"):
        from_json(text)


def test_a_number_too_large_for_a_float_is_refused():
    text = to_json(report()).replace("0.0482", "1e999")
    with pytest.raises(InputError, match="finite"):
        from_json(text)


# Verdict


@pytest.mark.parametrize(
    ("given", "tone", "headline"),
    [
        ({}, "closed", "The stylised set closed 41 % ± 6 % of the domain gap."),
        ({"closed": (0.412, 0.004)}, "closed", "The stylised set closed 41.2 % ± 0.4 % of the domain gap."),
        ({"closed": (0.41, None)}, "closed", "The stylised set closed 41 % of the domain gap."),
        ({"closed": (1.04, 0.05)}, "closed", "The stylised set closed the whole domain gap: 104 % ± 5 %."),
        (
            {"after": (0.059, 0.001), "closed": (-0.23, 0.03)},
            "away",
            "The stylised set moved away from the real images: the domain gap grew by 23 % ± 3 %.",
        ),
        (
            {"closed": (0.2, 0.31)},
            "unclear",
            "Undecided: the stylised set closed 20 % ± 31 % of the domain gap, perhaps none.",
        ),
        (
            {"closed": (-0.05, 0.08)},
            "unclear",
            "Undecided: the stylised set closed −5 % ± 8 % of the domain gap, perhaps none.",
        ),
        ({"closed": (0.0, None)}, "plain", "The stylised set closed none of the domain gap."),
        (
            {"before": (0.001, 0.0004), "closed": (math.nan, None)},
            "plain",
            "There is no gap to close: the raw set is already as close to the real images as the floor.",
        ),
        (
            {"floor": None, "closed": None},
            "plain",
            "The stylised set is closer to the real images than the raw set.",
        ),
        (
            {"after": (0.0482, 0.001), "floor": None, "closed": None},
            "plain",
            "The stylised set is no closer to the real images than the raw set.",
        ),
        ({"before": None, "closed": None}, "plain", "The domain gap is 27.70 above the floor (KID × 1000)."),
        (
            {"before": None, "after": (0.002, 0.0009), "closed": None},
            "unclear",
            "Undecided: the error bars of the set and the floor overlap, so there may be no domain gap.",
        ),
        (
            {"before": None, "after": (0.001, 0.0009), "closed": None},
            "plain",
            "No domain gap: the set is as close to the real images as the floor.",
        ),
        (
            {"before": None, "floor": None, "closed": None},
            "plain",
            "The set measures 29.00 ± 0.90 against the real images (KID × 1000).",
        ),
        ({"after": (math.nan, None)}, "unclear", "The distance could not be measured: a value is not finite."),
        ({"after": None, "closed": None}, "unclear", "This report holds no measured set."),
    ],
)
def test_verdict_says_what_happened(given, tone, headline):
    result = verdict(report(**given))
    assert (result.tone, result.headline) == (tone, headline)
    assert to_markdown(report(**given)).splitlines()[0] == f"**{headline}**"
    assert headline in plain_text(to_html(report(**given)))


def test_verdict_gives_the_numbers():
    detail = verdict(report()).detail
    for part in ("KID × 1000", "from 48.2 ± 1.1", "to 29.0 ± 0.9", "floor, real against real, is 1.3 ± 0.4"):
        assert part in detail
    assert "95 % interval 29 % to 53 %" in detail
    assert "no error bar" in verdict(report(closed=(0.41, None))).detail
    assert "overlap" not in detail
    assert "overlap" in verdict(report(before=(0.002, 0.0005), closed=(0.2, 0.4))).detail


def test_metrics_with_a_gap_closed_come_first():
    rows = (
        row("before", measured(9.0, name=FID), measured(0.04)),
        row("after", measured(5.0, name=FID), measured(0.02)),
    )
    names = [block.name for block in blocks(report(rows=rows))]
    assert names == [KID, FID]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([(0.04821, 0.00113), (0.00131, 0.00039)], ["48.2 ± 1.1", "1.3 ± 0.4"]),
        ([(0.04821, 0.00313), (0.00131, 0.00004)], ["48.21 ± 3.13", "1.31 ± 0.04"]),
        ([(0.12345, None), (0.00012, None)], ["123.5", "0.1"]),
        ([(-0.00001, 0.002)], ["0.0 ± 2.0"]),
        ([(-0.005, 0.0021)], ["−5.0 ± 2.1"]),
        ([(0.0, None)], ["0.000"]),
        ([(12.0, 1.5)], ["12,000 ± 1,500"]),
        ([(math.inf, None)], ["undefined"]),
    ],
)
def test_digits_follow_the_errors(values, texts):
    group = [measured(*value) for value in values]
    shown = unit(KID, group)
    assert shown.label == "KID × 1000"
    assert [shown.with_error(m) for m in group] == texts


def test_only_kid_is_scaled():
    assert unit(FID, [measured(135.43, name=FID)]).with_error(measured(135.43, name=FID)) == "135.4"
    assert unit("sw2@x", []).label == "sw2"


def test_a_warning_is_given_once_with_its_places():
    both, one = "Few photos.", "Biased."
    rows = tuple(
        row(role, measured(0.04, warnings=[both]), measured(9.0, name=FID, warnings=[one]))
        for role in ("before", "after", "floor")
    )
    found = warnings(report(rows=rows, closed=None))
    assert found == [("KID: before, after, floor", both), ("FID: before, after, floor", one)]
    shares = (measured(0.4, warnings=[one]),)
    assert warnings(replace(report(rows=rows), closed=shares))[1] == ("FID, KID: before, after, floor, gap closed", one)


def test_what_is_kept_is_told_in_markdown_and_html():
    text = to_markdown(report(kept=KEPT))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["gradient correlation `gradient-correlation`", "0.921 ± 0.006", "0.910 to 0.932", "200"] in lines
    assert ["edge F-score `edge-f-score`", "0.89 ± 0.01", "0.87 to 0.92", "200"] in lines
    note = "accuracy before 98 %, after 86 %, chance 5 % (20 classes)"
    assert [f"label probe `label-probe@efficientnet-lite0`: {note}", "88 % ± 2 %", "84 % to 92 %", "240"] in lines
    assert "- 3 pairs of images of different size were left out. (edge F-score: kept)" in text
    page = plain_text(to_html(report(kept=KEPT)))
    for part in ("Structure and labels", "0.921 ± 0.006", "88 % ± 2 %", note):
        assert part in page
    assert "Structure and labels" not in plain_text(to_html(report()))
    assert "kept of the raw images" not in to_markdown(report())


# Markdown


def test_markdown_of_a_long_report_stays_short():
    many = [(f"class/{i}", "empty file (0 bytes)") for i in range(5000)]
    sentences = [f"warning {i}" for i in range(40)]
    rows = tuple(
        row(role, measured(0.04, 0.001, warnings=sentences), measured(99.0, name=FID), skipped=many)
        for role in ("before", "after", "floor")
    )
    licences = tuple(
        {"key": f"p{i}", "licence": "CC0-1.0", "author": "A", "source": "https://x.org"} for i in range(99)
    )
    text = to_markdown(report(rows=rows, licences=licences))
    assert len(text.splitlines()) <= 60
    for count in ("(40)", "(15,000)", "(99)", "and 35 more", "and 14,995 more", "and 94 more"):
        assert count in text


def test_markdown_table_holds_every_number():
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in to_markdown(report()).splitlines()]
    assert ["KID × 1000 `kid@efficientnet-lite0`", "before", "48.2 ± 1.1", "46.0 to 50.4", "1,000", "500"] in lines
    assert ["", "floor", "1.3 ± 0.4", "0.5 to 2.1", "1,000", "500"] in lines
    assert ["", "gap closed", "41 % ± 6 %", "29 % to 53 %", "1,000", "500"] in lines


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
    )


def tokens(markdown):
    def flat(found):
        for token in found:
            yield token.type
            yield from flat(token.children or ())

    return list(flat(MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)))


MARKUP = st.text(st.sampled_from("ab<>/\"'`*_[]()!|\\&#@~-+=:.1)\n\r\t \x00\x1b\u202e\udcffé"), min_size=1, max_size=24)


@given(MARKUP)
@settings(max_examples=100, deadline=None)
def test_no_text_changes_the_structure_of_the_markdown(text):
    allowed = {"text", "text_special", "code_inline", "softbreak"}
    plain = [token for token in tokens(to_markdown(hostile_report("plain"))) if token not in allowed]
    hostile = [token for token in tokens(to_markdown(hostile_report(text))) if token not in allowed]
    assert hostile == plain


def test_markdown_neither_mentions_nor_colours():
    text = to_markdown(hostile_report(HOSTILE))
    assert "\x1b" not in text
    assert not re.search(r"(?<![\w`])@everyone", re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text))


# HTML


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
        self.skip += tag in ("style", "title")

    def handle_endtag(self, tag):
        self.skip -= tag in ("style", "title")

    def handle_data(self, data):
        if not self.skip:
            self.texts.append(data)


def plain_text(html):
    return re.sub(r"\s+", " ", "".join(Page(html).texts).replace("\u00a0", " "))


def test_hostile_text_stays_text():
    html = to_html(hostile_report(HOSTILE))
    assert Page(html).tags == Page(to_html(hostile_report("plain"))).tags
    assert "<script" not in html
    assert "<script>alert(1)</script>" in plain_text(html)


@given(MARKUP)
@settings(max_examples=60, deadline=None)
def test_no_text_changes_the_structure_of_the_page(text):
    assert Page(to_html(hostile_report(text))).tags == Page(to_html(hostile_report("plain"))).tags


def test_the_page_fetches_nothing(tmp_path):
    image = save(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    source = "https://example.org/photo?a=1&b=2"
    licences = (
        {"key": "a", "licence": "CC0-1.0", "author": "A", "source": source},
        {"key": "b", "licence": "CC0-1.0", "author": "B", "source": "javascript:alert(1)"},
    )
    html = to_html(report(licences=licences, examples=(Example("a", image, image, None, image),)))
    page = Page(html)
    outside = [entry for entry in page.addresses if not entry[2].startswith(("data:", "#"))]
    assert outside == [("a", "href", source)]
    assert all(value.startswith("data:image/jpeg;base64,") for tag, _, value in page.addresses if tag == "img")
    assert {"script", "iframe", "object", "embed", "form"}.isdisjoint(tag for tag, _ in page.tags)
    assert not re.search(r"url\(|@import|@font-face", html)
    assert "default-src 'none'" in html
    assert "javascript:alert(1)" in plain_text(html)  # shown, never linked
    targets = set(re.findall(r'id="([^"]+)"', html))
    assert {value[1:] for _, _, value in page.addresses if value.startswith("#")} <= targets


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("https://example.org/a?b=c&d", True),
        ("http://example.org", True),
        ("HTTPS://EXAMPLE.ORG", True),
        ("javascript:alert(1)", False),
        ("JaVaScRiPt:alert(1)", False),
        ("data:text/html,<b>", False),
        ("file:///etc/passwd", False),
        ("//example.org", False),
        ("example.org", False),
        ("https://", False),
        ("https://[", False),
        ("https://example.org/a b", False),
        ("java\nscript:alert(1)", False),
        ("", False),
    ],
)
def test_only_web_addresses_become_links(text, good):
    assert link(text) == (text if good else None)


def test_the_page_names_everything():
    skipped = [(f"class/{i}", "empty file (0 bytes)") for i in range(300)]
    rows = (row("after", measured(0.03, 0.001, warnings=["Only 3 independent photos."]), skipped=skipped),)
    text = plain_text(to_html(report(rows=rows, closed=None, licences=())))
    expected = (
        "Only 3 independent photos.",
        "300 skipped images",
        "The first 200",
        "class/199",
        "efficientnet-lite0",
        "9f3c",
        "versions.torch",
        "No licence entries are known",
        "KID × 1000",
    )
    for part in expected:
        assert part in text
    assert "class/200" not in text
    assert "Examples" not in text


def test_settings_are_flattened_in_order():
    assert flatten({"b": {"y": [1, 2], "x": None}, "a": "text", "c": {}}) == [
        ("a", "text"),
        ("b.x", "null"),
        ("b.y", "[1, 2]"),
        ("c", "{}"),
    ]


# Chart


def test_marks_lie_where_the_axis_says():
    drawn = chart(blocks(report())[0])
    assert [label for _, label in drawn.ticks] == ["0", "20", "40", "60"]
    before, after, floor = drawn.marks
    assert before.at == pytest.approx(48.2 / 60 * 100, abs=1e-3)
    assert after.low == pytest.approx(27.2 / 60 * 100, abs=1e-3)
    assert after.high == pytest.approx(30.8 / 60 * 100, abs=1e-3)
    assert drawn.floor == floor.at
    assert drawn.moved == (after.at, before.at)
    assert not drawn.away
    assert chart(blocks(report(after=(0.06, 0.001)))[0]).away


def test_no_bar_without_an_interval_and_no_mark_without_a_number():
    drawn = chart(blocks(report(after=(0.03, None), floor=(math.nan, None)))[0])
    assert (drawn.marks[1].low, drawn.marks[1].high) == (None, None)
    assert drawn.marks[2].at is None
    assert drawn.floor is None
    bars = re.compile('class="bar"')
    three = len(bars.findall(to_html(report())))
    assert three == 9
    assert len(bars.findall(to_html(report(after=(0.03, None))))) == 6


@given(
    st.floats(-1e12, 1e12, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-9),
    st.floats(-1e12, 1e12, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-9),
)
@settings(deadline=None)
def test_ticks_are_round_even_and_enclose(a, b):
    low, high = min(a, b), max(a, b)
    ticks = ticks_over(low, high)
    step = ticks[1] - ticks[0]
    slack = 1e-6 * step + 1e-9 * max(abs(low), abs(high))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 7
    assert np.allclose(np.diff(ticks), step, rtol=1e-3)


@given(st.lists(st.floats(), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_no_number_breaks_the_page(values):
    before, after, floor = values
    to_html(report(before=(before, 0.1), after=(after, None), floor=(floor, 0.0), closed=(after, before)))


# Thumbnails


def pixels(uri):
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def test_the_style_box_is_cut_out(tmp_path):
    photo = np.zeros((300, 500, 3), np.uint8)
    photo[:, :250, 0] = 255
    photo[100:200, 300:400] = (0, 0, 255)
    path = save(tmp_path / "photo.png", photo)
    ((_, cells),) = grid((Example("a", path, path, (300, 100, 100), path),))
    content, style, result = (pixels(cell.uri) for cell in cells)
    assert content.shape == result.shape == (154, 256, 3)
    assert style.shape == (100, 100, 3)
    assert np.abs(style.astype(int) - (0, 0, 255)).max() < 8
    assert np.abs(content[:, :100].astype(int) - (255, 0, 0)).max() < 8


def test_thumbnails_match_a_plain_resize(tmp_path):
    rng = np.random.default_rng(0)
    smooth = np.asarray(Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((640, 640)))
    path = save(tmp_path / "a.png", smooth)
    ((_, (cell,)),) = grid((Example("a", None, None, None, path),))
    expected = np.asarray(Image.fromarray(smooth).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    assert (cell.width, cell.height) == (SIDE, SIDE)
    assert np.abs(pixels(cell.uri).astype(int) - expected).mean() < 3


def test_files_that_cannot_be_shown_are_said_so(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    good = save(tmp_path / "good.png", np.full((64, 64, 3), 9, np.uint8))
    examples = (
        Example("gone", str(tmp_path / "gone.png"), good, (60, 60, 10), good),
        Example("bad", str(tmp_path / "bad.png"), None, None, "nul\0.png"),
        Example("folder", str(tmp_path), good, (-1, 0, 10), "x" * 5000 + ".png"),
    )
    notes = [[cell.note for cell in cells] for _, cells in grid(examples)]
    assert notes[0][0] == "cannot be shown: the file is gone"
    assert "style box (60, 60, 10) lies outside the photo of 64x64" in notes[0][1]
    assert notes[0][2] == ""
    assert notes[1][0].startswith("cannot be shown: not an image")
    assert notes[1][1] == "none"
    assert notes[1][2].startswith("cannot be shown: ")
    assert all(note.startswith("cannot be shown: ") for note in notes[2])
    assert "the file is gone" in plain_text(to_html(report(examples=examples)))


def test_columns_that_no_example_fills_are_left_out(tmp_path):
    path = save(tmp_path / "a.png", np.full((64, 64, 3), 9, np.uint8))
    cells = [cells for _, cells in grid((Example("a", None, None, None, path), Example("b", path, None, None, path)))]
    assert [[cell.column for cell in row] for row in cells] == [["content", "result"]] * 2
    assert cells[0][0].note == "none"


def test_the_page_stays_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    coarse = save(tmp_path / "coarse.png", np.kron(noise[:64, :64], np.ones((4, 4, 1), np.uint8)))
    fine = save(tmp_path / "fine.png", noise[:256, :256])
    examples = tuple(Example(f"k{i}", fine, coarse, None, fine) for i in range(ROWS + 5))
    html = to_html(report(examples=examples))
    assert len(html) < 6_000_000  # pure noise is the worst that a JPEG can meet
    assert html.count("<img ") == 3 * ROWS
    assert f"The first {ROWS} of {ROWS + 5}." in plain_text(html)


# Files


def test_three_files_are_written_with_common_permissions(tmp_path):
    folder = tmp_path / "new" / "folder"
    write_report(report(), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json", "report.md"]
    assert from_json((folder / "report.json").read_text(encoding="utf-8")) == report()
    assert (folder / "report.md").read_text(encoding="utf-8") == to_markdown(report())
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE((folder / "report.html").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_report_that_fails_leaves_the_old_one_whole(tmp_path, monkeypatch):
    write_report(report(), tmp_path)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        write_report(report(config={"bad": object()}, closed=None), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        write_report(report(closed=None), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(report(), tmp_path / "file")


def test_file_names_that_are_not_unicode_can_be_written(tmp_path):
    write_report(report(examples=(Example("a\udcff", None, None, None, "b\udcfe"),)), tmp_path)
    assert "a\\udcff" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_photos_without_a_licence_are_named():
    named = report(unlicensed=("holiday<1>",))
    assert "Real images without a licence entry (1)" in to_markdown(named)
    assert "<code>holiday&lt;1&gt;</code>" in to_html(named)
    assert from_json(to_json(named)) == named
