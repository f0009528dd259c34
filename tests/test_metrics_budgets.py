"""Budgets: every form that is read, and the sentence for every form that is not."""

import pytest

from metrics.budget_gate.budgets import Budget, Budgets, combine, from_flags, from_mapping, parse_budgets, read_budgets
from metrics.errors import InputError

FILE = """
confidence = 0.9
[after.kid]
max = 0.05
[after."fid@efficientnet-lite0"]
max = 60
value_only = true
[closed.kid]
min = 0.3
[kept.label-probe]
min = 0.95
[change.kid]
max = 0
[slices.kid]
max = 0.08
[baseline.kid]
max_increase = 0.002
[baseline.precision]
max_decrease = 0.01
"""


def test_a_file_is_read_in_its_order():
    found = parse_budgets(FILE)
    assert found.confidence == 0.9
    assert found.budgets == (
        Budget("after", "kid", "max", 0.05),
        Budget("after", "fid@efficientnet-lite0", "max", 60.0, True),
        Budget("closed", "kid", "min", 0.3),
        Budget("kept", "label-probe", "min", 0.95),
        Budget("change", "kid", "max", 0.0),
        Budget("slices", "kid", "max", 0.08),
        Budget("baseline", "kid", "max", 0.002),
        Budget("baseline", "precision", "min", -0.01),
    )


def test_flags_say_the_same_as_a_file():
    flags = from_flags(
        maximum=["kid=0.05", "slices.kid=0.08", "change.kid=0"],
        minimum=["closed.kid=0.3", "kept.label-probe=0.95"],
        max_increase=["kid=0.002"],
        max_decrease=["precision=0.01"],
    )
    in_file = set(parse_budgets(FILE).budgets)
    assert set(flags) == {budget for budget in in_file if not budget.value_only}


def test_a_name_may_hold_dots_and_an_extractor():
    assert from_flags(maximum=["kid@timm:resnet18.a1_in1k=0.1"])[0].metric == "kid@timm:resnet18.a1_in1k"
    assert from_flags(maximum=["closed.kid@timm:x.y=0.1"])[0] == Budget("closed", "kid@timm:x.y", "max", 0.1)


def test_max_and_min_of_one_table_are_two_budgets():
    both = from_mapping({"after": {"precision": {"min": 0.6, "max": 0.9}}}).budgets
    assert [(b.side, b.limit) for b in both] == [("max", 0.9), ("min", 0.6)]


def test_file_and_flags_combine_and_flags_decide_the_confidence():
    file = parse_budgets("confidence = 0.9\n[after.kid]\nmax = 1")
    both = combine(file, from_flags(maximum=["fid=60"]), 0.99, ["fid"])
    assert both == Budgets((Budget("after", "kid", "max", 1.0), Budget("after", "fid", "max", 60.0, True)), 0.99)
    assert combine(file, (), None, ()).confidence == 0.9
    assert combine(None, from_flags(maximum=["kid=1"]), None, ()).confidence == 0.95


def test_budgets_read_as_sentences():
    texts = [str(budget) for budget in parse_budgets(FILE).budgets]
    assert texts[:3] == ["kid ≤ 0.05", "fid@efficientnet-lite0 ≤ 60", "closed.kid ≥ 0.3"]
    assert texts[-1] == "baseline.precision ≥ -0.01"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no budget given. Write one as --max kid=0.05"),
        ("confidence = 0.9", "no budget given"),
        ("[after.kid\nmax = 1", "line 1"),
        ("[after.kid]\nmax = = 1", "line 2, column 7"),
        ("[after.kid@dinov2]\nmax = 1", 'Names with @ need quotes: [after."kid@dinov2"]'),
        ("[aftr.kid]\nmax = 1", "unknown table 'aftr'. Did you mean 'after'?"),
        ("[permuted]\nmin_p = 0.05", "unknown table 'permuted'"),
        ("[after.kid]\nmaks = 1", "unknown key of [after.kid] 'maks'. Did you mean 'max'?"),
        ("[after.kid]\nmax_increase = 1", "unknown key of [after.kid] 'max_increase'"),
        ("[baseline.kid]\nmax = 1", "unknown key of [baseline.kid] 'max'. Known: max_decrease"),
        ("[after.kid]", "[after.kid] bounds nothing. Expected max or min = NUMBER"),
        ("[after]\nkid = 0.05", "after.kid = 0.05. Expected a table such as"),
        ("after = 1", "after = 1. Expected a table"),
        ("[after.kid]\nmax = '0.05'", "[after.kid] max = '0.05'. Expected a finite number"),
        ("[after.kid]\nmax = true", "Expected a finite number"),
        ("[after.kid]\nmax = nan", "[after.kid] max = nan. Expected a finite number"),
        ("[after.kid]\nmax = inf", "Expected a finite number"),
        (f"[after.kid]\nmax = 1{'0' * 400}", "Expected a finite number"),
        ("[after.kid]\nmax = 1\nvalue_only = 1", "value_only = 1. Expected true or false"),
        ("[after.kid]\nmax = 0.1\nmin = 0.2", "the least allowed value, 0.2, is above the most allowed one"),
        ("confidence = 95\n[after.kid]\nmax = 1", "confidence = 95. Expected more than 0.5 and less than 1"),
        ("confidence = 'high'\n[after.kid]\nmax = 1", "confidence = 'high'. Expected a finite number"),
        ("a=" + "[" * 5000, "budgets: "),
    ],
)
def test_refused_with_the_reason(text, message):
    with pytest.raises(InputError) as refused:
        parse_budgets(text)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"maximum": ["kid"]}, "'kid' is no budget. Expected NAME=NUMBER, such as kid=0.05"),
        ({"maximum": ["=1"]}, "is no budget"),
        ({"maximum": ["kid=big"]}, "is no budget"),
        ({"minimum": ["kid=nan"]}, "is no budget"),
        ({"maximum": ["close.kid=1"]}, "unknown place 'close'. Did you mean 'closed'"),
        ({"maximum": ["baseline.kid=1"]}, "unknown place 'baseline'"),
        ({"max_increase": ["closed.kid=1"]}, "only metrics of the set under test are compared with a baseline"),
    ],
)
def test_flags_refused_with_the_reason(flags, message):
    with pytest.raises(InputError) as refused:
        from_flags(**flags)
    assert message in str(refused.value)


def test_value_only_must_name_a_budget():
    with pytest.raises(InputError, match=r"'fdi'\. Did you mean 'fid'"):
        combine(None, from_flags(maximum=["fid=1"]), None, ["fdi"])


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: budgets cannot be read \(No such file"):
        read_budgets(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"bad\.toml: budgets cannot be read \(not UTF-8 text\)"):
        read_budgets(tmp_path / "bad.toml")
    (tmp_path / "b.toml").write_text("[after.kid]\nmaks = 1")
    with pytest.raises(InputError, match=r"b\.toml: unknown key"):
        read_budgets(tmp_path / "b.toml")
