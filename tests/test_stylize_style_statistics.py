import itertools
from importlib import import_module

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from skimage.exposure import match_histograms

from stylize.styles.methods import _steerable, fda, histogram, patches, pyramid, sliced, spectrum
from stylize.styles.plausible import fault

METHODS = {"histogram": histogram, "fda": fda, "spectrum": spectrum, "pyramid": pyramid, "sliced": sliced}
MAPS = ("histogram", "fda", "sliced")  # no noise is added
JOINT = ("spectrum", "pyramid", "sliced")  # channels are moved together


def batch(*pictures):
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in pictures]).float() / 255


def rough(picture, seed, height=64, width=64, sigma=25):
    noise = np.random.default_rng(seed).normal(0, sigma, (height, width, 3))
    return batch(np.clip(picture(seed, height, width) + noise, 0, 255).astype(np.uint8))


def grey(images):
    return images.mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


# --- one contract ---------------------------------------------------------------------------------------------------


def test_strength_zero_is_the_identity(method, picture):
    images, style = rough(picture, 1), method.learn(rough(picture, 5))
    torch.testing.assert_close(method.transfer(images, style, 0.0, [3]), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("content", ["smooth", "rough", "binary", "flat"])
def test_style_equal_to_content_is_the_identity(method, content, picture):
    images = {
        "smooth": batch(picture(1, 48, 60)),
        "rough": rough(picture, 1, 48, 60),
        "binary": (batch(picture(1, 48, 60)) > 0.5).float(),
        "flat": torch.full((1, 3, 48, 60), 0.3),
    }[content]
    result = method.transfer(images, method.learn(images), 1.0, [3])
    torch.testing.assert_close(result, images, rtol=0, atol=1 / 510)  # within the rounding of 8 bits


def test_strength_moves_steadily(method, picture):
    images, style = rough(picture, 1), method.learn(rough(picture, 5, sigma=5))
    moved = [float((method.transfer(images, style, a, [3]) - images).abs().mean()) for a in (0, 0.25, 0.5, 0.75, 1)]
    assert all(b > a for a, b in itertools.pairwise(moved))


def test_rows_of_a_batch_do_not_mix(method, picture):
    images = torch.cat([rough(picture, seed, 40, 33) for seed in range(3)])
    style = method.learn(images.flip(0))
    together = method.transfer(images, style, 1.0, range(3))
    for i in range(3):
        alone = method.transfer(images[i : i + 1], {name: t[i : i + 1] for name, t in style.items()}, 1.0, [i])
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-3)  # bit-equality is the bank's promise


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (33, 17), (96, 150)])
@pytest.mark.parametrize("style_shape", [(16, 16), (50, 41)])
def test_any_size_stays_finite(method, shape, style_shape, picture):
    images = batch(picture(1, *shape))
    result = method.transfer(images, method.learn(batch(picture(5, *style_shape))), 1.0, [1])
    assert result.shape == images.shape and result.dtype == torch.float32 and torch.isfinite(result).all()


def test_statistics_are_compact_and_never_depend_on_the_size(method, picture):
    learnt = [method.learn(batch(picture(1, *shape))) for shape in [(16, 16), (33, 70)]]
    for a, b in zip(*(held.items() for held in learnt), strict=True):
        assert a[0] == b[0] and a[1].shape == b[1].shape and a[1].dtype == b[1].dtype
    assert sum(t.numel() * t.element_size() for t in learnt[0].values()) < 100_000
    assert all(torch.isfinite(t).all() for t in method.learn(torch.zeros(1, 3, 16, 16)).values())


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", MAPS)
def test_a_map_leaves_flat_content_flat(name, value, picture):
    flat = torch.full((1, 3, 60, 44), value)
    result = METHODS[name].transfer(flat, METHODS[name].learn(rough(picture, 5)), 1.0, [1])
    torch.testing.assert_close(result, result[..., :1, :1].expand_as(result), rtol=0, atol=1e-3)  # no stripes, no noise


def test_flat_and_binary_content_and_style_stay_finite(method, picture):
    binary = (grey(batch(picture(3))) > 0.5).float()
    flat = torch.full((1, 3, 64, 64), 0.5)
    for content, style in itertools.product([binary, flat, rough(picture, 1)], repeat=2):
        result = method.transfer(content, method.learn(style), 1.0, [1])
        assert torch.isfinite(result).all() and result.abs().max() < 4


