"""Style transfer by optimisation: descend from the content until an encoder sees the style's feature statistics.

Gatys, Ecker & Bethge (CVPR 2016), with the squared Wasserstein-2 distance between Gaussians in place of Gram
matrices (Mroueh, "Wasserstein style transfer", 2019): per layer |m − m'|² + tr(S + S' − 2 (S'^½ S S'^½)^½), over tr S'.
Its gradient is the optimal-transport map itself, so it does not vanish in a direction where the content is flat.

Deviations. The 3×3 patches of :mod:`.patches` at three scales count as layers: the encoder halves the image first and
is blind to the finest detail, which pixels would otherwise fill with coloured noise; total variation, the usual remedy,
pulls even from a style that equals the content. Content is compared after normalising each channel's mean and
deviation, so that it does not oppose the style. Pixels move as coefficients of a Laplacian pyramid, all scales at once,
by L-BFGS (as in the paper): Adam's equal steps for every pixel end in noise at the few steps allowed here.

The encoder sees every image at the resolution it was trained at. Shown 128² pixels as they are, it is pleased by detail
that no other network takes for a photo's: longer optimisation then raises its own score and lowers theirs.

Cost: STEPS forward and backward passes of the encoder, about 0.9 CPU seconds per image of any size. Nothing is drawn at
random, so content without any structure stays flat: ``gatys+texture`` fills it. It copies no pixel: the bank holds
means and covariances, 50 kB per style.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from metrics.extractors.float_precision import ieee_float32

from ..encoders import DEFAULT_ENCODER, Encoder, collapsed, laplacian_pyramid, load_encoder
from .gaussian_transport import square_root, transport
from .patches import LEVELS, patch_statistics, reduced

Statistics = dict[str, torch.Tensor]

STATISTICS = "gatys"
SIDE = 224  # the resolution that EfficientNet-Lite0 was trained at
STEPS = 10
CONTENT_WEIGHT = 0.3
CONTENT_TAP = 3
RANGE_WEIGHT = 10.0
RIDGE = 1e-4  # relative to a layer's mean variance
OCTAVES = 4
HISTORY = 10  # of L-BFGS


def learn(images: torch.Tensor) -> Statistics:
    """Mean and covariance of every image's patches and features, layer by layer.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1], sides of at least 4 px.

    Returns:
        per layer ``mu/<layer>`` ``float32 [N,C]`` and ``sigma/<layer>`` ``float32 [N,C,C]``: ``patch4``, ``patch2``,
        ``patch1`` (C = 27), ``tap0`` to ``tap4`` (C = 32, 16, 24, 40, 80).
    """
    with torch.no_grad():
        layers = list(_gaussians(images, seen(images)))
    return {f"mu/{name}": mean.float() for name, mean, _ in layers} | {
        f"sigma/{name}": covariance.float() for name, _, covariance in layers
    }


def transfer(images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int]) -> torch.Tensor:
    """Give every image the patch and feature statistics of its style.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: the target's position on the Wasserstein geodesic from the content's statistics, 0, to the style's, 1.
        seeds: one per image; nothing is drawn here.

    Returns:
        ``float32 [N,3,H,W]``; may leave [0, 1] slightly.
    """
    if strength == 0:
        return images
    rows = ({name: values[i : i + 1] for name, values in style.items()} for i in range(len(images)))
    return torch.cat([_transfer_one(image[None], row, strength) for image, row in zip(images, rows, strict=True)])


def minimised(images: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor], steps: int) -> torch.Tensor:
    """The images after ``steps`` L-BFGS steps down ``loss``, taken on the coefficients of their Laplacian pyramid.

    Args:
        images: ``float32 [N,3,H,W]``, where the descent starts.
        loss: of such images, a differentiable scalar.
        steps: iterations; at most a quarter more evaluations of the loss.

    Returns:
        Images ``float32 [N,3,H,W]``, not clipped.
    """
    bands = [band.detach().clone().requires_grad_() for band in laplacian_pyramid(images, OCTAVES)]
    optimiser = torch.optim.LBFGS(
        bands,
        max_iter=steps,
        history_size=HISTORY,
        tolerance_grad=1e-5,  # below it, rounding decides: an identity stays one
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss(collapsed(bands))
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad(), ieee_float32():
        optimiser.step(evaluate)  # type: ignore[no-untyped-call]
    return collapsed(bands).detach()


def encoder(device: str = "cpu") -> Encoder:
    """The network whose features the statistics are of."""
    return load_encoder(DEFAULT_ENCODER, device)


def seen(images: torch.Tensor) -> list[torch.Tensor]:
    """The encoder's taps of ``float32 [N,3,H,W]`` images resized to about SIDE² pixels, whatever their size."""
    factor = SIDE / math.sqrt(images.shape[-2] * images.shape[-1])
    size = [max(1, round(side * factor)) for side in images.shape[-2:]]
    resized = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
    return encoder(str(images.device))(resized)


