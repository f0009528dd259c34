"""The drawing of :mod:`._contours` in torch, on any device, with the same bits.

All polygons of a stack are drawn at once: their vertices are running sums of integers, pixel i of a line has a closed
form, and where lines cross, the polygon with the highest number wins, which is the painter's order. No step depends on
the order in which a device does it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from . import _contours as contours
from ._class_checks import check_number


def render(placed: Sequence[tuple[Sequence[contours.Stack], np.ndarray]], size: int, device: str) -> torch.Tensor:
    """Images of (stacks, greys) pairs, uint8 [N,3,size,size]."""
    images = [paint(draw(stacks, size, device), greys) for stacks, greys in placed]
    return torch.stack(images) if images else torch.empty((0, 3, size, size), dtype=torch.uint8, device=device)


def draw(stacks: Sequence[contours.Stack], size: int, device: str) -> torch.Tensor:
    """Draw stacks over each other: int64 [size,size], the values of ``_contours.draw``."""
    check_number("size", size, int, 8, contours.MAX_SIZE)
    canvas = torch.zeros(size * size, dtype=torch.int64, device=device)
    noise = torch.from_numpy(contours.NOISE).to(device)
    first = 1
    for stack in stacks:
        q, k = stack.vertices, stack.polygons
        bits = _hash(torch.arange(k * q, device=device), stack.key)
        axes = zip(
            contours.start(stack), contours.trigonometry(q), stack.centre, (bits & 0xFFFF, bits >> 16), strict=True
        )
        advance = torch.from_numpy(contours.advances(stack)).to(device)
        x, y = (
            _project(begin + int(centre * contours.UNIT), trig, advance, stack.noise, noise[u].view(k, q), size)
            for begin, trig, centre, u in axes
        )
        _outlines(canvas, size, x, y, torch.arange(first, first + k, device=device)[:, None].expand(k, q))
        first += k
    return canvas.view(size, size)


def paint(canvas: torch.Tensor, greys: np.ndarray) -> torch.Tensor:
    """Grey image of a canvas, uint8 [3,H,W]; ``greys`` uint8 holds the background and each polygon's grey."""
    return torch.from_numpy(greys).to(canvas.device)[canvas].expand(3, *canvas.shape)


def _hash(counter: torch.Tensor, key: int) -> torch.Tensor:
    """The kernel's hash, in int64 kept below 2^32."""
    mask = 0xFFFFFFFF
    a, b, c = contours.MULTIPLIERS
    v = (counter * a & mask) ^ key & mask
    v = (v ^ v >> 16) * b & mask
    v = (v ^ v >> 15 ^ key >> 32) * c & mask
    return v ^ v >> 16


def _project(
    begin: np.ndarray, trig: np.ndarray, advance: torch.Tensor, noise: float, drawn: torch.Tensor, size: int
) -> torch.Tensor:
    """One coordinate of every vertex after every growth, in pixels, int64 [K,q]."""
    factor = torch.from_numpy(trig * np.float32(contours.UNIT)).to(advance.device)
    step = factor * (advance - drawn * torch.tensor(noise, dtype=torch.float32, device=advance.device))
    at = torch.from_numpy(begin.astype(np.int64)).to(advance.device) + torch.floor(step + 0.5).long().cumsum(0)
    return (at.abs() * size >> 25) * at.sign()


def _outlines(canvas: torch.Tensor, size: int, x: torch.Tensor, y: torch.Tensor, number: torch.Tensor) -> None:
    """All lines of the closed polygons int64 [K,q] at once; ``number`` [K,q] says whose they are."""
    x0, y0, x1, y1 = (p.reshape(-1) for p in (x, y, x.roll(-1, 1), y.roll(-1, 1)))
    seen = (torch.maximum(x0, x1) >= 0) & (torch.minimum(x0, x1) < size)
    seen &= (torch.maximum(y0, y1) >= 0) & (torch.minimum(y0, y1) < size)
    x0, y0, x1, y1, number = (p[seen] for p in (x0, y0, x1, y1, number.reshape(-1)))
    dx, dy = x1 - x0, y1 - y0
    major, minor = torch.maximum(dx.abs(), dy.abs()), torch.minimum(dx.abs(), dy.abs())
    length = major.clamp(min=1)
    line = torch.arange(len(length), device=canvas.device).repeat_interleave(length)
    i = torch.arange(len(line), device=canvas.device) - (length.cumsum(0) - length)[line]
    across = (2 * minor[line] * i + major[line]) // (2 * length[line])
    flat = (dx.abs() > dy.abs())[line]
    px = x0[line] + dx.sign()[line] * torch.where(flat, i, across)
    py = y0[line] + dy.sign()[line] * torch.where(flat, across, i)
    inside = (px >= 0) & (px < size) & (py >= 0) & (py < size)
    canvas.scatter_reduce_(0, (py * size + px)[inside], number[line[inside]], "amax")