@pytest.mark.parametrize("name", JOINT)
def test_a_grey_style_takes_the_colour_away(name, picture):
    def chroma(images):
        return float((images - grey(images)).std())

    content, style = rough(picture, 1), grey(rough(picture, 5))
    result = METHODS[name].transfer(content, METHODS[name].learn(style), 1.0, [1])
    assert chroma(result) < 0.55 * chroma(content)


def test_only_noise_depends_on_the_seed(method, picture):
    images, style = batch(picture(1)), method.learn(rough(picture, 5))
    first, again, other = (method.transfer(images, style, 1.0, [seed]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (method not in (spectrum, pyramid))


# --- histogram: maps on a line --------------------------------------------------------------------------------------


def test_histogram_is_that_of_scikit_image(picture):
    content, style = rough(picture, 1, 96, 80), rough(picture, 5, 70, 90)
    arrays = [(image[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8) for image in (content, style)]
    expected = match_histograms(arrays[0], arrays[1], channel_axis=-1) / 255
    ours = histogram.transfer(content, histogram.learn(style), 1.0, [0])[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - expected).mean() < 0.6 / 255  # half a rank of an 8-bit level apart
    assert np.quantile(np.abs(ours - expected), 0.99) < 2 / 255


def test_histogram_reaches_the_distribution_of_the_style(picture):
    content, style = batch(picture(1, 96, 80)), rough(picture, 5)
    result = histogram.transfer(content, histogram.learn(style), 1.0, [0])
    for channel in range(3):
        distance = wasserstein_distance(result[0, channel].flatten().numpy(), style[0, channel].flatten().numpy())
        assert distance < 0.5 / 255


def test_histogram_gives_equal_values_the_middle_of_their_ranks():
    content = torch.zeros(1, 3, 20, 20)
    content[..., 5:] = 1.0  # 25 % zeros, 75 % ones
    style = torch.linspace(0, 1, 400).view(1, 1, 20, 20).expand(-1, 3, -1, -1)
    result = histogram.transfer(content, histogram.learn(style), 1.0, [0])
    torch.testing.assert_close(result[..., :5], torch.full((1, 3, 20, 5), 0.125), rtol=0, atol=0.01)
    torch.testing.assert_close(result[..., 5:], torch.full((1, 3, 20, 15), 0.625), rtol=0, atol=0.01)


@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform"])
def test_quantiles_split_the_values_at_their_levels(draw):
    values = getattr(np.random.default_rng(0), draw)(size=(2, 5000)).astype(np.float32)
    levels = (1 - np.cos(np.linspace(0, np.pi, 64))) / 2
    ours = histogram.quantiles(torch.from_numpy(values), 64).numpy()
    for row, found in zip(values, ours, strict=True):
        bin_width = np.ptp(row) / histogram.BINS
        below, above = (np.mean(row[:, None] <= found + side * bin_width, 0) for side in (-1, 1))
        assert (below <= levels + 1e-4).all() and (above >= levels - 1e-4).all()
        np.testing.assert_allclose(found[16:48], np.quantile(row, levels[16:48]), atol=2 * bin_width)
    np.testing.assert_array_equal(ours[:, [0, -1]], np.stack([values.min(1), values.max(1)], 1))


def test_displacement_is_numpys_interpolation():
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=9000), rng.laplace(size=9000)]
    source, target = (histogram.quantiles(torch.from_numpy(values).float(), 128) for values in drawn)
    values = torch.from_numpy(drawn[0]).float()
    ours = values + histogram.displacement(values, source, target)
    np.testing.assert_allclose(ours.numpy(), np.interp(values, source, target), atol=0.02)
    outside = torch.tensor([-9.0, 9.0])
    moved = histogram.displacement(outside, source, target)
    torch.testing.assert_close(moved, (target - source)[[0, -1]], rtol=0, atol=1e-6)


def test_limited_slopes_stay_inside_and_keep_the_mean():
    rng = np.random.default_rng(0)
    source, wanted = (histogram.quantiles(torch.from_numpy(rng.laplace(0, s, 9000)).float(), 128) for s in (0.01, 0.3))
    bent = histogram.limited(source, wanted, 4.0)
    slopes = bent.diff() / source.diff()
    assert slopes.min() >= 0.25 - 1e-3 and slopes.max() <= 4 + 1e-3
    levels = (1 - np.cos(np.linspace(0, np.pi, 128))) / 2
    assert np.trapezoid(bent.numpy(), levels) == pytest.approx(np.trapezoid(wanted.numpy(), levels), abs=1e-4)
    torch.testing.assert_close(histogram.limited(source, 2 * source + 1, 4.0), 2 * source + 1, rtol=0, atol=1e-5)


# --- Fourier domain adaptation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 64), (45, 60)])
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_fda_is_the_equation_of_the_paper(shape, strength, picture, monkeypatch):
    monkeypatch.setattr(fda, "BETA", 0.1)
    content, style = rough(picture, 1, *shape), rough(picture, 5, *shape)
    reach, centre = int(0.1 * min(shape)), [side // 2 for side in shape]
    expected = []
    for x, s in zip(content[0].double().numpy(), style[0].double().numpy(), strict=True):
        fx, fs = (np.fft.fftshift(np.fft.fft2(channel)) for channel in (x, s))
        window = tuple(slice(c - reach, c + reach + 1) for c in centre)
        amplitude = np.abs(fx)
        amplitude[window] = (1 - strength) * amplitude[window] + strength * np.abs(fs)[window]
        result = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * np.angle(fx))))
        assert np.abs(result.imag).max() < 1e-12  # a symmetric window loses nothing when the real part is taken
        expected.append(result.real)
    ours = fda.transfer(content, fda.learn(style), strength, [0])[0].numpy()
    np.testing.assert_allclose(ours, np.stack(expected), atol=1e-3)


