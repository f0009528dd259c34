"""Both commands as a user types them: exit codes, streams, messages."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metrics.commands import main as gap_cli
from stylize.commands import main as stylize_cli
from stylize.styles import DEFAULT_METHOD, PRESETS
from stylize.styles.methods import METHODS


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command line in this process: ``command("stylize", ...) -> (exit code, stdout, stderr)``."""

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        main = stylize_cli.main if name == "stylize" else gap_cli.main
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture
def photos(folder, picture):
    return folder("photos", {f"{seed}.png": picture(seed, 90, 90) for seed in range(4)})


def test_the_main_job(command, photos, folder, picture, tmp_path):
    style, out, report = tmp_path / "s.safetensors", tmp_path / "out", tmp_path / "report"
    synthetic = folder("syn", {f"{i % 2}/{i}.png": picture(40 + i) for i in range(6)})
    code, stdout, stderr = command("stylize", "learn", photos, style, "--crops", 2, "--size", 64)
    assert (code, stdout) == (0, f"{style}\n")
    assert "8 styles from 4 photos" in stderr and "warning: no licence entry for 0, 1, 2 and 1 more" in stderr
    code, stdout, stderr = command("stylize", "apply", style, synthetic, out, "--workers", 1)
    assert (code, stdout) == (0, f"{out}\n") and "6 images" in stderr
    code, stdout, stderr = command("stylize", "apply", style, synthetic, out, "--workers", 1)
    assert code == 0 and "already complete" in stderr
    code, stdout, stderr = command(
        "domain-gap", "compare", out, photos, "--before", synthetic, "--crops", 2, "--metric", "kid", "-o", report
    )
    assert code == 0 and stdout.strip() == (report / "report.md").read_text().strip()
    assert "kid@efficientnet-lite0" in stdout and "report.html" in stderr
    assert json.loads((report / "report.json").read_text())["config"]["crops"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("stylize", "learn", "{tmp}/none", "{tmp}/s.safetensors"), "no such folder"),
        (("stylize", "learn", "{photos}", "{tmp}/s.bin"), "expected a file name ending in .safetensors"),
        (("stylize", "apply", "{tmp}/s.safetensors", "{photos}", "{tmp}/out"), "no such style file"),
        (("stylize", "render", "neural-fractl", "{tmp}/out"), "Did you mean 'neural-fractal'"),
        (("stylize", "render", "neural-fractal", "{tmp}/out", "--classes", "0"), "expected at least 1"),
        (("stylize", "render", "neural-fractal", "{tmp}/out", "--size", "4"), "size 4: expected 16 to 5000"),
        (("stylize", "demo", "{tmp}/out", "--photos", "{tmp}/none"), "no such folder"),
        (("domain-gap", "compare", "{photos}", "{tmp}/none", "-o", "{tmp}/r"), "no such folder"),
        (("domain-gap", "compare", "{photos}", "{photos}", "--extractor", "inceptoin", "-o", "{tmp}/r"), "'inception'"),
        (("domain-gap", "compare", "{photos}", "{photos}", "--metric", "fdi", "-o", "{tmp}/r"), "unknown metric 'fdi'"),
        (("domain-gap", "compare", "{photos}", "{photos}", "-o", "{photos}/0.png"), "is a file"),
        (("domain-gap", "audit", "{photos}", "{photos}", "-o", "{photos}/0.png"), "is a file"),
        (("domain-gap", "audit", "{photos}", "{tmp}/none"), "no such folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(command, photos, tmp_path, words, message):
    code, stdout, stderr = command(*(word.format(tmp=tmp_path, photos=photos) for word in words))
    assert code == 2 and stdout == "" and message in stderr
    assert stderr.count("\n") == 1 and stderr.startswith(f"{words[0]}: ")


def test_patterns_lists_families_and_prints_classes_that_render_takes_back(command, tmp_path):
    code, stdout, _ = command("stylize", "patterns")
    assert code == 0 and "neural-fractal  " in stdout
    code, stdout, _ = command("stylize", "patterns", "neural-fractal", "--class", 3, "--option", "tau=2.0")
    document = json.loads(stdout)
    assert code == 0 and document["classes"][0]["class_id"] == 3 and document["classes"][0]["tau"] == 2.0
    (tmp_path / "c.json").write_text(stdout)
    words = ("--per-class", 2, "--size", 16, "--workers", 1)
    code, _, stderr = command("stylize", "render", tmp_path / "c.json", tmp_path / "out", *words)
    assert code == 0 and "health of 2 images" in stderr
    code, _, stderr = command("stylize", "patterns", "neural-fractal", "--option", "tau")
    assert code == 2 and "expected NAME=VALUE" in stderr


def test_audit_prints_its_markdown_and_writes_when_asked(command, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("metrics.copy_audit.audit.HELD_CROPS", 4)
    words = ("domain-gap", "audit", photos, photos, "--images", 2, "--patches", 2)
    code, stdout, stderr = command(*words)
    assert code == 0 and "near-verbatim copies" in stdout and stderr == ""
    code, again, stderr = command(*words, "-o", tmp_path / "audit")
    assert code == 0 and again == stdout and "audit.html" in stderr
    assert (tmp_path / "audit" / "audit.md").read_text().strip() == stdout.strip()
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["config"]["images"] == 2


def test_unknown_flags_are_misuse(command):
    assert command("stylize", "apply", "--strenght", "1")[0] == 2
    assert command("domain-gap", "compare")[0] == 2


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["stylize", "--debug", "learn", str(tmp_path / "none"), "s.safetensors"])
    with pytest.raises(ValueError, match="no such folder"):
        stylize_cli.main()


def test_a_crash_is_reported_without_a_traceback(command, photos, monkeypatch):
    monkeypatch.setattr("stylize.styles.bank.learn", lambda *a, **k: 1 / 0)
    code, _, stderr = command("stylize", "learn", photos, "s.safetensors")
    assert code == 2 and "unexpected ZeroDivisionError" in stderr and "--debug" in stderr


def test_interrupting_says_how_to_continue(command, photos, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("stylize.styles.bank.learn", stop)
    code, _, stderr = command("stylize", "learn", photos, "s.safetensors")
    assert code == 130 and "repeat the command to go on" in stderr


@pytest.mark.parametrize("module", ["stylize.commands.main", "metrics.commands.main"])
def test_help_imports_no_torch_and_is_quick(module):
    script = (
        f"import sys; sys.argv = ['x', '--help']; import {module} as cli\ntry: cli.main()\nexcept SystemExit: pass\n"
    )
    check = "sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", script + check], check=True, capture_output=True)
    assert time.perf_counter() - start < 5  # about 0.4 s on an idle machine


