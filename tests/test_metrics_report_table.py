"""Numbers and their units, and what a report says in rows of text."""

import math
from dataclasses import replace

import pytest
from gap_reports import FID, KEPT, KID, measured, parts, plain_text, report, row

from metrics.report import to_html, to_markdown
from metrics.report.table import (
    CHANGE,
    blocks,
    low_level_lines,
    low_level_sentences,
    permuted_statistics,
    slice_lines,
    slice_units,
    warnings,
)
from metrics.report.unit import figures, listed, p_value, unit


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


def test_only_kernel_distances_of_small_numbers_are_scaled():
    assert unit("rbf@x", []).label == "RBF MMD × 1000"
    assert unit("energy@x", []).label == "energy distance"
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


@pytest.mark.parametrize(
    ("name", "higher", "text"),
    [("precision", True, "0.543"), ("coverage", True, "0.543"), ("c2st", False, "0.543"), ("cmmd", False, "0.5432")],
)
def test_shares_have_three_digits_and_some_are_better_when_higher(name, higher, text):
    shown = unit(f"{name}@x", [measured(0.54321)])
    assert shown.number(0.54321) == text
    assert (shown.higher, shown.direction) == (higher, "higher" if higher else "lower")
    assert shown.closer(0.2, 0.1) is higher
    assert not shown.closer(0.1, 0.1)


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.005, "0.005"), (0.3412, "0.34"), (1.0, "1"), (0.00012, "0.00012"), (9e-5, "< 0.0001"), (None, "–")],
)
def test_p_values_have_two_figures(p, text):
    assert p_value(p) == text
    assert p_value(math.nan) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.0123"),
        (-12.345, "−12.3"),
        (1234.5, "1,234"),
        (0.0, "0"),
        (3.2e-7, "3.20e−07"),
        (math.inf, "undefined"),
    ],
)
def test_figures_are_three(value, text):
    assert figures(value) == text


def test_words_are_listed():
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_the_change_stands_before_the_gap_closed():
    (block,) = blocks(report(change=(measured(-0.0192, 0.0006, p=0.01),)))
    assert [line.role for line in block.lines] == ["before", "after", "floor", CHANGE, "gap closed"]
    assert (block.lines[3].value, block.lines[3].p) == ("−19.2 ± 0.6", "0.01")


def test_slices_come_worst_first():
    lines = slice_lines(report(**parts()))
    assert [line.slice.name.split()[0] for line in lines] == ["rock", "bark", "empty"]
    assert [(line.value, line.p, line.p_adjusted) for line in lines] == [
        ("40.0 ± 5.0", "0.002", "0.006"),
        ("10.0 ± 4.0", "0.3", "0.6"),
        ("undefined", "–", "–"),
    ]
    assert slice_units(report(**parts())) == "KID × 1000"
    swapped = [replace(s, measurement=replace(s.measurement, name="recall@x")) for s in parts()["slices"]]
    assert [line.slice.name.split()[0] for line in slice_lines(report(slices=tuple(swapped)))] == [
        "bark",
        "rock",
        "empty",
    ]


def test_low_level_differences_come_largest_first():
    told = report(**parts())
    assert low_level_sentences(told) == [
        "The power spectrum falls faster.",
        "The synthetic images are more saturated: 61 %.",
    ]
    assert [(line.found.name, line.difference, line.effect) for line in low_level_lines(told)] == [
        ("spectral slope", "−0.290 ± 0.060", "−2.50"),
        ("saturation", "29.8 ± 2.2", "+2.10"),
        ("lightness", "−3.700", "−0.22"),
    ]


def test_warnings_of_all_parts_are_told():
    found = warnings(report(**parts()))
    assert found == [("KID: slices", "Only one image."), ("permutation test: after", "Whole groups were permuted.")]
    assert permuted_statistics(parts()["permuted"]) == "KID, RBF MMD and energy distance"