def test_fda_gives_the_mean_of_the_style_whatever_the_sizes(picture):
    result = fda.transfer(rough(picture, 1, 90, 70), fda.learn(rough(picture, 5, 40, 48)), 1.0, [0])
    torch.testing.assert_close(result.mean((-1, -2)), rough(picture, 5, 40, 48).mean((-1, -2)), rtol=0, atol=1e-3)


# --- steerable pyramid ----------------------------------------------------------------------------------------------

SHAPES = [(64, 64), (48, 80), (33, 17), (75, 100), (8, 8), (3, 2), (1, 5)]


def bands_of(images):
    return _steerable.analyse(torch.fft.rfft2(images, norm="forward"), images.shape[-1])


@pytest.mark.parametrize("shape", SHAPES)
def test_pyramid_reconstructs(shape):
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, *shape))).float()
    bands = bands_of(images)
    assert sum(band.shape[2] for band in bands) == _steerable.BANDS
    torch.testing.assert_close(_steerable.synthesise(bands, *shape), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_pyramid_is_a_tight_frame(shape):
    images = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, *shape))).float()
    energy = sum(band.square().mean((-1, -2)).sum(-1) for band in bands_of(images))
    torch.testing.assert_close(energy, images.square().mean((-1, -2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("octave", range(4))
@pytest.mark.parametrize(("direction", "shares"), [(0, [0.8, 0.1, 0, 0.1]), (1, [0.1, 0.8, 0.1, 0])])
def test_a_grating_lands_in_its_octave_and_orientations(octave, direction, shares):
    """cos³ lobes at 45° steps: 4/5 cos⁶ of the angle between grating and band is the band's share of the energy."""
    cycles = 32 / 2**octave  # of 128 px: a quarter cycle per pixel at the finest octave, the middle of its band
    vertical = cycles if direction else 0
    rows, columns = np.mgrid[:128, :128] / 128
    wave = np.cos(2 * np.pi * (vertical * rows + cycles * columns))
    bands = bands_of(torch.from_numpy(wave)[None, None].float())
    radial = 1.0
    if direction:  # √2 · ¼ cycles per pixel: half an octave up, where low- and high-pass share equally
        radial = np.cos(np.pi / 4) ** 2
    energy = bands[1 + octave].square().mean((-1, -2))[0, 0].numpy()
    np.testing.assert_allclose(energy, radial * np.array(shares) / 2, atol=1e-5)


def test_periodic_component_is_the_minimum_of_moisans_energy():
    height, width = 5, 6
    image = np.random.default_rng(0).normal(size=(height, width))
    index = np.arange(height * width).reshape(height, width)
    rows, right = [], []

    def add(i, j, wanted):
        row = np.zeros(height * width)
        row[i], row[j] = 1, -1
        rows.append(row)
        right.append(wanted)

    flat = image.ravel()
    for a, b in [(index[1:], index[:-1]), (index[:, 1:], index[:, :-1])]:  # inside: gradients of the image are kept
        for i, j in zip(a.ravel(), b.ravel(), strict=True):
            add(i, j, flat[i] - flat[j])
    for i, j in [*zip(index[0], index[-1], strict=True), *zip(index[:, 0], index[:, -1], strict=True)]:
        add(i, j, 0.0)  # across the border: no jump
    rows.append(np.ones(height * width))
    right.append(flat.sum())
    expected = np.linalg.lstsq(np.stack(rows), np.array(right), rcond=None)[0].reshape(height, width)
    spectrum_ = _steerable.periodic_spectrum(torch.from_numpy(image)[None, None].float())
    ours = torch.fft.irfft2(spectrum_, s=(height, width), norm="forward")[0, 0]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)


# --- pyramid marginals ----------------------------------------------------------------------------------------------


def band_distances(images, style):
    """Wasserstein-1 distance of each band with at least 100 coefficients, relative to the style's mean magnitude."""
    axes = pyramid.learn(style)["axes"]
    turned = [torch.einsum("nac,nchw->nahw", axes, x - style.mean((-1, -2), keepdim=True)) for x in (images, style)]
    found = []
    for own, wanted in zip(*(pyramid._bands(t) for t in turned), strict=True):
        for a, b in zip(own.flatten(0, 2).flatten(1), wanted.flatten(0, 2).flatten(1), strict=True):
            if len(a) >= 100:
                found.append(wasserstein_distance(a.numpy(), b.numpy()) / float(b.abs().mean()))
    return np.array(found)


@pytest.mark.parametrize("content", ["rough", "flat"])
def test_pyramid_brings_every_band_distribution_closer(content, picture):
    content = {"rough": rough(picture, 1, 96, 96, sigma=12), "flat": torch.full((1, 3, 96, 96), 0.4)}[content]
    heavy = np.random.default_rng(3).laplace(0, 30, (96, 96, 3))
    style = batch(np.clip(picture(5, 96, 96) + heavy, 0, 255).astype(np.uint8))
    before, after = (
        band_distances(x, style) for x in (content, pyramid.transfer(content, pyramid.learn(style), 1.0, [0]))
    )
    assert np.median(after) < 0.2 and np.median(after) < 0.3 * np.median(before)


# --- spectrum -------------------------------------------------------------------------------------------------------


def test_densities_of_white_noise_are_its_covariance():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3)) * 0.05
    noise = np.einsum("ab,bhw->ahw", mixing, rng.normal(size=(3, 400, 321)))
    density = spectrum._tile_densities(torch.from_numpy(noise)[None].float())[0].mean(0).numpy()
    density = density[3:]  # the lowest lose what goes with a tile's mean
    expected = mixing @ mixing.T
    np.testing.assert_allclose(density, np.broadcast_to(expected, density.shape), atol=0.15 * np.abs(expected).max())


