"""The wheel works alone: built, installed into an empty environment, and used outside of the clone."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of an environment's commands; the dependencies are borrowed, this clone is not to be seen."""
    pytest.importorskip("hatch_vcs", reason="the build backend is not installed")
    root = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", root, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = root.glob("*.whl")
    assert wheel.stat().st_size < 10_000_000
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True)
    python = root / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    (site,) = (root / "venv").rglob("site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))  # .pth files in there are not read
    return python.parent


@pytest.fixture
def use(installed, tmp_path):
    """Run a command of the environment in an empty folder and return its stdout."""

    def call(name, *words):
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [installed / name, *words], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=500
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_it_is_not_the_clone(use, installed):
    code = "import metrics, stylize; print(metrics.__file__, stylize.__file__, sep='\\n')"
    files = use("python", "-c", code).splitlines()
    assert all(Path(file).is_relative_to(installed.parent) for file in files) and len(files) == 2


@pytest.mark.parametrize("name", ["stylize", "domain-gap"])
def test_commands_answer(use, name):
    assert f"Usage: {name}" in use(name, "--help")
    version = use("python", "-c", "import stylize; print(stylize.__version__)")
    assert use(name, "--version") == f"reverse-stylize {version}"


def test_version_is_the_commits(use):
    code = "from importlib.metadata import version; print(version('reverse-stylize'))"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    tagged = subprocess.run(["git", "describe", "--tags", "--exact-match"], cwd=ROOT, capture_output=True)
    if commit.returncode or not tagged.returncode:
        pytest.skip("no clone, or a release")
    assert f"+g{commit.stdout[:7]}" in use("python", "-c", code)


def test_a_recipe_is_copied_and_starts(use):
    assert use("stylize", "recipe", "copy", "bridged_transfer", "x") == "x/bridged_transfer.py\n"
    pytest.importorskip("accelerate", reason="the extra 'diffusion' is not installed")
    assert "usage: bridged_transfer.py" in use("python", "x/bridged_transfer.py", "--help")


def test_the_demo_brings_its_photos(use, tmp_path):
    assert "gap closed" in use("stylize", "demo", "out", "--per-class", "1", "--workers", "1").lower()
    assert (tmp_path / "out/report.html").stat().st_size > 100_000


def test_the_network_and_the_page_of_a_search_are_there(use, tmp_path):
    use("stylize", "render", "moire", "patterns", "--classes", "2", "--per-class", "2", "--size", "64")
    photos = use("python", "-c", "from stylize.shipped import shipped; print(shipped('photos'))").strip()
    use("stylize", "learn", f"{photos}/learn", "style.safetensors", "--crops", "1", "--size", "64")
    use("stylize", "apply", "style.safetensors", "patterns", "strong", "--preset", "strong", "--workers", "1")
    assert len(list((tmp_path / "strong").rglob("*.png"))) == 4
    code = "from jinja2 import PackageLoader; print(PackageLoader('stylize.tuning').list_templates())"
    assert "tune.html" in use("python", "-c", code)


def test_the_tiny_diffusion_model_generates(use, tmp_path):
    pytest.importorskip("diffusers", reason="the extra 'diffusion' is not installed")
    (tmp_path / "classes.txt").write_text("bag\n")
    use("stylize", "generate", "out", "--classes", "classes.txt", "--per-class", "1", "--steps", "2")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 1
