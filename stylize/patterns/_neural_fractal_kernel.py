"""The orbit kernel of the neural fractal: T steps of z <- g(z) + c for every sample of every pixel.

The map is chaotic, so one rounding that differs between two machines changes whole regions. Everything here is
therefore a fixed sequence of IEEE 754 single-precision operations on each sample alone: add, multiply, divide, square
root and *explicit* fused multiply-add, all correctly rounded by the standard. There is no libm call, no fast-math and
no reduction across samples that could be reordered, so the vector width that LLVM picks cannot change a bit.

Samples are processed in blocks of ``LANES``; each block lives in a few kilobytes of first-level cache, as planes of
real and imaginary parts, and every loop over the lanes of a plane becomes SIMD code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from ._compiled import compiled, inlined

LANES = 256  # samples per block: 10 planes of 1 kB
NEURONS, HIDDEN = 3, 6
INPUT_ROWS, HIDDEN_ROWS, OUTPUT_ROW = 0, 12, 132  # where each part of the flat weights starts
WEIGHTS = 140  # 3 rows of (w, b), 5 x 3 rows of (w, w, w, b), 1 row of (w, w, w, b); each entry is (re, im)

f32, u32 = np.float32, np.uint32
ZERO, QUARTER, ONE, TWO = f32(0), f32(0.25), f32(1), f32(2)
ROUND = f32(3 << 22)  # adding and subtracting 1.5 * 2^23 rounds a float32 below 2^22 to the nearest integer
PER_PI = f32(1 / np.pi)
POLE = f32(1e-12)  # floor of the squared denominator: |tanh| stays below about 1e6, so nothing here overflows
SATURATED = f32(8)  # tanh(8) is 1 in float32, up to 2 ulp
# Minimax fits, found by reweighted least squares: tanh x = x N(x^2)/D(x^2) on |x| <= 8 (relative error 1.5e-7),
# sin(pi r) = r S(r^2) (absolute 3e-9) and cos(pi r) = (1/4 - r^2) C(r^2) (relative to 1/4 - r^2, 5e-8), |r| <= 1/2.
N0, N1, N2, N3 = f32(0.99999985), f32(0.1292565), f32(0.0029510105), f32(1.1428292e-05)
D1, D2, D3, D4 = f32(0.46258865), f32(0.023815498), f32(0.00023866736), f32(2.4591709e-07)
S0, S1, S2, S3, S4 = f32(3.14159258), f32(-5.16770688), f32(2.55003138), f32(-0.59804517), f32(0.07722013)
C0, C1, C2, C3 = f32(3.99999979), f32(-3.73916842), f32(1.27688251), f32(-0.21931565)


def _fma(_typing: Any, _a: Any, _b: Any, _c: Any) -> Any:
    """``a * b + c`` rounded once, on any machine (hardware instruction, or the C library's ``fmaf``)."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        # LLVM halves the vectors of CPUs with AVX-512 by default; whole ones are 1.4 times as fast here.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), generate


fma: Any = intrinsic(_fma)


@inlined
def _ratio(x: Any) -> Any:
    """tanh(x) of a real x as numerator and denominator."""
    x = max(min(x, SATURATED), -SATURATED)
    u = x * x
    return x * fma(fma(fma(N3, u, N2), u, N1), u, N0), fma(fma(fma(fma(D4, u, D3), u, D2), u, D1), u, ONE)


@compiled
def tanh_split(h: Any) -> None:
    """Split tanh: of the real and of the imaginary part, in place; h is [real planes, imaginary planes].

    Measured against float64: relative error below 5e-7.
    """
    for i in range(NEURONS * LANES):
        n, d = _ratio(h[i])
        m, e = _ratio(h[NEURONS * LANES + i])
        scale = ONE / (d * e)
        h[i] = n * e * scale
        h[NEURONS * LANES + i] = m * d * scale


@compiled
def tanh_holomorphic(h: Any) -> None:
    """Complex tanh, in place, with period pi in the imaginary part y reduced to r = y/pi in [-1/2, 1/2].

    With tanh x = n/d, s = sin y, c = cos y: tanh(x + iy) = (n d + i s c (d^2 - n^2)) / (n^2 + c^2 (d^2 - n^2)).
    Closer than 1e-6 to a pole the denominator is held at ``POLE``. Beyond |y| = 2^22 a float32 has no phase left.
    Measured against complex128 for |x|, |y| <= 30: relative error 1e-7 to 2e-7 in the median, and everywhere
    |error| < 4 * 2^-24 (1 + |y|) (1 + |tanh|^2), where the last factor is the slope near a pole.
    """
    for i in range(NEURONS * LANES):
        n, d = _ratio(h[i])
        turns = h[NEURONS * LANES + i] * PER_PI
        r = turns - ((turns + ROUND) - ROUND)
        u = r * r
        s = r * fma(fma(fma(fma(S4, u, S3), u, S2), u, S1), u, S0)
        c = (QUARTER - u) * fma(fma(fma(C3, u, C2), u, C1), u, C0)
        n2 = n * n
        gap = fma(d, d, -n2)
        scale = ONE / max(fma(c * c, gap, n2), POLE)
        h[i] = n * d * scale
        h[NEURONS * LANES + i] = s * c * gap * scale


@inlined
def _row(w: Any, o: int) -> Any:
    """One neuron: three complex weights and a complex bias."""
    return w[o], w[o + 1], w[o + 2], w[o + 3], w[o + 4], w[o + 5], w[o + 6], w[o + 7]


@inlined
def _neuron(a: Any, x0: Any, x1: Any, x2: Any, y0: Any, y1: Any, y2: Any) -> Any:
    """A row times three complex inputs, plus its bias."""
    re = fma(a[0], x0, fma(-a[1], y0, fma(a[2], x1, fma(-a[3], y1, fma(a[4], x2, fma(-a[5], y2, a[6]))))))
    im = fma(a[0], y0, fma(a[1], x0, fma(a[2], y1, fma(a[3], x1, fma(a[4], y2, fma(a[5], x2, a[7]))))))
    return re, im


@compiled
def _step(z: Any, h: Any, w: Any, holomorphic: bool) -> None:
    """One iteration of a block, in place; z is planes (re, im, c_re, c_im), h is room for the neurons."""
    for k in range(NEURONS):
        o, p = INPUT_ROWS + 4 * k, k * LANES
        re, im, bias_re, bias_im = w[o], w[o + 1], w[o + 2], w[o + 3]
        for i in range(LANES):
            x, y = z[i], z[LANES + i]
            h[p + i] = fma(re, x, fma(-im, y, bias_re))
            h[NEURONS * LANES + p + i] = fma(re, y, fma(im, x, bias_im))
    for layer in range(HIDDEN):
        if holomorphic:
            tanh_holomorphic(h)
        else:
            tanh_split(h)
        if layer == HIDDEN - 1:
            break
        o = HIDDEN_ROWS + 24 * layer
        a0, a1, a2 = _row(w, o), _row(w, o + 8), _row(w, o + 16)
        for i in range(LANES):
            x0, x1, x2 = h[i], h[LANES + i], h[2 * LANES + i]
            y0, y1, y2 = h[3 * LANES + i], h[4 * LANES + i], h[5 * LANES + i]
            h[i], h[3 * LANES + i] = _neuron(a0, x0, x1, x2, y0, y1, y2)
            h[LANES + i], h[4 * LANES + i] = _neuron(a1, x0, x1, x2, y0, y1, y2)
            h[2 * LANES + i], h[5 * LANES + i] = _neuron(a2, x0, x1, x2, y0, y1, y2)
    a0 = _row(w, OUTPUT_ROW)
    for i in range(LANES):
        x, y = _neuron(a0, h[i], h[LANES + i], h[2 * LANES + i], h[3 * LANES + i], h[4 * LANES + i], h[5 * LANES + i])
        x2, y2 = fma(x, x, -(y * y)), TWO * x * y  # the square; below: times (x + iy), plus c
        z[i] = fma(x2, x, fma(-y2, y, z[2 * LANES + i]))
        z[LANES + i] = fma(x2, y, fma(y2, x, z[3 * LANES + i]))


@inlined
def _hash(counter: Any, key: Any) -> Any:
    """A 32-bit mix of a counter and a key (multiply and xor-shift rounds)."""
    v = u32(u32(counter * u32(0x9E3779B1)) ^ key)
    v = u32(u32(v ^ (v >> u32(16))) * u32(0x7FEB352D))
    v = u32(u32(v ^ (v >> u32(15))) * u32(0x846CA68B))
    return u32(v ^ (v >> u32(16)))


@compiled
def _place(z: Any, first: int, last: int, width: int, strata: int, frame: Any, key: Any) -> None:
    """Start a block: z = 0 and c = one jittered point in each stratum of the pixels from ``first`` on."""
    per_pixel = strata * strata
    cell = ONE / f32(strata)
    for i in range(LANES):
        pixel = min(first + i // per_pixel, last)  # spare lanes repeat the last pixel and are not read
        s = i % per_pixel
        v = _hash(u32(pixel * per_pixel + s), key)
        across = f32(pixel % width) + (f32(s % strata) + f32(v & u32(0xFFFF)) * f32(2**-16)) * cell
        down = f32(pixel // width) + (f32(s // strata) + f32(v >> u32(16)) * f32(2**-16)) * cell
        z[i], z[LANES + i] = ZERO, ZERO
        z[2 * LANES + i] = frame[0] + (frame[1] * across + frame[2] * down)
        z[3 * LANES + i] = frame[3] + (frame[4] * across + frame[5] * down)


@compiled
def orbits(
    w: Any, frame: Any, key: Any, width: int, strata: int, steps: int, tau: Any, holomorphic: bool, out: Any
) -> None:
    """Fill ``out``, float32 [2, pixels]: coverage and magnitude.

    Args:
        w: float32 [WEIGHTS].
        frame: float32 [6], c = (f0 + f1 u + f2 v) + i (f3 + f4 u + f5 v) for the point u across, v down, in pixels.
        key: uint32, of the jitter.
        width: pixels in a row.
        strata: samples per pixel = strata^2, at most LANES.
        steps: iterations T.
        tau: threshold, float32.
        holomorphic: which tanh.
        out: ``out[0]`` is the share of a pixel's samples with |z_T| <= tau, ``out[1]`` their mean |z_T|/(|z_T| + tau).
    """
    pixels, per_pixel = out.shape[1], strata * strata
    block = LANES // per_pixel
    z, h = np.empty(4 * LANES, f32), np.empty(2 * NEURONS * LANES, f32)
    for first in range(0, pixels, block):
        _place(z, first, pixels - 1, width, strata, frame, key)
        for _ in range(steps):
            _step(z, h, w, holomorphic)
        for pixel in range(first, min(first + block, pixels)):
            inside, total = ZERO, ZERO
            for i in range((pixel - first) * per_pixel, (pixel - first + 1) * per_pixel):
                modulus = np.sqrt(fma(z[i], z[i], z[LANES + i] * z[LANES + i]))
                inside += ONE if modulus <= tau else ZERO
                near = tau / (modulus + tau)
                total += ONE - (near if near >= ZERO else ZERO)  # overflow and NaN count as 1, far outside
            out[0, pixel] = inside / f32(per_pixel)
            out[1, pixel] = total / f32(per_pixel)
