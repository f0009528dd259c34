"""What both commands share at the terminal: one-line errors, exit codes, progress bars. stdout is data, stderr talk."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ..errors import InputError
from ..escapes import escaped
from ..progress import Callback, Step
from .stopping import STOPPED, stop_on_signals
from .streams import calm, steady

USAGE = 2
S = TypeVar("S", bound=Step)


def run(app: typer.Typer, name: str) -> None:
    """Run a command; an InputError becomes one line and exit code 2, a traceback needs ``--debug``.

    The exit code is what the command decided, whoever reads its streams and whatever they can hold; only an output that
    is lost, on a full disk, is an error.
    """
    steady()
    calm()
    stop_on_signals()
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    try:
        _finish(app, name)
    except InputError as error:
        if debug:
            raise
        _fail(name, str(error))
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(
            name, f"{where}{error.strerror or error}. Check that the path can be read or written and the disk has room."
        )
    except Exception as error:
        if debug:
            raise
        _fail(name, f"unexpected {type(error).__name__}: {error}. Repeat the command with --debug for the traceback.")


def path(text: str | Path) -> Path:
    """A path of the command line, or a default; it may not be empty: that is an unset variable, no current folder."""
    if not str(text).strip():
        raise typer.BadParameter(
            "got an empty path. Expected a file or folder; the current folder is written as a dot: ."
        )
    return Path(text)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"reverse-stylize {metadata.version('reverse-stylize')}")
        raise typer.Exit


def version(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """The options of both commands themselves: ``--version``, which ends before this is called."""


def say(message: str) -> None:
    """One line to stderr, in which names from strangers are shown and not obeyed."""
    print(escaped(message), file=sys.stderr, flush=True)


@contextmanager
def bar(what: str = "") -> Iterator[Callback]:
    """A callback that draws a bar with rate and remaining time; nothing when stderr is no terminal.

    The bar is called ``what``, or as the step says.

    Yields:
        What is to be called with every step.
    """
    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as drawn:

        def show(step: Step) -> None:
            name = getattr(step, "what", what)
            if not drawn.tasks or drawn.tasks[0].description != name:
                for task in drawn.task_ids:
                    drawn.remove_task(task)
                drawn.add_task(name)
            drawn.update(drawn.task_ids[0], completed=step.done, total=step.total)

        yield show


def follow(steps: Iterable[S], what: str) -> Iterator[S]:
    """Pass steps through and draw their bar."""
    with bar(what) as show:
        for step in steps:
            show(step)
            yield step


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{task.speed:.1f}/s")


def _finish(app: typer.Typer, name: str) -> None:
    try:
        app(prog_name=name)
    except SystemExit as ended:  # how Typer ends, after Ctrl-C too
        if ended.code in STOPPED:
            say(f"{name}: interrupted. What is finished is kept: repeat the command to go on.")
        sys.stdout.flush()  # at the interpreter's end a fault would be no error of ours
        raise


def _fail(name: str, message: str) -> None:
    say(f"{name}: {message}")
    sys.exit(USAGE)
