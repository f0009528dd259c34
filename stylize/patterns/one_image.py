"""One image: a single real photo, reduced to its edges or to grey, under random affine maps; each map is a class.

The real-image variant of "Scaling Backwards: Minimal Synthetic Pre-training?" (Nakamura et al., ECCV 2024): photo ->
grey -> Canny edges -> affine maps as classes, one image per class. Published accuracy after fine-tuning on CIFAR-100
(ViT-Tiny), to compare with: colour 81.6, Canny edges 82.2; affine maps 81.9, polynomial 81.3, elastic 37.0. Photo,
thresholds and ranges of the maps were not available to us. Our choices:

- The maps are drawn as that paper draws its perturbed fractals: with v in sides of the image from its centre,
  v -> A v + t, where the six entries (A t) are the identity's plus U(-D/2, D/2), D = ``delta`` = 0.5.
- Instance 0 of a class is the class's map itself, the published data set. Further instances add U(-J/2, J/2) to each
  entry, J = ``jitter`` = 0.02, because a class here has any number of images.
- The photo's central square is resized to the image's size first; sigma is in sides, thresholds are quantiles of the
  gradient, so that edges look alike at any size. Bilinear sampling; outside of the photo is black.
- A map is drawn again if it leaves less than half of the edges in the frame (``select``).

The photo is named by its path and known by its digest: rendering refuses a file with other bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metrics.errors import InputError
from metrics.image_sets.decode import ImageError, decode
from metrics.image_sets.decode import sha256 as digest
from metrics.image_sets.items import Crop, cut
from metrics.registry import unknown
from metrics.seed import generator

from ..shipped import shipped
from . import _class_checks as checks
from ._canny import canny
from ._compiled import compiled
from ._plain_numbers import plain_numbers

REPRESENTATIONS = ("canny", "grey", "rgb")
SIGMA = 0.008  # of the blur before the gradient, in sides: 2 pixels at 256
THRESHOLDS = (0.7, 0.88)  # quantiles of the gradient: an edge reaches the first all along, the second somewhere
PROBE = 64  # side of the edge image on which maps are judged
KEPT = 0.5  # share of its edges that a map must leave in the frame
MAX_DRAWS = 200
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def example() -> Path:
    """A photo that comes along."""
    return shipped("photos") / "learn" / "cat.jpg"


@dataclass(frozen=True)
class OneImage:
    """One class: a photo, how it is reduced, and an affine map.

    Attributes:
        seed, class_id: where the class came from; its instances draw from them too.
        photo: path of the photo.
        sha256: digest of the file, 64 hexadecimal digits.
        photo_size: its width and height in pixels.
        representation: "canny", "grey" or "rgb".
        sigma: blur before the gradient, in sides, at most 0.1.
        thresholds: low and high quantile of the gradient.
        affine: (a, b, e, c, d, f): a point (x, y) of the photo moves to (a x + b y + e, c x + d y + f).
        jitter: width of the intervals from which instances other than 0 change each entry; at most 0.5.
        draws: maps drawn until this one was good.
    """

    seed: int
    class_id: int
    photo: str
    sha256: str
    photo_size: tuple[int, int]
    representation: str
    sigma: float
    thresholds: tuple[float, float]
    affine: tuple[float, ...]
    jitter: float
    draws: int

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered: InputError."""
        checks.check_identity(self)
        if type(self.photo) is not str or not self.photo:
            raise InputError(f"photo is {self.photo!r}; expected the path of a photo, for example {example()}.")
        if type(self.sha256) is not str or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise InputError(f"sha256 is {self.sha256!r}; expected 64 hexadecimal digits (run: sha256sum PHOTO).")
        checks.check_numbers("photo_size", self.photo_size, 2, 8, 10**6)
        if self.representation not in REPRESENTATIONS:
            raise unknown("representation", str(self.representation), REPRESENTATIONS)
        checks.check_number("sigma", self.sigma, float, 0, 0.1)
        checks.check_numbers("thresholds", self.thresholds, 2, 0, 1)
        if self.thresholds[0] > self.thresholds[1]:
            raise InputError(f"thresholds are {self.thresholds}; expected the low one first.")
        checks.check_numbers("affine", self.affine, 6, -4, 4)
        checks.check_number("jitter", self.jitter, float, 0, 0.5)
        checks.check_number("draws", self.draws, int, 1, 2**31)
        a, b, _, c, d, _ = self.affine
        least = a * d - b * c - self.jitter / 2 * (abs(a) + abs(b) + abs(c) + abs(d)) - self.jitter**2 / 2
        if least < 0.01:
            raise InputError(
                f"affine {self.affine} with jitter {self.jitter} can scale the photo's area by {least:.3g}; expected "
                "at least 0.01 for every instance. Use a smaller jitter or a map closer to the identity."
            )


