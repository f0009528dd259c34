"""Layers, levels, random convolutions and precision."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from metrics.errors import InputError
from metrics.extractors import EXTRACTORS, efficientnet_lite, levels, load_extractor, load_levels
from metrics.extractors.network import Network, Taps, spread_out
from metrics.extractors.weights import read_weights
from metrics.statistics.kid import kid


def noise(*size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))


def close(a, b, tolerance=1e-5):
    return a.shape == b.shape and bool(torch.linalg.norm(a - b) <= tolerance * torch.linalg.norm(b))


def weights_of(model, path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(model, pretrained=False)
    save_file(network.state_dict(), path)
    return network.eval()


def moments(maps):
    """Mean and standard deviation over positions, by their definitions in float64."""
    values = maps.double().flatten(2)
    mean = values.mean(2)
    std = (values - mean[:, :, None]).square().mean(2).sqrt()
    return torch.cat([mean, std], 1).float()


# --- layers


def test_a_layer_is_its_mean_and_deviation():
    extractor = load_extractor("efficientnet-lite0/blocks.2")
    path = efficientnet_lite.packaged_weights("efficientnet-lite0")
    network = efficientnet_lite.classifier("efficientnet-lite0", read_weights(path), path).eval()
    images = noise(2, 3, 90, 70)
    with torch.inference_mode():
        maps = network.blocks[:3](network.bn1(network.conv_stem(extractor.prepare(images))))
    assert extractor.name == "efficientnet-lite0/blocks.2"
    assert extractor.dim == 80
    assert close(extractor(images), moments(maps))


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "test_efficientnet"])
def test_layers_of_timm_models_are_those_of_its_feature_extractor(tmp_path, model):
    weights_of(model, tmp_path / "weights.safetensors")
    names = levels(f"timm:{model}")
    assert len(names) == 5
    images = noise(2, 3, 160, 160)
    network = weights_of(model, tmp_path / "weights.safetensors")
    modules = [name.partition("/")[2] for name in names[:-1]]
    indices = [[stage["module"] for stage in network.feature_info].index(module) for module in modules]
    for name, index in zip(names[:-1], indices, strict=True):
        extractor = load_extractor(name, weights=tmp_path / "weights.safetensors")
        with torch.inference_mode():
            (maps,) = network.forward_intermediates(
                extractor.prepare(images), indices=[index], intermediates_only=True, norm=False
            )
        assert close(extractor(images), moments(maps))


def test_layers_in_channels_last_order(tmp_path):
    """Swin's layers give ``[N,H,W,C]``."""
    network = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, embed_dim=24, depths=(1, 1, 1, 1))
    network.eval()
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = moments(network.layers[:2](network.patch_embed(images)).permute(0, 3, 1, 2))
        assert close(Taps(Network("swin", network, torch.Tensor.float, "", {}), ["layers.1"])(images), theirs)


def test_levels_in_one_pass_are_the_levels_one_by_one():
    extractor = load_levels("efficientnet-lite0")
    assert tuple(extractor.columns) == levels("efficientnet-lite0")
    assert levels()[:2] == ("efficientnet-lite0/blocks.0", "efficientnet-lite0/blocks.1")
    images = noise(2, 3, 64, 64)
    together = extractor(images)
    assert together.shape == (2, extractor.dim)
    for name, columns in extractor.columns.items():
        assert torch.equal(together[:, columns], load_extractor(name)(images))
    assert list(extractor.columns.values())[-1].stop == extractor.dim
    assert load_extractor().columns == {"efficientnet-lite0": slice(0, 1280)}


def test_a_pass_ends_after_the_last_layer():
    taps = load_extractor("efficientnet-lite0/blocks.1")._network
    seen = []
    for name in ("blocks.1", "blocks.2"):
        taps._module.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: seen.append(name))
    with torch.inference_mode():
        taps(torch.zeros(1, 3, 64, 64))
    assert seen == ["blocks.1"]


def test_fingerprints_tell_layers_and_precisions_apart():
    names = ["efficientnet-lite0/blocks.1", "efficientnet-lite0/blocks.2", "efficientnet-lite0"]
    built = [load_extractor(name) for name in names]
    built += [load_extractor(names[2], precision="bfloat16"), load_levels("efficientnet-lite0")]
    assert len({extractor.fingerprint for extractor in built}) == 5
    assert built[0].preprocessing["layer"] == "blocks.1; mean and standard deviation of each"
    assert built[3].preprocessing["precision"] == "bfloat16"


def test_layers_that_do_not_exist():
    with pytest.raises(InputError, match=r"has no layer 'block.2'. Did you mean efficientnet-lite0/blocks.\d or "):
        load_extractor("efficientnet-lite0/block.2")
    with pytest.raises(InputError, match="random-conv has no layer 'x'"):
        load_extractor("random-conv/x")


