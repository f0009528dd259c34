"""Both commands as modules, their version, and their completion in a shell; none of it imports torch."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import metrics
import stylize

MODULES = {"stylize": "stylize", "metrics": "domain-gap"}


def answer(module, *words, **variables):
    """What the command prints; it fails if the command imported torch."""
    code = (
        f"import atexit, runpy, sys\n"
        f"atexit.register(lambda: 'torch' in sys.modules and print('torch was imported', file=sys.stderr))\n"
        f"sys.argv = ['x', *{list(words)!r}]\n"
        f"runpy.run_module({module!r}, run_name='__main__')"
    )
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0 and "torch" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", MODULES)
def test_version(module):
    assert answer(module, "--version") == f"reverse-stylize {version('reverse-stylize')}\n"


@pytest.mark.parametrize("module", MODULES)
def test_help(module):
    assert f"Usage: {MODULES[module]} [OPTIONS] COMMAND" in answer(module, "--help")


def test_a_shell_completes_commands():
    words = {"COMP_WORDS": "stylize re", "COMP_CWORD": "1", "_STYLIZE_COMPLETE": "complete_bash"}
    assert sorted(answer("stylize", **words).split()) == ["recipe", "render", "restyle"]
    words = {"COMP_WORDS": "domain-gap compare --ba", "COMP_CWORD": "2", "_DOMAIN_GAP_COMPLETE": "complete_bash"}
    assert answer("metrics", **words).split() == ["--batch-size"]


@pytest.mark.parametrize("package", [stylize, metrics])
def test_types_are_announced(package):
    assert (Path(package.__file__).parent / "py.typed").is_file()
