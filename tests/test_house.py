"""The house: no circle of modules or rooms, arrows that only run down, and sizes that a person can read.

A function's lines are counted without its docstring, and with its signature of up to eighteen options.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("metrics", "stylize")
    for path in (ROOT / package).rglob("*.py")
}
APART = ("stylize.patterns", "stylize.styles", "stylize.diffusion")  # they do not know each other, nor the engines
WHOLE = {"metrics", "stylize"}  # their lazy exports name rooms for users, not for modules


def imported(module):
    """The modules that a module imports, at its top or later."""
    path = FILES[module]
    base = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = base[: len(base) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                target = f"{source}.{alias.name}" if f"{source}.{alias.name}" in FILES else source
                if target in FILES and target != module:
                    yield target


ARROWS = {(module, target) for module in FILES if module not in WHOLE for target in imported(module)}


def room(module):
    parts = module.split(".")
    is_room = len(parts) > 2 or FILES[module].name == "__init__.py"
    return ".".join(parts[:2]) if is_room else module


def circle(arrows):
    """The nodes that no order can put below each other: what is left when leaves are taken away again and again."""
    arrows = {(a, b) for a, b in arrows if a != b}
    while arrows:
        inner = {(a, b) for a, b in arrows if b in {start for start, _ in arrows}}
        if inner == arrows:
            return arrows
        arrows = inner
    return set()


def test_modules_form_no_circle():
    assert circle(ARROWS) == set()


def test_rooms_form_no_circle():
    assert circle({(room(a), room(b)) for a, b in ARROWS}) == set()


def test_metrics_does_not_know_stylize():
    assert [(a, b) for a, b in ARROWS if a.startswith("metrics") and b.startswith("stylize")] == []


def test_what_makes_images_stands_apart():
    made = [(a, b) for a, b in ARROWS if room(a) in APART and room(b) in (*APART, "stylize.engines")]
    # diffusion writes sets as the other commands do, through the writing room; these three know nothing of each other
    assert [(a, b) for a, b in made if room(a) != room(b)] == []


@pytest.mark.parametrize("module", FILES)
def test_sizes(module):
    text = FILES[module].read_text(encoding="utf-8")
    assert text.count("\n") <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and ".commands." not in module:
            documented = ast.get_docstring(node) is not None
            docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if documented else 0
            assert node.end_lineno - node.lineno + 1 - docstring <= 72, node.name
