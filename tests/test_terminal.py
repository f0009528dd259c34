"""What reaches a terminal or a log, and exit codes, whatever the streams, locale and warning filters are."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints
from xml.etree import ElementTree

import numpy as np
import pytest
import typer
from gap_reports import measured, report
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from metrics.assertion import _message
from metrics.budget_gate.budgets import combine, from_flags
from metrics.budget_gate.gate import gate
from metrics.commands import main as gap_cli
from metrics.commands.terminal import path, say
from metrics.comparison.gap_report import SetSummary, Slice
from metrics.escapes import escaped
from metrics.report import to_html, to_markdown, write_report
from metrics.report.junit import to_junit
from metrics.report.step_summary import gate_markdown, to_annotations
from stylize.commands import main as stylize_cli

PLANTED = "x\n::error file=a::planted\n\x1b[31m ##[error]y\u202e\u2028\x9b31m\r::warning::z"
DANGER = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]|(?m:^\\s*::)|##\\w*\\[")


def run(*words, stdout=subprocess.PIPE, flags=(), shell=None, **variables):
    """A command in a process of its own: (exit code, stdout, stderr)."""
    module = "metrics.commands.main" if words[0] == "domain-gap" else "stylize.commands.main"
    line = [sys.executable, *flags, "-c", f"import sys; sys.argv[0] = '{words[0]}'; from {module} import main; main()"]
    env = {"OMP_NUM_THREADS": "1", **os.environ, **variables}
    words = [*line, *map(str, words[1:])]
    if shell is not None:
        words = ["bash", "-c", f'"$@" {shell}; exit "${{PIPESTATUS[0]}}"', "bash", *words]
    done = subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, env=env)
    return done.returncode, (done.stdout or b"").decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A report that passes, one that fails and one that is inconclusive at --max kid=0.05."""
    root = tmp_path_factory.mktemp("reports")
    for name, value, se in (("pass", 0.01, 0.001), ("fail", 0.2, 0.001), ("unclear", 0.05, 0.02)):
        write_report(report(after=(value, se), closed=None), root / name)
    return root


VERDICTS = (("pass", 0), ("fail", 1), ("unclear", 3))


# Names are shown, not obeyed


@given(st.text(st.sampled_from("ab:#[ \n\r\t\x00\x1b\x85\u2028\u202e\u2066é\udcff")))
def test_escaped_text_is_one_harmless_line(text):
    assert not DANGER.search(escaped(text)) and "\n" not in escaped(text)


def test_what_is_harmless_stays_as_it_is():
    for text in ("a b", "café ≤ 3 %: 10 × 10", "set.zip::a/b.png", "# 1", "C:\\new", "日本 עברית"):
        assert escaped(text) == text
    assert escaped("a\nb\x1b[1m") == "a\\nb\\x1b[1m" and escaped("::error::x") == "\\x3a:error::x"


def test_what_is_said_obeys_no_name(capsys):
    say(PLANTED)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and not DANGER.search(said)


def test_every_output_of_a_gate_obeys_no_name():
    part = Slice(PLANTED, PLANTED, measured(0.2, 0.001))
    made = report(slices=(part,))
    row = replace(made.rows[1], set=SetSummary(PLANTED, 50, 50, ((PLANTED, PLANTED),)))
    made = replace(made, rows=(made.rows[0], row))
    result = gate(made, combine(None, from_flags(maximum=["slices.kid=0.05"]), None, ()))
    assert result.verdict == "fail"
    annotations = "\n".join(to_annotations(result)).replace("::error title", "title")
    texts = [gate_markdown(result, made), to_markdown(made), _message(result, made, None), annotations]
    for text in texts:
        assert "planted" in text and not DANGER.search(text)
    junit = ElementTree.fromstring(to_junit(result))
    assert all(not DANGER.search(value) for case in junit.iter("testcase") for value in case.attrib.values())
    assert "planted" in junit.find(".//failure").get("message") and not DANGER.search(junit.find(".//failure").text)
    page = re.sub(r"(?s)<(style|script)>.*?</\1>", "", to_html(made))
    assert "planted" in page and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", page)


@pytest.mark.slow
def test_damaged_images_with_such_names_are_listed_in_one_line_each(tmp_path):
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "x\n::error file=a::planted\n\x1b[31m.png").write_bytes(b"damaged")
    words = ("stats", tmp_path, "-o", tmp_path / "f.npz", "--extractor", "random-conv", "--no-cache")
    _, stdout, stderr = run("domain-gap", *words)
    assert "planted" in stderr and not DANGER.search(stderr + stdout)


# Exit codes


CLOSED = (">&-", "2>&-", ">&- 2>&- <&-", "2>&1 | true")


@pytest.mark.parametrize(
    ("name", "code", "shell"),
    [*((*verdict, "| true") for verdict in VERDICTS), *(("pass", 0, word) for word in CLOSED)],
)
def test_the_verdict_is_the_exit_code_whoever_reads(reports, name, code, shell):
    found = run("domain-gap", "gate", reports / name, "--max", "kid=0.05", "--github", shell=shell)
    assert found[0] == code and "Traceback" not in found[2]


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONWARNINGS": "error"},
    ],
)
def test_the_verdict_does_not_depend_on_encoding_or_warnings(reports, variables):
    code, stdout, stderr = run("domain-gap", "gate", reports / "unclear", "--max", "kid=0.05", **variables)
    assert code == 3 and "at most 0.05" in stdout, stderr


def test_what_the_encoding_lacks_is_spelt_out(reports):
    _, stdout, _ = run("domain-gap", "gate", reports / "fail", "--max", "kid=0.05", PYTHONIOENCODING="ascii")
    assert "\\u2264 0.05" in stdout and "\\xb1" in stdout


def test_both_programs_survive_a_reader_that_leaves(tmp_path):
    for words in (("stylize", "patterns"), ("domain-gap", "--help")):
        assert run(*words, shell="| true")[0] == 0
    assert run("stylize", "patterns", "moire", "--classes", "100", shell="| head -c 1 > /dev/null")[0] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_is_lost_on_a_full_disk_is_an_error(reports):
    with Path("/dev/full").open("wb") as full:
        code, _, stderr = run("domain-gap", "gate", reports / "pass", "--max", "kid=0.05", stdout=full)
    assert code == 2 and "No space left on device" in stderr and stderr.count("\n") == 1


# Paths


def test_defaults_of_paths_are_taken_as_they_are(monkeypatch, capsys, tmp_path):
    """``stylize invert REAL`` has a path as a default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stylize", "invert", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        stylize_cli.main()
    assert ended.value.code == 2 and "no such folder or file" in capsys.readouterr().err


def test_every_path_of_both_command_lines_refuses_to_be_empty():
    count = 0
    for app in (stylize_cli.app, gap_cli.app):
        for command in app.registered_commands:
            for name, kind in get_type_hints(command.callback, include_extras=True).items():
                kinds, *facts = get_args(kind) if get_origin(kind) is Annotated else (kind,)
                if kinds is Path or Path in get_args(kinds):
                    assert facts[0].parser is path, (command.callback, name)
                    count += 1
    assert count >= 35


def test_a_path_is_what_was_given(tmp_path):
    assert path(".") == Path() and path("a b/c") == Path("a b/c")
    for empty in ("", " ", "\n"):
        with pytest.raises(typer.BadParameter, match="empty path"):
            path(empty)


def test_an_empty_path_is_misuse():
    code, stdout, stderr = run("domain-gap", "gate", "")
    assert (code, stdout) == (2, "") and "got an empty path" in stderr
