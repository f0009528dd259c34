"""The baseline families beside straightforward statements of how the original scripts work: one image after another.

Run:      python benchmarks/baselines.py

The statements are our own; they use Pillow's polygons, NumPy's complex FFT, scikit-image's Canny and loops over leaves
and pixels. CPU seconds of one thread, medians; ours includes the draws, the selection and the bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage import feature

from stylize.patterns import dead_leaves, moire, one_image, spectrum_noise

SIZE = 128  # the small scale of the published sets
PHOTO = Path(__file__).parent.parent / one_image.SHIPPED


def measure(work: Callable[[int], object], repeats: int) -> float:
    """Median CPU seconds of ``work`` over instances."""
    work(0)
    seconds = []
    for k in range(repeats):
        start = time.process_time()
        work(k)
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))


def pillow_leaves(instance: int) -> np.ndarray:
    """Published dead leaves, mixed: draw a shape on the image, look at every pixel for ground, repeat."""
    rng = np.random.default_rng(instance)
    picture = Image.new("RGB", (SIZE, SIZE))
    brush = ImageDraw.Draw(picture)
    grid = np.linspace(0.03, 1, 200)
    total = np.cumsum(grid**-3 - 1)
    for _ in range(5000):
        shape = rng.choice(dead_leaves.SHAPES)
        colour = tuple(int(255 * v) for v in rng.random(3))
        radius = max(int(grid[np.argmin(np.abs(total / total[-1] - rng.random()))] * SIZE), 1)
        x, y = (rng.random(2) * SIZE).astype(int).tolist()
        if shape == "circle":
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        else:
            turn = 2 * math.pi * rng.random(4)
            angles = {
                "square": math.pi / 4 + math.pi / 2 * np.arange(4),
                "oriented-square": turn[0] + math.pi / 2 * np.arange(4),
                "rectangle": np.array([1, -1, 1, -1]) * turn[0] / 4 + np.array([0, math.pi, math.pi, 2 * math.pi]),
                "triangle": np.sort(turn[:3]),
                "quadrilateral": np.sort(turn),
            }[str(shape)]
            brush.polygon([(int(x + radius * math.cos(a)), int(y + radius * math.sin(a))) for a in angles], fill=colour)
        image = np.asarray(picture)
        if not (image.sum(-1) == 0).any():
            break
    return image


def numpy_spectrum(instance: int, colour: bool) -> np.ndarray:
    """Published spectrum noise: ten passes over whole complex spectra, with np.unique for the histograms."""
    params = spectrum_noise.sample_class(0, 0, colour=colour)
    channels = spectrum_noise.white(params, instance, SIZE)
    x, y = np.meshgrid(np.abs(np.fft.fftfreq(SIZE)), np.abs(np.fft.fftfreq(SIZE)))
    magnitude = 1 / (1e-16 + x ** params.exponents[0] + y ** params.exponents[1])
    magnitude[0, 0] = 0
    model = spectrum_noise.draw_colours(params, instance, SIZE)
    levels, bins = spectrum_noise.histograms(model)
    for _ in range(10):
        for c in range(3):
            mean, deviation = channels[c].mean(), channels[c].std()
            phase = np.angle(np.fft.fft2(channels[c] - mean))
            shaped = np.real(np.fft.ifft2(magnitude * np.exp(1j * phase)))
            channels[c] = (shaped - shaped.mean()) / shaped.std() * deviation + mean
            if colour:
                _, which, counts = np.unique(channels[c], return_inverse=True, return_counts=True)
                at = np.cumsum(counts) / channels[c].size
                channels[c] = np.interp(at, levels[c], bins[c])[which].reshape(SIZE, SIZE)
    rgb = np.tensordot(model.axes, channels, 1) + model.mean[:, None, None]
    return ((rgb - rgb.min()) / (rgb.max() - rgb.min()) * 255).astype(np.uint8)


def looped_moire(instance: int) -> np.ndarray:
    """The formula, one pixel after another."""
    params = moire.sample_class(0, 0, combine="product")
    (x1, y1), (x2, y2) = (SIZE * moire.centres(params, instance)).tolist()
    values = np.empty((SIZE, SIZE))
    for i in range(SIZE):
        for j in range(SIZE):
            a = math.cos(2 * math.pi * params.frequencies[0] * math.hypot(j + 0.5 - x1, i + 0.5 - y1))
            b = math.cos(2 * math.pi * params.frequencies[1] * math.hypot(j + 0.5 - x2, i + 0.5 - y2))
            values[i, j] = a * b
    return values


def numpy_moire(instance: int) -> np.ndarray:
    """The formula in NumPy, bytes included."""
    params = moire.sample_class(0, 0, combine="product")
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    a, b = (
        np.cos(2 * np.pi * f * np.hypot(x - c[0], y - c[1]))
        for f, c in zip(params.frequencies, SIZE * moire.centres(params, instance), strict=True)
    )
    values = a * b
    grey = np.rint(255 * (values - values.min()) / (values.max() - values.min())).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2)


def edges_and_affine(instance: int) -> np.ndarray:
    """Open the photo, crop, resize, Canny of scikit-image, affine map of Pillow."""
    params = one_image.sample_class(0, 0, photo=PHOTO)
    with Image.open(PHOTO) as photo:
        left = (photo.width - photo.height) // 2
        square = photo.convert("L").crop((left, 0, left + photo.height, photo.height))
    grey = np.asarray(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS), np.float64)
    edges = feature.canny(grey, params.sigma * SIZE, *params.thresholds, use_quantiles=True)
    a, b, e, c, d, f = one_image._inverse(one_image.place(params, instance))
    half = SIZE / 2
    pixels = (a, b, SIZE * e + half - half * (a + b), c, d, SIZE * f + half - half * (c + d))
    mapped = (
        Image.fromarray(edges)
        .convert("L")
        .transform((SIZE, SIZE), Image.Transform.AFFINE, pixels, Image.Resampling.BILINEAR)
    )
    return np.asarray(mapped.convert("RGB"))


def main() -> None:
    torch.set_num_threads(1)
    leaves = dead_leaves.sample_class(0, 0, shape="mixed", exponent=3.0, smallest=0.03, limit=5000, select=False)
    noise, colours = (spectrum_noise.sample_class(0, 0, colour=colour) for colour in (False, True))
    rings = moire.sample_class(0, 0, combine="product")
    photo = one_image.sample_class(0, 0, photo=PHOTO)
    rows: list[tuple[str, Callable[[int], object], dict[str, Callable[[int], object]]]] = [
        ("dead-leaves", lambda k: dead_leaves.render(leaves, k, SIZE), {"Pillow loop": pillow_leaves}),
        (
            "spectrum-noise",
            lambda k: spectrum_noise.render(noise, k, SIZE),
            {"NumPy, ten passes": lambda k: numpy_spectrum(k, False)},
        ),
        (
            "spectrum-noise, colour",
            lambda k: spectrum_noise.render(colours, k, SIZE),
            {"NumPy, np.unique": lambda k: numpy_spectrum(k, True)},
        ),
        ("moire", lambda k: moire.render(rings, k, SIZE), {"pixel loop": looped_moire, "NumPy": numpy_moire}),
        ("one-image", lambda k: one_image.render(photo, k, SIZE), {"scikit-image + Pillow": edges_and_affine}),
    ]
    print(f"{SIZE} x {SIZE} pixels, one thread")
    for name, ours, others in rows:
        seconds = measure(ours, 40)
        print(f"{name:24s} {1 / seconds:8.1f} images/s")
        for other, work in others.items():
            slow = measure(work, 3 if other.endswith("loop") else 8)
            print(f"    {other:22s} {1 / slow:6.1f} images/s; ours is {slow / seconds:.1f} times as fast")
    floor()


def floor() -> None:
    """What bounds each family: stores, Fourier transforms, cosines."""
    leaves = dead_leaves.sample_class(0, 0, shape="mixed", exponent=3.0, smallest=0.03, limit=5000, select=False)
    count = len(dead_leaves.render_leaves(leaves, 0, SIZE).colours) - 1
    rng = np.random.default_rng(0)
    cube, plane = rng.random((3, SIZE, SIZE)), rng.random((SIZE, SIZE))
    there_and_back = measure(lambda _: spectrum_noise.fft.irfft2(spectrum_noise.fft.rfft2(cube)), 20)
    sort, cosine = measure(lambda _: cube.reshape(3, -1).argsort(1), 20), measure(lambda _: np.cos(plane), 20)
    print(f"dead-leaves: {count} leaves in the first image, each drawn, shaped and painted as row spans")
    print(
        f"spectrum-noise: one pair of real FFTs {1e3 * there_and_back:.2f} ms, one sort {1e3 * sort:.2f} ms (ten each)"
    )
    print(f"moire: NumPy's cosine alone {1e9 * cosine / plane.size:.1f} ns per pixel; the formula needs two of them")


if __name__ == "__main__":
    main()
