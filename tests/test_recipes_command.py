"""``stylize recipe``: what it lists, what it copies, what it refuses; and a copied recipe starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metrics.errors import InputError
from stylize.commands.recipe import copy, list_recipes
from stylize.shipped import shipped

RECIPES = ["bridged_transfer", "fashion_folders", "pretrain_autoencoder", "pretrain_classifier", "pretrain_diffusion"]

QUICK = ("fashion_folders", "pretrain_classifier")  # the others are copied in the slow tests


def test_the_list_has_a_line_for_every_recipe(capsys):
    list_recipes()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == RECIPES and all(line.endswith(".") for line in lines)


def test_the_modules_that_it_needs_come_along_and_no_others(tmp_path, capsys):
    copy("bridged_transfer", tmp_path / "mine")
    names = {"_bridged_report.py", "_bridged_sets.py", "_training.py", "bridged_transfer.py"}
    assert {file.name for file in (tmp_path / "mine").iterdir()} == names
    stdout, stderr = capsys.readouterr()
    assert stdout == f"{tmp_path}/mine/bridged_transfer.py\n"
    assert f"next: python {tmp_path}/mine/bridged_transfer.py --help" in stderr
    copy("pretrain_diffusion", tmp_path / "mine")  # shares _training.py, and needs another recipe
    added = {file.name for file in (tmp_path / "mine").iterdir()} - names
    assert added == {"pretrain_autoencoder.py", "pretrain_diffusion.py"}


def test_what_was_edited_is_kept(tmp_path):
    (tmp_path / "_training.py").write_text("mine")
    with pytest.raises(InputError, match=r"holds _training\.py with other text.*stylize recipe copy bridged_tran"):
        copy("bridged_transfer", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["_training.py"]
    assert (tmp_path / "_training.py").read_text() == "mine"


def test_a_name_and_a_folder_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"unknown recipe 'bridged'\. Did you mean 'bridged_transfer'"):
        copy("bridged")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: is a file\. Name a folder"):
        copy("bridged_transfer", tmp_path / "file")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in RECIPES]
)
def test_a_copy_is_complete(name, tmp_path, monkeypatch):
    """All of its modules are there: it imports them without the folder that it came from."""
    pytest.importorskip("accelerate", reason="the extra 'diffusion' is not installed")
    monkeypatch.chdir(tmp_path)
    copy(name)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    call = [sys.executable, f"{name}/{name}.py", "--help"]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {name}.py"), done.stderr


def test_a_broken_installation_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("stylize.shipped.PACKAGE", tmp_path / "stylize")
    with pytest.raises(InputError, match=r"the photos that come along are neither in .*stylize/photos nor in .*photos"):
        shipped("photos")
