"""Optimal transport between Gaussian mixtures of patches: flat, edge and textured patches each get a map of their own.

Delon & Desolneux, "A Wasserstein-type distance in the space of Gaussian mixture models" (2020). At each level of the
pyramid of :mod:`.patches`, content and style are mixtures of COMPONENTS Gaussians of 3×3 colour patches. Exact optimal
transport between the components, at the squared Bures–Wasserstein distance, says how much of component k goes to
component l; a patch x moves to Σ_k γ_k(x) Σ_l π_kl/w_k (A_kl (x − m_k) + m_l), the barycentric map, with A_kl the
Monge map between the two Gaussians and γ_k(x) the posterior of k. What the map leaves missing of the covariances is
added as a stationary texture per component, as in :mod:`.texture`: it lands where such patches are.

Deviations: the mixture is fitted to the FEATURES leading principal components of the patches, and full covariances are
taken from its posteriors; every pixel of a mapped patch uses the posterior of the patch that it is the centre of, so
that a level is two convolutions; a style equal to the content is the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linprog

from metrics.seed import generator

from .gaussian_transport import QUANTISATION, square_root, transport
from .patches import LEVELS, PATCH, overlap_filters, reduced

Statistics = dict[str, torch.Tensor]

STATISTICS = "gmm"
COMPONENTS = 4
FEATURES = 8
ROUNDS = 8  # of expectation-maximisation
SAMPLE = 2048  # patches that a mixture is fitted to
GAIN = 2.0


class Mixture(NamedTuple):
    """``weight`` [K], ``mean`` [K,27] and ``covariance`` [K,27,27], float64."""

    weight: torch.Tensor
    mean: torch.Tensor
    covariance: torch.Tensor


def learn(images: torch.Tensor) -> Statistics:
    """The patch mixture of every image at every level.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].

    Returns:
        per level f in LEVELS ``weight/f`` ``float64 [N,K]``, ``mean/f`` ``float64 [N,K,27]`` and ``covariance/f``
        ``float64 [N,K,27,27]``, K = COMPONENTS.
    """
    style: Statistics = {}
    for factor in LEVELS:
        mixtures = [_fitted(image)[0] for image in reduced(images, factor).clamp(0, 1)]
        for name in Mixture._fields:
            style[f"{name}/{factor}"] = torch.stack([getattr(mixture, name) for mixture in mixtures])
    return style


def transfer(
    images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int], *, levels: int = len(LEVELS)
) -> torch.Tensor:
    """Give every image the patch mixture of its style, level by level.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: position on the straight line from the content (0) to the result (1).
        seeds: one per image; the texture is drawn from it.
        levels: how many of the scales take part, the finest first.

    Returns:
        ``float32 [N,3,H,W]``; may leave [0, 1].
    """
    pairs = enumerate(zip(images, seeds, strict=True))
    moved = [_transferred(image, row, style, seed, levels) for row, (image, seed) in pairs]
    return torch.lerp(images, torch.stack(moved), strength)


def plan(source: Mixture, target: Mixture) -> torch.Tensor:
    """The optimal plan ``float64 [K,L]`` between the components, by linear programming."""
    roots = square_root(source.covariance)
    regular = QUANTISATION * torch.eye(target.covariance.shape[-1], dtype=torch.float64, device=roots.device)
    middle = roots[:, None] @ (target.covariance + regular)[None] @ roots[:, None]
    fidelity = torch.linalg.eigvalsh(middle).clamp_min(0).sqrt().sum(-1)
    traces = [(m.covariance + regular).diagonal(dim1=-2, dim2=-1).sum(-1) for m in (source, target)]
    cost = torch.cdist(source.mean, target.mean).square() + traces[0][:, None] + traces[1] - 2 * fidelity
    k, l = cost.shape
    sums = np.vstack([np.kron(np.eye(k), np.ones(l)), np.kron(np.ones(k), np.eye(l))])
    weights = [(m.weight / m.weight.sum()).cpu().numpy() for m in (source, target)]
    solved = linprog(cost.flatten().cpu().numpy(), A_eq=sums[:-1], b_eq=np.concatenate(weights)[:-1], method="highs")
    return torch.from_numpy(solved.x).view(k, l).to(cost.device)


def _transferred(image: torch.Tensor, row: int, style: Statistics, seed: int, levels: int) -> torch.Tensor:
    result = image[None]
    for factor in LEVELS[-levels:]:
        level = reduced(result, factor)[0]
        target = Mixture(*(style[f"{name}/{factor}"][row] for name in Mixture._fields))
        change = _moved(level, target, generator(seed, "gmm", str(factor))) - level
        result = result + F.interpolate(change[None], size=image.shape[-2:], mode="bilinear", align_corners=False)
    return result[0]


def _moved(level: torch.Tensor, target: Mixture, rng: np.random.Generator) -> torch.Tensor:
    source, posterior = _fitted(level)
    linear, shift, missing = component_maps(source, target)
    height, width = level.shape[-2:]
    constant = shift.view(-1, 3, PATCH * PATCH).mean(-1).float().flatten()
    mapped = F.conv2d(_padded(level, PATCH - 1), overlap_filters(linear).float().flatten(0, 1), constant)
    white = rng.standard_normal((3, height + PATCH - 1, width + PATCH - 1), dtype=np.float32)
    middle = missing.view(-1, 3, PATCH, PATCH, 3, PATCH, PATCH)[:, :, PATCH // 2, PATCH // 2].float().flatten(0, 1)
    texture = F.conv2d(torch.from_numpy(white).to(level.device)[None], middle)
    return ((mapped + texture).view(-1, 3, height, width) * posterior[:, None]).sum(0)


def component_maps(source: Mixture, target: Mixture) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A patch x of source component k goes to linear[k] x + shift[k] + missing[k] · white noise.

    Returns:
        ``linear`` ``[K,27,27]``, ``shift`` ``[K,27]`` and ``missing`` ``[K,27,27]``, float64.
    """
    pairs = plan(source, target)
    shares = pairs / pairs.sum(1, keepdim=True).clamp_min(1e-12)
    k, l = (pairs > 0).nonzero().unbind(1)
    steps = transport(source.covariance[k], target.covariance[l], gain=GAIN).linear
    share = shares[k, l]
    linear = torch.zeros_like(source.covariance).index_add(0, k, share[:, None, None] * steps)
    wanted = torch.einsum("kl,lij->kij", shares, target.covariance)
    lacking = wanted - linear @ source.covariance @ linear
    values, vectors = torch.linalg.eigh(lacking)
    missing = (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)) @ vectors.mT
    shift = shares @ target.mean - (linear @ source.mean[..., None])[..., 0]
    return linear, shift, missing


