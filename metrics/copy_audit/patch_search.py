"""Exact nearest neighbours of image patches in the scale pyramid of a photo, by blocked matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d, conv2d, normalize, pad, unfold

CELLS = 12  # a patch is CELLS × CELLS pixels of a reduced image
COMPONENTS = 64  # principal components that describe a patch
CONTRAST = 4.0  # grey levels: standard deviation below which a patch is too plain to be recognised
FRACTIONS = tuple(2 ** (step / 4 - 1) for step in range(5))  # a crop's side over the photo's short side: ½ to 1
BLOCK = 256  # patches of a photo compared at a time


@dataclass(frozen=True)
class Scale:
    """Patches of CELLS / ``side`` of an image's short side; a photo is searched every ``stride`` cells."""

    name: str
    side: int
    stride: int

    @property
    def share(self) -> float:
        """A patch's side over the image's short side."""
        return CELLS / self.side


SCALES = (Scale("large", 64, 1), Scale("small", 128, 2))


@dataclass(frozen=True)
class Matches:
    """The best match of each of Q patches in one photo: correlation ``[Q]``, mirrored ``[Q]``, box ``[Q,3]``.

    A box is (left, top, side) in pixels of the photo.
    """

    correlation: npt.NDArray[np.float32]
    mirrored: npt.NDArray[np.bool_]
    box: npt.NDArray[np.float64]


class Descriptor:
    """Patches to unit vectors: mean colour removed, COMPONENTS principal components of ``sample``, norm 1.

    The scalar product of two descriptors is the correlation of the patches, seen through the components.
    """

    def __init__(self, sample: torch.Tensor) -> None:
        rich = sample[contrast(sample) >= CONTRAST]
        unit = normalize(_centred(rich), dim=1).double()
        self.basis = torch.linalg.eigh(unit.T @ unit)[1][:, -COMPONENTS:].float()

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches ``float32 [N,3·CELLS²]`` to ``float32 [N,COMPONENTS]``."""
        return normalize(_centred(patches) @ self.basis, dim=1)

    def dense(self, reduced: torch.Tensor, stride: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Descriptors ``[N,COMPONENTS]`` of all patches of ``[3,h,w]`` with contrast, and corners ``[N,2]`` (x, y).

        By convolution: the components carry no mean colour, so that need not be removed first.

        Returns:
            Both for the same patches.
        """
        image = reduced[None] - 128  # keeps float32 squares small
        fields = conv2d(image, self.basis.T.reshape(-1, 3, CELLS, CELLS), stride=stride)[0]
        mean, square = (avg_pool2d(values, CELLS, stride)[0] for values in (image, image * image))
        rich = (square - mean * mean).mean(0) >= CONTRAST**2
        down, right = torch.nonzero(rich, as_tuple=True)
        return normalize(fields[:, rich].T, dim=1), torch.stack([right, down], 1) * stride


def sample_patches(photo: npt.NDArray[np.uint8], scale: Scale, count: int) -> torch.Tensor:
    """About ``count`` patches spread evenly over the photo, to learn a Descriptor from."""
    patches = unfold(_reduced(photo, scale.side)[None], CELLS, stride=2)[0].T
    return patches[:: max(1, len(patches) // count)]


def cut_patches(
    image: npt.NDArray[np.uint8], scale: Scale, places: npt.NDArray[np.float64]
) -> tuple[torch.Tensor, npt.NDArray[np.float64]]:
    """Patches ``float32 [N,3·CELLS²]`` of ``uint8 [H,W,3]`` and their boxes ``[N,3]`` in its pixels.

    ``places [N,2]`` are fractions in [0, 1) of the room that a patch has downwards and to the right.

    Returns:
        Patches and boxes (left, top, side).
    """
    reduced = _reduced(image, scale.side)
    room = np.array(reduced.shape[1:]) - CELLS + 1
    corners = (places * room).astype(np.int64)
    patches = torch.stack([reduced[:, y : y + CELLS, x : x + CELLS].reshape(-1) for y, x in corners])
    pixel = min(image.shape[:2]) / scale.side
    boxes = np.column_stack([corners[:, ::-1] * pixel, np.full(len(corners), CELLS * pixel)])
    return patches, boxes


def contrast(patches: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each patch around its mean colour, in grey levels."""
    return _centred(patches).square().mean(1).sqrt()


def mirror(patches: torch.Tensor) -> torch.Tensor:
    """Patches flipped left to right."""
    return patches.reshape(-1, 3, CELLS, CELLS).flip(3).reshape(len(patches), -1)


def search(
    patches: torch.Tensor, photo: npt.NDArray[np.uint8], scale: Scale, descriptor: Descriptor, device: str = "cpu"
) -> Matches:
    """The best match of every patch, upright or mirrored, anywhere in the photo at any of FRACTIONS.

    A crop that spans a fraction f of the photo's short side looks, reduced, like the photo reduced to a short side of
    ``scale.side`` / f: these are the levels searched. Patches of the photo below CONTRAST match nothing.
    Memory: the descriptors of one level of the photo, and [2·Q, BLOCK] correlations.

    Returns:
        Per patch the photo's region, its correlation and whether it is mirrored.
    """
    queries = torch.cat([descriptor(patches), descriptor(mirror(patches))]).to(device)
    best = torch.full((len(queries),), -1.0, device=device)
    box = torch.zeros((len(queries), 3), dtype=torch.float64)
    for fraction in FRACTIONS:
        side = round(scale.side / fraction)
        dense, corners = descriptor.dense(_reduced(photo, side), scale.stride)
        boxes = pad(corners, (0, 1), value=CELLS).double() * (min(photo.shape[:2]) / side)
        for start in range(0, len(dense), BLOCK):
            correlation = queries @ dense[start : start + BLOCK].to(device).T
            better = torch.nonzero(correlation.amax(1) > best).squeeze(1)
            best[better], index = correlation[better].max(1)
            box[better.cpu()] = boxes[start + index.cpu()]
    upright, flipped = best.cpu().reshape(2, -1)
    mirrored = flipped > upright
    chosen = torch.arange(len(patches)) + mirrored * len(patches)
    return Matches(torch.maximum(upright, flipped).numpy(), mirrored.numpy(), box[chosen].numpy())


def _reduced(image: npt.NDArray[np.uint8], side: int) -> torch.Tensor:
    """``float32 [3,h,w]`` of short side ``side``."""
    height, width = image.shape[:2]
    ratio = side / min(height, width)
    size = max(side, round(width * ratio)), max(side, round(height * ratio))
    resized = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float()


def _centred(patches: torch.Tensor) -> torch.Tensor:
    channels = patches.reshape(len(patches), 3, -1)
    return (channels - channels.mean(2, keepdim=True)).reshape(len(patches), -1)
