"""The Inception network of published FID and KID: torch-fidelity's port of the TensorFlow graph of 2015-12-05.

``inception`` (the same as ``inception:torch-fidelity``), ``inception:clean`` and ``inception:torchmetrics`` resize as
those programs do. The weights are downloaded once into torch.hub's cache and checked against their SHA-256. The
architecture and the input scale are torch-fidelity's own code.

Images reach the resize as :func:`metrics.image_sets.decode.decode` reads them. The other programs drop an alpha channel
and ignore orientation and colour profiles, so numbers agree for images without those.
"""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from pathlib import Path

import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from ..errors import InputError
from ..image_sets.decode import sha256
from ..registry import unknown
from .inception_resize import PRESETS, SIDE, Resize
from .network import MEAN, Network
from .weights import cause, read_weights

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
LAYERS = {"64": "MaxPool_1", "192": "MaxPool_2", "768": "Mixed_6e"}


def load(name: str = "inception", *, weights: Path | None = None) -> Network:
    """The FID network's 2048 pooled features, and pytorch-fid's 64, 192 and 768 as layers.

    With ``weights``, a file of the same tensors. If it is not the published file, bit for bit, the extractor is called
    ``inception-<first 8 digits of its SHA-256>``, because its numbers are not those of the published metrics.

    Args:
        name: as in ``load_extractor``.
        weights: a file that replaces the weights it would load.

    Returns:
        The network with its preprocessing.

    Raises:
        InputError: unknown preset, or weights that are neither given, cached nor downloadable, or do not fit.
    """
    resize = _preset(name)
    path = _cached_weights() if weights is None else weights
    network = _network(path)
    digest = sha256(path)
    if digest != SHA256:
        family, colon, preset = name.partition(":")
        name = f"{family}-{digest[:8]}{colon}{preset}"
    return Network(
        name,
        network,
        lambda images: (resize.compute(images) - 128) / 128,
        architecture="torch-fidelity inception-v3-compat 2048",
        preprocessing={
            "resize": resize.name,
            "crop": "squash 1",
            "size": f"{SIDE}x{SIDE}",
            "normalise": "(x - 128) / 128",
        },
        pool=MEAN,
        layers=LAYERS,
    )


def layers(name: str) -> tuple[str, ...]:
    """The layers of a gap profile: pytorch-fid's, by their number of features."""
    _preset(name)
    return tuple(LAYERS)


def _preset(name: str) -> Resize:
    _, colon, preset = name.partition(":")
    if colon and preset not in PRESETS:
        raise unknown("preset of inception", preset, PRESETS)
    return PRESETS[preset or "torch-fidelity"]


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

    Returns:
        The modules in a row.
    """
    tensors = read_weights(path)
    clean = io.BytesIO()
    torch.save(tensors, clean)
    clean.seek(0)
    try:
        upstream = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=clean)
    except RuntimeError as error:
        raise InputError(
            f"{path}: does not fit torch-fidelity's Inception ({cause(error)}). "
            f"Expected the tensors of {URL_INCEPTION_V3}."
        ) from error
    modules = OrderedDict(upstream.named_children())
    modules["fc"] = torch.nn.Flatten()  # instead of the classifier
    return torch.nn.Sequential(modules)
