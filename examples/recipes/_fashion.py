"""Fashion-MNIST in colour: product photos painted into named styles by formula.

The data comes from the Debian package ``dataset-fashion-mnist`` (MIT licence, Zalando SE): 70,000 photos of 28 px. A
style is a background gradient with a texture, two colours for the garment's shadows and lights, and perhaps outlines.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from metrics.errors import InputError

FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
SIZE = 32


@dataclass(frozen=True)
class Style:
    """Colours are hexadecimal RGB: background from left-top to right-bottom, garment from its shadows to its lights."""

    background: tuple[str, str]
    garment: tuple[str, str]
    texture: str = "plain"
    amplitude: float = 0.0
    outline: float = 0.0
    noise: float = 0.01


STYLES = {
    "blueprint": Style(("0a2a66", "174a9c"), ("1d4f9f", "5f8fd8"), "grid", 0.10, 1.0),
    "chalk": Style(("1f3a2e", "24463a"), ("3d5c50", "e8efe6"), "noise", 0.06, 0.6, 0.03),
    "neon": Style(("08040f", "140626"), ("31105e", "ff2bd6"), "plain", 0.0, 0.9),
    "ink": Style(("f6f1e4", "fbf8f0"), ("0d0d12", "6d6a66"), "noise", 0.03, 0.0, 0.02),
    "autumn": Style(("8c4a16", "d9a441"), ("5a1e0b", "e2661f"), "dots", 0.08),
    "sepia": Style(("b79a6b", "d8c39a"), ("3b2411", "a9814f"), "plain", 0.0, 0.0, 0.02),
    "ocean": Style(("02304f", "0f8ea6"), ("065a7d", "c4f2ee"), "waves", 0.10),
    "candy": Style(("ffc4dd", "bfe6ff"), ("e5558e", "fff0b8"), "stripes", 0.07),
    "mint": Style(("c9f2df", "9be3c3"), ("1f7a5c", "e9fff6"), "plain"),
    "lava": Style(("1a0503", "6b0f02"), ("a31403", "ffc11f"), "noise", 0.10, 0.3),
    "forest": Style(("12301a", "3f6b2e"), ("4a3319", "a8c66c"), "dots", 0.10),
    "desert": Style(("e8c98f", "c98f4e"), ("7a4a22", "fbe7c2"), "waves", 0.07),
    "glacier": Style(("dff1fb", "9cc7e6"), ("3b6d99", "ffffff"), "stripes", 0.05),
    "gold": Style(("201705", "4a3606"), ("7d5b0c", "ffe08a"), "plain", 0.0, 0.4),
    "denim": Style(("2b4268", "3d5d8f"), ("18263f", "9db8dc"), "grid", 0.06, 0.2),
    "grape": Style(("2a0d45", "63309a"), ("8a3fc4", "e7c8ff"), "dots", 0.07),
    "rose": Style(("f3d3d6", "e39aa6"), ("8f1f3d", "ffe3e6"), "plain"),
    "steel": Style(("4c5359", "90999f"), ("22272b", "dfe4e8"), "stripes", 0.06),
    "sunset": Style(("34135c", "ff7a3d"), ("7a1350", "ffd35c"), "plain"),
    "comic": Style(("ffe14a", "ffd000"), ("d81e2c", "ff8f7a"), "dots", 0.12, 0.8),
    "newsprint": Style(("cfcac0", "dedad2"), ("2a2a2a", "8b8985"), "dots", 0.14),
    "moss": Style(("5b6b34", "7f8f4a"), ("2d3a17", "d3dc9a"), "noise", 0.09),
    "midnight": Style(("03061c", "0e1a4a"), ("1b2a6b", "8fb0ff"), "noise", 0.05),
    "brick": Style(("7c2f22", "9b4030"), ("d8c7b4", "fdf6ea"), "grid", 0.10),
}
HELD_OUT = {
    "aurora": Style(("2b0b4d", "12b392"), ("c2447e", "ffe3c9"), "stripes", 0.09),
    "citrus": Style(("d6ec3a", "ffb21f"), ("17603a", "c9f7a0"), "waves", 0.08, 0.3),
}  # no model here has met them, nor their names


def photos(part: str) -> tuple[np.ndarray, np.ndarray]:
    """``uint8 [N,28,28]`` grey photos on black and their labels; ``part``: ``train`` (60,000) or ``t10k`` (10,000)."""
    images, labels = (FOLDER / f"{part}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    if not (images.is_file() and labels.is_file()):
        raise InputError(f"{images}: not found. Install the data: apt-get install dataset-fashion-mnist")
    grey = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
    return grey, np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8).astype(np.int64)


def paint(grey: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Paint ``uint8 [N,28,28]`` photos in a style: ``uint8 [N,32,32,3]``. Gain, tint and grain differ by image."""
    value = np.pad(grey, ((0, 0), (2, 2), (2, 2)))[..., None].astype(np.float32) / 255
    dark, light, near, far = (_rgb(colour) for colour in (*style.garment, *style.background))
    garment = dark + (light - dark) * value**0.8
    edges = np.abs(np.gradient(value, axis=1)) + np.abs(np.gradient(value, axis=2))
    garment += style.outline * np.clip(2.5 * edges, 0, 1) * (np.maximum(light, 0.9) - garment)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / (SIZE - 1)
    ramp = ((rows + columns) / 2)[..., None]
    background = near + (far - near) * ramp + style.amplitude * TEXTURES[style.texture][..., None]
    inside = np.clip(value / 0.12, 0, 1)
    image = background * (1 - inside) + garment * inside
    count = len(grey)
    image = image * rng.normal(1, 0.05, (count, 1, 1, 1)) + rng.normal(0, 0.015, (count, 1, 1, 3))
    image = image + rng.normal(0, style.noise, image.shape)
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def _rgb(colour: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(colour), np.uint8).astype(np.float32) / 255


def _textures() -> dict[str, np.ndarray]:
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    coarse = torch.from_numpy(np.random.default_rng(7).standard_normal((1, 1, 9, 9)).astype(np.float32))
    cloud = F.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic", align_corners=False)[0, 0].numpy()
    turn = 2 * np.pi / 8
    return {
        "plain": np.zeros((SIZE, SIZE), np.float32),
        "stripes": np.sign(np.sin(turn * (x + y))),
        "waves": np.sin(turn * (y + 2 * np.sin(turn * x / 2))),
        "dots": 2.0 * (np.sin(turn * x) * np.sin(turn * y) > 0.35) - 0.5,
        "grid": np.where((x % 8 < 1) | (y % 8 < 1), 1.5, -0.2).astype(np.float32),
        "noise": cloud,
    }


TEXTURES = _textures()
