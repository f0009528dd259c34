"""The commands ``stylize recipe``: scripts to copy and edit, each with the modules that it needs."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from metrics.commands.terminal import path, say
from metrics.errors import InputError
from metrics.files import write_atomically
from metrics.registry import unknown

from ..shipped import shipped

app = typer.Typer(help="Scripts to copy and edit: bridged transfer, pre-training.", no_args_is_help=True)


@app.command("list")
def list_recipes() -> None:
    """List the recipes, a line each.

    Example: stylize recipe list
    """
    scripts = _scripts()
    width = max(map(len, scripts))
    for name, script in scripts.items():
        title, *_ = (ast.get_docstring(ast.parse(script.read_bytes())) or "").splitlines()
        print(f"{name:<{width}}  {title}")


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="Recipe; `stylize recipe list` names them.")],
    folder: Annotated[
        Path | None, typer.Argument(help="Where to; a folder of the recipe's name unless given.", parser=path)
    ] = None,
) -> None:
    """Copy a recipe and the modules that it needs. Nothing is overwritten.

    Example: stylize recipe copy bridged_transfer
    """
    scripts = _scripts()
    if name not in scripts:
        raise unknown("recipe", name, scripts)
    folder = folder or Path(name)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file. Name a folder: stylize recipe copy {name} FOLDER")
    modules, packages = _imports(scripts[name])
    fresh = [module for module in modules if not (folder / module.name).exists()]
    edited = [
        module.name
        for module in modules
        if module not in fresh and (folder / module.name).read_bytes() != module.read_bytes()
    ]
    if edited:
        raise InputError(
            f"{folder}: holds {', '.join(edited)} with other text, which is kept. Name another folder: "
            f"stylize recipe copy {name} FOLDER"
        )
    for module in fresh:
        write_atomically(folder / module.name, module.read_bytes())
    missing = sorted(package for package in packages if find_spec(package) is None)
    if missing:
        say(f"{name} needs {', '.join(missing)}: install the extra `diffusion` of reverse-stylize")
    script = folder / scripts[name].name
    say(f"next: python {script} --help")
    print(script)


def _scripts() -> dict[str, Path]:
    """Every recipe's script by its name; modules that recipes share begin with an underscore."""
    return {script.stem: script for script in sorted(shipped("recipes").glob("[!_]*.py"))}


def _imports(script: Path) -> tuple[list[Path], set[str]]:
    """A script and the modules beside it that it imports, directly or not; and the packages that all of them import."""
    modules, packages = [script], set()
    for module in modules:  # grows
        for node in ast.walk(ast.parse(module.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in (name.partition(".")[0] for name in names):
                beside = script.with_name(f"{name}.py")
                if not beside.is_file():
                    packages.add(name)
                elif beside not in modules:
                    modules.append(beside)
    return modules, packages
