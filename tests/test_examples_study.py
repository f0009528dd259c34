"""examples/studies/study.py: order, slices, resume, table, and the sets that it compares."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from metrics.errors import InputError

pytest.importorskip("accelerate", reason="the extra 'diffusion' is not installed")
STUDIES = Path(__file__).parent.parent / "examples" / "studies"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    import study

    monkeypatch.setattr(study, "made", lambda *_: [])
    return study


@pytest.fixture
def ran(study, monkeypatch):
    """Cells that cost nothing and say what was run."""
    cells = []

    def cell(task):
        def run(name, seed, items, options):
            cells.append((name, seed, task))
            return {study.TASKS[task][0]: len(cells) / 100}

        return run

    monkeypatch.setattr(study, "CELLS", {task: cell(task) for task in study.CELLS})
    return cells


def launch(study, monkeypatch, tmp_path, *words):
    monkeypatch.setattr(
        sys, "argv", ["study.py", str(tmp_path), "--results", str(tmp_path / "results"), *map(str, words)]
    )
    study.main()


FEW = ("--sets", "none", "fractaldb", "--seeds", 0, 1, "--tasks", "gap", "pretrain", "fashion-20")


def test_it_continues_at_the_next_cell(study, ran, monkeypatch, tmp_path, capsys):
    launch(study, monkeypatch, tmp_path, *FEW, "--dry-run")
    assert "pretrain: 2 cells of about 60 s" in capsys.readouterr().out and ran == []
    launch(study, monkeypatch, tmp_path, *FEW, "--minutes", 0)
    assert ran == [] and "0 of 7 cells" in capsys.readouterr().out
    clock = iter(range(0, 10**6, 30))  # two looks at the clock per cell, so a minute each
    with monkeypatch.context() as patch:
        patch.setattr(study.time, "monotonic", lambda: next(clock))
        launch(study, monkeypatch, tmp_path, *FEW, "--minutes", 4)
    assert 1 <= len(ran) <= 4
    launch(study, monkeypatch, tmp_path, *FEW)
    assert ran == [
        ("fractaldb", 0, "gap"),
        *(("none", 0, "fashion-20"), ("fractaldb", 0, "pretrain"), ("fractaldb", 0, "fashion-20")),
        *(("none", 1, "fashion-20"), ("fractaldb", 1, "pretrain"), ("fractaldb", 1, "fashion-20")),
    ]
    rows = list(csv.DictReader((tmp_path / "results" / "pretraining.csv").read_text().splitlines()))
    assert [(row["set"], int(row["seed"]), row["task"]) for row in rows] == ran
    assert "| fractaldb |" in (tmp_path / "results" / "pretraining.md").read_text()
    with pytest.raises(InputError, match=r"was made with --pretrain-steps 1600\. Use the same"):
        launch(study, monkeypatch, tmp_path, *FEW, "--pretrain-steps", 7)


def test_an_interrupted_cell_leaves_no_line(study, ran, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    study.CELLS["pretrain"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        launch(study, monkeypatch, tmp_path, *FEW)
    rows = (tmp_path / "results" / "pretraining.csv").read_text().splitlines()
    assert len(rows) == 1 + len(ran) == 3


def rows(values, task="fashion-20", metric="accuracy"):
    return [
        {"set": name, "seed": str(seed), "task": task, "metric": metric, "value": str(value), "seconds": "30"}
        for name, own in values.items()
        for seed, value in enumerate(own)
    ]


def test_the_table_has_means_errors_verdicts_and_rank_correlation(study):
    from _study_table import correlations, table, verdicts

    accuracy = {
        "none": [0.3, 0.34],
        "dead-leaves": [0.4, 0.44],
        "fractaldb": [0.35, 0.35],
        "neural-fractal": [0.42, 0.40],
        "neural-fractal + strong": [0.44, 0.55],
    }
    gaps = {"dead-leaves": [0.2], "fractaldb": [0.3], "neural-fractal": [0.25], "neural-fractal + strong": [0.1]}
    found = rows(accuracy) + rows(gaps, "gap", "kid@efficientnet-lite0")
    lines = {line.split(" | ")[0].strip("| "): line for line in table(found)}
    assert "| 0.200 | 42.0% ± 2.0% |" in lines["dead-leaves"] and lines["dead-leaves"].endswith("| 2 | 1.5 |")
    assert f"{np.mean(accuracy['none']):.1%} ± {np.std(accuracy['none'], ddof=1) / math.sqrt(2):.1%}" in lines["none"]
    said = verdicts(found)
    assert said[0].startswith("- fashion-20: neural-fractal gains -2.0% ± 7.0% (2 seeds) over dead-leaves")
    assert "neural-fractal + strong gains +17.5% ± 7.5% (2 seeds) over dead-leaves" in said[1]
    names = list(gaps)
    rho = spearmanr([gaps[name][0] for name in names], [np.mean(accuracy[name]) for name in names])[0]
    assert f"ρ = {rho:+.2f}" in correlations(found)[0] and "4 sets" in correlations(found)[0]


def test_lower_is_better_where_it_is(study):
    from _study_table import verdicts

    found = rows({"fractaldb": [0.02], "rcdb": [0.04], "neural-fractal": [0.015]}, "autoencoder", "mse")
    assert verdicts(found) == [
        "- autoencoder: neural-fractal gains +25.0% (1 seed) over fractaldb, the best earlier set; the aim is 20%."
    ]


def test_patches_of_train_and_test_come_from_different_halves(study, tmp_path, monkeypatch):
    for part in ("judge", "tune"):
        (tmp_path / part).mkdir()
        for index in range(2):
            image = np.zeros((60, 80, 3), np.uint8)
            image[:, 40:] = 255
            Image.fromarray(image).save(tmp_path / part / f"{part}{index}.png")
    monkeypatch.setattr(study, "PHOTOS", tmp_path)
    left, right = study.photo_patches(5, "left", 0, 16), study.photo_patches(5, "right", 0, 16)
    assert {item.label for item in left} == {item.label for item in right} and len({item.label for item in left}) == 4
    assert max(item.read().max() for item in left) == 0 and min(item.read().min() for item in right) == 255
    assert left[0].read().shape == (16, 16, 3) and len(left) == 20


def test_sets_have_equal_numbers_of_images(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(STUDIES))
    import _pretraining_sets as sets

    for name in ("dead-leaves", "dead-leaves + fast", sets.STYLE_PHOTOS):
        items = sets.made(name, tmp_path, 2, 3, 16)
        assert len(items) == 6 and all(item.read().shape == (16, 16, 3) for item in items), name
    crops = sets.made(sets.STYLE_PHOTOS, tmp_path, 5, 5, 16)  # 9 photos, 25 images
    counts = np.unique([item.label for item in crops], return_counts=True)[1]
    assert counts.sum() == 25 and counts.max() - counts.min() <= 1
    with pytest.raises(InputError, match=r"set 'fractals'\. Expected one of: none, dead-leaves"):
        sets.made("fractals", tmp_path, 2, 3, 16)


def test_a_real_cell(monkeypatch, tmp_path):
    """Pre-trained, then fine-tuned on patches of the photos, by the recipe's own code."""
    monkeypatch.syspath_prepend(str(STUDIES))
    import study

    small = (
        "--classes",
        2,
        "--per-class",
        3,
        "--size",
        16,
        "--train-size",
        16,
        "--pretrain-steps",
        2,
        "--few-steps",
        2,
    )
    words = ("--sets", "none", "dead-leaves", "--seeds", 0, "--tasks", "pretrain", "patches", "--batch-size", 4)
    launch(study, monkeypatch, tmp_path, *words, *small)
    found = list(csv.DictReader((tmp_path / "results" / "pretraining.csv").read_text().splitlines()))
    assert [(row["set"], row["task"]) for row in found] == [
        ("none", "patches"),
        ("dead-leaves", "pretrain"),
        ("dead-leaves", "patches"),
    ]
    assert all(0 <= float(row["value"]) <= 1 for row in found)
    assert (tmp_path / "classifiers" / "dead-leaves 0" / "model.safetensors").is_file()
