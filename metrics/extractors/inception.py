"""The Inception network of published FID and KID: torch-fidelity's port of the TensorFlow graph of 2015-12-05.

The weights are downloaded once into torch.hub's cache and checked against their SHA-256. The architecture, the
TensorFlow 1 resize (bilinear, not antialiased, corner-aligned grid) and the input scale are upstream's own code.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import cast

import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from ..errors import InputError
from ..images import sha256
from .extractor import Extractor
from .weights import cause, read_weights

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIDE = 299


def load(name: str = "inception", *, weights: Path | None = None, device: str = "cpu") -> Extractor:
    """The FID network's 2048 pooled features.

    With ``weights``, a file of the same tensors. If it is not the published file, bit for bit, the extractor is called
    ``inception-<first 8 digits of its SHA-256>``, because its numbers are not those of the published metrics.

    Raises:
        InputError: the weights are neither given, cached nor downloadable, or do not fit the network.
    """
    path = _cached_weights() if weights is None else weights
    network = _network(path)
    digest = sha256(path)
    if digest != SHA256:
        name = f"{name}-{digest[:8]}"
    return Extractor(
        name,
        network,
        _prepare,
        architecture="torch-fidelity inception-v3-compat 2048",
        preprocessing={
            "resize": "bilinear, TensorFlow 1 grid, not antialiased, float32",
            "crop": "squash 1",
            "size": f"{SIDE}x{SIDE}",
            "normalise": "(x - 128) / 128",
        },
        device=device,
    )


def cache_path() -> Path:
    """Where torch.hub keeps the file."""
    return Path(torch.hub.get_dir(), "checkpoints", URL_INCEPTION_V3.rpartition("/")[2])


def _cached_weights() -> Path:
    path = cache_path()
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL_INCEPTION_V3, os.fspath(path), hash_prefix=SHA256, progress=False)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"extractor 'inception' needs {path.name}; it is not in {path.parent} and could not be fetched from "
                f"{URL_INCEPTION_V3} ({cause(error)}). "
                "Fetch it elsewhere and pass --weights FILE, or use --extractor efficientnet-lite0 (works offline)."
            ) from error
    if sha256(path) != SHA256:
        raise InputError(f"{path}: damaged or altered, its SHA-256 is not {SHA256}. Delete it to fetch it again.")
    return path


def _network(path: Path) -> torch.nn.Sequential:
    """Upstream's network up to the pooled features, after its resize and scaling: its modules run in order.

    Upstream loads with ``weights_only=False``, which runs code in the file. So the file is read as tensors first, and
    upstream gets a clean copy of those.
    """
    tensors = read_weights(path)
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder, "weights.pth")
        torch.save(tensors, clean)
        try:
            upstream = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(clean))
        except RuntimeError as error:
            raise InputError(
                f"{path}: does not fit torch-fidelity's Inception ({cause(error)}). "
                f"Expected the tensors of {URL_INCEPTION_V3}."
            ) from error
    *layers, _classifier = upstream.children()
    return torch.nn.Sequential(*layers, torch.nn.Flatten())


def _prepare(images: torch.Tensor) -> torch.Tensor:
    resized = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(SIDE, SIDE), align_corners=False)
    return cast("torch.Tensor", (resized - 128) / 128)
