"""KID and Fréchet distance beside torch-fidelity and torchmetrics, in one run on the same features.

    python benchmarks/kid_frechet.py                # about two minutes
    python benchmarks/kid_frechet.py --subsets 10   # peers' KID timed on 10 of their 100 subsets and extrapolated

Every program gets one thread and is charged its processor seconds, so other programs on the machine hardly matter;
still, read the ratios. Ours are the median of five runs. Features are ReLU of a Gaussian with a power-law spectrum:
no weights are needed, and they are as skewed and as correlated as those of an ImageNet network.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read when NumPy is imported

import numpy as np
import torch
import torchmetrics
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from metrics.frechet import frechet
from metrics.kid import kid

D = 2048
SUBSETS, SUBSET_SIZE = 100, 1000  # the peers' defaults, and the published protocol


@dataclass(frozen=True)
class Line:
    """One program's seconds and value; ``note`` says what the numbers are."""

    name: str
    seconds: float
    value: str
    note: str = ""


def features(n: int, shift: float, seed: int) -> torch.Tensor:
    """``float32 [n,D]``: ReLU of a power-law Gaussian; ``shift`` moves the mean before the ReLU."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((D, 256)))
    latent = rng.standard_normal((n, 256)) * np.arange(1, 257) ** -0.5 * 6
    noise = 0.2 * rng.standard_normal((n, D))
    return torch.from_numpy(np.maximum(latent @ rotation.T + noise + 0.1 + shift, 0).astype(np.float32))


def timed(compute: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    result = compute()
    return time.process_time() - start, result


def typical(compute: Callable[[], object], repeats: int = 5) -> tuple[float, object]:
    """The median run of a few: ours are too short for one run to say much."""
    return sorted((timed(compute) for _ in range(repeats)), key=lambda run: run[0])[repeats // 2]


def kid_lines(n: int, subsets: int) -> list[Line]:
    x, y = features(n, 0.0, seed=2), features(n, 0.01, seed=3)
    seconds, ours = typical(lambda: kid(x, y))
    lines = [Line("ours", seconds, f"{ours.value:.6e} ± {ours.se:.1e}", "all pairs; ± jackknife standard error")]
    scale = SUBSETS / subsets
    note = f"{SUBSETS} subsets of {SUBSET_SIZE}; ± spread of subsets"
    if subsets < SUBSETS:
        note = f"EXTRAPOLATED from {subsets} to {note}"
    options = {"kid_subsets": subsets, "kid_subset_size": SUBSET_SIZE, "verbose": False}
    seconds, theirs = timed(lambda: kid_features_to_metric(x, y, **options))
    value = "{kernel_inception_distance_mean:.6e} ± {kernel_inception_distance_std:.1e}".format(**theirs)
    lines.append(Line("torch-fidelity", seconds * scale, value, note))
    seconds, values = timed(lambda: torchmetrics_kid(x, y, subsets))
    lines.append(Line("torchmetrics", seconds * scale, f"{values.mean():.6e} ± {values.std():.1e}", note))
    return lines


def torchmetrics_kid(x: torch.Tensor, y: torch.Tensor, subsets: int) -> torch.Tensor:
    """The loop of torchmetrics' ``KernelInceptionDistance.compute`` on features that are already there."""
    generator = torch.Generator().manual_seed(0)

    def subset(features: torch.Tensor) -> torch.Tensor:
        return features[torch.randperm(len(features), generator=generator)[:SUBSET_SIZE]]

    return torch.stack([poly_mmd(subset(x), subset(y)) for _ in range(subsets)])


def fid_lines(n: int) -> list[Line]:
    x, y = features(n, 0.0, seed=4), features(n, 0.01, seed=5)
    seconds, ours = typical(lambda: frechet(x, y))
    lines = [Line("ours", seconds, f"{ours.value:.9f}", "singular values of the cross-Gram")]

    def fidelity() -> float:
        one, two = fid_features_to_statistics(x), fid_features_to_statistics(y)
        return fid_statistics_to_metric(one, two, verbose=False)["frechet_inception_distance"]

    def metrics() -> torch.Tensor:
        one, two = x.double(), y.double()
        return _compute_fid(one.mean(0), one.T.cov(), two.mean(0), two.T.cov())

    seconds, theirs = timed(fidelity)
    lines.append(Line("torch-fidelity", seconds, f"{theirs:.9f}", "eigenvalues of the covariances' product"))
    seconds, theirs = timed(metrics)
    lines.append(Line("torchmetrics", seconds, f"{float(theirs):.9f}", "eigenvalues of the covariances' product"))
    return lines


def show(title: str, lines: list[Line]) -> None:
    print(f"\n{title}\n{'':16}{'CPU s':>10}{'ratio':>9}  {'value':28}what")
    for line in lines:
        ratio = line.seconds / lines[0].seconds
        print(f"{line.name:16}{line.seconds:10.2f}{ratio:8.1f}x  {line.value:28}{line.note}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subsets", type=int, default=SUBSETS, help="how many of the peers' 100 KID subsets to time")
    parser.add_argument("--kid-images", type=int, default=4000, help="images per side for KID")
    parser.add_argument("--fid-images", type=int, default=500, help="images per side for the Fréchet distance")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, torchmetrics {torchmetrics.__version__}, {torch.get_num_threads()} thread, D={D}"
    )
    show(f"KID, n = m = {options.kid_images}", kid_lines(options.kid_images, options.subsets))
    show(f"Fréchet distance, n = m = {options.fid_images}", fid_lines(options.fid_images))


if __name__ == "__main__":
    main()
