import itertools

import numpy as np
import ot
import pytest
import scipy.stats
import torch

from metrics.seed import generator
from stylize.styles.methods import _subbands, _texton, crops, gmm, regions
from stylize.styles.methods.gaussian_transport import QUANTISATION

MODULES = {"regions": regions, "crops": crops, "gmm": gmm}


@pytest.fixture(params=MODULES)
def method(request):
    return MODULES[request.param]


def batch(*pictures):
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in pictures]).float() / 255


def grainy(picture, seed, side=96):
    """A smooth picture with grain: something that has both layout and detail."""
    grain = np.random.default_rng(seed).normal(0, 25, (side, side, 3))
    return batch(np.clip(picture(seed, side, side) + grain, 0, 255).astype(np.uint8))


def striped(shape=(64, 64)):
    """Three flat bands of different greys, 20 / 22 / 22 rows of 64."""
    rows = np.repeat([0.2, 0.5, 0.9], [20, 22, 22])
    return torch.from_numpy(np.broadcast_to(rows[None, :, None], (3, 64, 64)).copy()).float()


# --- one contract ---------------------------------------------------------------------------------------------------


def test_strength_zero_is_exactly_the_identity(method, picture):
    images = batch(picture(1))
    assert torch.equal(method.transfer(images, method.learn(batch(picture(5))), 0.0, [3]), images)


def test_strength_moves_steadily(method, picture):
    images, style = batch(picture(1)), method.learn(grainy(picture, 5))
    moved = [float((method.transfer(images, style, a, [3]) - images).abs().mean()) for a in (0, 0.25, 0.5, 0.75, 1)]
    assert all(b > a for a, b in itertools.pairwise(moved))


def test_statistics_have_one_shape_and_are_small(method, picture):
    held = [method.learn(batch(picture(5, *shape))) for shape in ((8, 8), (16, 16), (33, 70), (128, 128))]
    for name, values in held[0].items():
        assert all(other[name].shape == values.shape and other[name].dtype == values.dtype for other in held), name
        assert all(torch.isfinite(other[name]).all() for other in held), name
    assert sum(values.numel() * values.element_size() for values in held[0].values()) < 110_000


def test_statistics_pass_for_those_of_images(method, picture):
    """Names with mean or covariance hold what a style file is checked for."""
    for images in (grainy(picture, 5), torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)):
        for name, values in method.learn(images).items():
            if "mean" in name:
                assert values.min() >= 0 and values.max() <= 1
            if "covariance" in name:
                torch.testing.assert_close(values, values.mT, rtol=0, atol=1e-9)
                assert torch.linalg.eigvalsh(values).min() > -1e-9 and values.abs().max() <= 0.25


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (33, 17), (65, 97)])
def test_any_size_stays_finite(method, shape, picture):
    images, style = batch(picture(1, *shape)), method.learn(batch(picture(5, 50, 50)))
    result = method.transfer(images, style, 1.0, [1])
    assert result.shape == images.shape and result.dtype == torch.float32 and torch.isfinite(result).all()


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_content_and_flat_style_stay_finite(method, value, picture):
    flat, style = torch.full((1, 3, 32, 32), value), method.learn(grainy(picture, 5))
    assert torch.isfinite(method.transfer(flat, style, 1.0, [1])).all()
    result = method.transfer(batch(picture(1)), method.learn(flat), 1.0, [1])
    assert torch.isfinite(result).all()
    assert (result - value).abs().max() < 0.5  # the content's drawing may show, the colour is the style's
    assert (method.transfer(flat, method.learn(flat), 1.0, [1]) - value).abs().max() < 0.02


def test_grey_style_gives_grey_images(method, picture):
    style = method.learn(grainy(picture, 5).mean(1, keepdim=True).expand(-1, 3, -1, -1))
    result = method.transfer(batch(picture(1)), style, 1.0, [1])
    assert (result - result.mean(1, keepdim=True)).abs().mean() < 0.03


