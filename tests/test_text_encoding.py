"""Text files are UTF-8 whatever the locale says: nothing that reads or writes text leaves the encoding to it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for top in ("stylize", "metrics", "examples", "benchmarks") for path in (ROOT / top).rglob("*.py"))
OTHERS = {"Image", "tarfile", "zipfile", "gzip"}  # whose open() reads no text


def unspecified(source):
    """Lines of calls that open, read or write text without an encoding; ruff sees those of known types only."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = getattr(getattr(function, "value", None), "id", "")
        texts = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        text_mode = owner not in OTHERS and (not node.args or any(mode in {"r", "w", "a", "x"} for mode in texts))
        if (name == "read_text" and not node.args) or name == "write_text" or (name == "open" and text_mode):
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("call", ["p.read_text()", "p.write_text(x)", "p.open('a')", "open(p, 'w')", "p.open()"])
def test_the_check_sees_what_leaves_it_to_the_locale(call):
    assert unspecified(call) == [1]
    assert unspecified(f"{call[:-1]}{'' if call.endswith('()') else ', '}encoding='utf-8')") == []


def test_every_text_file_is_utf8():
    sealed = {"stylize/tune_report.py": 1}  # SealedSet.open reads images
    found = {str(path.relative_to(ROOT)): unspecified(path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: lines for name, lines in found.items() if len(lines) > sealed.get(name, 0)} == {}
