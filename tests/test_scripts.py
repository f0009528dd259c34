"""Scripts that no test runs still import names that the packages have."""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = [
    path for top in ("benchmarks", "examples", "assets/make", "tests/chaos") for path in (ROOT / top).rglob("*.py")
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_its_imports_exist(path):
    missing = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("stylize", "metrics"):
            module = import_module(node.module)
            names = [alias.name for alias in node.names]
            missing += [name for name in names if not hasattr(module, name) and not find_spec(f"{node.module}.{name}")]
    assert not missing