def test_density_is_welchs_estimate(picture):
    image = rough(picture, 5, 64, 64)[0, 1].double().numpy()
    window = np.outer(*[np.hanning(34)[1:-1]] * 2)
    knots, frequencies = spectrum.LOWEST * 2 ** (np.arange(spectrum.KNOTS) / spectrum.PER_OCTAVE), np.fft.fftfreq(32)
    radius = np.hypot(frequencies[:, None], frequencies)
    place = np.log2(np.maximum(radius, 1e-9) / spectrum.LOWEST) * spectrum.PER_OCTAVE
    means = []
    for top, left in itertools.product((0, 16, 32), repeat=2):
        tile = image[top : top + 32, left : left + 32]
        tile = (tile - np.average(tile, weights=window)) * window
        means.append(np.abs(np.fft.fft2(tile)) ** 2 / (window**2).sum())
    ours = spectrum._tile_densities(rough(picture, 5, 64, 64))[0].mean(0)[:, 1, 1].numpy()
    for knot in range(6, len(knots)):  # those below lie between the frequencies of a tile
        weights = np.maximum(0, 1 - np.abs(place - knot))
        assert ours[knot] == pytest.approx(np.average(np.mean(means, 0), weights=weights), rel=1e-4)


def test_a_few_strong_tiles_do_not_lift_the_typical_density(picture):
    edges = torch.full((1, 3, 128, 128), 0.3)
    edges[..., :, 60:70] = 0.9
    tiles = spectrum._tile_densities(edges)
    mean, typical = tiles.mean(1)[0, -4], spectrum._typical(tiles)[0, -4]
    assert typical.trace() < 0.1 * mean.trace()
    even = spectrum._tile_densities(torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 3, 128, 128))).float())
    torch.testing.assert_close(spectrum._typical(even)[0, -4], even.mean(1)[0, -4], rtol=0.1, atol=5e-4)


