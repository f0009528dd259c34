"""examples/recipes/bridged_transfer.py: regimes, batches, LEEP, resume, and what is refused before any training."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from metrics import open_images
from metrics.errors import InputError

pytest.importorskip("accelerate", reason="the extra 'diffusion' is not installed")
RECIPES = Path(__file__).parent.parent / "examples" / "recipes"


@pytest.fixture
def bridged(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    import bridged_transfer

    return bridged_transfer


@pytest.fixture
def sets(folder, picture):
    """Two classes that a colour tells apart, so that a few steps can learn them."""

    def make(name, count, classes=("cat", "dog")):
        images = {}
        for number, label in enumerate(classes):
            for index in range(count):
                image = picture(1000 * len(name) + 97 * number + index, 32, 32) // 2
                image[..., number % 3] += 120
                images[f"{label}/{index}.png"] = image
        return folder(name, images)

    return make


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny timm network with random weights: the hub is not asked."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


@pytest.fixture
def no_gap(bridged, monkeypatch):
    """Without the network that measures the domain gap: it takes most of the time."""
    monkeypatch.setattr("_bridged_report.domain_gap", lambda options: "not measured")


def launch(bridged, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["bridged_transfer.py", *map(str, words)])
    bridged.main()


def small(weights):
    steps = ["--synthetic-steps", 6, "--real-steps", 6, "--every", 3, "--batch-size", 8, "--size", 32]
    return ["--backbone", "test_resnet", "--weights", weights, "--shots", 3, "--validation", 2, "--seeds", 0, 1, *steps]


@pytest.mark.slow
def test_table_page_and_resume(bridged, sets, weights, tmp_path, monkeypatch, capsys):
    synthetic, real, out = sets("synthetic", 12), sets("real", 20), tmp_path / "out"
    regimes = ["--regimes", "vanilla", "matched", "mixed@0.5", "synthetic", "bridged+reinit+mixup"]
    launch(bridged, monkeypatch, synthetic, real, out, *small(weights), *regimes)
    cells = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {(cell["regime"], cell["seed"]) for cell in cells} == {
        (name, seed) for name in regimes[1:] for seed in (0, 1)
    }
    steps = {cell["regime"]: cell["curve"][-1][0] for cell in cells}
    assert steps["vanilla"] == 6 and steps["matched"] == 12 and steps["bridged+reinit+mixup"] == 6
    assert all(len(cell["leep"]) == (2 if "bridged" in cell["regime"] else 1) for cell in cells)
    page, table = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert table.startswith("- **bridged+reinit+mixup ") and "points over vanilla with as many steps (2 seeds" in table
    assert "No verdict on bridged+reinit+mixup over vanilla with as many steps and Mixup" in table
    assert page.count("<polyline") == 5 and "<script" not in page
    capsys.readouterr()
    launch(bridged, monkeypatch, synthetic, real, out, *small(weights), *regimes)
    assert "after" not in capsys.readouterr().out.split("|")[0].replace("over vanilla", "")  # no cell ran again
    assert len((out / "results.jsonl").read_text().splitlines()) == len(cells)
    with pytest.raises(InputError, match=r"was made with shots = 3 \(now 2\)\. Use the same images and settings"):
        launch(bridged, monkeypatch, synthetic, real, out, *small(weights), *regimes, "--shots", 2)
    (synthetic / "cat/0.png").write_bytes((synthetic / "cat/1.png").read_bytes())
    with pytest.raises(InputError, match=r"was made with images = \w{16} \(now \w{16}\)"):
        launch(bridged, monkeypatch, synthetic, real, out, *small(weights), *regimes)


@pytest.mark.slow
@pytest.mark.usefixtures("no_gap")
def test_a_cell_depends_neither_on_the_others_nor_on_workers(bridged, sets, weights, tmp_path, monkeypatch):
    synthetic, real = sets("synthetic", 12), sets("real", 20)
    results = []
    for name, regimes, workers in (("a", ["bridged"], 0), ("b", ["vanilla", "bridged"], 2)):
        words = [*small(weights), "--seeds", 1, "--workers", workers, "--regimes", *regimes]
        launch(bridged, monkeypatch, synthetic, real, tmp_path / name, *words)
        cells = [json.loads(line) for line in (tmp_path / name / "results.jsonl").read_text().splitlines()]
        results.append([(c["test"], c["curve"], c["leep"]) for c in cells if c["regime"] == "bridged"])
    assert results[0] == results[1]


def test_mixed_batches_hold_their_share(bridged):
    batches = list(bridged.Batches(200, 32, (50, 10), 0.9, seed=3))
    indices = [index for batch in batches for index, _ in batch]
    assert abs(np.mean([index < 50 for index in indices]) - 0.9) < 0.02
    real = [index - 50 for index in indices if index >= 50]
    assert all(sorted(real[start : start + 10]) == list(range(10)) for start in range(0, len(real) - 9, 10))  # epochs
    assert list(bridged.Batches(200, 32, (50, 10), 0.9, seed=3)) == batches


def test_leep_of_known_sources(bridged, sets):
    """A source that is the label, up to names, has LEEP 0; one that says nothing has the entropy of the labels."""
    items = list(open_images(sets("real", 4)))
    trainer = object.__new__(bridged.Trainer)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    for logits, expected in (
        (100.0 * torch.nn.functional.one_hot(1 - labels, 3).double(), 0.0),
        (torch.zeros(8, 3, dtype=torch.float64), float(np.log(0.5))),
    ):
        trainer.outputs = lambda *_, logits=logits: (logits, labels)
        assert trainer.leep(None, items, ["cat", "dog"]) == pytest.approx(expected, abs=1e-9)


def test_mixup_loss_is_the_mixture(bridged):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(4, 5, generator=generator), torch.tensor([0, 1, 2, 1])
    layer = torch.nn.Linear(5, 3)
    loss = bridged.Trainer._loss(layer, images, labels, 0.3)
    mixed = layer(0.3 * images + 0.7 * images[[3, 0, 1, 2]]).log_softmax(1)
    expected = -(0.3 * mixed[range(4), labels] + 0.7 * mixed[range(4), labels[[3, 0, 1, 2]]]).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--regimes", "bridgd"], r"regime 'bridgd'\. Expected vanilla, matched"),
        (["--regimes", "vanilla+reinit"], "Expected vanilla"),
        (["--regimes", "mixed@1.5"], "Expected vanilla"),
        (["--shots", 19], r"19 shots and 2 for validation need 21 images per class; too few: \{'cat': 10"),
        (["--other-classes", "--regimes", "bridged"], "needs the same classes in both sets"),
    ],
)
def test_refused_before_training(bridged, sets, weights, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(bridged, "run", lambda *_: pytest.fail("training began"))
    with pytest.raises(InputError, match=message):
        launch(bridged, monkeypatch, sets("synthetic", 4), sets("real", 20), tmp_path / "out", *small(weights), *change)


@pytest.mark.usefixtures("no_gap")
def test_other_classes_need_the_flag(bridged, sets, weights, tmp_path, monkeypatch):
    synthetic, real = sets("synthetic", 12, ("fern", "leaf", "moire")), sets("real", 20)
    words = [synthetic, real, tmp_path / "out", *small(weights), "--seeds", 0, "--regimes", "bridged+reinit"]
    with pytest.raises(InputError, match=r"only synthetic: .*fern.*; only real: .*cat.*--other-classes"):
        launch(bridged, monkeypatch, *words)
    launch(bridged, monkeypatch, *words, "--other-classes")
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1


def test_every_bridged_regime_has_a_paired_verdict_over_the_control_that_is_fair_to_it(bridged):
    from _bridged_report import verdicts

    def cells(name, scores):
        return [{"regime": name, "seed": seed, "test": score} for seed, score in enumerate(scores)]

    plain, mixup = cells("matched", [0.5, 0.7, 0.6]), cells("matched+mixup", [0.6, 0.8, 0.7])
    one, two = cells("bridged", [0.55, 0.752, 0.648]), cells("bridged+reinit+mixup", [0.55, 0.752, 0.648])
    first, second, third = verdicts(plain + mixup + one + two)
    rest = "(3 seeds, paired; 95 % interval ± 0.5)."  # 4.303 standard errors of 0.115
    assert first == f"bridged helps: +5.0 ± 0.1 points over vanilla with as many steps {rest}"
    assert second == f"bridged+reinit+mixup helps: +5.0 ± 0.1 points over vanilla with as many steps {rest}"
    assert third == f"bridged+reinit+mixup hurts: -5.0 ± 0.1 points over vanilla with as many steps and Mixup {rest}"
    (close,) = verdicts(cells("matched", [0.5, 0.7]) + cells("bridged", [0.55, 0.69]))
    assert close.startswith("bridged is not resolved: +2.0 ± 3.0 points")
    assert verdicts(plain) == ["No verdict: no bridged regime was run."]
    assert verdicts(plain[:1] + one)[0].startswith("No verdict on bridged over vanilla")


def test_unlabelled_images_are_refused(bridged, folder, picture, weights):
    flat = folder("flat", {f"{index}.png": picture(index, 32, 32) for index in range(4)})
    options = argparse.Namespace(synthetic=flat, real=flat, shots=1, validation=1, test=10, other_classes=False)
    with pytest.raises(InputError, match="no label"):
        bridged.read_sets(options)


def test_images_that_cannot_be_read_or_leak_are_refused_before_training(bridged, sets, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(bridged, "run", lambda *_: pytest.fail("training began"))
    synthetic, real = sets("synthetic", 4), sets("real", 20)
    words = [synthetic, real, tmp_path / "out", *small(weights)]
    whole = (real / "cat/3.png").read_bytes()
    for name, data in (("text", b"text"), ("torn", whole[: len(whole) // 2])):
        for root in (synthetic, real):
            bad = root / f"dog/{name}.png"
            bad.write_bytes(data)
            with pytest.raises(InputError, match=rf"dog/{name}\.png: .*Repair or remove"):
                launch(bridged, monkeypatch, *words)
            bad.unlink()
    with pytest.raises(InputError, match=r"synthetic/cat/.* is the test image .*real/cat/"):
        for image in (real / "cat").iterdir():
            (synthetic / "cat" / f"copy-{image.name}").write_bytes(image.read_bytes())
        launch(bridged, monkeypatch, *words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--backbone", "resnet_999"], "Unknown model"),
        (["--backbone", "resnet18"], "--backbone resnet18, --size 32: Error.*--weights names its weights"),
        (["--weights", "none.safetensors"], "no such file"),
        (["--precision", "fp16"], "needs a GPU"),
    ],
)
def test_networks_that_cannot_be_used_are_refused_before_training(
    bridged, sets, weights, tmp_path, monkeypatch, change, message
):
    monkeypatch.setattr(bridged, "run", lambda *_: pytest.fail("training began"))
    with pytest.raises(InputError, match=message):
        launch(bridged, monkeypatch, sets("synthetic", 4), sets("real", 20), tmp_path / "out", *small(weights), *change)


@pytest.mark.parametrize(
    "flag", ["shots", "validation", "test", "size", "real-steps", "batch-size", "every", "lr", "mixup"]
)
def test_numbers_out_of_range_are_refused_by_their_flag(bridged, monkeypatch, capsys, flag):
    with pytest.raises(SystemExit):
        launch(bridged, monkeypatch, "synthetic", "real", "out", f"--{flag}", -1)
    assert f"argument --{flag}: -1: expected" in capsys.readouterr().err


def test_an_incomplete_line_of_results_and_a_file_in_place_of_the_folder(bridged, tmp_path):
    (tmp_path / "results.jsonl").write_text('{"regime": "vani')
    with pytest.raises(InputError, match="Remove that line"):
        bridged.read_results(argparse.Namespace(out=tmp_path))
    with pytest.raises(InputError, match="is a file"):
        bridged.read_results(argparse.Namespace(out=tmp_path / "results.jsonl"))
