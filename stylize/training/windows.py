"""What training the network sees: random windows of photos and patterns, and random disturbances of results."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from metrics.errors import InputError
from metrics.image_sets.decode import ImageError
from metrics.image_sets.items import ImageSet
from metrics.seed import generator

from ..styles.rows import Rows

CONTENTS = 1920  # windows of patterns in all


def content_windows(patterns: ImageSet, size: int, seed: int, losses: dict[str, str]) -> torch.Tensor:
    """Windows ``uint8 [N,3,size,size]`` of the patterns, about CONTENTS of them; ``losses`` as in :func:`readable`."""
    each = max(1, CONTENTS // len(patterns))
    rows = Rows(each * min(CONTENTS, len(patterns)))
    for image, draw in readable(patterns, CONTENTS, seed, losses):
        for _ in range(each):
            rows.append({"window": window(image, size, draw)})
    return rows.tensors()["window"]


def readable(
    images: ImageSet, most: int, seed: int, losses: dict[str, str]
) -> Iterator[tuple[torch.Tensor, np.random.Generator]]:
    """At most ``most`` readable images ``uint8 [1,3,H,W]``, each with a generator of its own.

    Those that are drawn and cannot be read are entered into ``losses`` with the reason.

    Yields:
        Image and generator.
    """
    order = generator(seed, "train", "order").permutation(len(images))[:most]
    found = False
    for item in (images[int(index)] for index in sorted(order)):
        try:
            pixels = item.read()
        except ImageError as error:
            losses[item.photo] = str(error)
            continue
        found = True
        yield torch.from_numpy(pixels).permute(2, 0, 1)[None], generator(seed, "train", item.key)
    if not found:
        raise InputError(f"{images.root}: none of its {len(images)} images can be read. Expected images to train on.")


def window(image: torch.Tensor, size: int, draw: np.random.Generator) -> torch.Tensor:
    """A random window ``uint8 [1,3,size,size]``; three times in ten, and if there is no room, a reduced square."""
    short = min(image.shape[-2:])
    side = short if draw.random() < 0.3 or short <= size else size
    top, left = (int(draw.integers(0, full - side + 1)) for full in image.shape[-2:])
    part = image[..., top : top + side, left : left + side]
    if side != size:
        resized = F.interpolate(part.float(), size=(size, size), mode="bilinear", antialias=True)
        part = resized.round().clamp(0, 255).to(torch.uint8)
    return part.flip(-1) if draw.random() < 0.5 else part


def disturbed(images: torch.Tensor, draw: np.random.Generator) -> torch.Tensor:
    """Enlarged by up to 1.3 or padded, shifted, flipped, brightened, and rounded as 8-bit files are."""
    height, width = images.shape[-2:]
    if draw.random() < 0.7:
        factor = draw.uniform(1, 1.3)
        size = (round(height * factor), round(width * factor))
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    else:
        images = F.pad(images, (4, 4, 4, 4), mode="replicate")
    top, left = (
        int(draw.integers(0, full - kept + 1)) for full, kept in zip(images.shape[-2:], (height, width), strict=True)
    )
    images = images[..., top : top + height, left : left + width]
    if draw.random() < 0.5:
        images = images.flip(-1)
    gain = torch.from_numpy(draw.uniform(0.9, 1.1, (len(images), 1, 1, 1))).float().to(images.device)
    rounding = torch.from_numpy(draw.random(images.shape, dtype=np.float32) - 0.5).to(images.device) * (2 / 255)
    return images * gain + rounding
