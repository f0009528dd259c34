"""A gate result as JUnit XML, which GitLab, Jenkins, Azure, CircleCI and most GitHub test reporters show.

A budget that fails is a ``failure``; one that is inconclusive is an ``error`` of type "inconclusive": in JUnit an error
is a test that came to no verdict. ``skipped`` would be shown as harmless, and the command's exit code 3 is not.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from ..budget_gate.gate import Check, GateResult
from ..escapes import escaped
from .files import write_files

SUITE = "domain-gap"
ELEMENTS = {"fail": "failure", "inconclusive": "error"}


def to_junit(result: GateResult) -> str:
    """JUnit XML with one test case per check, classname ``domain-gap.PLACE``; same result, same text."""
    verdicts = [check.verdict for check in result.checks]
    counts = {"tests": len(verdicts), "failures": verdicts.count("fail"), "errors": verdicts.count("inconclusive")}
    totals = {"name": SUITE, **{name: str(count) for name, count in counts.items()}, "time": "0"}
    root = ElementTree.Element("testsuites", totals)
    suite = ElementTree.SubElement(root, "testsuite", {**totals, "skipped": "0"})
    for check in result.checks:
        _case(suite, check)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def write_junit(result: GateResult, path: str | Path) -> None:
    """Write ``to_junit`` to ``path``; its folder is made when missing.

    Args:
        result: of ``gate``.
        path: the file to write.

    Raises:
        InputError: the file cannot be written.
    """
    write_files(Path(path).parent, {Path(path).name: to_junit(result)})


def _case(suite: ElementTree.Element, check: Check) -> None:
    sign = "≤" if check.budget.side == "max" else "≥"
    name = _legal(f"{check.name} {sign} {check.budget.limit:g}")
    place = {"classname": f"{SUITE}.{check.budget.place}", "name": name, "time": "0"}
    case = ElementTree.SubElement(suite, "testcase", place)
    sentence = _legal(check.sentence)
    if check.verdict == "pass":
        ElementTree.SubElement(case, "system-out").text = sentence
    else:
        kind = "budget" if check.verdict == "fail" else "inconclusive"
        found = ElementTree.SubElement(case, ELEMENTS[check.verdict], {"message": sentence, "type": kind})
        found.text = sentence


def _legal(text: str) -> str:
    """One line without the characters that XML 1.0 cannot hold, or that write into the log of who shows it."""
    return re.sub(r"[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", escaped(text))
