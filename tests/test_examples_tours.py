"""The tours in examples/: short, and they run from start to end."""

import runpy
from pathlib import Path

import pytest

TOURS = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


def tour(name):
    (path,) = (path for path in TOURS if path.stem == name)
    return runpy.run_path(str(path))["main"]


@pytest.mark.parametrize("path", TOURS, ids=lambda path: path.stem)
def test_it_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.slow
def test_a_dataset_comes_closer(tmp_path, capsys):
    closed = tour("stylise_dataset")(tmp_path, per_class=4, size=64)
    assert 0 < closed < 1 and "of the gap closed" in capsys.readouterr().out
    assert (tmp_path / "report/report.html").is_file()


def test_a_worse_renderer_fails(tmp_path, capsys):
    assert tour("domain_gap_in_ci")(tmp_path, per_class=10) == 1
    said = capsys.readouterr().out
    assert said.startswith("FAIL: of 2 checks") and "look first at" in said


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers
def test_bridging_in_brief(tmp_path, folder, picture, capsys):
    pytest.importorskip("diffusers", reason="the extra 'diffusion' is not installed")
    real = {
        f"{part}/{label}/{i}.png": picture(9 * i, 32, 32)
        for part in ("train", "test")
        for label in ("bag", "coat")
        for i in range(3)
    }
    accuracies = tour("bridged_in_brief")(folder("real", real), tmp_path / "work", word_steps=2, per_class=2, steps=2)
    assert set(accuracies) == {"real only, for as many steps", "bridged"}
    assert all(0 <= value <= 1 for value in accuracies.values())
