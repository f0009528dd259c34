"""Statistics of the random formulas beside reference values, as a Markdown table.

Run:      python benchmarks/pattern_statistics.py
Compare:  pip install --no-deps --target /tmp/noise noise==1.2.2
          PYTHONPATH=/tmp/noise python benchmarks/pattern_statistics.py

The reference values come from an earlier, independent restatement of the published programs in NumPy, on fewer draws.
Shares have a standard error of sqrt(p (1 - p) / n).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import numpy as np

from metrics.seed import generator
from stylize.patterns import _chaos_game as game
from stylize.patterns import _contours as contours
from stylize.patterns import _neural_fractal_kernel as kernel
from stylize.patterns import exfractaldb, fractaldb, neural_fractal, one_fractal
from stylize.patterns._contractions import draw_maps

KEY = 12345
SIDE, POINTS = fractaldb.SIDE, fractaldb.POINTS


def row(what: str, reference: str, here: str, count: int) -> None:
    print(f"| {what} | {reference} | {here} | {count} |", flush=True)


def percent(flags: Iterable[bool]) -> str:
    share = 100 * float(np.mean(list(flags)))
    return f"{share:.2g} %" if share < 10 else f"{share:.0f} %"


def diverges(points: np.ndarray) -> bool:
    return not bool((np.abs(points) <= game.REACH).all())


def fractal_categories(count: int = 10_000) -> None:
    """Random 2-D systems, one orbit of 100,000 points each."""
    rng = generator(0, "pattern statistics", "fractaldb")
    fills, lost = [], []
    for _ in range(count):
        points = game.orbit(game.system(fractaldb.draw_maps(rng)), KEY, POINTS, single=True)
        lost.append(diverges(points))
        fills.append(game.fill(points, SIDE))
    rates = np.array(fills)
    row("FractalDB, filling rate >= 0.2 (accepted)", "2.0 % of 1600", percent(rates >= 0.2), count)
    row("FractalDB, >= 0.1", "21 %", percent(rates >= 0.1), count)
    row("FractalDB, >= 0.05", "41 %", percent(rates >= 0.05), count)
    row("FractalDB, diverging", "~5 %", percent(lost), count)
    good = rates[rates >= 0.2]
    row("FractalDB, filling rates of the accepted", "0.20 to 0.27 (16 of the shipped)", _range(good), len(good))


def _range(values: np.ndarray) -> str:
    return f"{values.min():.2f} to {values.max():.2f}, median {np.median(values):.2f}"


def fractal_instances(classes: int = 100) -> None:
    """The 25 weight rows of accepted categories at k = 0.4, not filtered."""
    fills, lost, factors = [], [], []
    table = fractaldb.weights(0.4)
    for class_id in range(classes):
        params = fractaldb.sample_class(0, class_id, min_fill=0)
        for number, weight in enumerate(table):
            points = game.orbit(fractaldb.instance_maps(params, number), KEY, POINTS, single=True)
            fills.append(game.fill(points, SIDE))
            lost.append(diverges(points))
            factors.append(weight[np.argmax(np.abs(weight - 1))])
    rates, gone, factor = np.array(fills), np.array(lost), np.round(factors, 1)
    row("FractalDB instances at k = 0.4: diverging", "4 % of 400", percent(gone), len(rates))
    row("... filling rate < 0.02", "9 %", percent(rates < 0.02), len(rates))
    row("... filling rate < 0.1", "25 %", percent(rates < 0.1), len(rates))
    row("... factor 1.8: diverging", "13.5 %", percent(gone[factor == 1.8]), int((factor == 1.8).sum()))
    row("... factor 1.8: < 0.05", "40 %", percent(rates[factor == 1.8] < 0.05), int((factor == 1.8).sum()))
    row("... factor 0.2: < 0.05", "23 %", percent(rates[factor == 0.2] < 0.05), int((factor == 0.2).sum()))


def solid_categories(count: int = 50_000) -> None:
    """Random 3-D systems, one orbit of 10,000 points each."""
    rng = generator(0, "pattern statistics", "exfractaldb")
    spreads, lost = [], []
    for _ in range(count):
        points = game.orbit(game.system(exfractaldb.draw_maps(rng)), KEY, exfractaldb.POINTS, single=True)
        lost.append(diverges(points))
        spreads.append(exfractaldb.spread(points))
    least = np.array(spreads)
    row("ExFractalDB, variance > 0.05 (accepted)", "1.2 % of 5000", percent(least > 0.05), count)
    row("ExFractalDB, > 0.1", "0.18 %", percent(least > 0.1), count)
    row("ExFractalDB, > 0.15", "0.04 %", percent(least > 0.15), count)
    row("ExFractalDB, diverging", "~25 %", percent(lost), count)


def raster(maps: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The pixels that hold a point, bool [SIDE,SIDE]."""
    points = game.orbit(game.System(maps, thresholds), KEY, POINTS, single=True)
    return np.asarray(game.hits(game.pixels(points, SIDE), SIDE) > 0)


