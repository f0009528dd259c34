"""Sets that leave a statistic undefined: it says so, and the rest is measured. No message names what is not there."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from metrics.commands import main as gap_cli
from metrics.comparison.compare import compare
from metrics.errors import InputError, UndefinedError
from metrics.features.extraction import FeatureSet
from metrics.report import from_json, to_html, to_json, to_markdown
from metrics.statistics.mmd import median_distance
from metrics.statistics.table import METRICS
from stylize.commands import main as stylize_cli

ROOT = Path(__file__).parent.parent


def features(rows, root):
    keys = tuple(f"{i:03}" for i in range(len(rows)))
    values = torch.as_tensor(np.asarray(rows), dtype=torch.float32)
    return FeatureSet(values, keys, ("a",) * len(keys), keys, "made", "made-1", {"size": "none"}, root)


RNG = np.random.default_rng(0)
VARIED, OTHER = RNG.standard_normal((12, 6)), RNG.standard_normal((12, 6)) + 1
SAME = np.tile(VARIED[:1], (12, 1))
HALF = np.concatenate([SAME[:10], VARIED[:2]])
FLAT = VARIED * np.array([1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (SAME, VARIED),
        (VARIED, SAME),
        (SAME, SAME),
        (VARIED, VARIED),
        (HALF, HALF),
        (VARIED, HALF),
        (FLAT, FLAT),
        (np.zeros((12, 6)), np.ones((12, 6))),
        (VARIED[:2], VARIED),
        (VARIED[:2], OTHER[:4]),
    ],
)
@pytest.mark.parametrize("before", [None, OTHER])
def test_all_metrics_on_sets_that_repeat_themselves(x, y, before):
    options = {} if before is None else {"before": features(before[: len(x)], "before")}
    found = compare(features(x, "x"), features(y, "y"), metrics=METRICS, permutations=19, slices=("label",), **options)
    row = found.row("after")
    assert [measured.name for measured in row.measurements] == [f"{name}@made" for name in METRICS]
    for measured in row.measurements:
        assert np.isfinite(measured.value) or measured.warnings
    finite = {measured.name.partition("@")[0] for measured in row.measurements if np.isfinite(measured.value)}
    assert {"kid", "fid", "energy", "sliced-wasserstein"} <= finite
    assert ("rbf" in finite) == (np.unique(y, axis=0).shape[0] > 6 or len(y) == 4)
    text = to_json(found)
    assert to_json(from_json(text)) == text and to_markdown(found) and to_html(found)


def test_rbf_of_identical_images_is_undefined_and_says_why():
    with pytest.raises(UndefinedError, match="half of all pairs of images have equal features"):
        median_distance(torch.zeros(4, 3), torch.zeros(4, 3))
    found = compare(features(VARIED, "x"), features(SAME, "y"), metrics=("rbf", "kid"), permutations=0)
    rbf, kid = found.row("after").measurements
    assert np.isnan(rbf.value) and "the kernel's bandwidth, is 0" in " ".join(rbf.warnings)
    assert np.isfinite(kid.value)


@pytest.mark.parametrize("count", [0, 1])
def test_one_image_is_too_few_for_everything(count):
    with pytest.raises((InputError, ValueError)):
        compare(features(VARIED[:count].reshape(count, 6), "x"), features(VARIED, "y"))


def options():
    """Every option of both command lines."""
    found = {"--debug", "--help"}
    for app in (stylize_cli.app, gap_cli.app):
        for command in typer.main.get_command(app).commands.values():
            for parameter in command.params:
                found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def said(path):
    """The texts of a module that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_no_message_names_an_option_that_does_not_exist():
    known = {*options(), "--version", "--local-dir"}  # the last is of hf download
    wrong = {}
    for folder in ("metrics", "stylize"):
        for path in (ROOT / folder).rglob("*.py"):
            named = {word for text in said(path) for word in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)}
            missing = sorted(word for word in named if word.rstrip("-") not in known)
            if missing:
                wrong[str(path.relative_to(ROOT))] = missing
    assert wrong == {}