def test_binary_content_stays_finite(method, picture):
    binary = (batch(picture(3)).mean(1, keepdim=True) > 0.5).float().expand(-1, 3, -1, -1)
    assert torch.isfinite(method.transfer(binary, method.learn(grainy(picture, 5)), 1.0, [1])).all()


def test_same_seed_same_pixels(method, picture):
    image, style = batch(picture(1)), method.learn(grainy(picture, 5))
    first, again, other = (method.transfer(image, style, 1.0, [seed]) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_rows_of_a_batch_do_not_mix(method, picture):
    images = batch(*(picture(seed) for seed in range(3)))
    style = method.learn(images.flip(0))
    together = method.transfer(images, style, 1.0, range(3))
    for i in range(3):
        alone = method.transfer(images[i : i + 1], {name: t[i : i + 1] for name, t in style.items()}, 1.0, [i])
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-4)


# --- texton noise ---------------------------------------------------------------------------------------------------


def autocovariance(field):
    """Periodic auto- and cross-covariances ``[3,3,H,W]`` of a mean-free field ``[3,H,W]``."""
    spectrum = torch.fft.fft2(field.double() - field.double().mean((-2, -1), keepdim=True))
    product = spectrum[:, None] * spectrum[None].conj()
    return torch.fft.ifft2(product).real / field[0].numel()


def moving_average(seed, side=128):
    """A coloured stationary texture: along three colour axes, white noise through uneven little filters."""
    rng = np.random.default_rng(seed)
    filters = (
        torch.from_numpy(rng.normal(size=(3, 1, 5, 5))).float() * torch.tensor([1.0, 0.6, 0.2])[:, None, None, None]
    )
    white = torch.from_numpy(rng.standard_normal((1, 3, side, side))).float()
    padded = torch.nn.functional.pad(white, (2, 2, 2, 2), mode="circular")
    coloured = torch.nn.functional.conv2d(padded, filters, groups=3)[0]
    axes = torch.linalg.qr(torch.from_numpy(rng.normal(size=(3, 3)))).Q.float()
    return 0.5 + 0.01 * (axes @ coloured.flatten(1)).view_as(coloured)


def test_texton_noise_has_the_autocovariance_of_the_photo():
    photo = moving_average(0)
    wanted, style = autocovariance(_texton.detail_of(photo)), regions.learn(photo[None])
    pair = style["texton"][0], style["axes"][0]
    drawn = [autocovariance(_texton.noise(*pair, 128, 128, generator(seed, "test", ""))) for seed in range(30)]
    got = torch.stack(drawn).mean(0)
    scale = wanted[:, :, 0, 0].diagonal().sqrt()
    for down, right in [(0, 0), (0, 1), (1, 0), (2, 1), (-1, 2), (3, 3), (6, -2)]:
        error = (got - wanted)[:, :, down, right] / (scale[:, None] * scale)
        assert error.abs().max() < 0.06, (down, right)  # of a correlation; sampling error of the photo is about 0.03
    mirrored = wanted.flip(-1).roll(1, -1)[:, :, 1, 1] - wanted[:, :, 1, 1]
    assert (mirrored / (scale[:, None] * scale)).abs().max() > 0.1  # a mirrored texture would not pass


def test_texton_holds_no_phase_of_the_photo():
    photo = moving_average(1)
    kernels = regions.learn(photo[None])["texton"]
    torch.testing.assert_close(kernels, kernels.flip(-1, -2), rtol=0, atol=1e-6)  # even: no phase at all
    moved = regions.learn(torch.roll(photo, (17, 40), (1, 2))[None])["texton"]  # the same texture elsewhere
    assert (kernels - moved).abs().max() < 0.05 * kernels.abs().max()


# --- subband marginals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 64), (33, 50), (5, 9)])
def test_collapsing_a_pyramid_gives_the_image(shape, picture):
    image = batch(picture(1, *shape))[0]
    torch.testing.assert_close(_subbands.collapsed(_subbands.pyramid(image)), image, rtol=0, atol=1e-6)


