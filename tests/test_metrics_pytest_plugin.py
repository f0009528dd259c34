"""assert_domain_gap: passes, fails readably, skips on request; the plugin costs a test run nothing until it is used."""

import os
import re
import subprocess
import sys
from unittest import SkipTest

import pytest

from metrics.assertion import assert_domain_gap
from metrics.errors import InputError
from metrics.report import from_json
from metrics.report.reading import read_report

FAST = {"extractor": "random-conv", "explained": 3}


@pytest.fixture
def sets(folder, picture):
    renders = folder("renders", {f"{i}.png": picture(40 + i) // 4 for i in range(8)})
    return renders, folder("photos", {f"{i}.png": picture(i) for i in range(7)})


def test_passes_and_returns_the_report(sets):
    report = assert_domain_gap(*sets, kid=10.0, **FAST)
    assert [m.name for m in report.row("after").measurements] == ["kid@random-conv"] and report.permuted is None


def test_fails_readably(sets, tmp_path):
    with pytest.raises(AssertionError) as failed:
        assert_domain_gap(*sets, kid=1e-9, fid=1e9, value_only=["fid"], report=tmp_path / "gap", **FAST)
    lines = str(failed.value).splitlines()
    assert lines[0] == "domain gap: FAIL: of 2 checks, 1 failed, 1 passed."
    number = r"[\d.e-]+"
    sentence = (
        rf"  fail: kid@random-conv is {number} ± {number}; even the lower {number} bound at 95 % is beyond the budget, "
        r"at most 1e-09\."
    )
    assert re.fullmatch(sentence, lines[1])
    assert re.fullmatch(r"  most synthetic-looking: \d, \d, \d", lines[2])
    assert re.fullmatch(r"  least covered real images: \d, \d, \d", lines[3])
    assert lines[4] == f"  report: {tmp_path / 'gap' / 'report.html'}" and len(lines) == 5
    assert read_report(tmp_path / "gap") == from_json((tmp_path / "gap/report.json").read_text())


def test_inconclusive_fails_unless_told_otherwise(sets):
    value = assert_domain_gap(*sets, kid=10.0, **FAST).row("after").measurements[0].value
    with pytest.raises(AssertionError, match="INCONCLUSIVE: of 1 check, 1 inconclusive"):
        assert_domain_gap(*sets, kid=value, **FAST)
    with pytest.raises(SkipTest, match="INCONCLUSIVE"):
        assert_domain_gap(*sets, kid=value, on_inconclusive="skip", **FAST)
    assert_domain_gap(*sets, kid=value, on_inconclusive="pass", **FAST)
    with pytest.raises(AssertionError, match="FAIL"):
        assert_domain_gap(*sets, kid=1e-9, on_inconclusive="pass", **FAST)


def test_budgets_of_other_places_and_a_baseline(sets, tmp_path):
    wanted = {"closed": {"kid": {"min": -9.0}}, "baseline": {"kid": {"max_increase": 0.0}}}
    assert_domain_gap(*sets, kid=10.0, report=tmp_path / "old", **FAST)
    report = assert_domain_gap(*sets, budgets=wanted, baseline=tmp_path / "old", before=sets[0], **FAST)
    assert report.closed
    (tmp_path / "b.toml").write_text("[after.kid]\nmax = 1e-9")
    with pytest.raises(AssertionError, match="at most 1e-09"):
        assert_domain_gap(*sets, budgets=tmp_path / "b.toml", **FAST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no budget given"),
        ({"kdi": 0.1}, "unknown metric or option 'kdi'. Did you mean 'kid'"),
        ({"kid": 0.1, "extracter": "x"}, "Did you mean 'extractor'"),
        ({"kid": "0.1"}, "kid = '0.1'. Expected a finite number"),
        ({"kid": float("nan")}, "kid = nan. Expected a finite number"),
        ({"kid": 0.1, "on_inconclusive": "ignore"}, "unknown on_inconclusive 'ignore'"),
        ({"kid": 0.1, "confidence": 95}, "confidence = 95"),
        ({"budgets": "none.toml"}, "none.toml: budgets cannot be read"),
        ({"kid": 0.1, "baseline": "none.json"}, "none.json: no report can be read (No such file or directory)"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(options, message):
    with pytest.raises(InputError) as refused:
        assert_domain_gap("nowhere", "nowhere", **options)
    assert message in str(refused.value)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"{}", b'{"schema": 2}', b"[" * 100_000])
def test_a_file_that_is_no_report_is_named(tmp_path, data):
    (tmp_path / "report.json").write_bytes(data)
    with pytest.raises(InputError, match=r"report\.json: "):
        read_report(tmp_path)


# In a pytest run of its own


def run_pytest(tmp_path, test, *words):
    (tmp_path / "test_it.py").write_text(test)
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "pytest_domain_gap", "-p", "no:cacheprovider", "-rs", *words]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_plugin_imports_nothing_heavy_until_it_is_used(tmp_path):
    test = """
import sys
def test_nothing_was_imported():
    heavy = {"numpy", "scipy", "torch", "torchvision", "timm", "PIL", "matplotlib", "jinja2", "typer", "rich"}
    assert not (heavy | {"metrics"}) & set(sys.modules)
    assert "pytest_domain_gap" in sys.modules
"""
    code, out = run_pytest(tmp_path, test)
    assert code == 0 and "1 passed" in out, out


def test_the_plugin_leaves_a_project_alone_that_has_its_own_metrics(tmp_path):
    (tmp_path / "metrics.py").write_text("accuracy = 1.0")
    code, out = run_pytest(tmp_path, "def test_own():\n    import metrics\n    assert metrics.accuracy == 1.0\n")
    assert code == 0 and "1 passed" in out, out


def test_the_fixture_in_a_run_of_its_own(sets, tmp_path):
    test = f"""
def test_far(assert_domain_gap):
    assert_domain_gap({str(sets[0])!r}, {str(sets[1])!r}, kid=1e-9, extractor="random-conv")
def test_skipped(assert_domain_gap):
    wanted = {{"after": {{"fid": {{"max": 0.5}}}}}}
    assert_domain_gap({str(sets[0])!r}, {str(sets[1])!r}, budgets=wanted, on_inconclusive="skip",
                      extractor="random-conv")
"""
    code, out = run_pytest(tmp_path, test)
    assert code == 1 and "1 failed, 1 skipped" in out, out
    assert "E       AssertionError: domain gap: FAIL: of 1 check, 1 failed." in out
    assert "assertion.py" not in out.split("short test summary")[0]  # the traceback ends in the test
    assert "INCONCLUSIVE" in out
