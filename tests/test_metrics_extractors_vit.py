"""DINOv2 and CLIP with real architectures and random weights: their published ones need a download."""

import json

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from metrics.errors import InputError
from metrics.extractors import clip, dinov2, levels, load_extractor


def noise(*size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))


def small_vit(name, **options):
    """A tiny network of timm's architecture ``name``, under its own configuration."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(name, pretrained=False, embed_dim=32, depth=4, num_heads=2, **options).eval()
    for parameter in network.parameters():  # far from the initial zeros and ones
        parameter.data += (
            0.1 * torch.from_numpy(np.random.default_rng(parameter.numel()).standard_normal(parameter.shape)).float()
        )
    return network


@pytest.fixture
def tiny(monkeypatch):
    """timm builds every vision transformer tiny."""
    create = timm.create_model

    def make(name, **options):
        return create(name, **{"embed_dim": 32, "depth": 4, "num_heads": 2, **options})

    monkeypatch.setattr("metrics.extractors.timm_models.timm.create_model", make)
    return create


# --- DINOv2


def test_positions_are_stretched_as_upstream_does():
    """Against the cubic convolution itself, at the coordinates (i + 0.5) * 37 / 16.1 - 0.5."""
    positions = np.random.default_rng(0).standard_normal((37, 37, 2)).astype(np.float32)

    def weights(step):
        x = np.abs(step)
        near = 1.25 * x**3 - 2.25 * x**2 + 1
        far = -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    at = (np.arange(16) + 0.5) * 37 / 16.1 - 0.5
    matrix = np.zeros((16, 37))
    for row, place in enumerate(at):
        for column in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            matrix[row, np.clip(column, 0, 36)] += weights(place - column)
    expected = np.einsum("ai,bj,ijd->abd", matrix, matrix, positions)
    token = torch.zeros(1, 1, 2)
    flat = torch.cat([token, torch.from_numpy(positions).reshape(1, 37 * 37, 2)], 1)
    stretched = dinov2.stretch(flat, 16)
    assert stretched.shape == (1, 257, 2)
    np.testing.assert_allclose(stretched[0, 1:].reshape(16, 16, 2), expected, atol=2e-5)


def test_dinov2_is_the_class_token_at_224_pixels(tiny, tmp_path):
    network = small_vit("vit_small_patch14_dinov2")
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    extractor = load_extractor("dinov2:vits14", weights=tmp_path / "model.safetensors")
    assert extractor.preprocessing["size"] == "224x224"
    image = noise(300, 260, 3)
    resized = Image.fromarray(image.numpy()).resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.tensor(np.asarray(resized)).permute(2, 0, 1)[None] / 255
    pixels = (pixels - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    positions = dinov2.stretch(network.pos_embed.data, 16)
    tokens = network.patch_embed.proj(pixels).flatten(2).transpose(1, 2)
    tokens = torch.cat([network.cls_token, tokens], 1) + positions
    with torch.inference_mode():
        theirs = network.norm(network.blocks(tokens))[:, 0]
    ours = extractor(image.permute(2, 0, 1)[None])
    assert ours.shape == (1, 32)
    assert torch.linalg.norm(ours - theirs) < 2e-3 * torch.linalg.norm(theirs)  # Pillow's fixed-point weights


def test_dinov2_takes_upstreams_own_files(tiny, tmp_path):
    state = small_vit("vit_small_patch14_dinov2").state_dict()
    torch.save(state, tmp_path / "timm.pth")
    upstream = {name.replace("fc_norm", "norm"): value for name, value in state.items()}
    upstream["mask_token"] = torch.zeros(1, 32)  # upstream's files have it, timm's do not
    torch.save(upstream, tmp_path / "dinov2_vits14_pretrain.pth")
    one, two = (load_extractor("dinov2:vits14", weights=path) for path in sorted(tmp_path.iterdir()))
    assert one.fingerprint == two.fingerprint


def test_names_of_dinov2(tiny, tmp_path):
    for model in (dinov2.DEFAULT, "vitl14"):
        save_file(small_vit(dinov2.MODELS[model]).state_dict(), tmp_path / f"{model}.safetensors")
    default = load_extractor("dinov2", weights=tmp_path / "vitb14.safetensors")
    named = load_extractor("dinov2:vitb14", weights=tmp_path / "vitb14.safetensors")
    large = load_extractor("dinov2:vitl14", weights=tmp_path / "vitl14.safetensors")
    assert default.fingerprint == named.fingerprint != large.fingerprint
    assert default.name == "dinov2"


# --- CLIP


@pytest.fixture(scope="module")
def tower():
    """open_clip's image tower in the shape of a tiny ViT-B-32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return open_clip.transformer.VisionTransformer(
            image_size=224,
            patch_size=32,
            width=32,
            layers=4,
            heads=2,
            mlp_ratio=4.0,
            output_dim=512,
            act_layer=open_clip.transformer.QuickGELU,
        ).eval()


