"""examples/recipes/pretrain_classifier.py and its training loop: resume, NaN, seeds, collapse, and what is refused."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from metrics.errors import InputError

pytest.importorskip("accelerate", reason="the extra 'diffusion' is not installed")
RECIPES = Path(__file__).parent.parent / "examples" / "recipes"


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    import pretrain_classifier

    return pretrain_classifier


@pytest.fixture
def loop(recipe):
    import _training

    return _training


@pytest.fixture
def patterns(folder, picture):
    """Classes that a colour tells apart, so that a few steps can learn them."""

    def make(name, each=4, classes=("a", "b", "c")):
        images = {}
        for number, label in enumerate(classes):
            for index in range(each):
                image = picture(97 * number + index, 32, 32) // 2
                image[..., number % 3] += 120
                images[f"{label}/{index}.png"] = image
        return folder(name, images)

    return make


def launch(recipe, *words):
    options = recipe.parse([*map(str, words)])
    return {"pretrain": recipe.pretrain, "sweep": recipe.sweep}.get(options.what, recipe.finetune)(options)


SHORT = ("--steps", 4, "--every", 2, "--batch-size", 6)


class Slope(nn.Module):
    """A learner whose loss is a line, NaN from the ``bad``-th call on."""

    def __init__(self, bad=10**9):
        super().__init__()
        self.weight, self.calls, self.bad = nn.Parameter(torch.ones(3)), 0, bad

    def forward(self, x):
        self.calls += 1
        return (self.weight * x).sum() * (math.nan if self.calls >= self.bad else 1.0)


def train_slope(loop, out, learner, steps=6, lr=0.1, **more):
    optimizer = torch.optim.SGD(learner.parameters(), lr)
    run = loop.Run(out, steps, 2, every=2, settings={"model": "slope", **more})
    loop.train(learner, optimizer, TensorDataset(torch.ones(5, 3)), run, lambda step: 1.0)
    return learner


@contextmanager
def interrupted(monkeypatch):
    """As by Ctrl-C in the step after the first checkpoint."""
    import _training

    keep, load, kept = _training.keep, _training.Seeded.__getitem__, []

    def kept_once(*words):
        keep(*words)
        kept.append(True)

    def loaded(self, place):
        if kept:
            raise KeyboardInterrupt
        return load(self, place)

    with monkeypatch.context() as patch:
        patch.setattr(_training, "keep", kept_once)
        patch.setattr(_training.Seeded, "__getitem__", loaded)
        yield
    assert kept == [True]


def test_nan_loss_stops_and_keeps_the_last_good_checkpoint(loop, tmp_path):
    with pytest.raises(InputError, match=r"loss nan at step 6\. The checkpoint of step 4 is kept in .*checkpoint\.pt"):
        train_slope(loop, tmp_path, Slope(bad=6), steps=8)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.testing.assert_close(kept["model"]["weight"], torch.full((3,), 1 - 4 * 0.1 * 2))
    with pytest.raises(InputError, match="There is no checkpoint yet"):
        train_slope(loop, tmp_path / "first", Slope(bad=1))
    learner = train_slope(loop, tmp_path, Slope(), steps=8, lr=0.01)  # a lower rate continues from there
    torch.testing.assert_close(learner.weight.detach(), torch.full((3,), 0.2 - 4 * 0.01 * 2))


def test_a_broken_weight_never_replaces_a_checkpoint(loop, tmp_path):
    learner = train_slope(loop, tmp_path, Slope(), steps=2)
    learner.weight.data[1] = math.inf
    run = loop.Run(tmp_path, 4, 2)
    with pytest.raises(
        InputError, match=r"weight that is NaN or infinite at step 4\. The checkpoint of step 2 is kept"
    ):
        loop.keep(learner, torch.optim.SGD(learner.parameters(), 0.1), run, 4, 0.0)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2


def test_other_settings_are_refused_by_name(loop, tmp_path):
    train_slope(loop, tmp_path, Slope(), steps=2, size="32")
    with pytest.raises(InputError, match=r"other settings: size 32 \(now 64\)\. Use the same, or another folder"):
        train_slope(loop, tmp_path, Slope(), steps=2, size="64")


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(recipe, patterns, tmp_path, monkeypatch):
    source = patterns("patterns")
    launch(recipe, "pretrain", source, tmp_path / "whole", *SHORT)
    with interrupted(monkeypatch), pytest.raises(KeyboardInterrupt):
        launch(recipe, "pretrain", source, tmp_path / "parts", *SHORT)
    launch(recipe, "pretrain", source, tmp_path / "parts", *SHORT)
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    for name in ("whole", "parts"):
        rows = list(csv.DictReader((tmp_path / name / "log.csv").read_text().splitlines()))
        assert [row["step"] for row in rows] == ["2", "4"]
    assert json.loads((tmp_path / "whole" / "model.json").read_text())["classes"] == ["a", "b", "c"]


def test_augmentation_does_not_depend_on_workers_or_batches(recipe, loop, patterns):
    items = list(recipe.open_images(patterns("patterns", each=2)))
    options = recipe.parse(["pretrain", "", "x", "--preset", "ofdb", "--size", "32"])
    data = loop.Seeded(recipe.Images(items, ["a", "b", "c"], options, train=True))
    run = loop.Run(Path("x"), 2, 3, seed=1)
    alone, workers = (
        torch.cat([images for images, _ in DataLoader(data, batch_sampler=loop.Batches(6, run, 0), num_workers=count)])
        for count in (0, 2)
    )
    pairs = [loop.Seeded(data.data)[place] for batch in loop.Batches(6, run, 0) for place in batch]
    assert torch.equal(alone, workers) and torch.equal(alone, torch.stack([image for image, _ in pairs]))
    assert len({float(image.sum()) for image in alone}) == 6


def test_the_strongest_augmentation_is_one_that_pillow_takes(recipe, picture, monkeypatch):
    from PIL import Image

    options = recipe.parse(["pretrain", "", "x", "--preset", "deit", "--size", "16"])
    monkeypatch.setattr("random.gauss", lambda mean, deviation: 99.0)
    transform = recipe.Images([], [], options, train=True).transform
    operations = [operation for step in transform.transforms for operation in getattr(step, "ops", ())]
    assert len(operations) > 10
    for operation in operations:
        operation.prob = 1.0
        assert operation(Image.fromarray(picture(1, 16, 16))).size == (16, 16)


def test_batches_are_epochs_and_resume_in_the_middle(loop):
    run = loop.Run(Path("x"), 10, 4, seed=3)
    batches = list(loop.Batches(7, run, 0))
    order = [index for batch in batches for index, _ in batch]
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7)) and order[:7] != order[7:14]
    assert list(loop.Batches(7, run, 6)) == batches[6:]
    assert len({seed for batch in batches for _, seed in batch}) == 40


def test_seeded_transforms_leave_the_callers_generators_alone(loop):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with loop.drawing_from(5):
        first = torch.rand(1), np.random.random()  # noqa: NPY002
    with loop.drawing_from(5):
        assert first == (torch.rand(1), np.random.random())  # noqa: NPY002
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_finetune_probe_and_their_baseline(recipe, patterns, tmp_path):
    source, real = patterns("patterns"), patterns("real/train").parent
    patterns("real/test", each=5)
    launch(recipe, "pretrain", source, tmp_path / "run", *SHORT)
    accuracy = launch(recipe, "probe", real, tmp_path / "probe", "--from", tmp_path / "run", "--shots", 3)
    assert accuracy == 1.0  # a colour tells the classes apart
    words = ("--shots", 2, "--lr", 0.01, "--steps", 8, "--batch-size", 6)
    tuned = launch(recipe, "finetune", real, tmp_path / "tuned", "--from", tmp_path / "run", *words)
    kept = json.loads((tmp_path / "tuned" / "result.json").read_text())
    assert kept == {"what": "finetune", "seed": 0, "train": 6, "test": 15, "accuracy": tuned}


def test_sweep_counts_parameters_per_label(recipe, patterns, tmp_path, capsys):
    source, real = patterns("patterns"), patterns("real/train").parent
    patterns("real/test", each=1)
    launch(recipe, "sweep", source, tmp_path / "out", "--real", real, "--grid", "2x4", "3x1", *SHORT)
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert [(row["classes"], row["images per class"], row["images"]) for row in rows] == [
        ("2", "4", "8"),
        ("3", "1", "3"),
    ]
    import timm

    for row, classes in zip(rows, (2, 3), strict=True):
        count = sum(value.numel() for value in timm.create_model("test_resnet", num_classes=classes).parameters())
        assert int(row["parameters per label"]) == round(count / classes)
    assert "| 2 | 4 | 8 |" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"--grid 9x1: .* has 3 classes"):
        launch(recipe, "sweep", source, tmp_path / "more", "--real", real, "--grid", "9x1", *SHORT)


def test_dry_run_prints_the_plan_and_trains_nothing(recipe, patterns, tmp_path, capsys):
    launch(recipe, "pretrain", patterns("patterns"), tmp_path / "run", "--dry-run", *SHORT)
    said = capsys.readouterr().out
    assert "12 images, 3 classes" in said and "4 steps of 6 (2.0 epochs)" in said and "minutes" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_pattern_families_and_several_fractals_per_image(recipe):
    options = recipe.parse(["pretrain", "dead-leaves", "x", "--classes", "2", "--per-class", "3", "--size", "28"])
    data, classes = recipe.training_set(options)
    assert len(data) == 6 and len(classes) == 2 and data[0][0].shape == (3, 28, 28)
    options = recipe.parse(["pretrain", "fractal-svd", "x", "--objective", "multi", "--classes", "3", "--size", "28"])
    image, label = recipe.training_set(options)[0][0]
    loss = recipe.MultiLabel(lambda images: torch.zeros(1, 3))(image[None], label[None])
    assert label.shape == (3,) and float(loss) == pytest.approx(math.log(2))
    options.source = "rcdb"
    with pytest.raises(InputError, match="Expected fractal-svd"):
        recipe.training_set(options)


def test_dino_of_equal_prototypes_is_a_uniform_guess(recipe):
    from _dino import Dino

    learner = Dino(recipe.create(recipe.parse(["pretrain", "", "x"]), 5), prototypes=64)
    for part in (learner.prototypes, learner.targets):
        nn.init.ones_(part.weight)
    views = torch.rand(3, 2, 3, 32, 32)
    loss = learner(views)
    assert float(loss.detach()) == pytest.approx(math.log(64), rel=1e-5)
    loss.backward()
    assert all(value.grad is None for value in learner.teacher.parameters())
    before = [value.clone() for value in learner.teacher.parameters()]
    next(learner.student.parameters()).data += 1
    learner.follow(10, 10)  # momentum 1 at the end
    assert all(torch.equal(a, b) for a, b in zip(before, learner.teacher.parameters(), strict=True))
    learner.follow(0, 10)  # 0.996 at the start
    torch.testing.assert_close(next(learner.teacher.parameters()), before[0] + 0.004, rtol=0, atol=1e-6)


def test_dino_trains_on_unlabelled_images_and_can_be_started_from(recipe, folder, picture, patterns, tmp_path):
    flat = folder("flat", {f"{index}.png": picture(index, 40, 40) for index in range(6)})
    launch(recipe, "pretrain", flat, tmp_path / "run", "--objective", "dino", *SHORT)
    real = patterns("real/train").parent
    patterns("real/test", each=1)
    assert launch(recipe, "probe", real, tmp_path / "probe", "--from", tmp_path / "run") > 0.5


def test_collapse_is_named(recipe, patterns, tmp_path, capsys):
    from _collapse import Alarm

    alarm = Alarm(classes=10, steps=100)
    alarm(10, math.log(10))  # too early to tell
    alarm(50, 0.9 * math.log(10))
    assert capsys.readouterr().out == ""
    alarm(60, math.log(10))
    alarm(70, math.log(10))
    assert capsys.readouterr().out.count("WARNING: collapsed?") == 1
    launch(recipe, "pretrain", patterns("patterns"), tmp_path / "run", *SHORT, "--lr", 0.0)
    assert "WARNING: collapsed. Fine-tuning from a collapsed model" in capsys.readouterr().out  # it guesses


def test_presets_have_the_published_learning_rates(recipe):
    presets = {name: recipe.parse(["pretrain", "", "x", "--preset", name]) for name in recipe.PRESETS}
    assert presets["ofdb"].lr == 1e-3 * 256 / 512 and presets["ofdb"].steps == 80_000 * (1000 // 256)
    assert presets["finetune-vit"].lr == 0.01 * 768 / 512
    assert presets["fractaldb"].epochs == 90 and presets["fractaldb"].steps is None
    rates = [recipe.factor(step, 90, presets["fractaldb"]) for step in (0, 29, 30, 60, 89)]
    assert rates == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    assert recipe.factor(299, 300, presets["deit"]) == pytest.approx(0.01, abs=1e-3)


def test_refused(recipe, patterns, tmp_path, monkeypatch):
    source, real = patterns("patterns"), patterns("real/train").parent
    patterns("real/test", each=1, classes=("a", "b"))
    with pytest.raises(InputError, match=r"train has the classes \['a', 'b', 'c'\], test \['a', 'b'\]"):
        launch(recipe, "finetune", real, tmp_path / "x", *SHORT)
    patterns("real/test", each=1)
    with pytest.raises(InputError, match=r"--shots 9: too few training images in \{'a': 4"):
        launch(recipe, "finetune", real, tmp_path / "x", "--shots", 9)
    with pytest.raises(InputError, match=r"no model\.json"):
        launch(recipe, "probe", real, tmp_path / "x", "--from", tmp_path)
    with pytest.raises(InputError, match="expected a folder with train and test"):
        launch(recipe, "probe", source, tmp_path / "x")
    with pytest.raises(InputError, match="--model no_such_model"):
        launch(recipe, "pretrain", source, tmp_path / "x", "--model", "no_such_model")
    launch(recipe, "pretrain", source, tmp_path / "run", *SHORT)
    facts = tmp_path / "run" / "model.json"
    facts.write_text(facts.read_text().replace("test_resnet", "test_vit"))
    with pytest.raises(InputError, match="weights of another model"):
        launch(recipe, "probe", real, tmp_path / "x", "--from", tmp_path / "run")


def test_fashion_mnist_says_how_to_get_it(recipe, tmp_path, monkeypatch):
    import _fashion

    monkeypatch.setattr(_fashion, "FOLDER", tmp_path)
    with pytest.raises(InputError, match="apt-get install dataset-fashion-mnist"):
        recipe.real_sets("fashion-mnist", SimpleNamespace(shots=1, seed=0))


@pytest.mark.slow
def test_two_processes_train_like_one(patterns, tmp_path):
    source = patterns("patterns")
    words = ["pretrain", str(source), "--model", "test_vit", "--size", "32", *map(str, SHORT)]
    program = str(RECIPES / "pretrain_classifier.py")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    for count in ("1", "2"):
        command = [*start, count, program, words[0], words[1], str(tmp_path / count), *words[2:]]
        said = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True).stdout
        assert said.count("accuracy on training images") == 1  # one process speaks
    one, two = (load_file(tmp_path / count / "model.safetensors") for count in ("1", "2"))
    for name in one:  # no batch normalisation in this model, so only rounding differs
        a, b = one[name], two[name]
        if name.endswith(
            "qkv.bias"
        ):  # a softmax does not see the keys' bias: its gradient is rounding, scaled up by Adam
            a, b = (torch.cat([part[: len(part) // 3], part[-(len(part) // 3) :]]) for part in (a, b))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "words",
    [
        ("fractal-svd", "--objective", "multi", "--classes", 3, "--per-class", 4),
        ("patterns", "--objective", "dino"),
        ("patterns", "--preset", "ofdb", "--model", "test_vit", "--size", 32),
    ],
    ids=["multi", "dino", "mixed"],
)
def test_every_objective_resumes_bit_for_bit(recipe, patterns, tmp_path, monkeypatch, words):
    source = patterns("patterns") if words[0] == "patterns" else words[0]
    launch(recipe, "pretrain", source, tmp_path / "whole", *SHORT, *words[1:])
    with interrupted(monkeypatch), pytest.raises(KeyboardInterrupt):
        launch(recipe, "pretrain", source, tmp_path / "parts", *SHORT, *words[1:])
    launch(recipe, "pretrain", source, tmp_path / "parts", *SHORT, *words[1:])
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 4
    assert all(torch.equal(value, parts["model"][name]) for name, value in whole["model"].items())


def test_fine_tuning_resumes_bit_for_bit(recipe, patterns, tmp_path, monkeypatch):
    real = patterns("real/train").parent
    patterns("real/test", each=5)
    launch(recipe, "pretrain", real / "train", tmp_path / "run", *SHORT)
    words = ("--from", tmp_path / "run", "--shots", 2, *SHORT)
    accuracy = launch(recipe, "finetune", real, tmp_path / "whole", *words)
    with interrupted(monkeypatch), pytest.raises(KeyboardInterrupt):
        launch(recipe, "finetune", real, tmp_path / "parts", *words)
    assert launch(recipe, "finetune", real, tmp_path / "parts", *words) == accuracy
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(value, parts["model"][name]) for name, value in whole["model"].items())


def test_dino_is_the_published_loss(recipe):
    """Against loops over images, views and prototypes; the centre is that of earlier batches."""
    from _dino import Dino

    class Flat(nn.Module):
        num_features = 12

        def reset_classifier(self, classes):
            pass

        def forward(self, x):
            return x.flatten(1)

    torch.manual_seed(0)
    learner = Dino(Flat(), prototypes=5).train().double()
    views = torch.rand(3, 2, 3, 2, 2, dtype=torch.float64)
    learner.targets.weight.data.add_(0.1 * torch.randn_like(learner.targets.weight))
    expected_centre = [0.0] * 5
    for _ in range(2):
        total, teachers = 0.0, []
        for pair in views:
            scores = {}
            for name, body, head in (
                ("student", learner.student, learner.prototypes),
                ("teacher", learner.teacher, learner.targets),
            ):
                scores[name] = [
                    [float(z @ w / z.norm() / w.norm()) for w in head.weight.detach()]
                    for z in (body(view[None])[0].detach() for view in pair)
                ]
            teachers += scores["teacher"]
            for own, other in ((0, 1), (1, 0)):
                sharp = [math.exp((s - c) / 0.04) for s, c in zip(scores["teacher"][own], expected_centre, strict=True)]
                soft = [math.exp(s / 0.1) for s in scores["student"][other]]
                pairs = zip(sharp, soft, strict=True)
                total -= sum(p / sum(sharp) * math.log(q / sum(soft)) for p, q in pairs) / (2 * len(views))
        assert float(learner(views).detach()) == pytest.approx(total, rel=1e-9)
        columns = zip(*teachers, strict=True)
        expected_centre = [0.9 * c + 0.1 * np.mean(own) for c, own in zip(expected_centre, columns, strict=True)]
        assert learner.centre.tolist() == pytest.approx(expected_centre, rel=1e-9)
    old, new = learner.targets.weight.detach().clone(), learner.prototypes.weight.detach()
    learner.follow(25, 100)
    momentum = 1 - 0.004 * (math.cos(math.pi * 25 / 100) + 1) / 2
    torch.testing.assert_close(learner.targets.weight.detach(), momentum * old + (1 - momentum) * new)


def test_dinos_weights_come_from_the_seed(recipe, patterns, tmp_path):
    source = patterns("patterns")
    found = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)  # what the process drew before does not matter
        words = ("--objective", "dino", "--seed", seed, "--steps", 1, "--batch-size", 2, "--lr", 0)
        launch(recipe, "pretrain", source, tmp_path / str(number), *words)
        found.append(torch.load(tmp_path / str(number) / "checkpoint.pt", weights_only=True)["model"])
    assert torch.equal(found[0]["prototypes.weight"], found[1]["prototypes.weight"])
    assert not torch.equal(found[0]["prototypes.weight"], found[2]["prototypes.weight"])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_and_smoothed_labels_give_timms_loss(recipe, kind):
    """timm's soft cross entropy of the smoothed labels, mixed by the share that the images show."""
    from timm.loss import SoftTargetCrossEntropy

    options = recipe.parse(["pretrain", "", "x", "--preset", "deit", "--size", "8"])
    setattr(options, {"mixup": "cutmix", "cutmix": "mixup"}[kind], 0.0)
    assert options.smoothing == 0.1
    seen = []
    flat = nn.Linear(3 * 8 * 8, 4)
    learner = recipe.Supervised(lambda images: seen.append(images) or flat(images.flatten(1)), 4, options)
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([1, 3])  # of two images both partners are the other one
    torch.manual_seed(3)
    loss = learner(images, labels)
    kept = (seen[0] == images).float().mean(), (seen[0] == images.flip(0)).float().mean()
    if kind == "mixup":
        share = float(((seen[0] - images.flip(0)) / (images - images.flip(0))).median())
        torch.testing.assert_close(seen[0], share * images + (1 - share) * images.flip(0), atol=1e-5, rtol=1e-4)
    else:
        share = float(kept[0])
        assert float(sum(kept)) == pytest.approx(1, abs=1e-6)  # every pixel is of one image
    assert 0.02 < share < 0.98
    smooth = 0.9 * nn.functional.one_hot(labels, 4) + 0.1 / 4
    target = share * smooth + (1 - share) * smooth.flip(0)
    expected = SoftTargetCrossEntropy()(flat(seen[0].flatten(1)), target)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_plans_of_large_runs_cost_little(loop):
    """Three steps of few images, scaled to the batch and the steps."""

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.seen = nn.Parameter(torch.ones(())), []

        def forward(self, x):
            self.seen.append(len(x))
            return (self.weight * x).sum()

    learner, run = Slow(), loop.Run(Path("x"), 1000, 8192)
    times = iter(range(10**6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.time, "perf_counter", lambda: float(next(times)))  # a second a step, whatever its size
        assert loop.cost(learner, TensorDataset(torch.ones(5, 3)), run) == pytest.approx(1000 * 8192 / 10)
    assert learner.seen == [2] * 3 + [10] * 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--steps", 0), "--steps 0: expected at least 1"),
        (("--steps", 2, "--epochs", 3), "--steps and --epochs say the same"),
        (("--batch-size", -4), "--batch-size -4: expected at least 1"),
        (("--lr", "nan"), "--lr nan: expected at least 0"),
        (("--shots", -1), "--shots -1: expected at least 0"),
        (("--every", 0), "--every 0: expected at least 1"),
        (("--workers", -1), "--workers -1: expected at least 0"),
        (("--model-options", "[1]"), r"--model-options \[1\]: expected JSON"),
        (("--model", "test_vit", "--from", "run"), "--model and --model-options do not go with --from"),
        (("--model", "test_vit", "--size", 30), "--size 30 .* should be divisible by patch size"),
        (("--preset", "fractaldb", "--model", "test_resnet", "--size", 64), "32x32 px, too small to crop"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_written(recipe, patterns, tmp_path, words, said):
    source = patterns("patterns")
    with pytest.raises(InputError, match=said):
        launch(recipe, "pretrain", source, tmp_path / "out", *words)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_epochs_beat_the_presets_steps(recipe):
    options = recipe.parse(["pretrain", "", "x", "--epochs", "5"])
    assert options.steps is None and options.epochs == 5
    assert recipe.parse(["pretrain", "", "x", "--preset", "deit", "--steps", "7"]).steps == 7


@pytest.mark.parametrize("grid", ["2", "axb", "1x3", "2x0", "9x9"])
def test_a_sweep_checks_all_cells_before_the_first(recipe, patterns, tmp_path, grid):
    real = patterns("real/train").parent
    patterns("real/test", each=1)
    with pytest.raises(InputError, match=f"--grid {grid}: "):
        launch(recipe, "sweep", patterns("patterns"), tmp_path / "out", "--real", real, "--grid", "2x2", grid, *SHORT)
    with pytest.raises(InputError, match="--shots 9"):
        words = ("--real", real, "--grid", "2x2", "--shots", 9)
        launch(recipe, "sweep", patterns("patterns"), tmp_path / "out", *words, *SHORT)
    assert not (tmp_path / "out").exists()


def test_damaged_files_are_named(recipe, patterns, tmp_path, monkeypatch):
    source = patterns("patterns")
    launch(recipe, "pretrain", source, tmp_path / "run", *SHORT)
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"checkpoint\.pt: damaged"):
        launch(recipe, "pretrain", source, tmp_path / "run", *SHORT)
    (tmp_path / "run" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"--from .*: damaged \(SafetensorError"):
        launch(recipe, "pretrain", source, tmp_path / "x", "--from", tmp_path / "run", *SHORT)
    (source / "b" / "2.png").write_bytes(b"no image")
    import _training

    for workers in (0, 1):  # without the traceback of the process that reads
        monkeypatch.setattr(sys, "argv", ["pretrain_classifier.py"])
        words = ("pretrain", source, tmp_path / "y", "--workers", workers, *SHORT)
        with pytest.raises(SystemExit, match=r"^pretrain_classifier\.py: [^\n]*b/2\.png: not an image[^\n]*$"):
            _training.command(partial(launch, recipe, *words))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file is a file\. Expected a folder"):
        launch(recipe, "pretrain", source, tmp_path / "file" / "out", *SHORT)


def test_a_checkpoint_of_another_model_is_refused(loop, tmp_path):
    train_slope(loop, tmp_path, Slope(), steps=2)
    other = nn.Linear(2, 2)
    run = loop.Run(tmp_path, 2, 2, settings={"model": "slope"})
    with pytest.raises(InputError, match=r"checkpoint\.pt: of another model \(Missing key.*Use another folder"):
        loop.restore(other, torch.optim.SGD(other.parameters(), 0.1), run)


def test_an_interruption_says_how_to_go_on(loop, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["examples/recipe.py"])

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match=r"^recipe\.py: interrupted\. The same command continues"):
        loop.command(stop)
