"""Pattern kernels compile wherever they run: in read-only and home-less containers, on full disks, beside damage."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stylize.patterns import FAMILIES, _compiled, load_family
from stylize.patterns._compiled import compiled

ROOT = Path(__file__).parent.parent
PROGRAM = """
import sys
from stylize.patterns import FAMILIES, load_family
for name in FAMILIES:
    load_family(name)
family = load_family("moire")
sys.stdout.buffer.write(family.render(family.sample_class(0, 3), 1, 16).tobytes())
"""


@pytest.fixture
def nowhere(tmp_path):
    """A copy of the packages beside which, and anywhere else, Numba can make no folder: for root too."""
    for name in ("stylize/patterns", "metrics"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / "site" / name, ignore=ignored)
    for name in ("__init__.py", "shipped.py", "version.py"):
        shutil.copy(ROOT / "stylize" / name, tmp_path / "site/stylize")
    (tmp_path / "site/stylize/patterns/__pycache__").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "work").mkdir()
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "XDG", "PYTHON"))}
    return tmp_path, {**keep, "PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path / "file" / "home")}


@pytest.mark.parametrize("variables", [{}, pytest.param({"NUMBA_CACHE_DIR": "{file}/cache"}, marks=pytest.mark.slow)])
def test_kernels_compile_where_nothing_can_be_kept(nowhere, variables):
    folder, env = nowhere
    env |= {name: value.format(file=folder / "file") for name, value in variables.items()}
    command = [sys.executable, "-B", "-c", PROGRAM]
    done = subprocess.run(command, env=env, cwd=folder / "work", capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    family = load_family("moire")
    expected = family.render(family.sample_class(0, 3), 1, 16)
    assert np.array_equal(np.frombuffer(done.stdout, np.uint8).reshape(16, 16, 3), expected)
    assert list((folder / "work").iterdir()) == []


def add_one(x):
    return x + 1.0


def kernel(tmp_path, monkeypatch):
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    return compiled(add_one)


def test_compiled_code_is_kept(tmp_path, monkeypatch):
    assert kernel(tmp_path, monkeypatch)(1.5) == 2.5
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".nbi", ".nbc"}
    again = kernel(tmp_path, monkeypatch)
    assert again(1.5) == 2.5 and sum(again.stats.cache_hits.values()) == 1


def test_damaged_files_are_as_if_nothing_was_kept(tmp_path, monkeypatch):
    kernel(tmp_path, monkeypatch)(1.5)
    for path in tmp_path.rglob("*.nb?"):
        path.write_bytes(path.read_bytes()[:20])
    assert kernel(tmp_path, monkeypatch)(1.5) == 2.5


def test_a_full_disk_ends_no_call(tmp_path, monkeypatch):
    def full(*words):
        raise OSError(28, "No space left on device")

    made = kernel(tmp_path, monkeypatch)
    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._save_data", full)
    assert made(1.5) == 2.5


def test_without_a_home_no_folder_called_tilde_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(_compiled.os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(_compiled.os, "access", lambda path, mode: False)
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert compiled(add_one)(1.5) == 2.5 and list(tmp_path.iterdir()) == []


def test_there_is_one_place_that_compiles():
    modules = sorted((ROOT / "stylize").rglob("*.py"))
    users = [path.name for path in modules if "njit" in path.read_text(encoding="utf-8")]
    assert users == ["_compiled.py"] and len(FAMILIES) == 12
