"""The GitHub Action and the GitLab job: their script lines run on image sets, and their inputs reach the command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from metrics.budget_gate.budgets import parse_budgets, read_budgets

FAST = "--metric kid --permutations 0 --explain 0 --extractor random-conv"
ROOT = Path(__file__).parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
WORKFLOW = yaml.safe_load((ROOT / "docs/ci/github-workflow.yml").read_text(encoding="utf-8"))
GITLAB = yaml.safe_load((ROOT / "docs/ci/gitlab.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A repository of a user: renders that are far from the photos, in folders with a space."""
    import numpy as np

    root = tmp_path_factory.mktemp("user") / "my project"
    rng = np.random.default_rng(0)
    for name, count in (("my renders", 6), ("photos/judge", 5)):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(count):
            noise = rng.integers(0, 256 if name != "my renders" else 40, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((64, 64)).save(folder / f"{i}.png")
    (root / "ci").mkdir()
    (root / "ci/budgets.toml").write_text("[after.kid]\nmax = 1e-9\n")
    return root


def environment(root, **variables):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    home = {"XDG_CACHE_HOME": str(root / ".cache"), "GITHUB_ACTION_PATH": str(ROOT)}
    return {**os.environ, **home, "PATH": path, "OMP_NUM_THREADS": "1", **variables}


def filled(text, inputs):
    """The value of ``${{ inputs.NAME }}`` expressions."""
    return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: inputs[found[1]], text)


def run_action(root, names=("Compare", "Gate"), **given):
    """Run steps of the action as the runner does: (exit code, outputs, summary, log)."""
    inputs = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()} | given
    files = {name: root / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for file in files.values():
        file.write_text("")
    log = ""
    for step in (step for step in ACTION["runs"]["steps"] if step["name"] in names):
        variables = {name: filled(value, inputs) for name, value in step["env"].items()}
        env = environment(root, **variables, **{name: str(file) for name, file in files.items()})
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
        log += done.stdout + done.stderr
        if done.returncode:
            break
    output, summary = (file.read_text() for file in files.values())
    return done.returncode, dict(line.split("=", 1) for line in output.splitlines()), summary, log


def test_the_action_end_to_end(checkout):
    given = {"synthetic": "my renders", "real": "photos/judge", "out": "my report"}
    code, outputs, summary, log = run_action(checkout, **given, budget="ci/budgets.toml", **{"compare-args": FAST})
    assert (code, outputs) == (1, {"verdict": "fail"}), log
    assert "::error file=ci/budgets.toml,title=domain-gap%3A kid@random-conv::" in log
    assert summary.startswith("**FAIL: of 1 check, 1 failed.**")
    names = {path.name for path in (checkout / "my report").iterdir()}
    assert {"report.json", "report.html", "report.md", "junit.xml", "metrics.json"} <= names

    gate = {"names": ("Gate",), **given, "baseline": "my report"}  # against itself: no increase
    code, outputs, summary, log = run_action(checkout, **gate, max="kid=9 kid=8", **{"max-increase": "kid=0"})
    assert (code, outputs) == (0, {"verdict": "pass"}), log
    assert summary.startswith("**PASS: of 3 checks, 3 passed.**")

    value = re.search(r'"value": ([\d.]+)', (checkout / "my report/metrics.json").read_text())[1]
    near = {"names": ("Gate",), **given, "max": f"kid={value}"}
    code, outputs, _, log = run_action(checkout, **near)
    assert (code, outputs) == (3, {"verdict": "inconclusive"}) and "::warning title=" in log
    assert run_action(checkout, **near, **{"on-inconclusive": "pass"})[:2] == (0, {"verdict": "inconclusive"})

    code, outputs, _, log = run_action(checkout, names=("Gate",), **given, max="kdi=1")
    assert (code, outputs) == (2, {}) and "Did you mean 'kid'" in log


def words_of(tmp_path, name, **given):
    """The words that a step hands to the command, where files lie about that a pattern would match."""
    command = tmp_path / "bin/domain-gap"
    command.parent.mkdir(exist_ok=True)
    command.write_text('#!/bin/sh\nprintf "<%s>" "$@" >&2\n', encoding="utf-8")
    command.chmod(0o755)
    for file in ("kid=1", "a.png", "--crops"):
        (tmp_path / file).touch()
    step = next(step for step in ACTION["runs"]["steps"] if step["name"] == name)
    inputs = {key: entry.get("default", "") for key, entry in ACTION["inputs"].items()} | given
    variables = {key: filled(value, inputs) for key, value in step["env"].items()}
    env = {"PATH": f"{command.parent}:{Path(sys.executable).parent}:/bin:/usr/bin", **variables}
    env["GITHUB_OUTPUT"] = str(tmp_path / "output")
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8")
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--crops 16\n--slice label\n", "<--crops><16><--slice><label>"),
        ("", ""),
        (" \n ", ""),
        ("--slice 'time of day' --slice \"it's\"", "<--slice><time of day><--slice><it's>"),
        ("* ? [a] kid=* $HOME `id` $(id) ; | &", "<*><?><[a]><kid=*><$HOME><`id`><$(id)><;><|><&>"),
        ("--weights 'a\\b'", "<--weights><a\\b>"),
    ],
)
def test_compare_args_are_words_as_a_shell_reads_them(tmp_path, given, expected):
    found = words_of(tmp_path, "Compare", synthetic="a b", real="-r", out="o", **{"compare-args": given})
    assert found == (0, f"<compare><--out><o>{expected}<--><a b><-r>")


