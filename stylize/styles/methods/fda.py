"""Fourier domain adaptation: the amplitudes of the lowest frequencies come from the style, all phases from the content.

Yang & Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation" (CVPR 2020):
y = F⁻¹([M |F s| + (1 − M) |F x|] e^{i arg F x}), with M the window |k| <= β min(H, W) of both integer frequencies, in
cycles per image. β = 0.01 is the paper's smallest; larger ones draw periodic blobs.

Deviations: the window is symmetric about zero frequency, so that the result is real (implementations that cut
[0, b) and [-b, 0) take the real part of something else); at least one cycle is exchanged, at most REACH;
amplitudes below the rounding of 8-bit pixels have no phase and stay. Amplitudes are kept in units of pixel values, so
that styles and contents of different sizes go together. Cost: 2 ms at 256²; 2 kB a style.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .gaussian_transport import QUANTISATION

Statistics = dict[str, torch.Tensor]

STATISTICS = "fda"
BETA = 0.01
REACH = 8  # cycles per image; a style of 16 px has no more


def learn(images: torch.Tensor) -> Statistics:
    """Amplitudes of every channel's lowest frequencies.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].

    Returns:
        ``amplitudes`` ``float32 [N,3,2 REACH + 1,REACH + 1]``: vertical frequencies 0..REACH, −REACH..−1; horizontal
        0..REACH. In units of the image's values; 0 beyond what the image resolves.
    """
    spectrum = torch.fft.rfft2(images, norm="forward").abs()
    amplitudes = images.new_zeros(*images.shape[:2], 2 * REACH + 1, REACH + 1)
    rows, columns = min(REACH, images.shape[-2] // 2), min(REACH, images.shape[-1] // 2)
    amplitudes[..., _rows(rows), : columns + 1] = spectrum[..., _rows(rows), : columns + 1]
    return {"amplitudes": amplitudes}


def transfer(images: torch.Tensor, style: Statistics, strength: float, seeds: Sequence[int]) -> torch.Tensor:
    """Give every image the low-frequency amplitudes of its style.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1].
        style: what :func:`learn` returns, one row per image.
        strength: weight of the style's amplitudes, 0 (content) to 1 (style).
        seeds: one per image; nothing is drawn here.

    Returns:
        ``float32 [N,3,H,W]``; may leave [0, 1].
    """
    height, width = images.shape[-2:]
    reach = min(max(1, int(BETA * min(height, width))), REACH, (min(height, width) - 1) // 2)
    window = (..., _rows(reach), slice(reach + 1))
    spectrum = torch.fft.rfft2(images, norm="forward")
    inside = spectrum[window]
    amplitude = inside.abs()
    known = amplitude / torch.sqrt(amplitude.square() + QUANTISATION / (height * width))
    change = torch.zeros_like(spectrum)
    change[window] = torch.sgn(inside) * known * strength * (style["amplitudes"][window] - amplitude)
    moved: torch.Tensor = images + torch.fft.irfft2(change, s=(height, width), norm="forward")
    return moved


def _rows(reach: int) -> list[int]:
    """Vertical frequencies 0..reach, −reach..−1: symmetric about 0."""
    return [*range(reach + 1), *range(-reach, 0)]
