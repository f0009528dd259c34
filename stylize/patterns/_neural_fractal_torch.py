"""The neural fractal on tensors: the operations of ``_neural_fractal_kernel`` and ``_shading``, bit for bit.

The map is chaotic: unless every operation rounds as in the kernel, the pictures differ. Eager torch never merges two
calls, and its add, multiply and divide are IEEE 754's. A fused multiply-add is ``addcmul`` where that rounds once (as
in torch's usual CPU builds; by its release history also on CUDA since 2.11), which each device is asked at first use,
and exact float64 arithmetic otherwise.

Memory traffic bounds the speed: 7 kB (split) or 9 kB (holomorphic) per sample-iteration with the fused ``addcmul``, so
3 to 4 ns at 2.5 TB/s, where one AVX-512 core with the kernel takes 14 to 18 ns. By float64 it is 170 kB, slower than
that core. On one CPU thread this path takes about 16 times the kernel's time. No GPU was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from . import _neural_fractal_kernel as kernel
from . import _shading as shading

CPU_LANES, LANES = 1 << 13, 1 << 20  # samples at once, some 200 bytes each; a CPU keeps the fewer in its cache
MASK = 0xFFFFFFFF
TANH = tuple(float(v) for v in (kernel.N3, kernel.N2, kernel.N1, kernel.N0))
TANH_DENOMINATOR = tuple(float(v) for v in (kernel.D4, kernel.D3, kernel.D2, kernel.D1, kernel.ONE))
SINE = tuple(float(v) for v in (kernel.S4, kernel.S3, kernel.S2, kernel.S1, kernel.S0))
COSINE = tuple(float(v) for v in (kernel.C3, kernel.C2, kernel.C1, kernel.C0))


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a * b + c`` of float32 rounded once."""
    return torch.addcmul(c, a, b) if _fused(c.device) else fma_by_double(a, b, c)


@cache
def _fused(device: torch.device) -> bool:
    """Whether ``addcmul`` rounds once: (1 + i e)(1 + j e) - (1 + (i + j) e) is i j e^2, or 0 after two roundings."""
    i = torch.arange(1, 100, dtype=torch.float32, device=device)
    e = 2.0**-23
    a, b = (1 + i * e)[:, None], 1 + i * e
    c, exact = -(1 + (i[:, None] + i) * e), i[:, None] * i * e**2
    whole = torch.addcmul(c, a.expand_as(c).contiguous(), b.expand_as(c).contiguous())
    return torch.equal(torch.addcmul(c, a, b), exact) and torch.equal(whole, exact)


