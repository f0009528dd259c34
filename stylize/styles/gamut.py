"""Keeping results in gamut without a visible clip, and without touching what did not change."""

from __future__ import annotations

import torch

KNEE = 0.8
BAND = 2**18  # pixels bent at once: what is needed on the way is eight times as large as the image


def soft_gamut(content: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """Bend the change ``result − content`` so that it stays inside [0, 1].

    A change that uses less than KNEE of the room between the content's value and the gamut's edge is kept; beyond it
    the rest of the room is approached as tanh. Unlike a knee on the values themselves, this is the identity wherever
    nothing changed, at pure black and white too.

    Args:
        content: ``float [N,C,H,W]`` in [0, 1].
        result: ``float [N,C,H,W]``, any range.

    Returns:
        ``float [N,C,H,W]`` in [0, 1].
    """
    rows = max(1, BAND // content.shape[-1])
    bands = zip(torch.split(content, rows, -2), torch.split(result, rows, -2), strict=True)
    return torch.cat([_bent(*band) for band in bands], -2)


def _bent(content: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    change = result - content
    room = torch.where(change > 0, 1 - content, content)
    used = change.abs() / room.clamp_min(1e-6)
    bent = KNEE + (1 - KNEE) * torch.tanh((used - KNEE) / (1 - KNEE))
    return content + change.sign() * room * torch.where(used <= KNEE, used, bent)
