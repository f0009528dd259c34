import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from metrics.errors import InputError
from metrics.extractors.efficientnet_lite import classifier, packaged_weights
from metrics.extractors.weights import read_weights
from metrics.statistics.kid import kid
from stylize.styles.methods import colour, network, patches
from stylize.training import losses as training_losses
from stylize.training import train as training
from stylize.training import windows as training_windows
from stylize.training.export_onnx import export_onnx

TINY = {"half": 4, "quarter": 6, "eighth": 8, "style": 8, "blocks_half": 1, "blocks_quarter": 1, "blocks_eighth": 1}


@pytest.fixture
def painter():
    torch.manual_seed(0)
    made = network.Stylizer(**TINY).eval().requires_grad_(False)
    nn.init.normal_(made.leave.weight)
    return made.to(memory_format=torch.channels_last)


@pytest.fixture
def styles(picture):
    photos = np.stack([picture(seed, 48, 48) for seed in (7, 8, 9)])
    return patches.learn(torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 255)


@pytest.fixture
def data(folder, picture, monkeypatch):
    """Few windows, frequent saving; returns a function that trains into a file."""
    monkeypatch.setattr(training_losses, "STYLES", 4)
    monkeypatch.setattr(training_windows, "CONTENTS", 6)
    monkeypatch.setattr(training, "SAVE_EVERY", 2)
    real = folder("real", {f"{i}.png": picture(i, 48, 40) for i in range(2)})
    patterns = folder("patterns", {f"{i}.png": picture(10 + i, 32, 20) for i in range(3)})

    def train(out, **options):
        options = {"steps": 5, "size": 16, "batch": 2, "architecture": TINY, **options}
        return training.iter_train(real, patterns, out, **options)

    return train


def test_strength_zero_is_the_identity_and_one_is_not(painter, styles):
    images = torch.rand(3, 3, 24, 16)
    assert torch.equal(network.transfer(images, styles, 0.0, [1, 2, 3], network=painter), images)
    full = network.transfer(images, styles, 1.0, [1, 2, 3], network=painter)
    assert (full - images).abs().mean() > 0.05
    half = network.transfer(images, styles, 0.5, [1, 2, 3], network=painter)
    torch.testing.assert_close(half, (full + images) / 2)


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (31, 17), (5, 40)])
def test_any_size(painter, styles, size):
    flat = torch.zeros(3, 3, *size)
    for images in (flat, torch.rand(3, 3, *size)):
        result = network.transfer(images, styles, 1.0, [1, 2, 3], network=painter)
        assert result.shape == images.shape
        assert result.isfinite().all()


def test_a_result_depends_on_its_own_seed_and_style_and_nothing_else(painter, styles):
    images = torch.rand(3, 3, 16, 24)
    together = network.transfer(images, styles, 1.0, [1, 2, 3], network=painter)
    second = {name: values[[1]] for name, values in styles.items()}
    alone = network.transfer(images[[1]], second, 1.0, [2], network=painter)
    assert torch.equal(alone, together[[1]])
    assert not torch.equal(alone, network.transfer(images[[1]], second, 1.0, [3], network=painter))
    third = {name: values[[2]] for name, values in styles.items()}
    assert not torch.equal(alone, network.transfer(images[[1]], third, 1.0, [2], network=painter))


def test_an_empty_batch(painter, styles):
    none = {name: values[:0] for name, values in styles.items()}
    assert network.transfer(torch.zeros(0, 3, 8, 8), none, 1.0, [], network=painter).shape == (0, 3, 8, 8)


def test_code_of_white_noise_is_its_log_variance():
    style = {f"covariance/{factor}": 0.01 * torch.eye(27).double()[None] for factor in patches.LEVELS}
    style |= {f"mean/{factor}": torch.full((1, 27), 0.75).double() for factor in patches.LEVELS}
    code = network.style_code(style)
    assert code.shape == (1, network.CODE)
    torch.testing.assert_close(code[:, :-3], torch.full((1, 81), np.log10(0.01 + 1e-6) + 3).float())
    torch.testing.assert_close(code[:, -3:], torch.ones(1, 3))


def test_the_mapped_content_is_that_of_the_colour_method(picture):
    content, photo = (torch.from_numpy(picture(s, 40, 40)).permute(2, 0, 1)[None].float() / 255 for s in (1, 2))
    mapped = network.inputs(content, patches.learn(photo), [0], (1, 1, 1))["mapped"]
    torch.testing.assert_close(mapped, colour.transfer(content, colour.learn(photo), 1.0, [0]), atol=1e-5, rtol=0)


def test_textures_have_the_colours_of_the_style(styles):
    one = {name: values[[0]] for name, values in styles.items()}
    given = network.inputs(torch.zeros(1, 3, 256, 256), one, [5], (1, 1, 1))
    for factor in (1, 2, 4):
        drawn = given[f"texture_{factor}"].double().flatten(2)[0]
        wanted = one[f"covariance/{factor}"][0][4::9, 4::9]
        torch.testing.assert_close(drawn @ drawn.T / drawn.shape[1], wanted, atol=0.1 * float(wanted.max()), rtol=0.1)


