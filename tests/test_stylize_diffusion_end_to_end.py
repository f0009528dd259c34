"""The commands as a user types them, from photos to a verdict, with the model that comes along: one process and two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

pytest.importorskip("diffusers")

from test_stylize_diffusion_invert import SAMPLES

from metrics.image_sets.open import open_images
from stylize.commands.main import app
from stylize.diffusion.placeholder import read_embedding

pytestmark = SAMPLES
ROOT = Path(__file__).parents[1]
CLASSES = ("bag", "coat")
LEARN = ("--steps", 4, "--rate", 0.003)
DRAW = ("--classes", "real", "--per-class", 6, "--steps", 3)
TRAIN = "--backbone test_resnet --weights network.safetensors --size 32 --batch-size 4 --shots 2 --validation 2 "
TRAIN += "--synthetic-steps 4 --real-steps 4 --every 2 --regimes matched matched+mixup bridged bridged+reinit+mixup"


@pytest.fixture
def work(folder, picture, tmp_path, monkeypatch):
    """A folder with ``real`` photos of two classes and the weights of a tiny network, and the process in it."""
    folder(
        "real", {f"{label}/{i}.png": picture(50 * n + i, 40, 32) for n, label in enumerate(CLASSES) for i in range(10)}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "network.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stylize(*words):
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def launch_two(*words):
    """In two processes on the CPU that talk through gloo."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(map(str, launcher), capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def cells(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_from_photos_to_a_verdict_in_one_process(work, monkeypatch):
    stylize("invert", "real", "-o", "style.safetensors", *LEARN, "--batch", 2, "--vectors", 2, "--validate-every", 4)
    assert (
        Path("style-000004.png").is_file()
        and len(Path("style.safetensors.csv").read_text(encoding="utf-8").splitlines()) == 5
    )
    stylize("generate", "synthetic", *DRAW, "--embedding", "style.safetensors")
    rows = [json.loads(line) for line in Path("synthetic/metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["prompt"] for row in rows} == {f"A {label} photo in the style of <style>" for label in CLASSES}
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "recipes"))
    import bridged_transfer

    monkeypatch.setattr("_bridged_report.domain_gap", lambda options: "not measured")
    monkeypatch.setattr(
        sys, "argv", ["bridged_transfer.py", "synthetic", "real", "out", "--seeds", "0", "1", *TRAIN.split()]
    )
    bridged_transfer.main()
    report = Path("out/report.md").read_text(encoding="utf-8")
    assert sum(line.startswith("- **bridged") for line in report.splitlines()) == 3 and len(cells(Path("out"))) == 8


def test_fractals_are_restyled_with_their_keys_and_labels(work):
    stylize("invert", "real", "-o", "style.safetensors", *LEARN, "--mode", "style")
    stylize("render", "fractaldb", "fractals", "--classes", 2, "--per-class", 2, "--size", 48, "--workers", 1)
    stylize("restyle", "style.safetensors", "fractals", "restyled", "--steps", 4, "--workers", 1)
    before, after = open_images("fractals"), open_images("restyled")
    assert [(item.key, item.label) for item in after] == [(item.key, item.label) for item in before]
    assert all(item.read().shape == (32, 32, 3) for item in after) and len({item.digest() for item in after}) == 4
    rows = [json.loads(line) for line in Path("restyled/metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["source"] for row in rows] == [row["file_name"] for row in rows] and rows[0]["method"] == "restyle"


def test_class_wise_inversion_serves_generation(work):
    stylize("invert", "real", "-o", "styles", *LEARN, "--mode", "class-wise")
    assert [read_embedding(Path(f"styles/{label}.safetensors"))[0] for label in CLASSES] == [
        "<style-bag>",
        "<style-coat>",
    ]
    stylize("generate", "synthetic", *DRAW[:3], 1, "--steps", 3, "--embedding", "styles")
    rows = [json.loads(line) for line in Path("synthetic/metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == [f"A {label} photo in the style of <style-{label}>" for label in CLASSES]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_whole_batch(work):
    """The contract: the same vectors up to rounding, hence the same images; of bridging only steps and cells."""
    stylize("invert", "real", "-o", "one.safetensors", *LEARN, "--batch", 4)
    command = ("--no-python", sys.executable, "-c", "from stylize.commands.main import main; main()")
    said = launch_two(*command, "invert", "real", "-o", "two.safetensors", *LEARN, "--batch", 2)
    assert said.split() == ["two.safetensors"]  # one of the two talks
    one, two = (read_embedding(work / f"{name}.safetensors")[1] for name in ("one", "two"))
    assert torch.allclose(one, two, atol=1e-5)
    for name in ("one", "two"):
        stylize("generate", f"images-{name}", *DRAW, "--embedding", f"{name}.safetensors")
    for a, b in zip(open_images("images-one"), open_images("images-two"), strict=True):
        assert a.key == b.key and abs(a.read().astype(int) - b.read()).max() <= 1
    script = ROOT / "examples" / "recipes" / "bridged_transfer.py"
    launch_two(script, "images-two", "real", "out-two", "--seeds", 0, *TRAIN.split())
    subprocess.run(
        [sys.executable, script, "images-two", "real", "out-one", "--seeds", "0", *TRAIN.split()],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    found = [
        [(cell["regime"], [look[0] for look in cell["curve"]]) for cell in cells(work / f"out-{n}")]
        for n in ("one", "two")
    ]
    assert found[0] == found[1] and len(found[0]) == 4  # every cell once
    assert all(np.isfinite(cell["test"]) for cell in cells(work / "out-two"))
