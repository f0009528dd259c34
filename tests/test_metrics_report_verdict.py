"""What the verdict says of which numbers."""

import math

import pytest
from gap_reports import measured, plain_text, report, row

from metrics.comparison.gap_report import Permuted
from metrics.report import to_html, to_markdown, verdict


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
            "No domain gap found: the set is as close to the real images as the floor.",
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


@pytest.mark.parametrize(
    ("p", "sentence"),
    [
        (0.005, "The set can be told from the real images: p = 0.005 (199 permutations)."),
        (0.05, "The set can be told from the real images: p = 0.05 (199 permutations)."),
        (0.341, "The set cannot be told from the real images: p = 0.34 (199 permutations)."),
        (0.00001, "The set can be told from the real images: p < 0.0001 (199 permutations)."),
    ],
)
def test_verdict_says_whether_the_sets_can_be_told_apart(p, sentence):
    tested = report(permuted=Permuted(p, 199, ("kid",)))
    assert verdict(tested).detail.endswith(sentence)
    assert verdict(tested).headline == verdict(report()).headline
    assert "told from" not in verdict(report(permuted=Permuted(math.nan, 0, ()))).detail


def test_a_test_that_cannot_reach_its_level_tells_nothing():
    detail = verdict(report(permuted=Permuted(0.25, 3, ("kid",)))).detail
    assert detail.endswith("Too few permutations to tell: p = 0.25 (3 permutations).")
    assert "cannot be told" in verdict(report(permuted=Permuted(0.25, 19, ("kid",)))).detail


def test_a_set_that_can_be_told_apart_is_not_said_to_have_no_gap():
    near = {"before": None, "after": (0.001, 0.0009), "closed": None}
    apart = verdict(report(**near, permuted=Permuted(0.005, 199, ("kid",))))
    assert apart.tone == "unclear"
    assert apart.headline.endswith("as close to the real images as the floor, and yet it can be told from them.")
    assert verdict(report(**near, permuted=Permuted(0.5, 199, ("kid",)))).headline.startswith("No domain gap found")
    over = {"before": None, "after": (0.002, 0.0009), "closed": None}
    told = verdict(report(**over, permuted=Permuted(0.005, 199, ("kid",)))).headline
    assert told == "A gap, but the error bars of the set and the floor overlap, so its size is uncertain."


def test_where_higher_is_closer_the_verdict_turns_round():
    def coverage(after, floor=0.9, before=None):
        values = {"before": before, "after": after, "floor": floor}
        rows = [row(role, measured(v, name="coverage@x")) for role, v in values.items() if v is not None]
        return verdict(report(rows=tuple(rows), closed=None))

    assert coverage(0.4).headline == "The domain gap is 0.500 below the floor (coverage)."
    assert "higher is closer" in coverage(0.4).detail
    assert coverage(0.95).headline.startswith("No domain gap found")
    assert coverage(0.6, before=0.4).headline == "The stylised set is closer to the real images than the raw set."
    assert coverage(0.3, before=0.4).headline == "The stylised set is no closer to the real images than the raw set."
    assert coverage(0.6, before=0.95).headline.startswith("There is no gap to close")