def test_clip_is_open_clips_image_embedding(tiny, tower, tmp_path):
    file = tmp_path / "open_clip_model.safetensors"
    save_file({f"visual.{name}": value for name, value in tower.state_dict().items()}, file)
    extractor = load_extractor("clip:ViT-B-32", weights=tmp_path)  # the folder will do
    assert extractor.dim == 512
    images = noise(3, 3, 224, 224)
    transform = open_clip.image_transform(
        224, is_train=False, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD
    )
    theirs = torch.stack([transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    assert (extractor.prepare(images) - theirs).abs().max() < 1e-5
    with torch.inference_mode():
        embedding = tower(theirs)
    assert torch.linalg.norm(extractor(images) - embedding) < 1e-5 * torch.linalg.norm(embedding)


def test_clip_models_have_open_clips_names_and_sizes():
    for name, model in clip.MODELS.items():
        config = open_clip.get_model_config(name)
        ours = timm.models.get_pretrained_cfg(model)
        assert ours.input_size[1] == config["vision_cfg"]["image_size"]
        assert ours.num_classes == config["embed_dim"]
        assert clip.MODELS[clip.DEFAULT] == "vit_large_patch14_clip_quickgelu_336.openai"


# --- both


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("dinov2", "timm/vit_base_patch14_dinov2.lvd142m"),
        ("dinov2:vitl14", "timm/vit_large_patch14_dinov2.lvd142m"),
        ("clip", "timm/vit_large_patch14_clip_336.openai"),
    ],
)
def test_offline_says_what_where_and_how(monkeypatch, tiny, name, repository):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as caught:
        load_extractor(name)
    message = str(caught.value)
    assert f"{name} needs its weights from {repository} on the Hugging Face hub: not in " in message
    assert f"hf download {repository} --local-dir FOLDER) and pass --weights FILE" in message
    assert "--extractor efficientnet-lite0" in message


@pytest.mark.parametrize("name", ["dinov2:vits14", "clip:ViT-B-32"])
def test_weights_of_another_network_are_refused(tiny, tmp_path, name):
    torch.save(
        timm.create_model("test_resnet", pretrained=False, embed_dim=None).state_dict()
        if False
        else {"a": torch.ones(2)},
        tmp_path / "other.pth",
    )
    with pytest.raises(InputError, match=rf"other.pth: does not fit {name}"):
        load_extractor(name, weights=tmp_path / "other.pth")


def test_a_folder_of_weights(tiny, tmp_path):
    with pytest.raises(InputError, match=r"no weight file in this folder. Expected one ending in .safetensors .pth"):
        load_extractor("dinov2:vits14", weights=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({}))
    state = small_vit("vit_small_patch14_dinov2").state_dict()
    save_file(state, tmp_path / "model.safetensors")
    torch.save({}, tmp_path / "pytorch_model.bin")  # the same repository's older format is passed over
    assert load_extractor("dinov2:vits14", weights=tmp_path).dim == 32
    save_file(state, tmp_path / "model_2.safetensors")
    with pytest.raises(InputError, match=r"holds model.safetensors, model_2.safetensors. Name one of these files"):
        load_extractor("dinov2:vits14", weights=tmp_path)


def test_levels_are_blocks(tmp_path):
    assert levels("dinov2") == ("dinov2/blocks.0", "dinov2/blocks.3", "dinov2/blocks.7", "dinov2/blocks.10", "dinov2")
    assert len(levels("clip:ViT-L-14")) == 5