class Odd(torch.nn.Module):
    """A network with a layer that gives no tensor, and one that images do not pass."""

    def __init__(self):
        super().__init__()
        self.pair, self.unused = Pair(), torch.nn.Identity()

    def forward(self, images):
        return self.pair(images)[0].mean((2, 3))


class Pair(torch.nn.Module):
    def forward(self, images):
        return images, images


@pytest.mark.parametrize(
    ("layer", "message"),
    [("pair", "does not give features of an image"), ("unused", "but images do not pass it")],
)
def test_layers_that_give_no_features(layer, message):
    taps = Taps(Network("odd", Odd(), torch.Tensor.float, "", {}), [layer])
    with pytest.raises(InputError, match=message):
        taps(torch.zeros(1, 3, 8, 8))


def test_levels_are_spread_from_first_to_last():
    assert spread_out("abcdefghijk") == tuple("adhk")
    assert spread_out("abcd") == tuple("abcd")
    assert spread_out("ab") == tuple("ab")
    assert spread_out("a") == ("a",)
    assert spread_out("") == ()


@pytest.mark.parametrize("name", [name for name in EXTRACTORS if name != "timm"])
def test_every_family_has_levels_and_ends_with_itself(name):
    found = levels(name)
    assert found[-1] == name
    assert len(found) == (1 if name == "random-conv" else 4 if name == "inception" else 5)


# --- the batch


@pytest.mark.parametrize("name", ["random-conv", "efficientnet-lite0", "efficientnet-lite0/blocks.1"])
def test_features_do_not_depend_on_the_batch_by_a_bit(name):
    extractor = load_extractor(name)
    images = noise(5, 3, 48, 40)
    alone = torch.cat([extractor(image[None]) for image in images])
    assert torch.equal(extractor(images), alone)
    assert torch.equal(extractor(images.flip(0)).flip(0), alone)
    assert torch.equal(load_extractor(name)(images), alone)


# --- random convolutions


def test_random_convolutions_are_convolutions_of_exactly_these_weights():
    extractor = load_extractor("random-conv")
    assert extractor.fingerprint == "2472b99ec95d7d2f"  # the same weights on every machine
    assert extractor.preprocessing["weights"] == "random: sees texture and colour, not objects"
    first, second = extractor._network.first, extractor._network.second
    assert first.sum((2, 3)).abs().max() < 1e-6
    assert 0.8 < float(second.var() * second[0].numel() / 2) < 1.2
    images = noise(1, 3, 200, 150)
    x, expected = extractor.prepare(images), []
    for scale in range(3):
        expected += [moments(x)] if scale == 0 else []
        x = x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)) if scale else x
        maps = x
        for weight in (first, second):
            windows = maps.unfold(2, weight.shape[2], 1).unfold(3, weight.shape[3], 1)
            maps = torch.einsum("nchwij,kcij->nkhw", windows, weight).clamp(min=0)
            expected.append(moments(maps))
    assert close(extractor(images), torch.cat(expected, 1), 1e-4)
    assert extractor.dim == 294


def test_random_convolutions_see_texture_and_colour(picture):
    extractor = load_extractor("random-conv")
    images = torch.stack([torch.tensor(picture(seed, 96, 96)).permute(2, 0, 1) for seed in range(24)])
    real, other = extractor(images[:12]), extractor(images[12:])
    rough = (images[12:].int() + noise(12, 3, 96, 96).int() // 8).clamp(0, 255).to(torch.uint8)
    warm = (images[12:].float() * torch.tensor([1.0, 0.8, 0.6]).view(3, 1, 1)).to(torch.uint8)
    floor = kid(other, real)
    for changed in (rough, warm):
        assert kid(extractor(changed), real).value > floor.value + 3 * floor.se


def test_random_convolutions_load_no_weights(tmp_path):
    with pytest.raises(InputError, match="random-conv has no weights to load"):
        load_extractor("random-conv", weights=tmp_path / "some.pth")


# --- precision


@pytest.mark.slow
def test_bfloat16_is_near_but_not_equal():
    images = noise(3, 3, 64, 64)
    exact, rough = load_extractor()(images), load_extractor(precision="bfloat16")(images)
    assert rough.dtype == torch.float32
    error = torch.linalg.norm(rough - exact) / torch.linalg.norm(exact)
    assert 1e-4 < error < 0.1
    again = load_extractor(precision="bfloat16")
    assert torch.equal(torch.cat([again(image[None]) for image in images]), rough)


def test_other_precisions_are_refused():
    with pytest.raises(InputError, match=r"precision 'float16' is not supported. Expected float32 or bfloat16"):
        load_extractor(precision="float16")
