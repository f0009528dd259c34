"""The chaos game on tensors: the operations of ``_chaos_game`` for N images at once, bit for bit, on any device.

Each function names its twin there. Integers are int64 whose overflow wraps, as uint64 does in the twin.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import _chaos_game as game


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


GOLDEN, MIX_1, MIX_2 = (_signed(int(v)) for v in (game.GOLDEN, game.MIX_1, game.MIX_2))


def keys(values: list[int], device: torch.device | str) -> Tensor:
    """64-bit keys as int64 [N,1]."""
    return torch.tensor([_signed(v) for v in values], dtype=torch.int64, device=device)[:, None]


def mix(key: Tensor, n: Tensor) -> Tensor:
    """Twin of ``_mix``."""
    v = key + (n + 1) * GOLDEN
    for shift, factor in ((30, MIX_1), (27, MIX_2), (31, 1)):
        v = (v ^ ((v >> shift) & (2 ** (64 - shift) - 1))) * factor
    return v


def orbit(maps: Tensor, thresholds: Tensor, key: Tensor, points: int, start: Tensor | None = None) -> Tensor:
    """Twin of ``orbit``: float64 [N,D,points].

    Args:
        maps: float64 [N,M,D,D+1].
        thresholds: int64 [N,M-1] or [1,M-1].
        key: int64 [N,1] or [1,1].
        points: how many.
        start: float64 [N,D]; default: the origin.

    Returns:
        Coordinates on the device of ``maps``.
    """
    count, _, dimensions, _ = maps.shape
    device, chains, rows = maps.device, game.CHAINS, torch.arange(count, device=maps.device)[:, None]
    first = torch.zeros(count, dimensions, dtype=torch.float64, device=device) if start is None else start
    burn_key = key ^ _signed(int(game.BURN_KEY))
    chain = torch.arange(chains, device=device)

    def step(at: Tensor, key: Tensor, n: int) -> Tensor:
        draw = (mix(key, n + chain) >> 32) & 0xFFFFFFFF
        k = (draw[..., None] >= thresholds[:, None]).sum(-1).expand(count, -1)
        m = maps[rows, k]  # [N,chains,D,D+1]
        new = m[..., 0] * at[..., :1]
        for axis in range(1, dimensions):
            new = new + m[..., axis] * at[..., axis : axis + 1]
        return new + m[..., dimensions]

    at = first[:, None].expand(-1, chains, -1)
    for n in range(game.BURN_IN):
        at = step(at, burn_key, n * chains)
    at = torch.cat([first[:, None], at[:, 1:]], 1)
    seen = []
    for n in range(0, points, chains):
        seen.append(at)
        at = step(at, key, n)
    return torch.cat(seen, 1)[:, :points].transpose(1, 2)


def bounds(points: Tensor) -> tuple[Tensor, Tensor]:
    """Twin of ``bounds``: least and greatest coordinates, [N,D] each."""
    within = (points.abs() <= game.REACH).all(1)
    least = torch.where(within[:, None], points, torch.inf).amin(2)
    return least, torch.where(within[:, None], points, -torch.inf).amax(2)


def slope(span: float, extent: Tensor) -> Tensor:
    """Twin of ``slope``. A number divided by a tensor would be rounded twice, so both are tensors."""
    return torch.where(extent > 0, torch.full_like(extent, span) / torch.where(extent > 0, extent, 1.0), 0.0)


def place(points: Tensor, origin: Tensor, scale: Tensor, free: int, size: int) -> Tensor:
    """Twin of ``place``: int64 [N,T]; the pixel ``size * size`` stands for none."""
    at = (points - origin[..., None]) * scale[..., None]
    inside = (at >= 0).all(1) & (at < size - free).all(1)
    across, up = torch.where(inside[:, None], at, 0.0).long().unbind(1)
    return torch.where(inside, (size - 1 - free - up) * size + free + across, size * size)


def pixels(points: Tensor, size: int) -> Tensor:
    """Twin of ``pixels``."""
    least, greatest = bounds(points)
    free = game.pad(size)
    return place(points, least, slope(size - 2 * free, greatest - least), free, size)


def locate(points: Tensor, window: Tensor, size: int) -> Tensor:
    """Twin of ``fractal_svd.locate``: window float64 [N,2,2]."""
    least, greatest = bounds(points)
    side = (greatest - least) * window[:, 0]
    middle = (least + greatest) * 0.5 + (greatest - least) * window[:, 1]
    whole = (window[:, 0] == 1) & (window[:, 1] == 0)
    return place(points, torch.where(whole, least, middle - side * 0.5), slope(size - 1, side), 0, size)


def hits(where: Tensor, size: int) -> Tensor:
    """Twin of ``hits``: int64 [N,size,size]."""
    out = torch.zeros(len(where), size * size + 1, dtype=torch.int64, device=where.device)
    return out.scatter_add_(1, where, torch.ones_like(where))[:, :-1].reshape(-1, size, size)


def paint_points(where: Tensor, hues: int, size: int) -> Tensor:
    """Twin of ``paint_points``: int64 [N,size,size]. The last point of a pixel is the greatest."""
    n = torch.arange(1, where.shape[1] + 1, device=where.device).expand_as(where)
    last = torch.zeros(len(where), size * size + 1, dtype=torch.int64, device=where.device)
    last.scatter_reduce_(1, where, n, "amax")
    return torch.where(last > 0, 1 + (last - 1) % hues, 0)[:, :-1].reshape(-1, size, size)


def paint_patches(where: Tensor, key: Tensor, hues: int, size: int) -> Tensor:
    """Twin of ``paint_patches``: the greatest 2 n + bit of a pixel is what the last patch leaves there."""
    n = torch.arange(where.shape[1], device=where.device)
    mask = 1 + (((mix(key, n) & 0xFFFFFFFF) * int(game.MASKS)) >> 32)
    last = torch.zeros(len(where), size * size + 1, dtype=torch.int64, device=where.device)
    for cell in range(9):
        shift = (cell // 3 - 1) * size + cell % 3 - 1
        at = torch.where(where < size * size, where + shift, where)
        last.scatter_reduce_(1, at, 2 * n + (mask >> cell & 1), "amax")
    return torch.where(last % 2 > 0, 1 + (last >> 1) % hues, 0)[:, :-1].reshape(-1, size, size)


def tint(index: Tensor, colours: np.ndarray) -> Tensor:
    """Twin of ``tint``: uint8 [N,3,H,W]."""
    return torch.from_numpy(colours).to(index.device)[index].movedim(-1, 1)