def one_fractal_bases(count: int = 400) -> None:
    """Bases of two maps by singular values, and pairs of their perturbations, not filtered."""
    references = {
        3.5: ("0.041", "0.36 / 0.07"),
        4.5: ("0.19 (4.5 and 5.5)", "not measured"),
        5.5: ("0.19 (4.5 and 5.5)", "0.50 / 0.43"),
    }
    for sigma, (fill, overlap) in references.items():
        rng = generator(0, "pattern statistics", f"one-fractal {sigma}")
        bases = [draw_maps(rng, one_fractal.MAPS, sigma + rng.uniform(-0.1, 0.1)) for _ in range(count)]
        rates = [float(raster(base, game.system(base).thresholds).mean()) for base in bases]
        row(f"1p-frac, sigma {sigma}: median point filling rate", fill, f"{np.median(rates):.3f}", count)
        for variant in one_fractal.VARIANTS:
            means = [_overlap(bases, delta, variant, rng) for delta in (0.01, 0.1)]
            here = " / ".join(f"{np.mean(pairs):.2f}" for pairs in means)
            row(f"... mean IoU of two {variant} classes, delta 0.01 / 0.1", overlap, here, count)


def _overlap(bases: Sequence[np.ndarray], delta: float, variant: str, rng: np.random.Generator) -> list[float]:
    """Intersection over union of two perturbations of each base."""
    found = []
    for base in bases:
        thresholds = game.system(base).thresholds
        a, b = (raster(one_fractal.perturb(base, delta, variant, rng), thresholds) for _ in range(2))
        found.append(float((a & b).sum() / (a | b).sum()))
    return found


def neural_thresholds(count: int = 500) -> None:
    """Random networks on the square of side 10 around 0: how often a fixed threshold leaves something inside."""
    references = {"holomorphic": (33, 58, 79), "split": (33, 79, 96)}
    size, steps, window = 160, 20, neural_fractal.Window(0.0, 0.0, 10.0, 0.0, 0.4)
    frame = np.array([-5, 10 / size, 0, 5, 0, -10 / size], np.float32)
    for activation, reference in references.items():
        rng = generator(0, "pattern statistics", f"neural-fractal {activation}")
        inside: dict[float, list[bool]] = {2: [], 8: [], 32: []}
        dynamic = []
        for _ in range(count):
            weights = rng.standard_normal(kernel.WEIGHTS).astype(np.float32)
            out = np.empty((2, size * size), np.float32)
            for tau, flags in inside.items():
                kernel.orbits(weights, frame, np.uint32(1), size, 1, steps, np.float32(tau), activation != "split", out)
                flags.append(bool(out[0].mean() >= 0.05))
            params = neural_fractal.NeuralFractal(0, 0, activation, tuple(weights.tolist()), window, steps, None, 1)
            dynamic.append(neural_fractal.probe(params, window).coverage >= 0.05)
        for (tau, flags), known in zip(inside.items(), reference, strict=True):
            row(
                f"neural-fractal, {activation}: >= 5 % inside at tau = {tau}", f"{known} % of 24", percent(flags), count
            )
        row(f"neural-fractal, {activation}: the same with the dynamic threshold", "-", percent(dynamic), count)


def noise_marginal(count: int = 1_000_000) -> None:
    """P(u), u ~ U(0, 10000), of the contours; the package's own where it is installed."""
    quantiles = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]

    def show(values: np.ndarray) -> str:
        return f"{values.std(dtype=np.float64):.3f}; " + " ".join(f"{q:.2f}" for q in np.quantile(values, quantiles))

    rng = random.Random(0)
    arguments = [rng.uniform(0, 10000) for _ in range(count)]
    try:
        from noise import pnoise1

        reference = "package: " + show(np.array([pnoise1(u, repeat=1024) for u in arguments]))
    except ImportError:
        reference = "package noise: not installed"
    row("RCDB noise: std; quantiles 1 5 25 50 75 95 99 %", reference, show(contours.perlin(np.array(arguments))), count)


def main() -> None:
    print("| statistic | reference | here | draws here |\n|---|---|---|---|")
    fractal_categories()
    fractal_instances()
    solid_categories()
    noise_marginal()
    one_fractal_bases()
    neural_thresholds()


if __name__ == "__main__":
    main()
