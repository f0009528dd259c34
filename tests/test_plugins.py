"""Validators, and a package of its own that adds a family, a style method, an extractor and a metric."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import metrics.validate
import stylize.validate
from metrics.extractors import load_extractor
from metrics.report.reading import read_report
from metrics.statistics.table import METRICS, Metric
from stylize.patterns import FAMILIES
from stylize.styles.methods import METHODS, StyleMethod

PACKAGE = '''
"""dots of one colour each on grey"""
from dataclasses import dataclass
import numpy as np, torch
from metrics.extractors.network import Network
from metrics.seed import generator
from metrics.statistics.table import Metric
from stylize.styles.methods import StyleMethod

@dataclass(frozen=True)
class Parameters:
    seed: int
    class_id: int

def sample_class(seed, class_id):
    return Parameters(seed, class_id)

def render(params, instance, size):
    image = np.full((size, size, 3), 128, np.uint8)
    colour = generator(params.seed, "dots", str(params.class_id)).integers(0, 256, 3)
    for y, x in generator(params.seed, "dots", f"{params.class_id}/{instance}").integers(0, size - 4, (20, 2)):
        image[y : y + 4, x : x + 4] = colour
    return image

TINT = StyleMethod("the mean colour of the photo", "dots_package", 16.0)
STATISTICS = "tint"

def learn(images):
    return {"mean": images.mean((2, 3))}

def transfer(images, style, strength, seeds):
    return images + strength * (style["mean"][:, :, None, None] - images.mean((2, 3), keepdim=True))

def load(name, *, weights=None):
    prepare = lambda images: torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 8)
    return Network(name, torch.nn.Flatten(), prepare, "8 x 8 means", {"resize": "adaptive means to 8 x 8"})

def layers(name):
    return ()

def distance(x, real, seed):
    return float((x.mean(0) - real.mean(0)).norm())

MEANS = Metric("means", "distance of means", distance=True, function=distance)
'''
POINTS = """
[reverse_stylize.families]
dots = dots_package
[reverse_stylize.methods]
tint = dots_package:TINT
[reverse_stylize.extractors]
grid = dots_package
[reverse_stylize.metrics]
means = dots_package:MEANS
"""

ALL = """
import sys
from importlib import import_module
if __name__ == "__main__":
    for package, *words in {commands}:
        sys.argv = [package, *words]
        try:
            import_module(package + ".commands.main").main()
        except SystemExit as ended:
            if ended.code:
                sys.exit(str(words))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run Python where the package is installed; returns (code, stdout, stderr)."""
    site = tmp_path_factory.mktemp("site")
    (site / "dots_package.py").write_text(PACKAGE)
    about = site / "dots_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: dots-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])

    def in_its_place(*words, cwd=site):
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        return done.returncode, done.stdout, done.stderr

    return in_its_place


def test_a_package_adds_a_family_a_method_an_extractor_and_a_metric(run, folder, picture, tmp_path):
    photos = folder("photos", {f"{i}.png": picture(i, 80, 80) for i in range(4)})
    commands = [
        ("stylize", "render", "dots", "patterns", "--classes", 2, "--per-class", 40, "--size", 32, "--workers", 2),
        ("stylize", "learn", photos, "s.safetensors", "--method", "tint", "--size", 32, "--crops", 1),
        ("stylize", "apply", "s.safetensors", "patterns", "styled", "--method", "tint", "--workers", 1),
        ("metrics", "compare", "styled", photos, "--before", "patterns", "-o", "report", "--extractor", "grid"),
    ]
    commands[-1] += ("--metric", "kid,means", "--explain", 0)
    commands += [("stylize", "patterns"), ("stylize", "styles")]
    (tmp_path / "run.py").write_text(ALL.format(commands=[list(map(str, words)) for words in commands]))
    code, stdout, stderr = run("run.py", cwd=tmp_path)
    assert code == 0, stderr
    report = read_report(tmp_path / "report")
    assert report.extractor["name"] == "grid"
    means = report.row("after").measurements[1]
    assert means.name == "means@grid" and means.se is None and means.value < report.row("before").measurements[1].value
    assert [one.name for one in report.closed] == ["kid@grid", "means@grid"]
    assert "distance of means" in (tmp_path / "report/report.md").read_text()
    assert "dots of one colour each on grey" in stdout and "the mean colour of the photo" in stdout
    gate = ("-m", "metrics", "gate", tmp_path / "report", "--max", "means=1e9", "--value-only", "means")
    assert run(*gate)[0] == 0


def test_the_package_keeps_its_contracts(run):
    code, stdout, stderr = run(
        "-c",
        "import metrics.validate as m, stylize.validate as s\nfrom metrics.extractors import load_extractor\n"
        "from metrics.statistics.table import metric\n"
        "print(s.family('dots') + s.method('tint') + m.extractor(load_extractor('grid')) + m.metric(metric('means')))",
    )
    assert code == 0 and stdout == "[]\n", stdout + stderr


def test_a_broken_package_is_named(run, tmp_path):
    site = tmp_path / "broken-1.0.dist-info"
    site.mkdir()
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (site / "entry_points.txt").write_text("[reverse_stylize.families]\nnothing = not_there\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from stylize.patterns import load_family; "
    _, _, stderr = run("-c", code + "load_family('nothing')")
    assert (
        "'nothing' of the package broken cannot be loaded from not_there" in stderr and "pip uninstall broken" in stderr
    )
    _, _, stderr = run("-c", code + "load_family('dotz')")
    assert "Did you mean 'dots'" in stderr


@pytest.mark.parametrize("name", FAMILIES)
def test_families_keep_their_contract(name, folder, picture):
    options = {"photo": str(folder("one", {"0.png": picture()}) / "0.png")} if name == "one-image" else {}
    assert stylize.validate.family(name, **options) == []


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * m.slow) for n, m in METHODS.items()])
def test_methods_keep_their_contract(name):
    assert stylize.validate.method(name) == []


@pytest.mark.parametrize("name", ["random-conv", "efficientnet-lite0"])
def test_extractors_keep_their_contract(name):
    assert metrics.validate.extractor(load_extractor(name)) == []


@pytest.mark.parametrize("name", METRICS)
def test_metrics_keep_their_contract(name):
    assert metrics.validate.metric(METRICS[name]) == []


class Bad:
    """An extractor that breaks one thing at a time."""

    name, fingerprint, preprocessing = "bad", "f", {"resize": "none"}

    def __init__(self, break_it):
        self.break_it, self.calls = break_it, 0

    def __call__(self, images):
        self.calls += 1
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError("expected uint8 [N,3,H,W]")
        features = torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)
        return self.break_it(self, images, features)


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda self, images, x: x.double(), "float64 [3,12]"),
        (lambda self, images, x: x[:2], "expected one row per image"),
        (lambda self, images, x: x * torch.nan, "NaN or infinite"),
        (lambda self, images, x: x + self.calls, "other features for the same images"),
        (lambda self, images, x: x - x.mean(0) + len(x), "depend on the other images"),
        (lambda self, images, x: x * 0, "same features for different images"),
        (lambda self, images, x: (images.zero_(), x)[1], "changes its images"),
        (lambda self, images, x: (torch.rand(1), x)[1], "global random state"),
        (lambda self, images, x: 1 / 0, "raises ZeroDivisionError"),
    ],
)
def test_broken_extractors_are_told(break_it, sentence):
    assert any(sentence in told for told in metrics.validate.extractor(Bad(break_it)))


def test_a_good_extractor_of_another_kind():
    assert metrics.validate.extractor(Bad(lambda self, images, x: x)) == []
    nameless = Bad(lambda self, images, x: x)
    nameless.name = ""
    assert metrics.validate.extractor(nameless) == ["name is '': expected its name as text"]


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (None, "has no function"),
        (lambda x, y, seed: 0, "expected finite floats"),
        (lambda x, y, seed: float(torch.rand(())), "global random state"),
        (lambda x, y, seed: float((x[0] - y[0]).norm()), "order of the rows"),
        (lambda x, y, seed: float(-(x.mean(0) - y.mean(0)).norm()), "expected lower when near"),
        (lambda x, y, seed: float(y.mul_(2).sum()), "changes its features"),
    ],
)
def test_broken_metrics_are_told(function, sentence):
    assert any(sentence in told for told in metrics.validate.metric(Metric("mine", "mine", function=function)))
    assert "expected a metrics.statistics.table.Metric" in metrics.validate.metric(len)[0]


def family_of(**parts):
    class Parameters(tuple):
        __slots__ = ()

    def render(params, instance, size):
        return np.full((size, size, 3), hash((*params, instance)) % 251, np.uint8)

    return SimpleNamespace(
        **{"Parameters": tuple, "sample_class": lambda seed, class_id: (seed, class_id), "render": render, **parts}
    )


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"render": lambda params, instance, size: np.zeros((size, size))}, "an image is float64 [48,48]"),
        ({"render": lambda params, instance, size: np.zeros((48, 48, 3), np.uint8)}, "ignores the size 96"),
        ({"sample_class": lambda seed, class_id: (seed,)}, "same parameters"),
        ({"sample_class": lambda seed, class_id: 1 / 0}, "raises ZeroDivisionError"),
        ({"render": lambda p, i, size: np.full((size, size, 3), np.random.randint(250), np.uint8)}, "global random"),  # noqa: NPY002
    ],
)
def test_broken_families_are_told(parts, sentence):
    assert stylize.validate.family(family_of()) == []
    assert any(sentence in told for told in stylize.validate.family(family_of(**parts)))


@pytest.mark.parametrize(
    ("transfer", "sentence"),
    [
        (lambda images, style, strength, seeds: images[:1], "a result is float32 [1,3,40,56]"),
        (lambda images, style, strength, seeds: images + 0.1, "strength 0 changes"),
        (lambda images, style, strength, seeds: images + strength * images.mean(), "other images of the batch"),
        (lambda images, style, strength, seeds: images + strength * torch.nan, "NaN"),
    ],
)
def test_broken_methods_are_told(transfer, sentence, monkeypatch):
    module = SimpleNamespace(
        __name__="mine", STATISTICS="mine", learn=lambda images: {"m": images.mean((1, 2, 3))}, transfer=transfer
    )
    monkeypatch.setitem(sys.modules, "mine", module)
    assert any(sentence in told for told in stylize.validate.method(StyleMethod("mine", "mine", 1.0)))
