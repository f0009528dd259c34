"""Preprocessing, against timm's own Pillow pipeline."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from metrics.errors import InputError
from metrics.extractors.preprocess import Preprocess
from metrics.image_sets.decode import decode

PHOTO = Path(__file__).parent.parent / "assets" / "photos" / "learn" / "cat.jpg"


def noise(*size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))


CONFIGS = {
    "lite0": {"input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"},
    "dinov2": {"input_size": (3, 518, 518), "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center"},
    "bilinear": {"input_size": (3, 160, 160), "interpolation": "bilinear", "crop_pct": 0.95, "crop_mode": "center"},
    "squash": {"input_size": (3, 256, 256), "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "squash"},
    "border": {"input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "border"},
    "border-crop": {"input_size": (3, 96, 96), "interpolation": "bilinear", "crop_pct": 0.9, "crop_mode": "border"},
    "oblong": {"input_size": (3, 112, 160), "interpolation": "bilinear", "crop_pct": 0.9, "crop_mode": "center"},
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocess(config):
    return Preprocess(
        config["input_size"][1:], config["interpolation"], config["crop_pct"], config["crop_mode"], MEAN, STD
    )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", [(300, 400), (401, 255), (97, 33), (224, 224), (1000, 600)])
def test_preprocessing_is_timms_pillow_pipeline(name, size):
    config = CONFIGS[name]
    image = decode(PHOTO)
    image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)).copy()
    image[::7, ::5] = noise(*image[::7, ::5].shape).numpy()  # sharp edges, where bicubic overshoots
    pipeline = timm.data.create_transform(**config, mean=MEAN, std=STD, is_training=False)
    theirs = pipeline(Image.fromarray(image))
    ours = preprocess(config)(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
    levels = (ours - theirs).abs() * torch.tensor(STD).view(3, 1, 1) * 255
    assert ours.shape == theirs.shape
    if name == "squash" and size[0] > size[1]:  # from version 13, Pillow resizes the height first
        assert levels.max() < 5.5
        assert levels.mean() < 0.2
    else:
        assert levels.max() < 2.5
        assert (levels > 0.5).float().mean() < 0.02


@pytest.mark.parametrize("bad", [{"interpolation": "lanczos"}, {"crop_mode": "tile"}])
def test_preprocessing_that_is_not_implemented_is_refused(bad):
    with pytest.raises(InputError, match="is not supported"):
        preprocess({**CONFIGS["lite0"], **bad})


@pytest.mark.parametrize("size", [(300, 400), (401, 256), (336, 336), (97, 33)])
def test_square_is_cmmds_crop_then_resize(size):
    image = np.asarray(Image.fromarray(decode(PHOTO)).resize(size[::-1], Image.Resampling.BICUBIC))
    side = min(size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    square = Image.fromarray(image).crop((left, top, left + side, top + side))
    theirs = np.asarray(square.resize((336, 336), Image.Resampling.BICUBIC)).transpose(2, 0, 1) / 255
    ours = Preprocess((336, 336), "bicubic", 1.0, "square", (0.0,) * 3, (1.0,) * 3)(
        torch.tensor(image).permute(2, 0, 1)[None]
    )
    levels = np.abs(ours[0].numpy() - theirs) * 255
    assert levels.max() < 2.5
    assert (levels > 0.5).mean() < 0.02
