"""A study of `stylize tune` on disk: Optuna's trials, the budget that they must keep, and who may continue it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metrics.errors import InputError
from metrics.files import write_atomically

from ..locks import alone
from ..writing.job import to_json
from .splits import SEAL

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

DATA = ("learn", "tune", "contents")  # what of a configuration are digests of image sets
STARTUP = 8  # trials drawn at random before the sampler learns, and before any is stopped early


@dataclass(frozen=True)
class Constraints:
    """What a result must keep.

    Attributes:
        structure: least mean gradient correlation with the content.
        labels: least label probe.
        copies: largest share of copied patches by the copy audit, in which honest photos reach 0.01 to 0.03 against
            each other.
    """

    structure: float = 0.8
    labels: float = 0.95
    copies: float = 0.05

    def check(self) -> None:
        """Raises InputError for a bound that no result can keep, or that says nothing."""
        if not (-1 <= self.structure <= 1 and 0 <= self.labels <= 1 and 0 <= self.copies <= 1):
            raise InputError(
                f"structure {self.structure:g}, labels {self.labels:g}, copies {self.copies:g}: expected a structure "
                "of -1 to 1, and labels and copies of 0 to 1."
            )


@dataclass(frozen=True)
class Trial:
    """One point of the search and what it gave; ``done`` of ``total`` trials have ended.

    ``state`` is ``complete``, ``pruned`` (stopped early) or ``failed``. ``kid`` is the objective, ``closed`` the share
    of the gap to the tune photos that it closes, ``structure`` the mean gradient correlation, ``labels`` the label
    probe (None without labels), ``copies`` the share of copied patches. ``feasible``: complete and within the budget.
    ``notes``, of the first trial of a run, are lines about images that are lost or were passed over.
    """

    number: int
    state: str
    method: str
    strength: float
    assignment: str
    kid: float | None
    closed: float | None
    structure: float | None
    labels: float | None
    copies: float | None
    feasible: bool
    done: int = 0
    total: int = 0
    notes: tuple[str, ...] = ()

    def line(self) -> str:
        """The trial in one line."""
        what = f"trial {self.number}: {self.method} {self.strength:.2f} {self.assignment}"
        if self.kid is None or self.closed is None or self.structure is None:
            return f"{what}: {self.state}"
        labels = "" if self.labels is None else f", labels {self.labels:.0%}"
        kept = "" if self.feasible else ", over budget"
        copies = "" if self.copies is None else f", copies {self.copies:.1%}"
        return f"{what}: gap closed {self.closed:.0%}, structure {self.structure:.2f}{labels}{copies}{kept}"


def open_study(out: Path) -> Study:
    """The Optuna study of a folder, created when missing.

    Returns:
        The study, in the folder's own database.

    Raises:
        InputError: Optuna is missing, or the file is no study.
    """
    optuna = import_optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = out / "study.sqlite3"
    try:
        study: Study = optuna.create_study(
            storage=f"sqlite:///{file.resolve()}",
            study_name="stylize tune",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
        )
    except Exception as error:  # SQLAlchemy's, sqlite's and Optuna's own, by what is wrong with the file
        reason = str(error).splitlines()[0]
        raise InputError(f"{file}: cannot be read as a study ({reason}). Name a new folder.") from error
    return study


def read_config(out: Path) -> dict[str, Any]:
    """The configuration of the study in a folder.

    Returns:
        The configuration as it was written.

    Raises:
        InputError: OUT holds no study, or its ``config.json`` is damaged.
    """
    started = out / "config.json"
    if not started.is_file():
        raise InputError(f"{out}: holds no study. Start one with: stylize tune REAL SYNTHETIC {out}")
    try:
        config = json.loads(started.read_text(encoding="utf-8"))
        Constraints(**config["budget"])
        return dict(config)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{started}: damaged ({type(error).__name__}: {error}). Name a new folder.") from error


def ended(study: Study, budget: Constraints) -> list[Trial]:
    """Every trial that has ended, in order."""
    return [record(trial, budget) for trial in study.trials if trial.state.is_finished()]


def best(found: Sequence[Trial], budget: Constraints) -> Trial:
    """The feasible trial of least KID.

    Returns:
        The trial.

    Raises:
        InputError: none keeps the budget.
    """
    feasible = [trial for trial in found if trial.feasible]
    if not feasible:
        structures = [trial.structure for trial in found if trial.structure is not None]
        kept = [trial.labels for trial in found if trial.labels is not None]
        copied = [trial.copies for trial in found if trial.copies is not None]
        seen = [
            *([f"structure {max(structures):.2f}"] if structures else []),
            *([f"labels {max(kept):.2f}"] if kept else []),
            *([f"copies {min(copied):.3f}"] if copied else []),
        ]
        raise InputError(
            f"none of {len(found)} trials keeps structure {budget.structure:g}, labels {budget.labels:g} and copies "
            f"{budget.copies:g}; the best seen, each in some trial: {', '.join(seen) or 'no trial was completed'}. "
            "Repeat the command with a larger --trials, or with another budget (--structure, --labels, --copies) and a "
            "new folder."
        )
    return min(feasible, key=lambda trial: (trial.kid, trial.number))


def record(trial: FrozenTrial, budget: Constraints, done: int = 0, total: int = 0) -> Trial:
    """An ended Optuna trial as a :class:`Trial`."""
    found: dict[str, Any] = {name: trial.user_attrs.get(name) for name in ("closed", "structure", "labels", "copies")}
    state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
    least = {"structure": budget.structure, "labels": budget.labels}
    over = [name for name, bound in least.items() if (value := found[name]) is not None and value < bound]
    copied = found["copies"] is not None and found["copies"] > budget.copies
    return Trial(
        number=trial.number,
        state=state,
        method=trial.user_attrs.get("method", "?"),
        strength=trial.params.get("strength", math.nan),
        assignment=trial.params.get("assignment", "?"),
        kid=trial.value if state == "complete" else None,
        feasible=state == "complete" and not over and not copied,
        done=done,
        total=total,
        **found,
    )


@contextmanager
def locked(out: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Hold the folder; refuse another process, another study, a judged one, or a folder of something else."""
    started = out / "config.json"
    if out.exists() and (not out.is_dir() or (_visible(out) and not started.exists())):
        raise InputError(f"{out}: not an empty folder, and no study of this command. Name a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    with held(out):
        if (out / SEAL).exists():
            raise InputError(
                f"{out}: this study has been judged, so it takes no more trials: its choice would no longer be blind. "
                "Name another folder for a new study."
            )
        if started.exists():
            check_same(out, read_config(out), json.loads(json.dumps(config)))
        else:
            write_atomically(started, to_json(config))
        yield


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the folder of a study: no search goes on while it is judged."""
    refusal = f"{out}: another process is tuning in it or judging it. Wait for it, or name another folder."
    with alone(out / ".lock", refusal):
        yield


def _visible(folder: Path) -> bool:
    return any(not path.name.startswith(".") for path in folder.iterdir())


def check_same(out: Path, other: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises InputError where the study in the folder, ``other``, is of other settings or data than ``config``."""
    for name in [*(name for name in config if name not in DATA), *(name for name in DATA if name in config)]:
        was, value = other.get(name), config[name]
        if was == value:
            continue
        if name in DATA:
            raise InputError(
                f"{out}: holds a study of other {name} images: some were added, removed or changed since. Restore "
                "them to continue it, or name another folder."
            )
        if isinstance(was, dict) and isinstance(value, dict):  # the budget
            name = next(part for part in value if was.get(part) != value[part])
            was, value = was.get(name), value[name]
        raise InputError(
            f"{out}: holds a study with {name} = {was!r}, and this command says {value!r}. "
            "Repeat the earlier setting to continue it, or name another folder."
        )


def import_optuna() -> Any:
    """The module ``optuna``; raises InputError with the command that installs it."""
    try:
        import optuna
    except ImportError as error:
        raise InputError("tuning needs Optuna 5. Install it with: pip install 'reverse-stylize[tune]'") from error
    return optuna
