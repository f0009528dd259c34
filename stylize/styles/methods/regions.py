"""Region texture fill: the level sets of the content filled with texture synthesised from a photo's statistics.

The content keeps its own drawing in the photo's colours (:mod:`.colour`). It is cut into a few regions of similar
colour, and each region receives a stationary Gaussian texture with the autocovariance of the photo's detail
(:mod:`._texton`), stronger in some regions and fainter in others: the log-normal spread of that strength is the photo's
own spread of local contrast, so that the whole is a Gaussian scale mixture (Wainwright & Simoncelli 2000) whose mixing
field follows the content's regions. Last, the marginals of all
subbands are moved to the photo's (:mod:`._subbands`). Own combination; no pixel of the photo is stored or copied.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from metrics.seed import generator

from . import _subbands, _texton, colour

Statistics = dict[str, torch.Tensor]

STATISTICS = "regions"
REGIONS = 4
ROUNDS = 8  # of Lloyd's algorithm
SAMPLE = 2048  # pixels that the regions' colours are clustered from
AMOUNT = 0.5  # of the photo's detail contrast; the subband marginals set what remains
GRID = 8  # cells per side in which local contrast is measured


def learn(images: torch.Tensor) -> Statistics:
    """Colours, texture kernel, spread of contrast and subband quantiles of every image.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].

    Returns:
        ``mean`` and ``covariance`` as :func:`.colour.learn`; ``axes`` ``float32 [N,3,3]``, the principal colour axes of
        its detail in columns; ``texton`` ``float32 [N,3,63,63]``; ``spread`` ``float32 [N]``, the standard
        deviation of the logarithm of local contrast; ``quantiles`` ``float32 [N,5,3,128]`` along the axes, bands fine
        to coarse.
    """
    details = [_texton.detail_of(image) for image in images]
    axes = [_principal_axes(detail) for detail in details]
    return {
        **colour.learn(images),
        "axes": torch.stack(axes),
        "texton": torch.stack([_texton.texton(*pair) for pair in zip(details, axes, strict=True)]),
        "spread": torch.stack([_spread(detail) for detail in details]),
        "quantiles": torch.stack([_quantiles(*pair) for pair in zip(images, axes, strict=True)]),
    }


def transfer(images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int]) -> torch.Tensor:
    """Give every image the colours, and its regions the texture, of its style.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: position on the straight line from the content (0) to the result (1).
        seeds: one per image; textures and their strengths are drawn from it.

    Returns:
        ``float32 [N,3,H,W]``; may leave [0, 1].
    """
    recoloured = colour.transfer(images, style, 1.0, seeds)
    filled = []
    for row, (image, seed) in enumerate(zip(recoloured, seeds, strict=True)):
        own = {name: values[row] for name, values in style.items()}
        filled.append(_with_marginals(image + _texture(image, own, seed), own["axes"], own["quantiles"]))
    return torch.lerp(images, torch.stack(filled), strength)


def level_sets(image: torch.Tensor) -> torch.Tensor:
    """The region ``int64 [H,W]`` of every pixel of ``float32 [3,H,W]``: k-means of its colours.

    The centres start at equally spaced quantiles of luminance, so nothing is drawn.

    Returns:
        Numbers from 0 on.
    """
    colours = image.flatten(1).T
    sample = colours[:: max(1, len(colours) // SAMPLE)]
    ordered = sample[sample.sum(1).argsort(stable=True)]
    starts = [(2 * region + 1) * len(ordered) // (2 * REGIONS) for region in range(REGIONS)]
    centres = ordered[starts]
    for _ in range(ROUNDS):
        members = F.one_hot(_nearest(sample, centres), REGIONS).to(sample.dtype)
        counts = members.sum(0)[:, None]
        centres = torch.where(counts > 0, members.T @ sample / counts.clamp_min(1), centres)
    return _nearest(colours, centres).view(image.shape[-2:])


def _nearest(colours: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    return (centres.square().sum(1) - 2 * colours @ centres.T).argmin(1)


def _texture(image: torch.Tensor, style: Statistics, seed: int) -> torch.Tensor:
    """One Gaussian field, scaled in every region by a contrast drawn for it."""
    height, width = image.shape[-2:]
    rng = generator(seed, "regions", "")
    gains = torch.from_numpy(rng.standard_normal(REGIONS, dtype=np.float32)).to(image.device)
    spread = style["spread"].clamp(0, 2)
    contrast = AMOUNT * torch.exp(spread * gains - spread**2)  # its mean square is AMOUNT²
    field = _texton.noise(style["texton"], style["axes"], height, width, rng)
    return contrast[level_sets(image)] * field


def _with_marginals(image: torch.Tensor, axes: torch.Tensor, quantiles: torch.Tensor) -> torch.Tensor:
    bands = _subbands.pyramid(_turned(image, axes.T))
    moved = [_subbands.matched(band, target) for band, target in zip(bands, quantiles, strict=True)]
    return _turned(_subbands.collapsed(moved), axes)


def _quantiles(image: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    return torch.stack([_subbands.quantiles(band) for band in _subbands.pyramid(_turned(image, axes.T))])


def _principal_axes(detail: torch.Tensor) -> torch.Tensor:
    colours = detail.flatten(1).double()
    axes: torch.Tensor = torch.linalg.eigh(torch.cov(colours, correction=0)).eigenvectors
    return axes.float()


def _spread(detail: torch.Tensor) -> torch.Tensor:
    """Standard deviation of log contrast over cells: the σ of the log-normal that modulates the texture."""
    energy = F.adaptive_avg_pool2d(detail.square().sum(0)[None], GRID)
    return (energy + 1e-6).log().std() / 2


def _turned(image: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    return (rotation @ image.flatten(1)).view_as(image)
