import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def picture():
    """A smooth random colour image: ``picture(seed, height, width) -> uint8 [H,W,3]``."""

    def make(seed=0, height=64, width=64):
        noise = torch.from_numpy(np.random.default_rng(seed).random((1, 3, height // 8 + 2, width // 8 + 2)))
        smooth = torch.nn.functional.interpolate(noise, size=(height, width), mode="bilinear", align_corners=False)
        return (smooth[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()

    return make


@pytest.fixture
def folder(tmp_path, picture):
    """Write an image tree: ``folder("name", {"a/1.png": picture(), ...}) -> Path``."""

    def make(name, images):
        root = tmp_path / name
        for file, image in images.items():
            path = root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(image, bytes):
                path.write_bytes(image)
            else:
                Image.fromarray(image).save(path)
        root.mkdir(exist_ok=True)
        return root

    return make
