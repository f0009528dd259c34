"""Public functions and classes say what they take, what they return and what they raise."""

import inspect

import pytest

import metrics
import stylize


def public():
    """Every public function, and every public class with its methods, by name."""
    for package in (stylize, metrics):
        for name in (name for name in package.__all__ if not name.startswith("__")):
            thing = getattr(package, name)
            yield f"{package.__name__}.{name}", thing
            for method in vars(thing) if inspect.isclass(thing) else ():
                if not method.startswith("_") and inspect.isroutine(getattr(thing, method)):
                    yield f"{package.__name__}.{name}.{method}", getattr(thing, method)


PUBLIC = dict(public())


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_has_a_line(name):
    text = inspect.getdoc(PUBLIC[name])
    parameters = [one for one in inspect.signature(PUBLIC[name]).parameters.values() if one.name not in ("self", "cls")]
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    assert [one.name for one in parameters if f"\n    {stars.get(one.kind, '')}{one.name}: " not in text] == []


@pytest.mark.parametrize("name", [name for name, thing in PUBLIC.items() if not inspect.isclass(thing)])
def test_results_and_errors_have_a_section(name):
    text, result = inspect.getdoc(PUBLIC[name]), inspect.signature(PUBLIC[name]).return_annotation
    section = "Yields:" if ".iter_" in name and "Iterator" in str(result) else "Returns:"
    assert section in text or str(result) == "None"
    assert "Raises:" in text or name.count(".") == 2  # a method may have nothing to raise


@pytest.mark.parametrize("name", [name for name in PUBLIC if ".iter_" in name])
def test_a_twin_documents_the_same_parameters(name):
    section = inspect.getdoc(PUBLIC[name]).partition("Args:")[2].partition("\n\n")[0]
    work = inspect.getdoc(PUBLIC[name.replace("iter_", "")])
    assert section in work or name in ("stylize.iter_tune", "metrics.iter_extract")
    assert "Returns:" in work and "Yields:" not in work