def test_quantiles_are_those_of_numpy():
    values = torch.from_numpy(np.random.default_rng(0).standard_t(3, (3, 40, 50))).float() * 0.1
    expected = np.quantile(values.flatten(1).numpy(), _subbands.levels().numpy(), axis=1).T
    np.testing.assert_allclose(_subbands.quantiles(values).numpy(), expected, atol=2 * _subbands.STEP)


def test_matching_moves_a_marginal_to_heavy_tails():
    rng = np.random.default_rng(0)
    band = torch.from_numpy(rng.normal(0, 0.1, (3, 64, 64))).float()
    target = torch.from_numpy(rng.laplace(0, 0.05, (3, 100, 100))).float()
    moved = _subbands.matched(band, _subbands.quantiles(target))
    for channel in range(3):
        distance = scipy.stats.ks_2samp(moved[channel].flatten().numpy(), target[channel].flatten().numpy()).statistic
        assert distance < 0.02
        before = scipy.stats.ks_2samp(band[channel].flatten().numpy(), target[channel].flatten().numpy()).statistic
        assert before > 0.1
        order = band[channel].flatten().argsort()
        assert (moved[channel].flatten()[order].diff() >= -1e-6).all()  # monotone


def test_matching_keeps_equal_values_equal_and_puts_them_at_their_mid_rank():
    target = torch.linspace(0, 1, 1001).view(1, 1, -1).expand(3, 1, -1)
    band = torch.tensor([0.0] * 600 + [1.0] * 400).view(1, 1, -1).expand(3, 1, -1)
    moved = _subbands.matched(band, _subbands.quantiles(target))
    assert len(moved[0].unique()) == 2
    torch.testing.assert_close(moved[0, 0, [0, -1]], torch.tensor([0.3, 0.8]), rtol=0, atol=0.02)


def test_regions_result_has_the_heavy_tails_of_the_photo(picture):
    rng = np.random.default_rng(3)
    photo = batch(picture(5, 128, 128)) * 0.6 + 0.2
    photo = (photo + torch.from_numpy(rng.laplace(0, 0.03, (1, 1, 128, 128))).float()).clamp(0, 1)
    content = torch.nn.functional.interpolate(striped()[None], 128)
    result = regions.transfer(content, regions.learn(photo), 1.0, [1])

    def tails(image):
        return float(scipy.stats.kurtosis(_subbands.pyramid(image[0])[0].sum(0).flatten().numpy()))

    assert tails(photo) > 1.5
    assert abs(tails(result) - tails(photo)) < 0.6 * tails(photo)


# --- level sets -----------------------------------------------------------------------------------------------------


def test_level_sets_are_the_flat_areas():
    sets = regions.level_sets(striped())
    assert len(sets.unique()) == 3
    for rows in (slice(0, 20), slice(20, 42), slice(42, 64)):
        assert len(sets[rows].unique()) == 1


def test_level_sets_are_those_of_a_longer_k_means(picture):
    image = batch(picture(1))[0]
    points = image.flatten(1).T
    sets = regions.level_sets(image).flatten()
    centres = torch.stack([points[sets == region].mean(0) for region in range(regions.REGIONS)])
    loss = float((points - centres[sets]).square().sum(1).mean())
    start = np.quantile(points.sum(1).numpy(), (np.arange(regions.REGIONS) + 0.5) / regions.REGIONS)
    seeds = points[[int((points.sum(1) - s).abs().argmin()) for s in start]]
    for _ in range(200):
        member = torch.cdist(points, seeds).argmin(1)
        seeds = torch.stack([points[member == region].mean(0) for region in range(regions.REGIONS)])
    best = float(torch.cdist(points, seeds).min(1).values.square().mean())
    assert loss <= 1.1 * best


@pytest.mark.parametrize("module", [regions, gmm])
def test_level_sets_keep_their_edges(module, picture):
    content = striped()[None]
    result = module.transfer(content, module.learn(grainy(picture, 5)), 1.0, [1])[0].mean((0, 2))
    jumps = result.diff().abs()
    assert set(jumps.topk(2).indices.tolist()) == {19, 41}


