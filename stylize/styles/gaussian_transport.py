"""Optimal transport between Gaussians: the one map that every statistics-matching style method here is made of."""

from __future__ import annotations

import torch

QUANTISATION = 1.0 / (12 * 255**2)  # variance of rounding [0, 1] to 8 bits: no covariance is known better than this


def transport_map(
    source: torch.Tensor, target: torch.Tensor, *, ridge: float = 1e-5, gain: float = 5.0
) -> torch.Tensor:
    """The linear part A of the Monge map from N(0, source) to N(0, target), so that A·source·A = target.

    A = S^-½ (S^½ T S^½)^½ S^-½ is the symmetric positive definite map of least mean squared displacement (Olkin &
    Pukelsheim 1982; Pitié & Kokaram 2007 for colour). It is the identity when source equals target.

    Two deviations. Both covariances get a ridge: ``ridge`` times their mean variance plus the variance of 8-bit
    rounding, so that flat images have a map. The eigenvalues of A are clipped to [1/gain, gain], so that directions in
    which a content is flat are not blown up into noise.

    Args:
        source: covariances ``[..., D, D]``.
        target: covariances ``[..., D, D]``.
        ridge: relative to the mean variance, dimensionless.
        gain: largest stretch of one direction, > 1.

    Returns:
        ``float64 [..., D, D]``, symmetric.
    """
    source, target = _regularised(source, ridge), _regularised(target, ridge)
    root, inverse = _roots(source)
    middle, _ = _roots(root @ target @ root)
    values, vectors = torch.linalg.eigh(inverse @ middle @ inverse)
    clipped = values.clamp(1.0 / gain, gain).unsqueeze(-2)
    linear: torch.Tensor = (vectors * clipped) @ vectors.mT
    return linear


def mccann(linear: torch.Tensor, strength: float) -> torch.Tensor:
    """(1−a)·I + a·A: the map to the point ``strength`` along the Wasserstein geodesic (McCann 1997)."""
    identity = torch.eye(linear.shape[-1], dtype=linear.dtype, device=linear.device)
    return torch.lerp(identity.expand_as(linear), linear, strength)


def square_root(covariance: torch.Tensor) -> torch.Tensor:
    """The symmetric square roots of ``[..., D, D]`` covariances, in float64."""
    return _roots(_regularised(covariance, 0.0))[0]


def _regularised(covariance: torch.Tensor, ridge: float) -> torch.Tensor:
    covariance = covariance.double()
    size = covariance.shape[-1]
    variance = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    identity = torch.eye(size, dtype=torch.float64, device=covariance.device)
    return covariance + (ridge * variance + QUANTISATION)[..., None, None] * identity


def _roots(covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """S^½ and S^-½ of symmetric positive definite matrices."""
    values, vectors = torch.linalg.eigh(covariance)
    deviations = values.clamp_min(1e-3 * QUANTISATION**2).sqrt().unsqueeze(-2)
    return (vectors * deviations) @ vectors.mT, (vectors / deviations) @ vectors.mT
