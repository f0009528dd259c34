"""Where the marks of the charts and of the map lie."""

import math
import re
from itertools import pairwise

import numpy as np
import pytest
from gap_reports import KID, measured, parts, report, row
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.comparison.gap_report import Explained, Point
from metrics.report import to_html
from metrics.report.chart import chart, layer_of, profile_chart, ticks_over
from metrics.report.scatter import POINTS, WIDTH, scatter
from metrics.report.table import blocks


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


def test_the_profile_has_one_row_per_layer():
    drawn = profile_chart(parts()["profile"])
    assert [mark.label for mark in drawn.marks] == ["stem", "head"]
    assert drawn.marks[0].at == pytest.approx(200 / 300 * 100, abs=1e-3)
    assert drawn.marks[0].tip == "Stem: 200 ± 20, 95 % interval 160 to 240; n = 1,000, m = 500"
    assert profile_chart(()) is None


@pytest.mark.parametrize(
    ("name", "layer"),
    [(f"{KID}/blocks.2", "blocks.2"), ("kid@timm:resnet50/layer1", "layer1"), (KID, "output"), ("", "output")],
)
def test_layers_are_named_by_what_follows_the_network(name, layer):
    assert layer_of(name) == layer


def test_where_higher_is_closer_a_fall_moves_away():
    rows = [row(role, measured(value, name="recall@x")) for role, value in (("before", 0.6), ("after", 0.4))]
    assert chart(blocks(report(rows=tuple(rows), closed=None))[0]).away


def test_the_map_keeps_proportions_and_has_its_points_inside():
    points = (Point("a", "after", 0.0, 0.0), Point("b", "real", 4.0, 0.0), Point("c", "real", 0.0, -1.0))
    drawn = scatter(report(points=points))
    at = {dot.key: (dot.x, dot.y) for dot in drawn.dots}
    assert at["b"][0] - at["a"][0] == pytest.approx(4 * (at["c"][1] - at["a"][1]), abs=0.5)
    assert all(0 < dot.x < WIDTH and 0 < dot.y < drawn.height for dot in drawn.dots)
    assert scatter(report()) is None
    assert scatter(report(points=(Point("a", "after", math.nan, 0.0),))) is None


def test_images_to_blame_lie_on_top_and_are_never_thinned_away():
    points = tuple(Point(f"{i}", "after" if i % 3 else "real", i / 7, float(i % 5)) for i in range(5 * POINTS))
    worst = (Explained("4321", "", 1.0, "0", ""),)
    drawn = scatter(report(points=points, most_synthetic=worst))
    assert len(drawn.dots) == len({dot.key for dot in drawn.dots}) == POINTS
    assert drawn.left_out == 4 * POINTS
    assert drawn.dots[-1].key == "4321" and drawn.dots[-1].named
    assert sum(dot.named for dot in drawn.dots) == 1
    keys = sorted(int(dot.key) for dot in drawn.dots)
    assert max(b - a for a, b in pairwise(keys)) <= 6  # evenly: no gap beyond every fifth
    assert sum(dot.role == "real" for dot in drawn.dots) == pytest.approx(POINTS / 3, rel=0.01)


@given(st.lists(st.tuples(st.floats(), st.floats()), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_no_number_breaks_the_map(places):
    drawn = scatter(report(points=tuple(Point(str(i), "real", x, y) for i, (x, y) in enumerate(places))))
    if drawn is not None:
        assert all(0 <= dot.x <= WIDTH and 0 <= dot.y <= drawn.height for dot in drawn.dots)