def test_every_pixel_of_crops_is_one_of_the_photo(picture):
    photo = grainy(picture, 5, crops.SIDE)
    content = torch.nn.functional.interpolate(striped()[None], crops.SIDE)
    result = crops.transfer(content, crops.learn(photo), 1.0, [1])
    palette = {tuple(colour) for colour in crops.learn(photo)["pixels"][0].flatten(1).T.tolist()}
    assert {tuple(colour) for colour in (result[0] * 255).round().int().flatten(1).T.tolist()} <= palette


# --- Gaussian mixtures ----------------------------------------------------------------------------------------------


def mixture(seed, components=gmm.COMPONENTS, size=27):
    rng = np.random.default_rng(seed)
    roots = torch.from_numpy(rng.normal(0, 0.05, (components, size, size)))
    weight = torch.from_numpy(rng.dirichlet(np.full(components, 3.0)))
    return gmm.Mixture(weight, torch.from_numpy(rng.random((components, size))), roots @ roots.mT)


def test_plan_between_mixtures_is_that_of_pot():
    source, target = mixture(0), mixture(1)
    ridge = QUANTISATION * np.eye(27)
    expected = ot.gmm.gmm_ot_plan(
        source.mean.numpy(),
        target.mean.numpy(),
        source.covariance.numpy() + ridge,
        target.covariance.numpy() + ridge,
        source.weight.numpy(),
        target.weight.numpy(),
    )
    np.testing.assert_allclose(gmm.plan(source, target).numpy(), expected, atol=1e-8)


def test_component_maps_are_the_barycentric_map_of_pot(monkeypatch):
    monkeypatch.setattr(gmm, "GAIN", 1e9)
    source, target = mixture(0), mixture(1)
    round_ = 0.01 * torch.eye(27)  # well-conditioned and far apart: each mean belongs to its own component alone
    source, target = (m._replace(covariance=0.1 * m.covariance + round_) for m in (source, target))
    linear, shift, _ = gmm.component_maps(source, target)
    points = source.mean + 0.01
    expected = ot.gmm.gmm_ot_apply_map(
        points.numpy(),
        source.mean.numpy(),
        target.mean.numpy(),
        source.covariance.numpy(),
        target.covariance.numpy(),
        source.weight.numpy(),
        target.weight.numpy(),
        method="bary",
    )
    ours = (linear @ points[..., None])[..., 0] + shift
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-4)


def test_maps_and_missing_parts_add_up_to_the_covariances_of_the_target():
    source, target = mixture(0), mixture(1)
    linear, _, missing = gmm.component_maps(source, target)
    shares = gmm.plan(source, target) / source.weight[:, None]
    wanted = torch.einsum("kl,lij->kij", shares, target.covariance)
    reached = linear @ source.covariance @ linear
    assert torch.linalg.eigvalsh(reached + missing @ missing - wanted).min() > -1e-9
    assert torch.linalg.eigvalsh(wanted - reached).max() > 1e-3  # something was missing


def test_components_find_flat_and_rough_areas():
    rng = np.random.default_rng(0)
    image = torch.full((3, 64, 64), 0.5)
    image[:, :, 32:] += torch.from_numpy(rng.normal(0, 0.1, (3, 64, 32))).float()
    fitted, posterior = gmm._fitted(image)
    torch.testing.assert_close(posterior.sum(0), torch.ones(64, 64), rtol=0, atol=1e-5)
    left, right = posterior[:, 4:-4, 4:28].mean((1, 2)), posterior[:, 4:-4, 36:60].mean((1, 2))
    assert float(torch.minimum(left, right).sum()) < 0.05  # no component is in both
    torch.testing.assert_close(fitted.weight, posterior.double().mean((1, 2)), rtol=0, atol=0.02)


def test_mixture_of_a_style_equal_to_the_content_is_nearly_the_identity(picture):
    images = grainy(picture, 5)
    torch.testing.assert_close(gmm.transfer(images, gmm.learn(images), 1.0, [1]), images, rtol=0, atol=2e-3)
