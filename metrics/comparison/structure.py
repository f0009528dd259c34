"""How much of a content image's structure survives in its result: gradient correlation and edge F-score.

Both look at luminance gradients smoothed at SIGMA, so neither sees a change of brightness or contrast, nor an inversion
(up to the rounding and clipping of 8-bit values), and both are symmetric in their two images. An image is
``uint8 [H,W,3]`` (NumPy) and gives a float; a batch is ``uint8 [N,3,H,W]`` (torch) and gives ``float64 [N]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from ..errors import InputError

Array = npt.NDArray[np.float64]
SIGMA = 1.0  # pixels: width of the Gaussian whose derivative measures the gradient
QUANTILE = 0.9  # edges are sought among the strongest tenth of the gradients
TOLERANCE = 1.0  # pixels that an edge may have moved
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
FLAT = 1e-6  # gradients of 8-bit images below this are rounding


@overload
def gradient_correlation(content: npt.NDArray[np.uint8], result: npt.NDArray[np.uint8]) -> float: ...
@overload
def gradient_correlation(content: torch.Tensor, result: torch.Tensor) -> Array: ...
def gradient_correlation(
    content: npt.NDArray[np.uint8] | torch.Tensor, result: npt.NDArray[np.uint8] | torch.Tensor
) -> float | Array:
    """Pearson correlation of the two images' luminance gradient magnitudes, pixel by pixel, in float64.

    1: all gradients are where they were, in proportion; about 0: unrelated. Where correlation is undefined because a
    gradient magnitude is the same everywhere (a flat image), it is 1 if both are, and 0 if one is.

    Args:
        content: ``uint8 [H,W,3]``, or a batch ``uint8 [N,3,H,W]``.
        result: of the same shape.

    Returns:
        −1 to 1 for two arrays, ``[N]`` of them for two batches.

    Raises:
        InputError: not uint8, not an image or a batch, or the two differ in shape.
    """
    return _of_pairs(_correlation, content, result)


@overload
def edge_f_score(
    content: npt.NDArray[np.uint8], result: npt.NDArray[np.uint8], tolerance: float = TOLERANCE
) -> float: ...
@overload
def edge_f_score(content: torch.Tensor, result: torch.Tensor, tolerance: float = TOLERANCE) -> Array: ...
def edge_f_score(
    content: npt.NDArray[np.uint8] | torch.Tensor,
    result: npt.NDArray[np.uint8] | torch.Tensor,
    tolerance: float = TOLERANCE,
) -> float | Array:
    """Harmonic mean of the shares of either image's edge pixels within ``tolerance`` pixels of an edge of the other.

    Edges are those of :func:`edges`. The boundary F-measure of Martin, Fowlkes and Malik (PAMI 2004), except that
    several edge pixels may be matched to one. 1: every edge kept and none added. Unrelated images reach the share
    that edges meet by chance, 0.16 for photos and fractals at the default tolerance. Images without edges:
    1 if neither has one, 0 if one has.

    Args:
        content: ``uint8 [H,W,3]``, or a batch ``uint8 [N,3,H,W]``.
        result: of the same shape.
        tolerance: in pixels.

    Returns:
        0 to 1 for two arrays, ``[N]`` of them for two batches.

    Raises:
        InputError: as :func:`gradient_correlation`; negative ``tolerance``.
    """
    if not tolerance >= 0:
        raise InputError(f"tolerance = {tolerance}: expected 0 pixels or more.")
    return _of_pairs(lambda a, b: _f_score(_edges(a), _edges(b), tolerance), content, result)


def edges(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Edge pixels ``bool [H,W]`` of ``uint8 [H,W,3]``, as Canny (PAMI 1986) finds them but for hysteresis.

    A pixel is an edge where the luminance gradient's magnitude lies in the image's top 1 − QUANTILE and is no smaller
    than both its neighbours one pixel along the gradient (bilinear interpolation).

    Returns:
        The mask.
    """
    return _edges(_luminance(_checked(image)[0]))


def _of_pairs(
    measure: Callable[[Array, Array], float],
    content: npt.NDArray[np.uint8] | torch.Tensor,
    result: npt.NDArray[np.uint8] | torch.Tensor,
) -> float | Array:
    if content.shape != result.shape:
        raise InputError(
            f"content is {list(content.shape)}, result {list(result.shape)}. Expected two of one shape: resize first."
        )
    pairs = zip(_checked(content), _checked(result), strict=True)
    values = [measure(_luminance(a), _luminance(b)) for a, b in pairs]
    return np.array(values) if isinstance(content, torch.Tensor) else values[0]


def _checked(images: npt.NDArray[np.uint8] | torch.Tensor) -> npt.NDArray[np.uint8]:
    """An image or a batch as ``uint8 [N,H,W,3]``."""
    if isinstance(images, torch.Tensor):
        if images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] == 3:
            return images.permute(0, 2, 3, 1).cpu().numpy()
    elif images.dtype == np.uint8 and images.ndim == 3 and images.shape[2] == 3:
        return images[None]
    raise InputError(
        f"got {images.dtype} {list(images.shape)}. "
        "Expected a NumPy image uint8 [H,W,3] or a torch batch uint8 [N,3,H,W]."
    )


def _luminance(image: npt.NDArray[np.uint8]) -> Array:
    return np.asarray(image.astype(np.float64) @ np.array(LUMA))


def _gradient(luminance: Array) -> tuple[Array, Array, Array]:
    """Gaussian-derivative gradient: down, right and magnitude."""
    down, right = (ndimage.gaussian_filter(luminance, SIGMA, order=order) for order in ((1, 0), (0, 1)))
    return down, right, np.hypot(down, right)


def _correlation(content: Array, result: Array) -> float:
    a, b = (_gradient(luminance)[2] for luminance in (content, result))
    a, b = a - a.mean(), b - b.mean()
    flat = [bool(deviation.std() < FLAT) for deviation in (a, b)]
    if any(flat):
        return float(all(flat))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def _edges(luminance: Array) -> npt.NDArray[np.bool_]:
    down, right, magnitude = _gradient(luminance)
    strong = magnitude >= max(np.quantile(magnitude, QUANTILE), FLAT)
    rows, columns = np.nonzero(strong)
    here = magnitude[strong]
    step = np.stack([down[strong], right[strong]]) / here
    peak = np.ones_like(here, dtype=bool)
    for side in (step, -step):
        beside = ndimage.map_coordinates(magnitude, np.stack([rows, columns]) + side, order=1, mode="nearest")
        peak &= here >= beside
    found = np.zeros_like(strong)
    found[rows[peak], columns[peak]] = True
    return found


def _f_score(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_], tolerance: float) -> float:
    if not (a.any() and b.any()):
        return float(a.any() == b.any())
    precision, recall = _share_near(b, a, tolerance), _share_near(a, b, tolerance)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _share_near(found: npt.NDArray[np.bool_], target: npt.NDArray[np.bool_], tolerance: float) -> float:
    """Share of the ``found`` pixels that lie within ``tolerance`` pixels of a ``target`` pixel."""
    return float((ndimage.distance_transform_edt(~target)[found] <= tolerance).mean())