def fma_by_double(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``fma`` by float64: exact product, sum rounded to odd (Boldo and Melquiond 2008), then to float32."""
    product, wide = a.double() * b.double(), c.double()
    total = product + wide
    part = total - product
    error = (product - (total - part)) + (wide - part)  # Knuth's TwoSum: exact; NaN where total is not finite
    bits = total.view(torch.int64)
    away = ((error > 0).long() - (error < 0).long()) * torch.where(total < 0, -1, 1)
    return torch.where(bits & 1 == 0, bits + away, bits).view(torch.float64).float()


@cache
def constants(values: tuple[float, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Numbers as tensors, sent to a device once. Divisions need them: torch may round twice with a plain number."""
    return torch.tensor(values, dtype=torch.float32, device=device).unbind()


def polynomial(u: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Horner's rule, highest power first."""
    total, *rest = constants(coefficients, u.device)
    for coefficient in rest:
        total = fma(total, u, coefficient)
    return total


def _ratio(x: Tensor) -> tuple[Tensor, Tensor]:
    """Twin of the kernel's."""
    x = x.clamp(-float(kernel.SATURATED), float(kernel.SATURATED))
    u = x * x
    return x * polynomial(u, TANH), polynomial(u, TANH_DENOMINATOR)


def tanh_split(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Twin of the kernel's."""
    (n, d), (m, e), (one,) = _ratio(x), _ratio(y), constants((1.0,), x.device)
    scale = one / (d * e)
    return n * e * scale, m * d * scale


def tanh_holomorphic(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Twin of the kernel's."""
    (n, d), (one,) = _ratio(x), constants((1.0,), x.device)
    turns = y * float(kernel.PER_PI)
    r = turns - ((turns + float(kernel.ROUND)) - float(kernel.ROUND))
    u = r * r
    s, c = r * polynomial(u, SINE), (0.25 - u) * polynomial(u, COSINE)
    n2 = n * n
    gap = fma(d, d, -n2)
    scale = one / fma(c * c, gap, n2).clamp(min=float(kernel.POLE))
    return n * d * scale, s * c * gap * scale


def _neurons(a: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Rows float32 [n,8,1] times three complex inputs x + iy [3,L] each, plus the biases: [n,L] each."""
    w, m = a.unbind(1), (-a).unbind(1)
    re = fma(w[0], x[0], fma(m[1], y[0], fma(w[2], x[1], fma(m[3], y[1], fma(w[4], x[2], fma(m[5], y[2], w[6]))))))
    im = fma(w[0], y[0], fma(w[1], x[0], fma(w[2], y[1], fma(w[3], x[1], fma(w[4], y[2], fma(w[5], x[2], w[7]))))))
    return re, im


def step(z: tuple[Tensor, Tensor], c: tuple[Tensor, Tensor], w: Tensor, holomorphic: bool) -> tuple[Tensor, Tensor]:
    """One iteration of samples z and c, float32 [L] each."""
    tanh = tanh_holomorphic if holomorphic else tanh_split
    re, im, bias_re, bias_im = w[: kernel.HIDDEN_ROWS].view(-1, 4, 1).unbind(1)
    h = fma(re, z[0], fma(-im, z[1], bias_re)), fma(re, z[1], fma(im, z[0], bias_im))
    for rows in w[kernel.HIDDEN_ROWS : kernel.OUTPUT_ROW].view(kernel.HIDDEN - 1, kernel.NEURONS, 8, 1):
        h = _neurons(rows, *tanh(*h))
    (x,), (y,) = _neurons(w[kernel.OUTPUT_ROW :].view(1, 8, 1), *tanh(*h))
    x2, y2 = fma(x, x, -(y * y)), 2 * x * y
    return fma(x2, x, fma(-y2, y, c[0])), fma(x2, y, fma(y2, x, c[1]))


def _hash(counter: Tensor, key: Tensor) -> Tensor:
    """Twin of the kernel's, in int64 kept below 2^32."""
    v = (counter * 0x9E3779B1 & MASK) ^ key
    v = (v ^ v >> 16) * 0x7FEB352D & MASK
    v = (v ^ v >> 15) * 0x846CA68B & MASK
    return v ^ v >> 16


def _place(pixel: Tensor, size: int, strata: int, frame: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """The points c of some pixels [P] with a frame [P,6] and a key [P] each, float32 [S,P]."""
    s = torch.arange(strata * strata, device=pixel.device)[:, None]
    v = _hash(pixel * strata**2 + s & MASK, key)
    cell = float(np.float32(1) / np.float32(strata))
    across = (pixel % size).float() + ((s % strata).float() + (v & 0xFFFF).float() * 2.0**-16) * cell
    down = (pixel // size).float() + ((s // strata).float() + (v >> 16).float() * 2.0**-16) * cell
    f = frame.unbind(1)
    return f[0] + (f[1] * across + f[2] * down), f[3] + (f[4] * across + f[5] * down)


def orbits(
    weights: Sequence[float],
    frames: np.ndarray,
    keys: Sequence[int],
    taus: Sequence[float],
    size: int,
    strata: int,
    steps: int,
    holomorphic: bool,
    device: torch.device | str,
) -> Tensor:
    """Twin of the kernel's for N images of one network: float32 [2,N,size,size], coverage and magnitude.

    Args:
        weights: of the network.
        frames: float32 [N,6].
        keys: N, below 2^32, of the jitter.
        taus: N thresholds.
        size: side of an image.
        strata: samples per pixel = strata^2.
        steps: iterations T.
        holomorphic: which tanh.
        device: of the result and of all the work.

    Returns:
        Coverage and magnitude.
    """
    w = torch.tensor(weights, dtype=torch.float32, device=device)
    frame, key = torch.from_numpy(frames).to(device), torch.tensor(keys, dtype=torch.int64, device=device)
    tau = torch.tensor(taus, dtype=torch.float32, device=device)
    out = torch.empty(2, len(keys) * size * size, device=device)
    chunk = max((CPU_LANES if w.device.type == "cpu" else LANES) // strata**2, 1)
    for first in range(0, out.shape[1], chunk):
        at = torch.arange(first, min(first + chunk, out.shape[1]), device=device)
        image = at // size**2
        x, y = _place(at % size**2, size, strata, frame[image], key[image])
        c = x.flatten(), y.flatten()
        z = torch.zeros_like(c[0]), torch.zeros_like(c[1])
        for _ in range(steps):
            z = step(z, c, w, holomorphic)
        out[:, first : first + chunk] = _gather(z[0].view_as(x), z[1].view_as(y), tau[image])
    return out.view(2, len(keys), size, size)


def _sqrt(x: Tensor) -> Tensor:
    """Correctly rounded by way of float64; torch's own in float32 misses one value in five on a CPU."""
    return x.double().sqrt().float()


def _gather(x: Tensor, y: Tensor, tau: Tensor) -> Tensor:
    """Coverage and magnitude [2,P] of samples z_T [S,P]; the sum over a pixel goes sample by sample."""
    modulus = _sqrt(fma(x, x, y * y))
    rest = 1 - (tau / (modulus + tau)).nan_to_num(0.0)
    total = torch.zeros_like(tau)
    for sample in rest:
        total = total + sample
    (samples,) = constants((float(len(rest)),), tau.device)
    return torch.stack([(modulus <= tau).sum(0).float(), total]) / samples


def ranks(field: Tensor, among: Tensor) -> Tensor:
    """Twin of ``_shading.ranks`` among the pixels of a mask."""
    below = torch.searchsorted(torch.where(among, field, torch.inf).flatten().sort().values, field)
    return (below.double() / among.sum().clamp(min=1).double()).float()


def shade(coverage: Tensor, magnitude: Tensor, rng: np.random.Generator) -> Tensor:
    """Twin of ``_shading.shade``: [H,W] each to uint8 [3,H,W] on their device; only palettes are made elsewhere."""
    inside, device = coverage >= 0.5, coverage.device
    inner = torch.where(coverage > 0, ranks(magnitude, inside), 1.0)
    outer = torch.where(coverage < 1, ranks(magnitude, ~inside), 0.0)
    inner_rgb, outer_rgb = (
        torch.from_numpy(shading.palette(rng).T.copy()).to(device)[:, (r * (shading.LEVELS - 1)).long()]
        for r in (inner, outer)
    )
    rgb = outer_rgb + coverage * (inner_rgb - outer_rgb)
    rgb = rgb * relief(torch.where(inside, inner, 1 + outer), rng)
    table = torch.from_numpy(shading._ENCODE).to(device)
    return table[(_sqrt(rgb.clamp(0, 1)) * (len(table) - 1) + 0.5).long()]


def relief(height: Tensor, rng: np.random.Generator) -> Tensor:
    """Twin of ``_shading.relief``; the same draws in the same order."""
    strength, ramp = rng.uniform(0, 0.5), rng.uniform(0, 0.5)
    turn, tilt = rng.uniform(0, 2 * math.pi, 2)
    down, across = _gradient(height), _gradient(height.T).T
    slope = (across * _single(math.cos(turn)) + down * _single(math.sin(turn))) * _single(len(height) / 16)
    y, x = (torch.from_numpy(np.linspace(-1, 1, n, dtype=np.float32)).to(height.device) for n in height.shape)
    frame = _single(ramp * math.sin(tilt)) * y[:, None] + _single(ramp * math.cos(tilt)) * x
    return (1 + _single(strength) * slope / (1 + slope.abs())) * (1 + frame)


def _single(value: float) -> float:
    """Rounded to float32."""
    return float(np.float32(value))


def _gradient(f: Tensor) -> Tensor:
    """``numpy.gradient`` along the first axis."""
    return torch.cat([f[1:2] - f[:1], (f[2:] - f[:-2]) * 0.5, f[-1:] - f[-2:-1]])
