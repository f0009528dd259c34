"""Fréchet distance between Gaussians fitted to two feature sets (FID), exact for any number of images.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (2017), eq. 6:

    FID = |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½

Deliberate deviation: no matrix square root. With Σ₁ = AᵀA and Σ₂ = BᵀB the last trace is the nuclear norm (the sum of
singular values) of A Bᵀ, where A and B are the centred features or their QR factors. All numbers stay real, nothing
is added to the diagonal, and it is exact when there are fewer images than features, where a square root of the
product Σ₁Σ₂ is off by 1e-6 to 3e-5 and can turn negative. With twice as many images as features the singular values
are roots of eigenvalues of a symmetric matrix instead, where a bound on rounding allows it (:data:`ACCURACY`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import InputError
from .moments import Moments, check_same_extractor
from .pair import Features, check_pair

ROWS = 16384  # images in float64 at a time, for memory: 50 000 x 2 048 float32 features need 1 GB beside themselves
ACCURACY = 1e-9  # worst-case rounding, as a share of the traces, up to which the faster route is taken


@dataclass(frozen=True)
class Frechet:
    """Fréchet distance between ``n`` and ``m`` images.

    ``bias`` is the value to expect, to first order, from samples of this size of one and the same distribution; None
    where the samples are too small for an estimate. ``warnings`` are sentences for the reader.
    """

    value: float
    bias: float | None
    n: int
    m: int
    warnings: tuple[str, ...] = ()


def frechet(x: Features, y: Features) -> Frechet:
    """Fréchet distance of features ``x [N,D]`` and ``y [M,D]``, in float64 on the device of ``x``.

    Covariances have denominator N − 1. Rounding can leave about −1e-13 of the traces where the distance is 0; the
    value is then 0.

    Args:
        x: features ``[N,D]``.
        y: features ``[M,D]``.

    Returns:
        The value, and the bias to expect at these sizes where that can be said.

    Raises:
        InputError: as ``metrics.statistics.kid.kid``.
    """
    x, y = check_pair(x, y)
    n, m, d = len(x), len(y), x.shape[1]
    with torch.inference_mode():
        shift = _mean(x) - _mean(y)
        if min(n, m) < 2 * d:
            return Frechet(_distance(shift, _factor(x), _factor(y)), None, n, m, (_small_sample(d),))
        covariance1, covariance2 = _covariance(x), _covariance(y)
        value = _distance_if_accurate(shift, covariance1, covariance2)
        if value is None:
            value = _distance(shift, _factor(x), _factor(y))
        return _with_bias(value, _bias(covariance1, covariance2, n, m), n, m)


def frechet_from_moments(x: Moments, y: Moments) -> Frechet:
    """Fréchet distance of everything that two mergeable states have seen, in float64 on their device.

    The same as ``frechet`` of all their rows to 1e-8 where there are more rows than features, and to 1e-6 otherwise
    (a covariance holds the square of the features' scale); keep the features themselves where they are fewer.

    Args:
        x: what one side has seen.
        y: what the other has.

    Returns:
        The value, and the bias to expect at these sizes where that can be said.

    Raises:
        InputError: states of two extractors, or fewer than two rows in one.
    """
    check_same_extractor(x, y)
    mu1, a = _statistics(x.mean, x.covariance(), "of x")
    mu2, b = _statistics(y.mean, y.covariance(), "of y")
    with torch.inference_mode():
        value, d = _distance(mu1 - mu2, a, b), len(mu1)
        if min(x.n, y.n) < 2 * d:
            return Frechet(value, None, x.n, y.n, (_small_sample(d),))
        return _with_bias(value, _bias(x.covariance(), y.covariance(), x.n, y.n), x.n, y.n)


def frechet_from_statistics(mean1: Features, covariance1: Features, mean2: Features, covariance2: Features) -> float:
    """Fréchet distance from means ``[D]`` and covariances ``[D,D]``, computed in float64.

    Args:
        mean1: ``[D]`` of one set.
        covariance1: ``[D,D]`` of it.
        mean2: ``[D]`` of the other.
        covariance2: ``[D,D]`` of it.

    Returns:
        The distance, never negative.

    Raises:
        InputError: shapes that do not match, NaN or infinity, or a covariance that is not symmetric or has a
            negative eigenvalue beyond rounding.
    """
    mu1, a = _statistics(mean1, covariance1, "1")
    mu2, b = _statistics(mean2, covariance2, "2")
    if len(mu1) != len(mu2):
        raise InputError(f"means have {len(mu1)} and {len(mu2)} entries. Expected statistics of one extractor.")
    with torch.inference_mode():
        return _distance(mu1 - mu2, a, b)


def first_order_bias(x: Features, y: Features) -> float:
    """The Fréchet distance to expect between samples of N and M images of one Gaussian, to first order in 1/N and 1/M.

    (1/N + 1/M) · [Σᵢ λᵢ + ½ Σᵢⱼ λᵢλⱼ(1 + δᵢⱼ)/(λᵢ + λⱼ)], λ the eigenvalues of the pooled covariance: perturbation of
    eq. 6 around equal covariances, Wishart noise. Within 3 % for N ≥ 10 D on Gaussians.

    Args:
        x: features ``[N,D]`` of the set under test.
        y: features ``[M,D]`` of the reference.

    Returns:
        The bias.

    Raises:
        InputError: as ``frechet``; or fewer than 2 D images on a side, where the expansion does not hold.
    """
    x, y = check_pair(x, y)
    n, m, d = len(x), len(y), x.shape[1]
    if min(n, m) < 2 * d:
        raise InputError(f"no bias estimate for n={n}, m={m} images: expected at least 2 D = {2 * d} on each side.")
    with torch.inference_mode():
        return _bias(_covariance(x), _covariance(y), n, m)


def _factor(x: torch.Tensor) -> torch.Tensor:
    """A with AᵀA = covariance of ``x``, float64; no more rows than columns need."""
    n, d = x.shape
    mean, scale = _mean(x), 1 / math.sqrt(n - 1)
    if n <= d:
        return (x - mean) * scale
    factor = torch.empty(0, d, dtype=torch.float64, device=x.device)
    for start in range(0, n, ROWS):
        part = (x[start : start + ROWS] - mean) * scale
        factor = torch.linalg.qr(torch.cat([factor, part]), mode="r").R
    return factor


def _mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean(0, dtype=torch.float64)


def _covariance(x: torch.Tensor) -> torch.Tensor:
    """Float64 [D,D], ROWS of ``x`` at a time."""
    products = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    mean = _mean(x)
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS] - mean
        if part.device.type == "cpu":  # NumPy sees that aᵀa is symmetric and computes half of it
            products += torch.from_numpy(part.numpy().T @ part.numpy())
        else:
            products.addmm_(part.T, part)
    return products / (len(x) - 1)


def _with_bias(value: float, bias: float, n: int, m: int) -> Frechet:
    return Frechet(value, bias, n, m, (_biased(value, bias, n, m),) if bias > 0.1 * value else ())


def _distance(shift: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> float:
    nuclear = torch.linalg.svdvals(a @ b.T).sum()
    return max(float(shift.square().sum() + a.square().sum() + b.square().sum() - 2 * nuclear), 0.0)


def _distance_if_accurate(shift: torch.Tensor, covariance1: torch.Tensor, covariance2: torch.Tensor) -> float | None:
    """The distance with the singular values as roots of eigenvalues, a third of the work; None where that is inexact.

    With Σ₁ = LLᵀ they are the roots of the eigenvalues of LᵀΣ₂L, each of which is off by a few ε times the largest, and
    its root by that over twice the root. The true error is some 1 000 times less than this worst case.

    Returns:
        The distance, or None.
    """
    lower, failed = torch.linalg.cholesky_ex(covariance1)
    if failed:
        return None
    eigenvalues = torch.linalg.eigvalsh(lower.T @ covariance2 @ lower)
    noise = 10 * torch.finfo(torch.float64).eps * eigenvalues[-1]
    traces = covariance1.trace() + covariance2.trace()
    if eigenvalues[0] <= noise or (noise / (2 * eigenvalues.sqrt())).sum() > ACCURACY * traces:
        return None
    return max(float(shift.square().sum() + traces - 2 * eigenvalues.sqrt().sum()), 0.0)


def _bias(covariance1: torch.Tensor, covariance2: torch.Tensor, n: int, m: int) -> float:
    pooled = ((n - 1) * covariance1 + (m - 1) * covariance2) / (n + m - 2)
    eigenvalues = torch.linalg.eigvalsh(pooled)
    eigenvalues = eigenvalues[eigenvalues > eigenvalues[-1] * 1e-12]  # the others contribute nothing but 0/0
    pairs = eigenvalues[:, None] * eigenvalues / (eigenvalues[:, None] + eigenvalues)
    mean_part, covariance_part = eigenvalues.sum(), (pairs.sum() + pairs.diagonal().sum()) / 2
    return (1 / n + 1 / m) * float(mean_part + covariance_part)


def _statistics(mean: Features, covariance: Features, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean, and A with AᵀA = covariance."""
    mu, sigma = torch.as_tensor(mean).double(), torch.as_tensor(covariance).double()
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise InputError(f"statistics {name}: shapes {list(mu.shape)} and {list(sigma.shape)}. Expected [D] and [D,D].")
    if not (torch.isfinite(mu).all() and torch.isfinite(sigma).all()):
        raise InputError(f"statistics {name}: NaN or infinity in the mean or the covariance. Compute them again.")
    scale = float(sigma.diagonal().abs().max())
    if float((sigma - sigma.T).abs().max()) > 1e-6 * scale:
        raise InputError(f"statistics {name}: the covariance is not symmetric. Expected a covariance matrix.")
    eigenvalues, vectors = torch.linalg.eigh((sigma + sigma.T) / 2)
    if float(eigenvalues[0]) < -1e-6 * scale:
        raise InputError(
            f"statistics {name}: the covariance has the eigenvalue {float(eigenvalues[0]):.3g}. Expected none below 0."
        )
    noise = len(mu) * torch.finfo(torch.float64).eps * float(eigenvalues[-1])  # of a covariance of lower rank
    return mu, (vectors * torch.where(eigenvalues > noise, eigenvalues, 0).sqrt()).T


def _small_sample(d: int) -> str:
    return (
        f"Fréchet distances of fewer than {2 * d} images per side ({d} features) are mostly sampling bias: two "
        "halves of one set would not give 0. Compare them only at equal numbers of images."
    )


def _biased(value: float, bias: float, n: int, m: int) -> str:
    return (
        f"Two samples of one distribution would give a Fréchet distance of about {bias:.4g} at {n} and {m} images; "
        f"this one is {value:.4g}."
    )
