"""KID, Fréchet distance and permutation tests beside torch-fidelity, torchmetrics and clean-fid, in one run.

    python benchmarks/distances.py                # minutes; KID at 4 000, Fréchet at 500 and 5 000 images a side
    python benchmarks/distances.py --large        # also Fréchet at 50 000: 2 GB of memory more, and minutes more
    python benchmarks/distances.py --subsets 10   # peers' KID timed on 10 of their 100 subsets and extrapolated

Every program gets the same features, one thread and is charged its processor seconds, so that other programs on the
machine hardly matter; still, read the ratios. Ours are the median of five short runs, or one long one. Features are
ReLU of a Gaussian with a power-law spectrum: no weights are needed, and they are as skewed and as correlated as those
of an ImageNet network. Output is Markdown.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read when NumPy is imported

import cleanfid.fid
import numpy as np
import torch
import torchmetrics
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from metrics.statistics.frechet import frechet
from metrics.statistics.kid import kid
from metrics.statistics.kid_subsets import kid_subsets
from metrics.statistics.permutation import permutation_test

D = 2048
SUBSETS, SUBSET_SIZE = 100, 1000  # the peers' defaults, and the published protocol


@dataclass(frozen=True)
class Line:
    """One program's seconds and value; ``note`` says what the numbers are."""

    name: str
    seconds: float
    value: str
    note: str


def features(n: int, shift: float, seed: int) -> torch.Tensor:
    """``float32 [n,D]``: ReLU of a power-law Gaussian; ``shift`` moves the mean before the ReLU."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((D, 256)))[0].astype(np.float32)
    scale = np.arange(1, 257, dtype=np.float32) ** -0.5 * 6
    rows = np.empty((n, D), np.float32)
    for start in range(0, n, 1000):
        part = rows[start : start + 1000]
        latent = rng.standard_normal((len(part), 256), np.float32) * scale
        np.maximum(latent @ rotation.T + 0.2 * rng.standard_normal(part.shape, np.float32) + 0.1 + shift, 0, out=part)
    return torch.from_numpy(rows)


def timed(compute: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    result = compute()
    return time.process_time() - start, result


def typical(compute: Callable[[], object]) -> tuple[float, object]:
    """The median of five runs, or a single one that takes longer than a few seconds."""
    first = timed(compute)
    if first[0] > 5:
        return first
    return sorted([first, *(timed(compute) for _ in range(4))], key=lambda run: run[0])[2]


def kid_lines(n: int, subsets: int) -> list[Line]:
    x, y = features(n, 0.0, seed=2), features(n, 0.01, seed=3)
    seconds, ours = typical(lambda: kid(x, y))
    lines = [Line("ours", seconds, f"{ours.value:.6e} ± {ours.se:.1e}", "all pairs; ± jackknife standard error")]
    protocol = f"{SUBSETS} subsets of {SUBSET_SIZE}; ± spread of subsets, no error"
    seconds, ours = timed(lambda: kid_subsets(x, y))
    lines.append(Line("ours, published protocol", seconds, f"{ours.mean:.6e} ± {ours.std:.1e}", protocol))
    note = protocol if subsets == SUBSETS else f"EXTRAPOLATED from {subsets} to {protocol}"
    scale = SUBSETS / subsets
    options = {"kid_subsets": subsets, "kid_subset_size": SUBSET_SIZE, "verbose": False}
    seconds, theirs = timed(lambda: kid_features_to_metric(x, y, **options))
    value = "{kernel_inception_distance_mean:.6e} ± {kernel_inception_distance_std:.1e}".format(**theirs)
    lines.append(Line("torch-fidelity", seconds * scale, value, note))
    seconds, values = timed(lambda: torchmetrics_kid(x, y, subsets))
    lines.append(Line("torchmetrics", seconds * scale, f"{values.mean():.6e} ± {values.std():.1e}", note))
    seconds, mean = timed(lambda: cleanfid.fid.kernel_distance(x.numpy(), y.numpy(), num_subsets=subsets))
    lines.append(
        Line("clean-fid", seconds * scale, f"{mean:.6e}", note.replace("± spread of subsets, no error", "unseeded"))
    )
    return lines


def torchmetrics_kid(x: torch.Tensor, y: torch.Tensor, subsets: int) -> torch.Tensor:
    """The loop of torchmetrics' ``KernelInceptionDistance.compute`` on features that are already there."""
    generator = torch.Generator().manual_seed(0)

    def subset(features: torch.Tensor) -> torch.Tensor:
        return features[torch.randperm(len(features), generator=generator)[:SUBSET_SIZE]]

    return torch.stack([poly_mmd(subset(x), subset(y)) for _ in range(subsets)])