def test_paths_of_the_action_are_never_patterns_nor_options(tmp_path):
    given = {"synthetic": "*.png", "real": "--crops", "before": "b *", "floor": "-f", "out": "o [1]"}
    code, words = words_of(tmp_path, "Compare", **given)
    assert (code, words) == (0, "<compare><--out><o [1]><--before><b *><--floor><-f><--><*.png><--crops>")


def test_budgets_of_the_action_are_words_and_never_patterns(tmp_path):
    given = {"max": "kid=* slices.kid=[0]\nfid=1", "min": "closed.kid=?", "max-increase": "kid=0", "out": "o"}
    code, words = words_of(tmp_path, "Gate", **given, budget="my b.toml", baseline="*", confidence="0.9")
    fixed = "<gate><--junit><o/junit.xml><--scalars><o/metrics.json><--github>"
    paths = "<--budget><my b.toml><--baseline><*><--confidence><0.9>"
    budgets = "<--max><kid=*><--max><slices.kid=[0]><--max><fid=1><--min><closed.kid=?><--max-increase><kid=0>"
    assert (code, words) == (0, f"{fixed}{paths}{budgets}<--><o>")
    assert words_of(tmp_path, "Gate", out="o") == (0, f"{fixed}<--><o>")


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("Compare", {"synthetic": ""}, "the input synthetic is empty"),
        ("Compare", {"real": ""}, "the input real is empty"),
        ("Compare", {"out": ""}, "the input out is empty"),
        ("Compare", {"compare-args": "--slice 'open"}, "No closing quotation"),
        ("Gate", {"out": ""}, "the input out is empty"),
        ("Gate", {"on-inconclusive": "passs"}, "neither fail nor pass"),
    ],
)
def test_inputs_that_cannot_be_meant_are_refused_before_the_command_runs(tmp_path, name, given, message):
    code, stderr = words_of(tmp_path, name, **{"synthetic": "a", "real": "b", "out": "o", **given})
    assert code != 0 and message in stderr and "<--" not in stderr


def test_the_artifact_has_a_name_of_its_own():
    (keep,) = (step for step in ACTION["runs"]["steps"] if "upload-artifact" in step.get("uses", ""))
    assert keep["with"]["name"] == "${{ inputs.artifact }}"  # a folder may have slashes, an artifact's name may not
    assert "/" not in ACTION["inputs"]["artifact"]["default"]


def test_no_input_is_ever_code(checkout):
    """Inputs reach the scripts as environment variables only, so none can add a command."""
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
    code, _, _, log = run_action(checkout, names=("Gate",), out="none", max="$(touch hacked) ; `touch hacked`")
    assert code == 2 and not (checkout / "hacked").exists(), log


def test_the_action_installs_its_own_checkout_or_what_it_is_told(tmp_path):
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    run = next(step["run"] for step in ACTION["runs"]["steps"] if step["name"] == "Install")
    for install, expected in (("", str(ROOT)), ("reverse-stylize==0.1", "reverse-stylize==0.1")):
        env = {"PATH": f"{python.parent}:/bin:/usr/bin", "INSTALL": install, "GITHUB_ACTION_PATH": str(ROOT)}
        done = subprocess.run(["bash", "-c", run], env=env, capture_output=True, text=True, check=True)
        assert done.stdout == f"-m pip install --quiet {expected}\n"


def test_the_workflow_names_inputs_of_the_action():
    (step,) = (s for s in WORKFLOW["jobs"]["domain-gap"]["steps"] if "reverse-stylize" in s.get("uses", ""))
    assert set(step["with"]) <= set(ACTION["inputs"])
    required = {name for name, entry in ACTION["inputs"].items() if entry.get("required")}
    assert required <= set(step["with"])
    assert (ROOT / "docs" / step["with"]["budget"]).is_file()


def test_the_example_budgets_parse_as_they_are_and_in_full():
    text = (ROOT / "docs/ci/budgets.toml").read_text(encoding="utf-8")
    assert [str(budget) for budget in read_budgets(ROOT / "docs/ci/budgets.toml").budgets] == ["kid ≤ 0.05"]
    full = parse_budgets(re.sub(r"(?m)^# (?=\[|m)", "", text))
    assert [budget.place for budget in full.budgets] == ["after", "closed", "slices", "baseline"]


@pytest.mark.slow
def test_the_gitlab_job(checkout):
    job = GITLAB["domain-gap"]
    variables = {**job["variables"], "SYNTHETIC": "my renders"}
    install, *lines = job["script"]
    assert install == 'python -m pip install --quiet "$PACKAGE"'
    lines[0] = lines[0].replace(" -- ", f" {FAST} -- ")
    env = environment(checkout, **variables)
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(lines)], cwd=checkout, env=env, capture_output=True
    )
    assert done.returncode == 1, done.stderr
    assert (checkout / job["artifacts"]["reports"]["junit"]).is_file()
    assert (checkout / job["artifacts"]["paths"][0] / "report.html").is_file()
    assert job["allow_failure"] == {"exit_codes": [3]}
