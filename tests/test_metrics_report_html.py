"""A report as a page: nothing is fetched, no text is markup."""

import base64
import hashlib
import html as markup
import re

import numpy as np
import pytest
from gap_reports import HOSTILE, MARKUP, Page, hostile_report, measured, parts, plain_text, report, row, save
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.comparison.gap_report import Example, Explained, Point, Slice
from metrics.report import to_html
from metrics.report.html import flatten, link
from metrics.statistics.measurement import LowLevel


def test_hostile_text_stays_text():
    html = to_html(hostile_report(HOSTILE))
    assert Page(html).tags == Page(to_html(hostile_report("plain"))).tags
    assert html.count("<script") == 1
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
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(name.startswith("on") for _, names in page.tags for name in names)
    assert {"iframe", "object", "embed", "form"}.isdisjoint(tag for tag, _ in page.tags)
    assert not re.search(r"url\(|@import|@font-face", html)
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


@given(st.lists(st.floats(), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_no_number_breaks_the_page(values):
    before, after, floor = values
    to_html(report(before=(before, 0.1), after=(after, None), floor=(floor, 0.0), closed=(after, before)))


def source(text):
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def test_the_policy_lets_only_this_script_and_style_run():
    page = to_html(report(**parts()))
    policy = markup.unescape(re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1])
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "script-src": source(script),
        "style-src": source(style),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert ' style="' not in page  # the policy would refuse it


def test_the_page_tells_what_explains_the_gap(tmp_path):
    image = save(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    page = to_html(report(**parts(file=image)))
    assert "<title>Stem: 200 ± 20, 95 % interval 160 to 240; n = 1,000, m = 500</title>" in page
    assert "<title>Real: photo plain</title>" in page
    text = plain_text(page)
    for part in (
        "Permutation test: p = 0.005 (199 permutations).",
        "It combines KID, RBF MMD and energy distance by their smallest p-value",
        "After − before −19.2 ± 0.6",
        "The power spectrum falls faster.",
        "Saturation % 61.2 31.4 29.8 ± 2.2 29.9 +2.10",
        "200 ± 20 stem",
        "rock plain 40.0 ± 5.0 30.0 to 50.0 0.002 0.006",
        "s/1 plain, score 0.206; nearest photo plain",
        "photo plain, score 0.140; nearest s/2 plain",
        "Under test (2)",
        "Real (1)",
    ):
        assert part in text
    assert text.index("rock plain") < text.index("bark plain") < text.index("empty plain")
    assert text.index("power spectrum") < text.index("more saturated")


def test_sections_without_content_are_left_out():
    page = to_html(report())
    ids = set(re.findall(r'id="([^"]+)"', page))
    assert ids == {"metrics", "sets", "run", "licences", "enlarged"}
    assert "Permutation test" not in page


def test_more_than_two_metrics_get_an_overview():
    rows = [
        row(role, *(measured(0.5, name=f"{name}@x") for name in ("kid", "fid", "cmmd", "recall")))
        for role in ("after", "floor")
    ]
    text = plain_text(to_html(report(rows=tuple(rows), closed=None)))
    assert "Recall ↑ 0.500 0.500" in text
    assert "CMMD ↓ 0.5000 0.5000" in text
    assert "Charts of 2 more" in text
    assert "↑" not in plain_text(to_html(report()))


def test_every_list_on_the_page_is_bounded(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    image = save(tmp_path / "noise.png", noise)
    long = "x" * 1000
    images = tuple(Explained(f"{i}{long}", image, 0.1, long, image) for i in range(60))
    everything = report(
        rows=(row("after", measured(0.03, 0.001, warnings=[f"{i}{long}" for i in range(900)])),),
        closed=None,
        examples=tuple(Example(f"{i}{long}", image, image, None, image) for i in range(60)),
        most_synthetic=images,
        least_covered=images,
        points=tuple(Point(f"{i}{long}", "real", float(i), 0.0) for i in range(9000)),
        slices=tuple(Slice(f"{i}{long}", "all", measured(0.01), 0.1) for i in range(3000)),
        low_level=tuple(LowLevel(f"{i}{long}", "", 1, 2, 1, 1, None, long) for i in range(900)),
        licences=({"key": long, "title": long, "author": long, "licence": "MIT"},) * 2000,
    )
    page = to_html(everything)  # pure noise is the worst that a JPEG can meet
    assert len(page) < 8_000_000
    assert page.count("<img ") == 24 * 3 + 2 * 12 * 2
    assert page.count("<circle") == 2000 + 3 + 1  # and the legend, and the chart
    text = plain_text(page)
    for part in (
        "896 more",
        "The first 100; report.json lists all.",
        "report.json lists 2000 more",
        "7,000 more images are left out",
        "And 1500 more;",
    ):
        assert part in text
