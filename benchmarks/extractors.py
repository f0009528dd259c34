"""Feature extraction beside torch-fidelity, clean-fid and timm, in one run on the same images and weights.

    python benchmarks/extractors.py --images 64
    python benchmarks/extractors.py --images 64 --weights weights-inception-2015-12-05-6726825d.pth

Every program reads the same 256x256 PNG crops of the repository's photos and is charged its processor seconds on one
thread, so other programs on the machine hardly matter; still, read the ratios. Without ``--weights`` Inception gets
random ones: the work is the same. The error of bfloat16 is measured on the same images, against their blurred copies.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from cleanfid.fid import get_folder_features
from PIL import Image, ImageFilter
from torch_fidelity.datasets import ImagesPathDataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.utils import get_featuresdict_from_dataset

from metrics.extractors import efficientnet_lite, load_extractor
from metrics.extractors.extractor import Extractor
from metrics.extractors.weights import read_weights
from metrics.features.extraction import extract
from metrics.image_sets.open import open_images
from metrics.statistics.kid import kid

PHOTOS = Path(__file__).parent.parent / "assets" / "photos"
SIDE, BATCH = 256, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as root:
        crops = write_crops(Path(root, "crops"), options.images)
        weights = options.weights or random_weights(Path(root, "inception.pth"))
        upstream = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(weights))
        fidelity, clean = (load_extractor(name, weights=weights) for name in ("inception", "inception:clean"))
        compare("inception", fidelity, crops, "torch-fidelity", torch_fidelity, upstream)
        compare("clean", clean, crops, "clean-fid", clean_fid, upstream)
        compare("lite0", load_extractor("efficientnet-lite0"), crops, "timm", plain_timm, lite0())
        for name, file in (("efficientnet-lite0", None), ("inception", weights), ("random-conv", None)):
            bfloat16(name, file, crops, blurred(crops, Path(root, "blurred")))


def compare(
    what: str, extractor: Extractor, crops: Path, peer: str, run: Callable[..., torch.Tensor], network: torch.nn.Module
) -> None:
    """One line: images per processor second of ours and theirs, their ratio, and how far the features differ."""
    seconds, features = timed(lambda: ours(crops, extractor))
    theirs, expected = timed(lambda: run(crops, network))
    error = float(torch.linalg.norm(features - expected) / torch.linalg.norm(expected))
    n = len(features)
    print(
        f"{what:10} ours {n / seconds:6.1f}/s   {peer} {n / theirs:6.1f}/s   ratio {theirs / seconds:.2f}"
        f"   relative difference {error:.0e}",
        flush=True,
    )


def bfloat16(name: str, weights: Path | None, crops: Path, other: Path) -> None:
    """One line: speed and errors of bfloat16 against float32."""
    exact, rough = (load_extractor(name, weights=weights, precision=p) for p in ("float32", "bfloat16"))
    seconds, x = timed(lambda: ours(crops, exact))
    faster, rough_x = timed(lambda: ours(crops, rough))
    value, rough_value = (kid(a, ours(other, b)) for a, b in ((x, exact), (rough_x, rough)))
    error = float(torch.linalg.norm(rough_x - x) / torch.linalg.norm(x))
    print(
        f"{name} bfloat16: {seconds / faster:.2f} times as fast, relative error of the features {error:.1e}, "
        f"KID to the blurred images {rough_value.value:.6f}, in float32 {value.value:.6f} ± {value.se or 0:.6f}",
        flush=True,
    )


def timed(compute: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """The better of two runs."""
    runs = []
    for _ in range(2):
        start = time.process_time()
        result = compute()
        runs.append((time.process_time() - start, result))
    return min(runs, key=lambda run: run[0])


def ours(folder: Path, extractor: Extractor) -> torch.Tensor:
    return extract(open_images(folder), extractor, batch_size=BATCH, workers=1).features


def torch_fidelity(folder: Path, network: torch.nn.Module) -> torch.Tensor:
    files = ImagesPathDataset([str(path) for path in sorted(folder.iterdir())])
    features = get_featuresdict_from_dataset(files, network, BATCH, cuda=False, save_cpu_ram=True, verbose=False)
    return features["2048"]


def clean_fid(folder: Path, network: torch.nn.Module) -> torch.Tensor:
    """clean-fid's loader and resize; its own network is a download, so torch-fidelity's stands in."""
    layers = [module for name, module in network.named_children() if name != "fc"]
    model = torch.nn.Sequential(*layers, torch.nn.Flatten())
    options = {"mode": "clean", "num_workers": 0, "batch_size": BATCH, "device": "cpu", "verbose": False}
    return torch.from_numpy(get_folder_features(str(folder), model=lambda x: model((x - 128) / 128), **options))


def plain_timm(folder: Path, network: torch.nn.Module) -> torch.Tensor:
    """Timm's own evaluation pipeline."""
    config = timm.data.resolve_model_data_config(network) | {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    transform = timm.data.create_transform(**config, is_training=False)
    images = [transform(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())]
    with torch.inference_mode():
        return torch.cat([network(torch.stack(images[i : i + BATCH])) for i in range(0, len(images), BATCH)])


def lite0() -> torch.nn.Module:
    path = efficientnet_lite.packaged_weights("efficientnet-lite0")
    network = efficientnet_lite.classifier("efficientnet-lite0", read_weights(path), path).eval()
    network.reset_classifier(0)
    return network


def random_weights(path: Path) -> Path:
    """Weights as the constructor draws them, which upstream does not let out without a file."""
    torch.manual_seed(0)
    network = FeatureExtractorInceptionV3.__new__(FeatureExtractorInceptionV3)
    network.load_state_dict = lambda *_: None  # type: ignore[method-assign]
    empty = path.with_suffix(".empty")
    torch.save({}, empty)
    network.__init__("inception", ["2048"], feature_extractor_weights_path=str(empty))  # type: ignore[misc]
    torch.save(network.state_dict(), path)
    return path


def write_crops(folder: Path, count: int) -> Path:
    """Random crops of the photos, 256x256 PNG."""
    folder.mkdir()
    photos = sorted(PHOTOS.rglob("*.jpg"))
    rng = np.random.default_rng(0)
    for number in range(count):
        image = Image.open(photos[number % len(photos)]).convert("RGB")
        side = min(*image.size, 2 * SIDE)
        left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
        image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE)).save(folder / f"{number:05}.png")
    return folder


def blurred(crops: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for path in crops.iterdir():
        Image.open(path).filter(ImageFilter.GaussianBlur(1.5)).save(folder / path.name)
    return folder


if __name__ == "__main__":
    main()