def outside(images: torch.Tensor) -> torch.Tensor:
    """The mean squared distance of values from [0, 1]."""
    return (images - images.clamp(0, 1)).square().mean()


@dataclass(frozen=True)
class Target:
    """A Gaussian to reach, all in float64.

    Attributes:
        mean: ``[N,C]``.
        root: square root of the covariance, ``[N,C,C]``.
        scale: ``[N]``, by which distances are divided.
    """

    mean: torch.Tensor
    root: torch.Tensor
    scale: torch.Tensor


def squared_wasserstein(mean: torch.Tensor, covariance: torch.Tensor, target: Target) -> torch.Tensor:
    """The squared Wasserstein-2 distances ``float64 [N]`` between N(mean, covariance) and the target, over its scale.

    Gelbrich's formula (1990). Only eigenvalues are differentiated, so equal ones do no harm.

    Returns:
        ``float64 [N]``.
    """
    product = target.root @ covariance @ target.root
    cross = torch.linalg.eigvalsh(product).clamp_min(torch.finfo(product.dtype).tiny).sqrt().sum(-1)
    bures = _trace(covariance) + target.root.square().sum((-1, -2)) - 2 * cross
    distance: torch.Tensor = (mean - target.mean).square().sum(-1) + bures
    return distance / target.scale


def _transfer_one(image: torch.Tensor, style: Statistics, strength: float) -> torch.Tensor:
    with torch.no_grad():
        own = seen(image)
        targets = {
            name: _target(mean, covariance, style[f"mu/{name}"], style[f"sigma/{name}"], strength)
            for name, mean, covariance in _gaussians(image, own)
        }
        content = _normalised(own[CONTENT_TAP])

    def loss(result: torch.Tensor) -> torch.Tensor:
        taps = seen(result)
        distances = [
            squared_wasserstein(mean, _ridged(covariance, targets[name].scale), targets[name])
            for name, mean, covariance in _gaussians(result, taps)
        ]
        moved = (_normalised(taps[CONTENT_TAP]) - content).square().mean()
        return torch.stack(distances).sum() + CONTENT_WEIGHT * moved + RANGE_WEIGHT * outside(result)

    return minimised(image, loss, STEPS)


def _gaussians(images: torch.Tensor, taps: Sequence[torch.Tensor]) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """(name, mean, covariance) of every layer, in float64."""
    for factor in LEVELS:
        yield f"patch{factor}", *patch_statistics(reduced(images, factor))
    for number, tap in enumerate(taps):
        features = tap.flatten(2).double()
        mean = features.mean(-1)
        centred = features - mean[..., None]
        yield f"tap{number}", mean, centred @ centred.mT / features.shape[-1]


def _target(
    mean: torch.Tensor, covariance: torch.Tensor, wanted_mean: torch.Tensor, wanted: torch.Tensor, strength: float
) -> Target:
    """The Gaussian at ``strength`` on the geodesic from (mean, covariance) to (wanted_mean, wanted)."""
    wanted = wanted.double()
    scale = _trace(wanted).clamp_min(RIDGE)
    covariance, wanted = _ridged(covariance, scale), _ridged(wanted, scale)
    linear = transport(covariance, wanted, strength, ridge=0.0, gain=1e9).linear
    return Target(torch.lerp(mean, wanted_mean.double(), strength), square_root(linear @ covariance @ linear), scale)


def _ridged(covariance: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    size = covariance.shape[-1]
    return covariance + (RIDGE / size * scale)[..., None, None] * torch.eye(size, device=covariance.device)


def _trace(matrices: torch.Tensor) -> torch.Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)


def _normalised(tap: torch.Tensor) -> torch.Tensor:
    """Every channel of a tap with mean 0 and deviation 1; constant channels 0."""
    centred = tap - tap.mean((2, 3), keepdim=True)
    variance = centred.square().mean((2, 3), keepdim=True)
    return centred / (variance + 1e-3 * variance.mean(1, keepdim=True).detach() + 1e-6).sqrt()
