"""What runs where users are: no module that only POSIX has, and a workflow that names what exists."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "tty", "syslog", "crypt", "spwd", "nis"}
FILES = [*(ROOT / "stylize").rglob("*.py"), *(ROOT / "metrics").rglob("*.py"), ROOT / "pytest_domain_gap.py"]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))


def imported(path):
    """Modules that a file imports when it is imported, not those of a try or of a function."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_no_module_needs_posix_to_be_imported():
    assert not [path for path in FILES if POSIX & set(imported(path))]


def test_the_workflow_covers_every_supported_python_on_three_systems():
    matrix = WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]
    assert [name.partition("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]
    assert matrix["python"][0] == "3.11" and 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text(
        "utf-8"
    )


@pytest.mark.parametrize("step", WORKFLOW["jobs"]["read-only-container"]["steps"][-1]["run"].splitlines())
def test_the_container_job_names_commands_that_exist(step):
    from metrics.commands import main as gap_cli
    from stylize.commands import main as stylize_cli

    apps = {"stylize": stylize_cli.app, "domain-gap": gap_cli.app}
    words = step.split()
    if words[:1] == ["run"]:
        assert words[2] in {command.callback.__name__ for command in apps[words[1]].registered_commands}
