"""Neural fractals beside the package nfractal 0.3.0 (MIT) on the same network, window, threshold and work.

Run:      python benchmarks/fractals.py
Compare:  pip install --no-deps --target /tmp/nfractal nfractal==0.3.0
          PYTHONPATH=/tmp/nfractal python benchmarks/fractals.py

Times are CPU seconds of this process for one thread and wall seconds for all cores; ratios are per sample-iteration.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numba import njit

from stylize.patterns import _neural_fractal_kernel as kernel
from stylize.patterns import neural_fractal as family

SIZE, STRATA, STEPS, SIDE, TAU = 256, 4, 20, 10.0, 8.0
SAMPLES = SIZE * SIZE * STRATA * STRATA
CORES = os.cpu_count() or 1
# Arithmetic operations per sample-iteration: 180 + 24 multiply-adds of the affine maps and 8 of the cube, plus 18
# activations of the operations that one can count in the kernel (a division counts as one).
OPERATIONS = {"split": 180 + 24 + 8 + 18 * 31, "holomorphic": 180 + 24 + 8 + 18 * 37}


def measure(work: Callable[[], Any], clock: Callable[[], float], repeats: int = 3) -> float:
    """Median seconds of ``work`` on ``clock``."""
    seconds = []
    for _ in range(repeats):
        start = clock()
        work()
        seconds.append(clock() - start)
    return float(np.median(seconds))


def ours(weights: np.ndarray, activation: str) -> np.ndarray:
    """One image of 256 x 256 pixels, 16 samples each, 20 steps: coverage and magnitude, float32 [2,N]."""
    out = np.empty((2, SIZE * SIZE), np.float32)
    step = SIDE / SIZE
    frame = np.array([-SIDE / 2, step, 0, SIDE / 2, 0, -step], np.float32)
    holomorphic = activation == "holomorphic"
    kernel.orbits(weights, frame, np.uint32(1), SIZE, STRATA, STEPS, np.float32(TAU), holomorphic, out)
    return out


def theirs(weights: np.ndarray, samples: int) -> Any:
    """The sampler of nfractal on the same holomorphic network; None if it is not installed."""
    try:
        from nfractal.nn import Linear
        from nfractal.samplers import UniformSampler
    except ImportError:
        return None

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = [1, 3, 3, 3, 3, 3, 3, 1]
            self.layers = torch.nn.ModuleList(Linear(a, b) for a, b in pairwise(sizes))
            flat, at = torch.from_numpy(weights.astype(np.float32).view(np.complex64)), 0
            for layer in self.layers:
                rows, columns = layer.weight.shape
                block = flat[at : at + rows * (columns + 1)].reshape(rows, columns + 1)
                layer.weight.data, layer.bias.data = block[:, :-1].clone(), block[:, -1].clone()
                at += rows * (columns + 1)

        def forward(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            for layer in self.layers[:-1]:
                z = torch.tanh(layer(z))
            return self.layers[-1](z) ** 3 + c

    return UniformSampler(Net(), sample_size=samples, img_size=(SIZE, SIZE), threshold=TAU, zoom=SIDE)


@njit(nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def multiply_adds(v: np.ndarray, rounds: int) -> None:
    """Eight independent chains of eight fused multiply-adds per lane, ``rounds`` times: the arithmetic peak."""
    a, b = np.float32(0.999), np.float32(0.001)
    n = kernel.LANES
    for _ in range(rounds):
        for i in range(n):
            p, q, r, s = v[i], v[n + i], v[2 * n + i], v[3 * n + i]
            t, u, w, x = v[4 * n + i], v[5 * n + i], v[6 * n + i], v[7 * n + i]
            for _ in range(8):
                p, q, r, s = kernel.fma(p, a, b), kernel.fma(q, a, b), kernel.fma(r, a, b), kernel.fma(s, a, b)
                t, u, w, x = kernel.fma(t, a, b), kernel.fma(u, a, b), kernel.fma(w, a, b), kernel.fma(x, a, b)
            v[i], v[n + i], v[2 * n + i], v[3 * n + i] = p, q, r, s
            v[4 * n + i], v[5 * n + i], v[6 * n + i], v[7 * n + i] = t, u, w, x


def main() -> None:
    weights = np.random.default_rng(3).standard_normal(kernel.WEIGHTS).astype(np.float32)
    lanes = np.ones(8 * kernel.LANES, np.float32)
    multiply_adds(lanes, 1)
    rounds = 10_000
    peak = measure(lambda: multiply_adds(lanes, rounds), time.process_time) / (rounds * kernel.LANES * 64) * 1e9
    print(f"arithmetic peak of one core: {1 / peak:.1f} fused multiply-adds per ns, float32")

    per_iteration = {}
    for activation in family.ACTIVATIONS:
        ours(weights, activation)  # compile
        one = measure(lambda a=activation: ours(weights, a), time.process_time)  # type: ignore[misc]
        per_iteration[activation] = one / (SAMPLES * STEPS) * 1e9
        floor = OPERATIONS[activation] * peak
        print(
            f"{activation:12s} one thread: {1 / one:6.2f} images/s, {per_iteration[activation]:6.1f} ns per "
            f"sample-iteration; arithmetic floor {floor:.1f} ns ({floor / per_iteration[activation]:.0%} of the time)"
        )
    with ThreadPoolExecutor(CORES) as pool:
        work = [weights] * 2 * CORES
        wall = measure(lambda: list(pool.map(lambda w: ours(w, "holomorphic"), work)), time.perf_counter) / len(work)
    print(f"holomorphic  {CORES} threads:   {1 / wall:6.2f} images/s, {wall / (SAMPLES * STEPS) * 1e9:6.1f} ns")

    sampler = theirs(weights, 2**17)
    if sampler is None:
        print("nfractal is not installed: no comparison.\n" + "\n".join((__doc__ or "").splitlines()[3:5]))
    else:
        compare(sampler, weights, per_iteration["holomorphic"], wall / (SAMPLES * STEPS) * 1e9)
    end_to_end()


def compare(sampler: Any, weights: np.ndarray, one: float, all_cores: float) -> None:
    """Run nfractal on an eighth of the image's samples at its default batch; time per sample-iteration."""
    coverage = ours(weights, "holomorphic")[0].mean()
    work = sampler.n * STEPS
    for threads, clock, mine in ((1, time.process_time, one), (CORES, time.perf_counter, all_cores)):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        start = clock()
        image = sampler.sample(epochs=1, max_iters=STEPS)
        took = (clock() - start) / work * 1e9
        share = float(image.sum()) / sampler.n
        print(
            f"nfractal     {threads} thread(s): {1e9 / (took * SAMPLES * STEPS):6.3f} images/s, {took:6.0f} ns per "
            f"sample-iteration; {took / mine:.0f} times ours. Share inside {share:.3f}, ours {coverage:.3f}"
        )


def end_to_end() -> None:
    """What a data set costs: class search, windows, kernel and colour, at the defaults."""
    start = time.process_time()
    classes = [family.sample_class(0, k) for k in range(8)]
    search = (time.process_time() - start) / len(classes)
    start = time.process_time()
    for params in classes:
        family.render(params, 0, SIZE)
    image = (time.process_time() - start) / len(classes)
    steps = np.mean([params.iterations for params in classes])
    print(f"data set, {SIZE} x {SIZE}, mean T {steps:.1f}: {image:.3f} s per image and core, {search:.3f} s per class")


if __name__ == "__main__":
    main()
