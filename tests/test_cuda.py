"""The same on a GPU: pixels, features, commands and recipes. Skipped where there is none."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from metrics.commands.main import app as domain_gap
from metrics.extractors import load_extractor
from metrics.image_sets.open import open_images
from metrics.statistics.kid import kid
from stylize.commands.main import app
from stylize.patterns import FAMILIES, load_family
from stylize.styles.bank import learn
from stylize.styles.encoders import load_encoder
from stylize.styles.methods import METHODS

SLOW = [name for name, method in METHODS.items() if method.slow]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "assets" / "photos"
OPTIONS = {"one-image": {"photo": str(PHOTOS / "learn" / "cat.jpg")}}
NOT_TO_THE_BIT = ("moire", "spectrum-noise")  # the library's cosine and Fourier transform


def run(command, *words):
    done = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def pixels(folder):
    return {item.key: item.read().astype(int) for item in open_images(folder)}


@pytest.fixture(scope="module")
def bank():
    return learn(PHOTOS / "learn", methods=list(METHODS), crops=1, size=96)


@pytest.fixture
def contents():
    family = load_family("neural-fractal")
    images = [family.render(family.sample_class(0, k), 0, 96) for k in range(3)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("name", FAMILIES)
def test_patterns_are_those_of_the_cpu(name):
    family = load_family(name)
    for class_id in range(3):
        params = family.sample_class(1, class_id, **OPTIONS.get(name, {}))
        got = family.render_torch(params, [0, 1, 2], 128, "cuda").cpu()
        expected = np.stack([family.render(params, k, 128) for k in range(3)]).transpose(0, 3, 1, 2)
        different = int((got.numpy() != expected).sum())
        assert different <= (1 if name in NOT_TO_THE_BIT else 0), f"{different} of {got.numel()} values"


@pytest.mark.parametrize("method", METHODS)
def test_styles_are_those_of_the_cpu(method, bank, contents):
    """But for rounding, which optimisation (L-BFGS, nearest neighbours) amplifies."""
    keys = ["a", "b", "c"]
    expected = bank.transfer(contents, keys, method=method).float()
    got = bank.transfer(contents.cuda(), keys, method=method)
    assert got.device.type == "cuda"
    difference = (got.cpu().float() - expected).abs()
    print(f"{method}: mean {difference.mean():.4f}, above 1: {(difference > 1).float().mean():.2e}")
    assert difference.mean() < (4 if method in SLOW else 0.05)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in SLOW])
def test_an_image_depends_on_nothing_else_in_its_batch(method, bank, contents):
    whole = bank.transfer(contents.cuda(), ["a", "b", "c"], method=method)
    alone = [bank.transfer(contents[[k]].cuda(), [key], method=method) for k, key in enumerate("abc")]
    assert torch.equal(whole, torch.cat(alone))


@pytest.mark.parametrize("name", ["random-conv", "efficientnet-lite0", "efficientnet-lite0/blocks.2"])
def test_features_are_those_of_the_cpu(name, contents):
    expected = load_extractor(name)(contents)
    got = load_extractor(name, device="cuda")(contents)
    assert got.device.type == "cuda"
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_encoder_of_the_styles_sees_what_it_sees_on_the_cpu(contents):
    images = contents.float() / 255
    for got, expected in zip(load_encoder(device="cuda")(images.cuda()), load_encoder()(images), strict=True):
        torch.testing.assert_close(got.cpu(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_statistics_of_features_on_the_device():
    x, y = (torch.randn(60, 16, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1))
    on_cpu, on_gpu = kid(x, y), kid(x.cuda(), y.cuda())
    assert on_gpu.value == pytest.approx(on_cpu.value, rel=1e-9) and on_gpu.se == pytest.approx(on_cpu.se, rel=1e-9)


def test_render_learn_apply_compare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(app, "render", "fractaldb", "patterns", "--classes", 4, "--per-class", 4, "--size", 96, "--workers", 1)
    run(app, "learn", PHOTOS / "learn", "style.safetensors", "--size", 96, "--method", "regions+network")
    for device, workers in (("cpu", 1), ("cuda", 1), ("cuda", 2)):
        options = ("--method", "regions+network", "--device", device, "--workers", workers)
        run(app, "apply", "style.safetensors", "patterns", f"{device}{workers}", *options)
    cpu, one, two = (pixels(name) for name in ("cpu1", "cuda1", "cuda2"))
    assert all(np.array_equal(one[key], two[key]) for key in cpu)
    assert np.mean([np.abs(one[key] - cpu[key]).mean() for key in cpu]) < 0.05
    for device in ("cpu", "cuda"):
        words = ("compare", "cuda1", PHOTOS / "judge", "--before", "patterns", "--floor", PHOTOS / "learn")
        run(domain_gap, *words, "--crops", 4, "--device", device, "-o", f"report-{device}")
    reports = [
        json.loads(Path(f"report-{device}/report.json").read_text(encoding="utf-8")) for device in ("cpu", "cuda")
    ]
    expected, got = (
        [(m["name"], m["value"]) for row in report["rows"] for m in row["measurements"]] for report in reports
    )
    assert [name for name, _ in got] == [name for name, _ in expected]
    assert [value for _, value in got] == pytest.approx([value for _, value in expected], rel=1e-3, abs=1e-4)


def test_the_network_trains_and_resumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(app, "render", "fractaldb", "patterns", "--classes", 4, "--per-class", 4, "--size", 96, "--workers", 1)
    words = ("train", PHOTOS / "learn", "patterns", "network.safetensors", "--size", 64, "--steps", 6)
    run(app, *words, "--device", "cuda", "--minutes", 1e-9)
    run(app, *words, "--device", "cuda")
    run(app, "learn", PHOTOS / "learn", "style.safetensors", "--size", 96, "--method", "network")
    options = ("--method", "network", "--network", "network.safetensors", "--device", "cuda", "--workers", 1)
    run(app, "apply", "style.safetensors", "patterns", "painted", *options)
    assert len(pixels("painted")) == 16


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_style_is_learnt_and_generated(tmp_path, folder, picture, precision):
    """In a process of its own: its precision belongs to the process."""
    pytest.importorskip("diffusers")
    folder("real", {f"{label}/{i}.png": picture(i, 40, 32) for label in ("bag", "coat") for i in range(6)})
    options = f"--device cuda --precision {precision}"
    for words in (
        f"invert real -o style.safetensors --steps 4 --batch 2 --rate 0.003 {options}",
        f"generate made --classes real --per-class 3 --steps 4 --embedding style.safetensors {options}",
        f"restyle style.safetensors real restyled --steps 4 {options}",
    ):
        call = [sys.executable, "-c", "from stylize.commands.main import main; main()", *words.split()]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    assert len(pixels(tmp_path / "made")) == 6 and len(pixels(tmp_path / "restyled")) == 12
    assert all(image.std() > 5 for image in pixels(tmp_path / "made").values())


@pytest.mark.parametrize(
    "words",
    [
        "pretrain_classifier.py pretrain patterns out --model test_resnet --size 32 --steps 4 --batch-size 8",
        "pretrain_autoencoder.py patterns patterns out --size 32 --widths 8 8 --steps 4 --batch-size 4 --crops 4",
        "pretrain_diffusion.py patterns patterns patterns out --size 32 --widths 8 8 --steps 4 --real-steps 2 "
        "--batch-size 4 --samples 8 --sampler-steps 3",
        "bridged_transfer.py patterns others out --backbone efficientnet-lite0 --size 32 --batch-size 4 --shots 2 "
        "--validation 1 --synthetic-steps 4 --real-steps 4 --every 2 --seeds 0 --regimes matched bridged",
    ],
)
def test_recipes_run(words, tmp_path):
    pytest.importorskip("diffusers")
    run(app, "render", "fractaldb", tmp_path / "patterns", "--classes", 3, "--per-class", 8, "--size", 64)
    run(app, "render", "fractaldb", tmp_path / "others", "--classes", 3, "--per-class", 8, "--size", 64, "--seed", 1)
    script, *rest = words.split()
    call = [sys.executable, ROOT / "examples" / "recipes" / script, *rest]
    done = subprocess.run(list(map(str, call)), cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