Parameters = OneImage


@plain_numbers
def sample_class(
    seed: int,
    class_id: int,
    *,
    photo: str | Path | None = None,
    representation: str = "canny",
    delta: float = 0.5,
    jitter: float = 0.02,
    sigma: float = SIGMA,
    thresholds: tuple[float, float] = THRESHOLDS,
    select: bool = True,
    max_draws: int = MAX_DRAWS,
) -> OneImage:
    """The class ``class_id`` of the data set ``seed`` of one photo; options as the fields of OneImage.

    Args:
        seed: of the data set.
        class_id: number of the class, from 0.
        photo: path of the photo; there is no default.
        representation: "canny", "grey" or "rgb".
        delta: width of the intervals around the identity from which the map is drawn, 0 to 0.9 (with ``jitter``).
        jitter: the same for the instances of the class.
        sigma: blur before the gradient, in sides.
        thresholds: low and high quantile of the gradient.
        select: whether maps that leave less than half of the edges in the frame are drawn again.
        max_draws: maps to try.

    Returns:
        The class.

    Raises:
        InputError: no photo, a photo that cannot be read or is constant, an option outside its range, or no good map
            within ``max_draws``.
    """
    if photo is None:
        raise InputError(f"one-image needs a real photo; got photo=None. Set the option, as in photo={example()}")
    checks.check_number("delta", delta, float, 0, 0.9)
    if delta + jitter > 0.95:
        raise InputError(f"delta + jitter is {delta + jitter:g}; expected at most 0.95, or a map could fold the photo.")
    path = str(photo)
    sha, (height, width) = _identify(path)
    rng = generator(seed, "one-image class", str(class_id))
    most = 0.0
    for draws in range(1, max_draws + 1):
        shift = rng.uniform(-delta / 2, delta / 2, 6)
        affine = tuple((np.array(IDENTITY) + shift).tolist())
        params = OneImage(
            seed, class_id, path, sha, (width, height), representation, sigma, thresholds, affine, jitter, draws
        )
        edges = _planes(path, sha, PROBE, "canny", sigma, thresholds)
        if not edges.any():
            raise InputError(
                f"photo {path}: no edges in its central square, as in a constant image (sigma {sigma:g}, thresholds "
                f"{thresholds}). Choose a photo with structure, as in photo={example()}"
            )
        kept = float(_warp(edges, _inverse(affine)).sum() / edges.sum())
        if not select or kept >= KEPT:
            return params
        most = max(most, kept)
    raise InputError(
        f"class {class_id} of seed {seed}: 0 of {max_draws} maps with delta {delta:g} left {KEPT:.0%} of the photo's "
        f"edges in the frame (at most {most:.0%}; acceptance 0 %). Use a smaller delta, a larger max_draws or "
        "select=False."
    )


def place(params: OneImage, instance: int) -> tuple[float, ...]:
    """The map of one instance: the class's own for instance 0, a jittered one for any other."""
    if instance == 0:
        return params.affine
    rng = generator(params.seed, "one-image instance", f"{params.class_id}/{instance}")
    shift = rng.uniform(-params.jitter / 2, params.jitter / 2, 6)
    return tuple((np.array(params.affine) + shift).tolist())


@plain_numbers
def render(params: OneImage, instance: int, size: int) -> np.ndarray:
    """One image, uint8 [size,size,3] sRGB; edges are white on black.

    Args:
        params: the class.
        instance: number of the image within the class.
        size: side of the images in pixels.

    Returns:
        The image.

    Raises:
        InputError: a size outside 8 to 8192, or the photo is missing or not the one of the class.
    """
    checks.check_size(size)
    planes = _planes(params.photo, params.sha256, size, params.representation, params.sigma, params.thresholds)
    warped = np.rint(_warp(planes, _inverse(place(params, instance)))).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(warped, (3, size, size)).transpose(1, 2, 0))


