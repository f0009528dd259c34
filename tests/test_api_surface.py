"""The public Python API, as ``tests/api_surface.json`` has it: a change of it is meant, and is written down.

After a change that is meant: ``python tests/test_api_surface.py > tests/api_surface.json``
"""

import inspect
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import metrics
import stylize

LOCKED = Path(__file__).parent / "api_surface.json"
MODULES = {
    "metrics": metrics.__all__,
    "metrics.torchmetrics": ["FrechetInceptionDistance", "KernelInceptionDistance"],
    "metrics.validate": ["extractor", "metric"],
    "stylize": stylize.__all__,
    "stylize.validate": ["family", "method"],
}


def told(value):
    """The parameters of a callable and, of a class, those of its public methods; the type of anything else."""
    if inspect.isclass(value):
        methods = {
            name: str(inspect.signature(member))
            for name, member in sorted(vars(value).items())
            if inspect.isfunction(member) and not name.startswith("_")
        }
        return {"": parameters(value), **methods}
    return parameters(value) if callable(value) else type(value).__name__


def parameters(value):
    return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(value)).replace("'", ""))


def surface():
    return {
        module: {name: told(getattr(import_module(module), name)) for name in sorted(names)}
        for module, names in MODULES.items()
    }


def test_the_surface_is_the_one_that_is_written_down():
    assert surface() == json.loads(LOCKED.read_text())


@pytest.mark.parametrize("package", [metrics, stylize])
def test_every_name_is_documented_and_listed(package):
    assert dir(package) == sorted(package.__all__)
    for name in package.__all__:
        value = getattr(package, name)
        if name != "__version__":
            assert (value.__doc__ or "").strip(), name
            assert f"``{name}``" in package.__doc__ or name.startswith("iter_"), name


@pytest.mark.parametrize("package", [metrics, stylize])
def test_whatever_does_the_work_takes_progress_and_has_a_twin(package):
    twins = [name for name in package.__all__ if name.startswith("iter_")]
    for name in twins:
        assert "progress" in inspect.signature(getattr(package, name.removeprefix("iter_"))).parameters, name


def test_importing_the_packages_imports_neither_torch_nor_numba():
    code = "import sys, metrics, stylize; print([name for name in ('torch', 'numba', 'timm') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


if __name__ == "__main__":
    print(json.dumps(surface(), indent=1, sort_keys=True))