def test_saving_and_loading(tmp_path, painter, styles):
    path = tmp_path / "n.safetensors"
    network.save_network(path, painter, TINY, {"steps": 3})
    images = torch.rand(3, 3, 16, 16)
    expected = network.transfer(images, styles, 1.0, [1, 2, 3], network=painter)
    assert torch.equal(network.transfer(images, styles, 1.0, [1, 2, 3], network=network.load(path)), expected)


def test_what_is_no_trained_network_is_refused(tmp_path, painter):
    def refused(name, reason, steps=3, architecture=TINY, change=None):
        path = tmp_path / f"{name}.safetensors"
        network.save_network(path, painter, architecture, {"steps": steps})
        if change is not None:
            change(path)
        with pytest.raises(InputError, match=reason) as caught:
            network.load(path)
        assert "stylize train" in str(caught.value)

    def rewrite(path, tensors=None, **entries):
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()[network.FORMAT])
        save_file(tensors or load_file(path), path, {network.FORMAT: json.dumps(header | entries)})

    def tamper(path):
        tensors = load_file(path)
        tensors["leave.bias"] += 1e-3
        rewrite(path, tensors)

    refused("missing", "no such network", change=lambda path: path.unlink())
    refused("garbage", "not one", change=lambda path: path.write_bytes(b"nonsense"))
    refused("short", "not one", change=lambda path: path.write_bytes(path.read_bytes()[:-100]))
    refused("foreign", "not one", change=lambda path: save_file({"a": torch.zeros(1)}, path))
    refused("header", "not one", change=lambda path: save_file({"a": torch.zeros(1)}, path, {network.FORMAT: "[]"}))
    refused("version", "of version 99", change=lambda path: rewrite(path, version=99))
    refused("untrained", "untrained", steps=0)
    refused("huge", "unknown architecture", architecture={**TINY, "half": 10**6})
    refused("other", "do not fit", architecture={**TINY, "half": 5})
    refused("tampered", "damaged", change=tamper)


def test_the_shipped_network_paints_a_pattern(picture):
    assert network.SHIPPED.stat().st_size <= 4_000_000
    header, _ = network.read_network(network.SHIPPED)
    assert header["licences"]
    assert not header["unlicensed"]
    assert not any("-SA" in row["licence"] or "-NC" in row["licence"] for row in header["licences"])
    photo = torch.from_numpy(picture(3, 64, 64)).permute(2, 0, 1)[None].float() / 255
    stripes = (torch.arange(64) // 16 % 2).float().expand(1, 3, 64, 64)
    result = network.transfer(stripes, patches.learn(photo), 1.0, [0])
    assert result.isfinite().all()
    assert (result - stripes).abs().mean() > 0.05
    assert torch.equal(result, network.transfer(stripes, patches.learn(photo), 1.0, [0]))


def test_training_resumes_to_the_same_weights(tmp_path, data):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    steps = list(data(whole))
    assert [step.done for step in steps] == [1, 2, 3, 4, 5]
    interrupted = data(parts)
    for _ in range(3):  # saved after 2, killed after 3
        next(interrupted)
    interrupted.close()
    with pytest.raises(InputError, match="trained otherwise"):
        list(data(parts, seed=1))
    rest = list(data(parts))
    assert [step.done for step in rest] == [3, 4, 5]
    assert rest[-1].losses == steps[-1].losses
    assert parts.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*.safetensors*")) == [parts.name, whole.name]
    (step,) = data(parts)  # finished: nothing to do
    assert (step.done, step.total, step.losses) == (5, 5, {})
    with pytest.raises(InputError, match=r"trained otherwise \(steps = 5 there, 6 here\)"):
        list(data(parts, steps=6))


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_file_in_the_way_of_training_is_refused_and_kept(tmp_path, data, content):
    out = tmp_path / "n.safetensors"
    save_file({"a": torch.zeros(1)}, out)
    if content is not None:
        out.write_bytes(content)
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"n\.safetensors: is in the way, .* Name another file, or delete this one\."):
        next(data(out))
    assert out.read_bytes() == before


def test_what_training_left_is_not_used_by_another_training(tmp_path, data):
    out = tmp_path / "n.safetensors"
    next(data(out, minutes=1e-9))
    out.unlink()
    with pytest.raises(InputError, match=r"belongs to another training \(seed = 0 there, 1 here\)\. Delete it"):
        next(data(out, seed=1))


def test_a_time_limit_leaves_a_run_to_resume(tmp_path, data):
    out = tmp_path / "n.safetensors"
    assert len(list(data(out, minutes=1e-9))) == 1
    assert network.read_network(out)[0]["steps"] == 1
    assert next(data(out)).done == 2
    (tmp_path / "n.safetensors.training").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot resume"):
        list(data(out))


def test_one_process_trains_a_file(tmp_path, data):
    out = tmp_path / "n.safetensors"
    first = data(out)
    next(first)
    with pytest.raises(InputError, match="another process is training it"):
        next(data(out))
    first.close()
    assert next(data(out)).done == 1
    assert not list(tmp_path.glob(".*"))


