"""The step summary and annotations: within GitHub's limits, and no name breaks out of its place."""

from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from test_metrics_gate import budgets, measured, report

from metrics.budget_gate.gate import gate
from metrics.comparison.gap_report import Explained, Slice
from metrics.errors import InputError
from metrics.report.step_summary import SUMMARY_BYTES, append_summary, gate_markdown, to_annotations

HOSTILE = "<script>x</script>|`a`|[x](javascript:y)\n::error::forged\r# @everyone ##[error]x\x1b[31m\ud800"


def sliced(names, limit, value=0.05):
    made = report(measured(0.04, 0.001), slices=tuple(Slice(n, "all", measured(value, 0.001)) for n in names))
    return made, gate(made, budgets(maximum=[f"slices.kid={limit}"]))


def test_table_worst_first_and_reasons():
    result = gate(report(measured(0.04, 0.001)), budgets(maximum=["kid=0.05", "kid=0.03", "kid=0.0401"]))
    text = gate_markdown(result)
    lines = text.splitlines()
    assert lines[0] == "**FAIL: of 3 checks, 1 failed, 1 inconclusive, 1 passed.**"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert [row[0] for row in cells[2:]] == ["❌ fail", "⚠️ inconclusive", "✅ pass"]
    assert cells[2][1:] == ["kid@efficientnet-lite0", "0.04 ± 0.001", "0.03837 to 0.04166", "≤ 0.03"]
    assert text.count("\n- ") == 2  # a reason for each that did not pass


def test_images_to_look_at_unless_all_passed():
    worst = tuple(Explained(f"c/{i}", None, 1.0, "r", None) for i in range(9))
    made = report(measured(0.04, 0.001), most_synthetic=worst)
    assert "Most synthetic-looking: c/0, c/1, c/2, c/3, c/4\n" in gate_markdown(
        gate(made, budgets(maximum=["kid=0.03"])), made
    )
    assert "synthetic-looking" not in gate_markdown(gate(made, budgets(maximum=["kid=0.06"])), made)


def test_names_inject_nothing():
    made, result = sliced([HOSTILE], 0.01)
    text = gate_markdown(result, made)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert "<script" not in html and "<a " not in html and "<h1" not in html
    assert not any(line.startswith("::") for line in text.splitlines()) and "##[" not in text
    assert html.count("<tr>") == 2
    lines = to_annotations(result, "b:u,d%.toml")
    assert len(lines) == 1 and "\n" not in lines[0] and "\r" not in lines[0]
    head, _, message = lines[0].removeprefix("::error ").partition("::")
    place, title = head.split(",")
    assert place == "file=b%3Au%2Cd%25.toml" and title.startswith("title=domain-gap%3A slices.kid")
    assert "%0A" in message and "\ud800" not in lines[0]


def test_an_annotation_reads_back_by_githubs_rules():
    result = gate(report(measured(0.04, 0.001)), budgets(maximum=["kid=0.03", "kid=0.0401"]))
    error, warning = to_annotations(result)
    assert error.startswith("::error title=domain-gap%3A kid@efficientnet-lite0::")
    assert error.split("::", 2)[2].replace("%25", "%") == result.checks[0].sentence
    assert warning.startswith("::warning title=")


@pytest.mark.parametrize(("count", "lines"), [(0, 0), (1, 1), (10, 10), (11, 10), (500, 10)])
def test_at_most_ten_annotations_of_a_kind(count, lines):
    _, result = sliced([f"s{i}" for i in range(max(count, 1))], 0.01 if count else 1.0)
    found = to_annotations(result)
    assert len(found) == lines
    if count > 10:
        assert found[-1] == f"::error title=domain-gap::{count - 9} more: see the step summary."


def test_a_summary_of_many_slices_stays_below_one_mebibyte(tmp_path):
    made, result = sliced([f"{'ü' * 200} {i}" for i in range(3000)], 0.01)
    path = tmp_path / "summary.md"
    append_summary(result, path, made)
    data = path.read_bytes()
    assert SUMMARY_BYTES / 3 < len(data) <= SUMMARY_BYTES
    assert "more checks do not fit here" in data.decode()
    append_summary(result, path, made)
    assert path.stat().st_size <= SUMMARY_BYTES and path.read_bytes().startswith(data)


def test_a_summary_is_appended_and_failure_to_write_is_told(tmp_path):
    _, result = sliced(["a"], 1.0)
    path = tmp_path / "summary.md"
    path.write_text("before")
    append_summary(result, path)
    assert path.read_text(encoding="utf-8") == "before\n" + gate_markdown(result)
    with pytest.raises(InputError, match="step summary cannot be written"):
        append_summary(result, tmp_path / "none" / "summary.md")


def test_images_that_could_not_be_read_are_told_even_when_all_passed():
    made = report(measured(0.04, 0.001))
    damaged = tuple((f"{i}", "truncated") for i in range(7))
    row = replace(made.rows[0], set=replace(made.rows[0].set, skipped=damaged))
    result = gate(made, budgets(maximum=["kid=0.06"]))
    assert "could not be read" not in gate_markdown(result, made)
    text = gate_markdown(result, replace(made, rows=(row,)))
    assert text.endswith("\n- 7 images under test could not be read and took no part.\n")
