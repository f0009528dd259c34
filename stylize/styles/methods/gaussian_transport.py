"""Optimal transport between Gaussians: the one map that every statistics-matching style method here is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch

QUANTISATION = 1.0 / (12 * 255**2)  # variance of rounding [0, 1] to 8 bits: no covariance is known better than this


@dataclass(frozen=True)
class Transport:
    """The step from one Gaussian towards another: y = linear · x + missing · white noise.

    Both are ``float64 [..., D, D]`` and symmetric; ``missing`` is the square root of the covariance that the target
    has and the map does not reach.
    """

    linear: torch.Tensor
    missing: torch.Tensor


def transport(
    source: torch.Tensor, target: torch.Tensor, strength: float = 1.0, *, ridge: float = 1e-5, gain: float = 5.0
) -> Transport:
    """The step from N(0, source) to the point ``strength`` of the Wasserstein geodesic to N(0, target).

    The Monge map is A = S^-½ (S^½ T S^½)^½ S^-½, symmetric positive definite, of least mean squared displacement, and
    the identity when source equals target (Olkin & Pukelsheim 1982; Pitié & Kokaram 2007 for colour). The geodesic is
    (1−a)·I + a·A (McCann 1997).

    Two deviations. Both covariances get a ridge: ``ridge`` times their mean variance plus the variance of 8-bit
    rounding, so that flat images have a map. The eigenvalues of A are clipped to [1/gain, gain], so that directions in
    which a content is flat are not blown up; of the covariance that is then missing the positive part is kept.

    Args:
        source: covariances ``[..., D, D]``.
        target: covariances ``[..., D, D]``.
        strength: 0 (source) to 1 (target).
        ridge: relative to the mean variance, dimensionless.
        gain: largest stretch of one direction, > 1.

    Returns:
        The map, and the root of the covariance that it does not reach.
    """
    source, target = _regularised(source, ridge), _regularised(target, ridge)
    root, inverse = _roots(source)
    middle, _ = _roots(root @ target @ root)
    values, vectors = torch.linalg.eigh(inverse @ middle @ inverse)
    full, clipped = ((vectors * v.unsqueeze(-2)) @ vectors.mT for v in (values, values.clamp(1.0 / gain, gain)))
    identity = torch.eye(source.shape[-1], dtype=torch.float64, device=source.device)
    full, clipped = (1 - strength) * identity + strength * full, (1 - strength) * identity + strength * clipped
    return Transport(clipped, _positive_root(full @ source @ full - clipped @ source @ clipped))


def square_root(covariance: torch.Tensor) -> torch.Tensor:
    """The symmetric square roots of ``[..., D, D]`` covariances, in float64."""
    return _roots(_regularised(covariance, 0.0))[0]


def _positive_root(symmetric: torch.Tensor) -> torch.Tensor:
    """The square root of the nearest positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(symmetric)
    root: torch.Tensor = (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)) @ vectors.mT
    return root


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