def test_divergence_stops_and_keeps_the_last_good_weights(tmp_path, data, monkeypatch):
    out = tmp_path / "n.safetensors"
    run = data(out)
    for _ in range(2):
        next(run)
    monkeypatch.setattr(training, "structure_loss", lambda result, content: result.sum() * torch.nan)
    with pytest.raises(InputError, match="diverged at step 2"):
        next(run)
    assert network.read_network(out)[0]["steps"] == 2


@pytest.mark.parametrize("options", [{"steps": 0}, {"size": 20}, {"size": 8}, {"batch": 1}, {"minutes": 0}])
def test_impossible_numbers_are_refused(tmp_path, data, options):
    with pytest.raises(InputError, match="expected at least 1 step"):
        next(data(tmp_path / "n.safetensors", **options))


def test_unreadable_images_are_refused(tmp_path, folder, picture, data):
    broken = folder("broken", {"a.png": b"nonsense", "b.png": b"nonsense"})
    real = folder("fine", {"a.png": picture()})
    for photos, patterns in ((broken, real), (real, broken)):
        with pytest.raises(InputError):
            next(training.iter_train(photos, patterns, tmp_path / "n.safetensors", steps=1, size=16))
    with pytest.raises(InputError, match="expected a file name ending in"):
        next(training.iter_train(real, real, tmp_path / "n.bin"))


def test_the_encoder_is_the_extractor_without_batch_normalisation():
    path = packaged_weights("efficientnet-lite0")
    whole = classifier("efficientnet-lite0", read_weights(path), path).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        maps, pooled = training_losses.FoldedEfficientNet()(images)
        expected = whole.forward_features((images * 255 - 127) / 128).mean((2, 3))
    torch.testing.assert_close(pooled, expected, atol=1e-4, rtol=1e-4)
    assert [m.shape[1:] for m in maps] == [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]


def test_the_set_loss_has_the_gradient_of_kid(tmp_path, data):
    class Held:
        queue = torch.zeros(0, 6)
        device = "cpu"

    Held.real = type("Real", (), {"pooled": torch.rand(7, 6)})
    x = torch.rand(5, 6, dtype=torch.float32).requires_grad_()
    training._Trainer._set_loss(Held, x).backward()
    numeric = torch.zeros(5, 6, dtype=torch.float64)
    for position in np.ndindex(5, 6):
        values = []
        for sign in (1, -1):
            moved = x.detach().double().clone()
            moved[position] += sign * 1e-5
            values.append(kid(moved, Held.real.pooled.double()).value)
        numeric[position] = (values[0] - values[1]) / 2e-5
    torch.testing.assert_close(x.grad.double(), numeric, atol=1e-5, rtol=1e-4)


def test_structure_loss_is_zero_for_the_content_and_its_negative():
    content = torch.rand(2, 3, 16, 16)
    assert training_losses.structure_loss(content, content) < 1e-4
    assert training_losses.structure_loss(1 - content, content) < 1e-4
    assert training_losses.structure_loss(torch.rand(2, 3, 16, 16), content) > 1


def test_export_names_the_packages_that_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr("stylize.training.export_onnx.find_spec", lambda package: None)
    with pytest.raises(InputError, match="pip install onnx onnxscript"):
        export_onnx(tmp_path / "n.onnx")


@pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs onnx, onnxscript and onnxruntime"
)
def test_onnx_gives_what_torch_gives(tmp_path, painter, styles):
    import onnxruntime

    network.save_network(tmp_path / "n.safetensors", painter, TINY, {"steps": 1})
    export_onnx(tmp_path / "n.onnx", tmp_path / "n.safetensors")
    session = onnxruntime.InferenceSession(tmp_path / "n.onnx")
    given = network.inputs(torch.rand(3, 3, 24, 50), styles, [1, 2, 3], painter.noise_channels)
    (result,) = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
    torch.testing.assert_close(torch.from_numpy(result), painter(**given), atol=1e-4, rtol=0)


def test_shapes_are_compared_before_anything_is_allocated(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "n.safetensors"
    header = {"version": 1, "steps": 1, "architecture": dict.fromkeys(network.ARCHITECTURE, network.MAXIMUM)}
    header["architecture"] |= {"blocks_half": 8, "blocks_quarter": 8, "blocks_eighth": 8}
    save_file({"style.0.weight": torch.zeros(1)}, path, {network.FORMAT: json.dumps(header)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="its tensors do not fit the architecture in its header"):
        network.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # 450 MB of weights, in kB


def test_a_network_that_does_not_say_what_it_knows_is_read(tmp_path, painter, styles):
    path = tmp_path / "n.safetensors"
    network.save_network(path, painter, TINY, {"steps": 1})
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[network.FORMAT])
        tensors = {name: file.get_tensor(name) for name in file.keys() if not name.startswith("known_")}  # noqa: SIM118
    save_file(tensors, path, {network.FORMAT: json.dumps(header | {"sha256": network._digest(tensors)})})
    assert network.load(path).knows({name: values[:1] for name, values in styles.items()})