def relative_errors(images, style, kind):
    own, wanted = spectrum.learn(images)[kind][0], style[kind][0]
    return (torch.linalg.norm(own - wanted, dim=(1, 2)) / torch.linalg.norm(wanted, dim=(1, 2))).numpy()


@pytest.mark.parametrize("kind", ["density", "typical"])
def test_spectrum_gives_even_flat_content_the_densities_of_the_style(kind, picture):
    style = spectrum.learn(rough(picture, 5, 128, 128))
    flat = torch.full((1, 3, 128, 128), 0.5)
    errors = relative_errors(spectrum.transfer(flat, style, 1.0, [1]), style, kind)
    assert np.median(errors) < 0.2 and relative_errors(flat, style, kind).min() > 0.9


def test_spectrum_brings_every_density_closer(picture):
    style = spectrum.learn(rough(picture, 5, 96, 110))
    content = rough(picture, 1, 128, 90, sigma=8)
    before = relative_errors(content, style, "density")
    after = relative_errors(spectrum.transfer(content, style, 1.0, [1]), style, "density")
    assert np.median(after) < 0.35 * np.median(before)


# --- sliced ---------------------------------------------------------------------------------------------------------


def test_bases_are_orthonormal_and_fixed():
    for basis in sliced._bases(torch.device("cpu")):
        matrix = basis.flatten(1)
        torch.testing.assert_close(matrix @ matrix.mT, torch.eye(27), rtol=0, atol=1e-5)


def test_a_step_equals_moving_all_patches_and_averaging_the_overlaps(picture):
    image, style = rough(picture, 1, 14, 12), sliced.learn(rough(picture, 5))
    basis, target = sliced._bases(image.device)[0], style["quantiles/1"][:, 0]
    p, matrix = patches.PATCH, basis.flatten(1)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2), mode="reflect")[0]
    corners = [(y, x) for y in range(16) for x in range(14)]  # slow and obvious: one patch at a time
    values = torch.stack([matrix @ padded[:, y : y + p, x : x + p].reshape(27) for y, x in corners], 1)
    source = histogram.quantiles(values, sliced.KNOTS)
    moves = histogram.displacement(values, source, histogram.limited(source, target[0], sliced.GAIN))
    sums = torch.zeros_like(padded)
    for (y, x), move in zip(corners, moves.T, strict=True):
        sums[:, y : y + p, x : x + p] += (matrix.T @ move).view(3, p, p)
    torch.testing.assert_close(sliced._step(image, basis, target)[0], sums[:, 2:-2, 2:-2] / p**2, rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", patches.LEVELS)
def test_patches_come_closer_along_directions_that_were_not_used(factor, picture):
    content, style = 0.4 + 0.4 * rough(picture, 1, 96, 96, sigma=10), rough(picture, 5, 96, 96, sigma=30)
    result = sliced.transfer(content, sliced.learn(style), 1.0, [0])
    directions = torch.linalg.qr(torch.from_numpy(np.random.default_rng(9).normal(size=(27, 27))).float()).Q

    def lines(images):
        return torch.nn.functional.conv2d(patches.reduced(images, factor), directions.view(27, 3, 3, 3))[0].flatten(1)

    wanted = lines(style)

    def distance(images):
        pairs = zip(lines(images).numpy(), wanted.numpy(), strict=True)
        return np.mean([wasserstein_distance(a, b) for a, b in pairs])

    assert distance(result) < 0.4 * distance(content)


def test_methods_are_found_by_their_names():
    for name, module in METHODS.items():
        assert (
            import_module(f"stylize.styles.methods.{module.STATISTICS}").learn is module.learn
            and name == module.STATISTICS
        )


def test_a_bank_accepts_the_statistics_of_any_image(method, picture):
    for image in (torch.zeros(1, 3, 16, 16), (batch(picture(3)) > 0.5).float(), rough(picture, 1)):
        for name, values in method.learn(image).items():
            assert fault(f"{method.STATISTICS}/{name}", values) is None, name
