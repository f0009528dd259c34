"""Every command, every kind of loss: said once, written where the output goes, and counted."""

import json
import sys

import pytest

from metrics.commands import main as gap_cli
from stylize.commands import main as stylize_cli
from stylize.styles.bank import StyleBank

KINDS = {
    "rotten": "checksum of a chunk IDAT does not match",
    "gone.png": "a link to a file that is gone",
    "phone.heic": "a .heic file, which is not read",
    "scan": "an image by its first bytes",
    "row.png": "there is no such file",
}
NOTE = "passed over, as no images of the set: 1 .txt"
FAST = ("--extractor", "random-conv", "--no-cache")


@pytest.fixture
def command(monkeypatch, capsys):
    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            (stylize_cli if name == "stylize" else gap_cli).main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture
def make(folder, picture):
    """An image set of ``count`` sound images, and one of every kind that is lost."""

    def lossy(name, count, first=0, lost=True):
        root = folder(name, {f"{n:02d}.png": picture(first + n, 48, 48) for n in range(count)})
        if lost:
            whole = folder(f"{name} more", {"x.png": picture(99, 48, 48)}) / "x.png"
            data = whole.read_bytes()
            (root / "rotten.png").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
            (root / "gone.png").symlink_to("annex/object")
            (root / "phone.heic").write_bytes(b"\0")
            (root / "scan").write_bytes(data)
            (root / "metadata.jsonl").write_text('{"file_name": "row.png", "label": "x"}\n', encoding="utf-8")
            (root / "notes.txt").write_text("hi", encoding="utf-8")
        return root

    return lossy


def told(text, times=1):
    for name, reason in KINDS.items():
        assert sum(name in line and reason in line for line in text.splitlines()) == times, (name, text)
    assert text.count(NOTE) == times, text


def errors(path):
    return {row["key"]: row["error"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def all_kinds(found):
    assert found.keys() == KINDS.keys()
    assert all(reason in found[name] for name, reason in KINDS.items())


def test_learn(command, make, tmp_path):
    photos, style = make("photos", 3), tmp_path / "s.safetensors"
    words = ("stylize", "learn", photos, style, "--method", "colour", "--crops", 1, "--size", 32)
    code, _, err = command(*words, "--max-errors", 4)
    assert code == 2 and "5 images cannot be read (at most 4 allowed)" in err and not style.exists()
    code, _, err = command(*words, "--max-errors", 5)
    assert code == 0
    told(err)
    header = StyleBank.load(style).header
    all_kinds(header["skipped"])
    assert any(NOTE in note for note in header["notes"])


def test_apply(command, make, tmp_path):
    style, out = tmp_path / "s.safetensors", tmp_path / "out"
    command("stylize", "learn", make("photos", 2, lost=False), style, "--method", "colour", "--crops", 1, "--size", 32)
    words = ("stylize", "apply", style, make("set", 3), out, "--method", "colour", "--workers", 1)
    code, _, err = command(*words, "--max-errors", 4)
    assert code == 2 and "5 items failed (at most 4 allowed)" in err
    code, _, err = command(*words, "--max-errors", 5)
    assert code == 0 and err.count("5 items failed and are listed in") == 1 and err.count(NOTE) == 1
    all_kinds(errors(out / "errors.jsonl"))
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert (run["images"], run["errors"], run["notes"][-1]) == (3, 5, NOTE)


@pytest.mark.slow
def test_train(command, make, tmp_path):
    photos, patterns, network = make("photos", 3), make("set", 3, 50, lost=False), tmp_path / "n.safetensors"
    words = ("stylize", "train", photos, patterns, network, "--steps", 1, "--size", 32, "--batch", 2)
    code, _, err = command(*words, "--max-errors", 4)
    assert code == 2 and "5 images cannot be read (at most 4 allowed)" in err
    code, _, err = command(*words)
    assert code == 0
    told(err)
    from stylize.styles.methods.network import read_network

    all_kinds(read_network(network)[0]["skipped"])


@pytest.mark.slow
def test_tune(command, make, tmp_path, monkeypatch):
    monkeypatch.setattr("stylize.tuning.search.AUDITED", 2)
    photos, contents = make("photos", 16), make("set", 20, 50)
    out = tmp_path / "study"
    words = ("stylize", "tune", photos, contents, out, "--trials", 1, "--images", 20, "--method", "colour")
    words += ("--extractor", "random-conv", "--size", 32, "--structure", -1, "--labels", 0, "--copies", 1)
    code, _, err = command(*words, "--max-errors", 2)
    assert code == 2 and "(at most 2 allowed)" in err
    code, _, err = command(*words)
    assert code == 0, err
    assert err.count("phone.heic") == 2 and err.count("gone.png") == 2  # of the photos and of the contents
    rows = [json.loads(line) for line in (out / "errors.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"learn", "contents"} <= {row["set"] for row in rows}
    assert len([row for row in rows if row["key"] == "row.png"]) == 2


def test_compare_and_gate(command, make, tmp_path):
    synthetic, real, report = make("set", 8), make("photos", 8, 50, lost=False), tmp_path / "report"
    code, out, _ = command("domain-gap", "compare", synthetic, real, "-o", report, "--metric", "kid", *FAST)
    assert code == 0
    for text in (out, (report / "report.md").read_text(encoding="utf-8")):
        told(text)
    page = (report / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in KINDS)
    code, out, _ = command("domain-gap", "gate", report, "--max", "kid=1e9")
    assert code == 1 and "5 of 13 images under test could not be read" in out
    code, out, _ = command("domain-gap", "compare", real, synthetic, "-o", report, "--metric", "kid", *FAST)
    told(out)
    assert command("domain-gap", "gate", report, "--max", "kid=1e9")[0] == 1


def test_stats(command, make, tmp_path):
    synthetic, real, features = make("set", 8), make("photos", 8, 50, lost=False), tmp_path / "f.safetensors"
    code, _, err = command("domain-gap", "stats", synthetic, "-o", features, *FAST)
    assert code == 0
    told(err)
    command("domain-gap", "compare", features, real, "-o", tmp_path / "report", "--metric", "kid", *FAST)
    assert command("domain-gap", "gate", tmp_path / "report", "--max", "kid=1e9")[0] == 1


def test_audit(command, make, tmp_path, monkeypatch):
    monkeypatch.setattr("metrics.copy_audit.audit.HELD_CROPS", 4)
    results, photos = make("set", 4), make("photos", 3, 50, lost=False)
    words = ("domain-gap", "audit", results, photos, "-o", tmp_path / "audit", "--images", 4, "--patches", 1)
    code, out, _ = command(*words)
    assert code == 0
    told(out)


def test_render_loses_nothing_and_says_so(command, tmp_path):
    code, _, err = command("stylize", "render", "visual-atom", tmp_path / "out", "--classes", 1, "--per-class", 2)
    assert code == 0 and "failed" not in err and not (tmp_path / "out/errors.jsonl").exists()
