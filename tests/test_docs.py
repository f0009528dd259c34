"""README and docs are true: their commands exist, their links too, and the Python of the README runs."""

import hashlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer.main
import yaml

from metrics.commands import main as gap_cli
from stylize.commands import main as stylize_cli

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CARDS = ["assets/README.md", "assets/tiny-diffusion/README.md", "stylize/styles/methods/network.md"]
OTHERS = ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", *CARDS]
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *(ROOT / page for page in OTHERS)]


def blocks(language, pages=PAGES):
    return [
        block for page in pages for block in re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]


def test_python_example_is_short_and_runs(tmp_path, monkeypatch, folder, picture):
    source = blocks("python", [README])[0]
    assert len([line for line in source.splitlines() if line.strip()]) < 10
    folder("patterns", {f"{i % 2}/{i}.png": picture(40 + i) for i in range(4)})
    folder("photos/learn", {f"{i}.png": picture(i, 90, 90) for i in range(3)})
    folder("photos/judge", {f"{i}.png": picture(10 + i, 90, 90) for i in range(3)})
    monkeypatch.chdir(tmp_path)
    exec(compile(source, str(README), "exec"), {"__name__": "readme"})
    assert (tmp_path / "report/report.html").is_file()


def commands():
    lines = [line for block in blocks("(?:sh|bash|console)") for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line.partition(" > ")[0].removeprefix("$ "), comments=True) for line in lines]
    return list(dict.fromkeys(tuple(w) for w in words if w and w[0] in ("stylize", "domain-gap")))


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_of_the_pages_parses(words):
    app = typer.main.get_command(stylize_cli.app if words[0] == "stylize" else gap_cli.app)
    context = app.make_context(words[0], [words[1]])
    name, command, rest = app.resolve_command(context, list(words[1:]))
    if hasattr(command, "resolve_command"):  # a group, such as stylize recipe
        context = command.make_context(name, rest[:1], parent=context)
        name, command, rest = command.resolve_command(context, rest)
    command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_exist(page):
    for target in re.findall(
        r"\]\((?!http|#)([^)#]+)[^)]*\)|<img[^>]* src=\"(?!http)([^\"]+)\"", page.read_text("utf-8")
    ):
        path = page.parent / next(filter(None, target))
        assert path.exists(), path


def test_examples_that_the_pages_run_exist():
    text = "".join(page.read_text("utf-8") for page in PAGES)
    scripts = set(re.findall(r"(?:examples|benchmarks|assets/make|recipes|tests)/[\w/]*\.py", text))
    homes = {
        script: script.replace("recipes/", "examples/recipes/", script.startswith("recipes/")) for script in scripts
    }
    lost = [script for script, home in homes.items() if not (ROOT / home).is_file()]
    assert not lost and any(script.startswith("recipes/") for script in scripts)


def test_weights_have_a_card_that_names_their_digest():
    tracked = subprocess.run(["git", "ls-files", "*.safetensors"], cwd=ROOT, capture_output=True, text=True, check=True)
    cards = "".join((ROOT / card).read_text("utf-8") for card in CARDS)
    weights = [ROOT / line for line in tracked.stdout.splitlines()]
    assert [w.name for w in weights if hashlib.sha256(w.read_bytes()).hexdigest() not in cards] == []


@pytest.mark.parametrize("form", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_forms_and_workflows_are_yaml(form):
    assert yaml.safe_load(form.read_text("utf-8"))


def test_readme_is_short():
    assert len(README.read_text("utf-8").split()) <= 1200