def test_every_command_has_help_with_an_example(command):
    for name, app in (("stylize", stylize_cli.app), ("domain-gap", gap_cli.app)):
        for entry in app.registered_commands:
            assert f"Example: {name} {entry.callback.__name__}" in (entry.callback.__doc__ or ""), entry.callback


def test_styles_lists_every_method_its_measured_row_and_the_presets(command):
    code, stdout, stderr = command("stylize", "styles")
    assert code == 0 and "gradient correlation" in stderr
    lines = {line.split()[0]: line for line in stdout.splitlines() if line.strip()}
    assert all(method.summary in lines[name] for name, method in METHODS.items())
    measured = json.loads((Path(stylize_cli.__file__).parents[1] / "styles/leaderboard.json").read_text())
    assert f"{measured[DEFAULT_METHOD]['closed@efficientnet-lite2']:.2f}" in lines[DEFAULT_METHOD]
    for name, (method, strength) in PRESETS.items():
        assert re.search(rf"--preset {name} .*--method {method} --strength {strength:g}$", stdout, re.MULTILINE)


def test_a_preset_is_its_method_and_strength(command, photos, folder, picture, tmp_path, monkeypatch):
    monkeypatch.setitem(stylize_cli.PRESETS, "fast", ("patches", 0.5))
    style, synthetic = tmp_path / "s.safetensors", folder("syn", {"0/0.png": picture(40)})
    command("stylize", "learn", photos, style, "--crops", 1, "--size", 32)
    assert command("stylize", "apply", style, synthetic, tmp_path / "a", "--preset", "fast")[0] == 0
    row = json.loads((tmp_path / "a/metadata.jsonl").read_text())
    assert (row["method"], row["strength"]) == ("patches", 0.5)
    code, _, stderr = command("stylize", "apply", style, synthetic, tmp_path / "b", "--preset", "quick")
    assert code == 2 and "unknown preset 'quick'" in stderr
    code, _, stderr = command("stylize", "apply", style, synthetic, tmp_path / "b", "--preset", "fast", "--strength", 1)
    assert code == 2 and "--preset with --method or --strength" in stderr


def test_a_method_that_copies_says_so(command, photos, folder, picture, tmp_path):
    style, synthetic = tmp_path / "s.safetensors", folder("syn", {"0/0.png": picture(40)})
    _, _, stderr = command("stylize", "learn", photos, style, "--crops", 1, "--size", 32, "--method", "crops")
    assert "crops copies by design: results and style file hold pixels of the photos" in stderr
    _, _, stderr = command("stylize", "apply", style, synthetic, tmp_path / "a", "--method", "crops")
    assert "copies by design" in stderr


def test_tune_prints_the_winning_command(command, photos, folder, picture, tmp_path, monkeypatch):
    """The whole command, with a search that is over at once."""
    from stylize.tuning import report as tune_report
    from stylize.tuning import study

    won = study.Trial(0, "complete", "colour", 0.5, "random", 0.1, 0.2, 0.9, None, 0.0, True, 1, 1)
    monkeypatch.setattr("stylize.tuning.search.iter_tune", lambda *a, **k: iter([won]))
    monkeypatch.setattr(tune_report, "read_study", lambda out: ([won], study.Constraints()))
    code, stdout, stderr = command("stylize", "tune", photos, tmp_path, tmp_path / "study", "--trials", 1)
    assert code == 0 and stdout.startswith("stylize apply ") and "--method colour --strength 0.5" in stdout
    assert "trial 0: colour 0.50 random: gap closed 20%" in stderr and (tmp_path / "study/tune.html").is_file()


def test_train_and_export_refuse_before_any_work(command, photos, tmp_path):
    code, _, stderr = command("stylize", "train", photos, photos, tmp_path / "n.bin")
    assert code == 2 and "expected a file name ending in .safetensors" in stderr
    code, _, stderr = command("stylize", "export", tmp_path / "n.txt")
    assert code == 2 and ("pip install onnx" in stderr or "expected a file name ending in .onnx" in stderr)