def _fitted(image: torch.Tensor) -> tuple[Mixture, torch.Tensor]:
    """The mixture of an image's patches, and the posterior ``float32 [K,h,w]`` of every patch by its centre."""
    patches = F.unfold(_padded(image, PATCH // 2), PATCH)[0]
    sample = patches[:, :: max(1, patches.shape[1] // SAMPLE)].T.double()
    centre = sample.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(sample.T, correction=0))
    axes = _oriented(vectors[:, -FEATURES:])
    ridge = QUANTISATION + 1e-3 * float(values.mean().clamp_min(0))
    weight, mean, inverse = _maximised((sample - centre) @ axes, ridge)
    posterior = _posterior(axes.T.float() @ (patches - centre.float()[:, None]), weight, mean, inverse)
    return _moments(sample, posterior[:, :: max(1, patches.shape[1] // SAMPLE)].double()), posterior.view(
        -1, *image.shape[-2:]
    )


def _moments(sample: torch.Tensor, posterior: torch.Tensor) -> Mixture:
    """Weighted means and covariances; an empty component sits at the mean of all."""
    count = posterior.sum(1)
    share = (posterior + 1e-9) / (count + 1e-9 * posterior.shape[1])[:, None]
    mean = share @ sample
    centred = sample[None] - mean[:, None]
    covariance = (centred * share[..., None]).mT @ centred
    return Mixture(count / count.sum(), mean, (covariance + covariance.mT) / 2)


def _maximised(points: torch.Tensor, ridge: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Expectation-maximisation on ``[P,D]`` points from equally large groups along the leading axis.

    Returns:
        weights ``[K]``, means ``[K,D]`` and W ``[K,D,D]`` with W Wᵀ the inverse covariance.
    """
    rank = points[:, -1].argsort(stable=True).argsort(stable=True)
    posterior = F.one_hot(rank * COMPONENTS // len(points), COMPONENTS).T.double()
    identity = torch.eye(points.shape[1], dtype=torch.float64, device=points.device)
    for step in range(ROUNDS):
        weight, mean, covariance = _moments(points, posterior)
        whitening = torch.linalg.inv(torch.linalg.cholesky(covariance + ridge * identity)).mT
        if step < ROUNDS - 1:
            posterior = _posterior(points.T, weight, mean, whitening)
    return weight, mean, whitening


def _posterior(points: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, whitening: torch.Tensor) -> torch.Tensor:
    """γ ``[K,P]`` of ``[D,P]`` points, in their dtype."""
    dtype = points.dtype
    offset = (whitening.mT @ mean[..., None]).to(dtype)
    distance = (whitening.mT.to(dtype) @ points - offset).square().sum(1)
    volume = whitening.diagonal(dim1=-2, dim2=-1).log().sum(-1) + weight.clamp_min(1e-12).log()
    return torch.softmax(volume.to(dtype)[:, None] - distance / 2, 0)


def _oriented(vectors: torch.Tensor) -> torch.Tensor:
    """Eigenvectors with their largest entry positive: their sign is a matter of the library."""
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * largest.sign()


def _padded(image: torch.Tensor, width: int) -> torch.Tensor:
    mode = "reflect" if min(image.shape[-2:]) > width else "replicate"
    return F.pad(image[None], (width, width, width, width), mode=mode)