def frechet_lines(n: int, peers: list[str]) -> list[Line]:
    x, y = features(n, 0.0, seed=4), features(n, 0.01, seed=5)
    seconds, ours = typical(lambda: frechet(x, y))
    lines = [Line("ours", seconds, f"{ours.value:.9f}", "singular values")]
    for name in peers:
        compute, note = PEERS[name]
        seconds, theirs = timed(lambda compute=compute: compute(x, y))
        lines.append(Line(name, seconds, f"{float(theirs):.9f}", note))
    return lines


def by_torch_fidelity(x: torch.Tensor, y: torch.Tensor) -> float:
    one, two = fid_features_to_statistics(x), fid_features_to_statistics(y)
    return fid_statistics_to_metric(one, two, verbose=False)["frechet_inception_distance"]


def by_torchmetrics(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    one, two = x.double(), y.double()
    return _compute_fid(one.mean(0), one.T.cov(), two.mean(0), two.T.cov())


def by_clean_fid(x: torch.Tensor, y: torch.Tensor) -> float:
    return cleanfid.fid.fid_from_feats(x.numpy(), y.numpy())


def by_pytorch_fid(x: torch.Tensor, y: torch.Tensor) -> float:
    from pytorch_fid.fid_score import calculate_frechet_distance

    one, two = x.double().numpy(), y.double().numpy()
    statistics = (f(a) for a in (one, two) for f in (lambda a: a.mean(0), lambda a: np.cov(a, rowvar=False)))
    return calculate_frechet_distance(*statistics)


PEERS = {
    "torch-fidelity": (by_torch_fidelity, "eigenvalues of the covariances' product"),
    "torchmetrics": (by_torchmetrics, "eigenvalues of the covariances' product"),
    "clean-fid": (by_clean_fid, "matrix square root"),
    "pytorch-fid": (by_pytorch_fid, "matrix square root"),
}


def test_lines() -> list[Line]:
    """No peer has these; the first line is what one torch-fidelity KID above is to be compared with."""
    lines = []
    for n, statistics, permutations in ((4000, ("kid",), 500), (300, ("kid", "rbf", "energy", "fid"), 999)):
        x, y = features(n, 0.0, seed=6), features(n, 0.002, seed=7)
        seconds, test = timed(lambda x=x, y=y, s=statistics, b=permutations: permutation_test(x, y, s, b))
        value = ", ".join(f"{name} {p:.3f}" for name, p in test.p_values.items())
        lines.append(Line(f"n = m = {n}", seconds, value, f"{permutations} permutations; min-p {test.combined:.3f}"))
    return lines


def show(title: str, lines: list[Line], ratios: bool = True) -> None:
    print(f"\n### {title}\n\n| | CPU s | ratio | value | |\n|---|---:|---:|---|---|")
    for line in lines:
        ratio = f"{line.seconds / lines[0].seconds:.1f}×" if ratios else ""
        print(f"| {line.name} | {line.seconds:.2f} | {ratio} | {line.value} | {line.note} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subsets", type=int, default=SUBSETS, help="how many of the peers' 100 KID subsets to time")
    parser.add_argument("--kid-images", type=int, default=4000, help="images per side for KID")
    parser.add_argument("--large", action="store_true", help="Fréchet at 50 000 images as well")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    peers = [name for name in PEERS if name != "pytorch-fid" or find_spec("pytorch_fid")]
    missing = "" if "pytorch-fid" in peers else " pytorch-fid is not installed and left out."
    versions = f"torch {torch.__version__}, NumPy {np.__version__}, torchmetrics {torchmetrics.__version__}"
    print(f"{versions}; D = {D}, one thread.{missing}")
    show(f"KID, n = m = {options.kid_images}", kid_lines(options.kid_images, options.subsets))
    for n in (500, 5000, *((50000,) if options.large else ())):
        show(f"Fréchet distance, n = m = {n}", frechet_lines(n, peers))
    show("Permutation tests (no peer has them)", test_lines(), ratios=False)


if __name__ == "__main__":
    main()
