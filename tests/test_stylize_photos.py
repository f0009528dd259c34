"""Which photos a style is learnt from, which are lost, and what that costs in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from metrics.errors import InputError
from metrics.image_sets.open import open_images
from stylize.commands.main import app
from stylize.styles.bank import StyleBank, learn
from stylize.styles.rows import Rows
from stylize.training import losses as training_losses
from stylize.training import windows as training_windows
from stylize.training.train import iter_train

MEMORY = """
import resource, sys
import numpy as np
from metrics.image_sets.open import open_images
from stylize.styles.bank import learn
photos = open_images(np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3), np.uint8))
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
learn(photos, crops=4)
before = peak()
learn(photos, crops=28)
print((peak() - before) / 24)
"""


def _run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.skipif(sys.platform == "win32", reason="needs the module resource")
def test_memory_does_not_grow_by_what_a_crop_takes():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", MEMORY], env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2e6  # 7 MB before, 26 kB of it statistics


def test_rows_are_those_that_were_put_in():
    rows = Rows(3)
    for number in range(2):
        rows.append({"a": torch.full((1, 2), number), "b": torch.zeros(1, dtype=torch.float64)})
    kept = rows.tensors()
    assert kept["a"].tolist() == [[0, 0], [1, 1]] and kept["b"].shape == (2,) and kept["b"].dtype == torch.float64


@pytest.fixture
def scene(folder, picture):
    """Six frames of one group; the third is cut off, which shows only when its pixels are read."""
    root = folder("scene", {f"{i}.jpg": picture(i, 90, 120) for i in range(6)})
    damaged = root / "2.jpg"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    lines = [json.dumps({"file_name": f"{i}.jpg", "group": "scene"}) for i in range(6)]
    (root / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


def test_a_damaged_frame_takes_no_other_of_its_group_along(scene):
    bank = learn(scene, crops=2, size=32)
    assert [source["photo"] for source in bank.sources] == [name for name in "01345" for _ in range(2)]
    assert list(bank.header["skipped"]) == ["2"]
    assert bank.header["unlicensed"] == list("01345")


def test_every_photo_is_decoded_once(folder, picture, monkeypatch):
    from metrics.image_sets import items as images

    decoded = []
    monkeypatch.setattr(images, "decode", lambda data, decode=images.decode: decoded.append(1) or decode(data))
    learn(folder("photos", {f"{i}.png": picture(i) for i in range(3)}), crops=4, size=32)
    assert len(decoded) == 3


def test_losses_and_notes_are_said_and_recorded(folder, picture, tmp_path):
    root = folder("photos", {"a.png": picture(1), "b.png": picture(2), "c.png": b"nonsense", "copy.png": picture(1)})
    (root / "gone.png").symlink_to("annex/object")
    result = _run("learn", root, tmp_path / "s.safetensors", "--crops", 2, "--size", 32)
    assert result.exit_code == 0
    for line in ("skipped c: not an image", "skipped gone.png: ", "byte-identical photos count once: copy = a"):
        assert result.stderr.count(line) == 1
    header = StyleBank.load(tmp_path / "s.safetensors").header
    assert sorted(header["skipped"]) == ["c", "gone.png"]
    assert header["notes"] == ["byte-identical photos count once: copy = a"]
    assert header["unlicensed"] == ["a", "b"]


def test_a_style_does_not_weigh_double_because_its_photo_was_given_twice(folder, picture):
    once = learn(folder("once", {"a.png": picture(1), "b.png": picture(2)}), crops=2, size=32)
    twice = learn(folder("twice", {"a.png": picture(1), "b.png": picture(2), "c.png": picture(1)}), crops=2, size=32)
    assert twice.sources == once.sources


@pytest.mark.parametrize("kind", ["damaged", "cut off", "dangling"])
def test_more_losses_than_allowed_stop_learning(folder, picture, tmp_path, kind):
    root = folder("photos", {"a.png": picture(1)})
    for name in ("b.jpg", "c.jpg"):
        if kind == "dangling":
            (root / name).symlink_to("annex/object")
        elif kind == "damaged":
            (root / name).write_bytes(b"nonsense")
        else:
            folder("photos", {name: picture(len(name) + ord(name[0]))})
            (root / name).write_bytes((root / name).read_bytes()[:-300])
    style = tmp_path / "s.safetensors"
    result = _run("learn", root, style, "--crops", 1, "--size", 32, "--max-errors", 1)
    assert isinstance(result.exception, InputError)
    assert "2 images cannot be read (at most 1 allowed); the first: b" in str(result.exception)
    assert not list(tmp_path.glob("*.safetensors*"))
    assert _run("learn", root, style, "--crops", 1, "--size", 32, "--max-errors", 2).exit_code == 0


def test_training_says_records_and_bounds_what_it_lost(folder, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(training_windows, "CONTENTS", 8)
    monkeypatch.setattr(training_losses, "STYLES", 4)
    real = folder("real", {"a.png": picture(1), "b.png": picture(2), "broken.png": b"nonsense", "copy.png": picture(1)})
    patterns = folder("patterns", {"a.png": picture(3), "p.png": b"nonsense"})
    tiny = dict.fromkeys(("half", "quarter", "eighth", "style"), 4)
    tiny |= dict.fromkeys(("blocks_half", "blocks_quarter", "blocks_eighth"), 1)
    out = tmp_path / "n.safetensors"
    options = {"steps": 2, "size": 32, "batch": 2, "architecture": tiny}
    with pytest.raises(InputError, match=r"real: 1 images cannot be read \(at most 0 allowed\); the first: broken: "):
        next(iter_train(real, patterns, out, max_errors=0, **options))
    assert not out.exists()
    steps = list(iter_train(real, patterns, out, max_errors=1, **options))
    lines = [line.partition(":")[0] for line in steps[0].notes]
    assert lines == ["skipped broken", "skipped p", "byte-identical photos count once"] and not steps[1].notes
    with safe_open(out, "pt") as file:
        (text,) = file.metadata().values()
    header = json.loads(text)
    assert list(header["skipped"]) == ["broken"] and list(header["skipped_patterns"]) == ["p"]
    assert header["unlicensed"] == ["a", "b"]


def test_losses_of_an_image_set_count_too(folder, picture):
    images = open_images(folder("photos", {"a.png": picture(1)}))
    lost = type(images)(images.root, images.items, [("b", "gone")])
    with pytest.raises(InputError, match=r"1 images cannot be read \(at most 0 allowed\); the first: b: gone"):
        learn(lost, crops=1, size=32, max_errors=0)
