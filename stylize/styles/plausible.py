"""What the statistics in a style file must be like. A file is data: what no image can have is refused.

Finite numbers of the right shape can still be nonsense that a method would turn into noise without a word, or into
NaN: a covariance with negative eigenvalues, quantiles that fall, axes that are not perpendicular.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

LARGEST = 1e6  # no statistic of images in [0, 1], nor a feature of theirs, comes near it
ROUNDING = 1e-4  # of float32 sums, relative to the largest entry


def fault(name: str, values: torch.Tensor) -> str | None:
    """What is wrong with the entry ``method/kind`` or ``method/kind/level`` of a bank, in words; None if nothing."""
    numbers = values.double()
    if not torch.isfinite(numbers).all():
        return "holds values that are not finite"
    if numbers.abs().max() > LARGEST:
        return f"holds values beyond {LARGEST:g}"
    kind = name.split("/")[1] if "/" in name else name
    words, holds = RULES.get(kind, ("", lambda numbers: True))
    return None if holds(numbers) else words


def _in_unit_range(values: torch.Tensor) -> bool:
    return bool((values >= 0).all() and (values <= 1 + 1e-6).all())


def _shares(values: torch.Tensor) -> bool:
    return _in_unit_range(values) and bool((values.sum(-1) - 1).abs().max() < ROUNDING)


def _semidefinite(matrices: torch.Tensor) -> bool:
    """Symmetric, and no eigenvalue below zero; both up to rounding."""
    slack = ROUNDING * matrices.abs().amax((-1, -2)) + 1e-9
    symmetric = (matrices - matrices.mT).abs().amax((-1, -2)) <= slack
    return bool((symmetric & (torch.linalg.eigvalsh(matrices)[..., 0] >= -slack)).all())


def _covariances(matrices: torch.Tensor) -> bool:
    return bool((matrices.abs() <= 0.25 + 1e-6).all()) and _semidefinite(matrices)


def _orthonormal(matrices: torch.Tensor) -> bool:
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    return bool((matrices @ matrices.mT - identity).abs().max() < ROUNDING)


def _ascending(values: torch.Tensor) -> bool:
    return bool((values.diff(dim=-1) >= -1e-6).all())


def _not_negative(values: torch.Tensor) -> bool:
    return bool((values >= 0).all())


def _kernels(values: torch.Tensor) -> bool:
    return bool((values.square().sum((-1, -2)) <= 3 + ROUNDING).all())


# Images in [0, 1] have variances of at most 1/4, and 3 bounds that of three channels seen along any axis.
RULES: dict[str, tuple[str, Callable[[torch.Tensor], bool]]] = {
    "mean": ("holds means outside [0, 1]", _in_unit_range),
    "covariance": ("is no covariance of values in [0, 1]: symmetric, positive, at most 1/4", _covariances),
    "density": ("is no power density: symmetric and positive", _semidefinite),
    "typical": ("is no power density: symmetric and positive", _semidefinite),
    "sigma": ("is no covariance: symmetric and positive", _semidefinite),
    "axes": ("are no axes: perpendicular and of length 1", _orthonormal),
    "weight": ("are no weights: in [0, 1], with the sum 1", _shares),
    "quantiles": ("are no quantiles: they do not ascend", _ascending),
    "amplitudes": ("are no amplitudes of images in [0, 1]", _in_unit_range),
    "spread": ("is no standard deviation: negative", _not_negative),
    "texton": ("is no texture kernel: more than the variance of an image", _kernels),
}
