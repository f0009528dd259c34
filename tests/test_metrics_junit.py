"""JUnit XML and scalars: what other programs read from a gate result."""

import json
import math
from xml.etree import ElementTree

import pytest
from test_metrics_gate import budgets, measured, report

from metrics.budget_gate.gate import gate
from metrics.comparison.gap_report import Kept, Permuted, Row, SetSummary, Slice
from metrics.errors import InputError
from metrics.report.junit import to_junit, write_junit
from metrics.report.scalars import scalars, write_scalars

# The common grammar of Jenkins' and Maven's JUnit schemas: required and optional attributes, and children in order.
GRAMMAR = {
    "testsuites": ({"name", "tests", "failures", "errors"}, {"time", "disabled"}, ["testsuite"]),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time"},
        {"disabled", "hostname", "id", "package", "timestamp"},
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "testcase": (
        {"name", "classname", "time"},
        {"status", "assertions", "file", "line"},
        ["skipped", "error", "failure", "system-out", "system-err"],
    ),
    "failure": ({"message", "type"}, set(), []),
    "error": ({"message", "type"}, set(), []),
    "system-out": (set(), set(), []),
}


def check_grammar(element):
    required, optional, children = GRAMMAR[element.tag]
    assert required <= set(element.attrib) <= required | optional
    order = [children.index(child.tag) for child in element]
    assert order == sorted(order)
    for name in ("tests", "failures", "errors", "skipped", "time"):
        assert element.get(name, "0").isdigit()
    for child in element:
        check_grammar(child)


def example():
    return gate(report(measured(0.04, 0.001)), budgets(maximum=["kid=0.05", "kid=0.03", "kid=0.0401"]))


def test_every_verdict_has_its_element():
    result = example()
    root = ElementTree.fromstring(to_junit(result))
    check_grammar(root)
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    passed, failed, undecided = suite
    assert [child.tag for child in passed] == ["system-out"]
    assert passed.get("name") == "kid@efficientnet-lite0 ≤ 0.05" and passed.get("classname") == "domain-gap.after"
    assert failed.find("failure").get("message") == failed.find("failure").text == result.checks[1].sentence
    assert undecided.find("error").get("type") == "inconclusive" and "more images" in undecided.find("error").text


def test_no_name_breaks_the_xml():
    hostile = "</testsuite>&\"'<!-- ]]> \x00\x1b[31m\ud800\uffff\n"
    made = report(measured(0.04, 0.001), slices=(Slice(hostile, "all", measured(0.05, 0.001)),))
    root = ElementTree.fromstring(to_junit(gate(made, budgets(maximum=["slices.kid=0.01"]))).encode())
    check_grammar(root)
    assert "</testsuite>&\"'<!-- ]]> " in root[0][0].get("name") and "\ufffd" in root[0][0].get("name")


def test_the_file_is_written_whole_into_a_new_folder(tmp_path):
    result = example()
    write_junit(result, tmp_path / "new" / "junit.xml")
    assert (tmp_path / "new" / "junit.xml").read_text(encoding="utf-8") == to_junit(result)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["junit.xml"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_junit(result, tmp_path / "file" / "junit.xml")


# Scalars


def full():
    half = 0.01
    return report(
        measured(0.04, 0.001),
        closed=(measured(math.nan),),
        change=(measured(-0.02, 0.002),),
        kept=(Kept("edge-f-score", 0.9, half, 0.88, 0.92, 100),),
        slices=tuple(Slice(name, "all", measured(0.05)) for name in ("a b", "a/b", "ok")),
        permuted=Permuted(0.005, 199, ("kid",)),
    )


def test_scalars_are_flat_finite_numbers_with_names_that_trackers_take():
    made = full()
    found = scalars(made, gate(made, budgets(maximum=["kid=0.05"])))
    assert found["after/kid/value"] == 0.04 and found["after/kid/se"] == 0.001 and found["change/kid/value"] == -0.02
    assert found["kept/edge-f-score/value"] == 0.9 and found["permuted/p"] == 0.005
    assert found["slices/a_b/kid/value"] == found["slices/a_b/kid-2/value"] == found["slices/ok/kid/value"] == 0.05
    assert (found["gate/pass"], found["gate/fail"], found["gate/inconclusive"]) == (1.0, 0.0, 0.0)
    assert not any(name.startswith("closed") for name in found)
    assert all(type(value) is float and math.isfinite(value) for value in found.values())
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_./-") for name in found)


def test_all_rows_are_there():
    rows = tuple(Row(role, SetSummary("x", 4, 4), (measured(0.1),)) for role in ("before", "after", "floor"))
    assert list(scalars(report(rows=rows))) == [f"{row.role}/kid/value" for row in rows]


def test_the_file_holds_the_same_numbers_nested(tmp_path):
    made = full()
    write_scalars(made, tmp_path / "metrics.json")
    nested = json.loads((tmp_path / "metrics.json").read_text())

    def flat(tree, place=""):
        for name, value in tree.items():
            yield from flat(value, f"{place}{name}/") if isinstance(value, dict) else [(place + name, value)]

    assert dict(flat(nested)) == scalars(made)
    assert nested["after"]["kid"]["value"] == 0.04