@plain_numbers
def render_torch(
    params: OneImage, instances: Sequence[int], size: int, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """The images of several instances, uint8 [N,3,size,size] on ``device``: the bits of ``render``."""
    checks.check_size(size)
    key = (params.photo, params.sha256, size, params.representation, params.sigma, params.thresholds)
    planes = torch.from_numpy(_planes(*key)).to(device).flatten(1)
    maps = torch.tensor([_inverse(place(params, k)) for k in instances], dtype=torch.float64, device=device)
    m = maps.view(-1, 6, 1, 1).unbind(1)
    at = (torch.arange(size, dtype=torch.float64, device=device) + 0.5) / size - 0.5
    u, v = at.view(1, 1, -1), at.view(1, -1, 1)
    x = ((m[0] * u + m[1] * v + m[2] + 0.5) * size + 0.5).clamp(0, size + 1)
    y = ((m[3] * u + m[4] * v + m[5] + 0.5) * size + 0.5).clamp(0, size + 1)
    left, top = x.floor(), y.floor()
    right, low = x - left, y - top
    first = (top * (size + 3) + left).long()  # of the four taps, [N,H,W] into planes
    second = first + size + 3
    upper = planes[:, first] * (1 - right) + planes[:, first + 1] * right
    lower = planes[:, second] * (1 - right) + planes[:, second + 1] * right
    image = (upper * (1 - low) + lower * low).round().to(torch.uint8)
    return image.transpose(0, 1).expand(-1, 3, -1, -1).contiguous()


def _identify(path: str) -> tuple[str, tuple[int, int]]:
    """Digest, height and width of a photo."""
    if not Path(path).is_file():
        raise InputError(f"photo {path}: no such file. Set the option photo to one, as in photo={example()}")
    sha = digest(Path(path))
    height, width, _ = _photo(path, sha).shape
    return sha, (height, width)


@lru_cache(2)
def _photo(path: str, sha: str) -> np.ndarray:
    """The photo, uint8 [H,W,3]; the file must have the digest ``sha``."""
    if not Path(path).is_file():
        raise InputError(f"photo {path}: no such file. The class needs the file with SHA-256 {sha} at this path.")
    got = digest(Path(path))
    if got != sha:
        raise InputError(f"photo {path} has SHA-256 {got}; the class was made from {sha}. Restore that file.")
    try:
        return decode(Path(path))
    except ImageError as error:
        raise InputError(f"photo {path}: {error}. Expected a photo, as in photo={example()}") from error


@lru_cache(4)
def _planes(
    path: str, sha: str, size: int, representation: str, sigma: float, thresholds: tuple[float, float]
) -> np.ndarray:
    """The photo's central square in a black frame: float64 [1 or 3,size+3,size+3], levels 0 to 255.

    The frame is one pixel wide above and to the left, two below and to the right: whatever bilinear sampling can touch.

    Returns:
        The planes.
    """
    photo = _photo(path, sha)
    height, width, _ = photo.shape
    side = min(height, width)
    square = cut(photo, Crop((width - side) // 2, (height - side) // 2, side, size)).astype(np.float64)
    if representation == "rgb":
        return _framed(square.transpose(2, 0, 1))
    grey = square[..., 0] * 0.299 + square[..., 1] * 0.587 + square[..., 2] * 0.114  # ITU-R BT.601
    if representation == "grey":
        return _framed(grey[None])
    return _framed(255.0 * canny(grey, sigma * size, *thresholds)[None])


def _framed(planes: np.ndarray) -> np.ndarray:
    return np.pad(planes, ((0, 0), (1, 2), (1, 2)))


def _inverse(affine: Sequence[float]) -> tuple[float, ...]:
    """The map from the image back to the photo."""
    a, b, e, c, d, f = affine
    area = a * d - b * c
    return (d / area, -b / area, (b * f - d * e) / area, -c / area, a / area, (c * e - a * f) / area)


def _warp(planes: np.ndarray, inverse: tuple[float, ...]) -> np.ndarray:
    """Sample framed planes through a map of the image into the photo: float64 [C,size,size], 0 outside."""
    size = planes.shape[1] - 3
    out = np.empty((len(planes), size, size))
    _sample(planes, np.array(inverse), out)
    return out


@compiled
def _sample(planes: Any, m: Any, out: Any) -> None:
    """Bilinear sampling of framed ``planes`` [C,size+3,size+3] at the pixels of ``out``, in double precision."""
    channels, size, _ = out.shape
    for i in range(size):
        v = (i + 0.5) / size - 0.5
        for j in range(size):
            u = (j + 0.5) / size - 0.5
            x = min(max((m[0] * u + m[1] * v + m[2] + 0.5) * size + 0.5, 0.0), size + 1.0)
            y = min(max((m[3] * u + m[4] * v + m[5] + 0.5) * size + 0.5, 0.0), size + 1.0)
            left, top = int(x), int(y)
            right, low = x - left, y - top
            for k in range(channels):
                upper = planes[k, top, left] * (1 - right) + planes[k, top, left + 1] * right
                lower = planes[k, top + 1, left] * (1 - right) + planes[k, top + 1, left + 1] * right
                out[k, i, j] = upper * (1 - low) + lower * low
