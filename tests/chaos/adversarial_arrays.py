"""The numeric core on arrays that nobody would think of: finite or undefined, never wrong without a word.

    python tests/chaos/adversarial_arrays.py [--examples 400]

Hypothesis draws pairs of feature arrays: constant, huge, tiny, denormal, of few ranks, with duplicates, of two rows.
Every statistic must be refused by InputError, or be finite, symmetric where it is defined so, zero on equal sets where
it is biased, and independent of the order of the rows. Prints what was checked how often; ends with 1 at the first
example that fails.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from metrics.errors import InputError
from metrics.statistics.c2st import c2st
from metrics.statistics.cmmd import cmmd
from metrics.statistics.frechet import frechet
from metrics.statistics.kid import kid
from metrics.statistics.mmd import energy, rbf
from metrics.statistics.moments import Moments
from metrics.statistics.precision_recall import precision_recall
from metrics.statistics.sliced_wasserstein import sliced_wasserstein
from stylize.styles import METHODS
from stylize.styles.bank import _module as method_of
from stylize.styles.gamut import soft_gamut

CHECKED: Counter[str] = Counter()


@st.composite
def features(draw: st.DrawFn, width: int) -> np.ndarray:
    """``float32 [N,width]``."""
    rows, kind = draw(st.integers(2, 40)), draw(st.sampled_from(KINDS))
    values = np.random.default_rng(draw(st.integers(0, 2**31))).standard_normal((rows, width))
    return KIND[kind](values).astype(np.float32)


KIND: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normal": lambda x: x,
    "constant": lambda x: np.full_like(x, 3.0),
    "zero": np.zeros_like,
    "huge": lambda x: x * 1e12,
    "tiny": lambda x: x * 1e-12,
    "denormal": lambda x: x * 1e-40,
    "far": lambda x: x * 1e-3 + 1e4,
    "one rank": lambda x: np.outer(x[:, 0], np.ones(x.shape[1])),
    "copies": lambda x: np.repeat(x[:1], len(x), 0) + (np.arange(len(x)) < 2)[:, None],
    "one outlier": lambda x: x * np.where(np.arange(len(x)) == 0, 1e6, 1)[:, None],
}
KINDS = sorted(KIND)


def check(name: str, value: Callable[[], float]) -> float | None:
    """A number that is finite; None where it is refused."""
    try:
        found = float(value())
    except InputError as error:
        assert "\n" not in str(error)
        CHECKED[f"{name}: refused"] += 1
        return None
    assert np.isfinite(found), (name, found)
    CHECKED[name] += 1
    return found


STATISTICS: dict[str, Callable[[torch.Tensor, torch.Tensor], float]] = {
    "kid": lambda x, y: kid(x, y).value,
    "rbf": lambda x, y: rbf(x, y).value,
    "energy": lambda x, y: energy(x, y).value,
    "cmmd": lambda x, y: cmmd(x, y).value,
    "frechet": lambda x, y: frechet(x, y).value,
    "sliced": lambda x, y: sliced_wasserstein(x, y).value,
}


def statistics(x: np.ndarray, y: np.ndarray, order: int) -> None:
    """Every statistic of a pair, the other way round, and with its rows in another order.

    These hold in float64; in float32, whose dot products round, a value is only asked to be finite.
    """
    for name, statistic in STATISTICS.items():
        check(f"{name} in float32", partial(statistic, torch.from_numpy(x), torch.from_numpy(y)))
    a, b = torch.from_numpy(x).double(), torch.from_numpy(y).double()
    turned = torch.from_numpy(np.random.default_rng(order).permutation(x)).double()
    scale = float(max(np.abs(x).max(), np.abs(y).max(), 1e-30))
    for name, statistic in STATISTICS.items():
        found = check(name, partial(statistic, a, b))
        one_sided = name == "rbf"  # its bandwidth is the reference's
        mirrored = found if one_sided else check(f"{name} mirrored", partial(statistic, b, a))
        shuffled = check(f"{name} shuffled", partial(statistic, turned, b))
        assert (found is None) == (mirrored is None) == (shuffled is None), name
        if found is not None and mirrored is not None and shuffled is not None:
            slack = 1e-6 * (abs(found) + _size(name, scale, x.shape[1]))
            assert abs(found - mirrored) <= slack, (name, found, mirrored)
            assert abs(found - shuffled) <= slack, (name, found, shuffled)
    for name, one in {"frechet": frechet, "sliced": sliced_wasserstein}.items():
        zero = check(f"{name} of equal sets", lambda one=one: one(a, turned).value)
        assert zero is None or abs(zero) <= 1e-6 * _size(name, scale, x.shape[1]), (name, zero)


def _size(name: str, scale: float, width: int) -> float:
    """What a distance of rows of this size may be."""
    return {"kid": (scale**2 + 1) ** 3, "frechet": width * scale**2, "energy": scale * width**0.5}.get(
        name, max(scale, 1.0)
    )


def merging(x: np.ndarray, cut: int) -> None:
    """Moments of parts, merged, are those of the whole."""
    cut = max(1, min(cut, len(x) - 1))
    whole, merged, rest = (Moments(x.shape[1], "test") for _ in range(3))
    for state, rows in ((whole, x), (merged, x[:cut]), (rest, x[cut:])):
        state.update(torch.from_numpy(rows))
    merged.merge(rest)
    size = float(np.square(x.astype(np.float64)).sum()) + 1e-300
    assert merged.n == whole.n
    assert float((merged.m2 - whole.m2).abs().max()) <= 1e-9 * size
    CHECKED["moments merged"] += 1


def judged(x: np.ndarray, y: np.ndarray) -> None:
    """Statistics that need more rows: refused or in [0, 1]."""
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    found = check("c2st", lambda: c2st(a, b, permutations=3).value)
    assert found is None or 0 <= found <= 1
    check("precision", lambda: precision_recall(a, b).precision)


def styled(values: np.ndarray, low: float, high: float, strength: float) -> None:
    """Every closed-form method, from any image to any style: finite and in [0, 1]."""
    content = torch.from_numpy(values[None].astype(np.float32))
    style = (content.flip(-1) * (high - low) + low).clamp(0, 1)
    for name in METHODS:
        if name in ("network", "gatys", "nnst", "crops", "patches"):
            continue
        module = method_of(name)
        result = module.transfer(content, method_of(module.STATISTICS).learn(style), strength, [0])
        assert torch.isfinite(result).all(), name
        shown = soft_gamut(content, result)
        assert torch.isfinite(shown).all() and shown.min() >= 0 and shown.max() <= 1, name
        CHECKED[f"style {name}"] += 1


def main() -> int:
    """Run the campaign; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=400)
    count = parser.parse_args().examples
    torch.set_num_threads(1)
    often = settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    seldom = settings(often, max_examples=max(count // 8, 10))
    pair = {"x": features(5), "y": features(5)}
    seed(0)(often(given(**pair, order=st.integers(0, 99))(statistics)))()
    seed(0)(often(given(x=features(5), cut=st.integers(1, 40))(merging)))()
    seed(0)(seldom(given(**pair)(judged)))()
    images = st.builds(
        _image, st.integers(0, 2**31), st.sampled_from(("noise", "flat", "black", "white", "step", "dot"))
    )
    unit = st.floats(0, 1)
    seed(0)(seldom(given(values=images, low=unit, high=unit, strength=unit)(styled)))()
    for name, times in sorted(CHECKED.items()):
        print(f"{times:6} {name}")
    print(f"{sum(CHECKED.values())} checks, 0 failures")
    return 0


def _image(number: int, kind: str) -> np.ndarray:
    values = np.random.default_rng(number).random((3, 32, 32))
    shapes = {
        "flat": values * 0 + values[:, :1, :1],
        "black": values * 0,
        "white": values * 0 + 1,
        "step": (np.arange(32) > 16) * np.ones((3, 32, 1)),
        "dot": np.where(np.indices((32, 32)).sum(0) == 3, values, 0.5),
    }
    return np.asarray(shapes.get(kind, values))


if __name__ == "__main__":
    sys.exit(main())
