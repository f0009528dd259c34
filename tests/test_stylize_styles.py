import itertools
import json

import numpy as np
import ot
import pytest
import torch

from stylize.styles import assignment, leaderboard
from stylize.styles.gamut import soft_gamut
from stylize.styles.methods import METHODS, colour, patches, texture
from stylize.styles.methods.gaussian_transport import QUANTISATION, square_root, transport


def covariance(seed, size=5, count=200):
    points = np.random.default_rng(seed).normal(size=(count, size)) @ np.random.default_rng(seed + 99).normal(
        size=(size, size)
    )
    return torch.from_numpy(np.cov(points.T))


def batch(*pictures):
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in pictures]).float() / 255


# --- the Gaussian optimal-transport map -----------------------------------------------------------------------------


def test_map_is_that_of_pot():
    source, target = covariance(0), covariance(1)
    expected, _ = ot.gaussian.bures_wasserstein_mapping(
        np.zeros(5), np.zeros(5), source.numpy() + QUANTISATION * np.eye(5), target.numpy() + QUANTISATION * np.eye(5)
    )
    ours = transport(source, target, ridge=0, gain=1e9).linear
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-7, atol=1e-9)


def test_map_moves_source_to_target_and_is_symmetric_positive():
    source, target = covariance(0), covariance(1)
    linear = transport(source, target, ridge=0, gain=1e9).linear
    torch.testing.assert_close(linear @ source @ linear, target, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(linear, linear.mT)
    assert torch.linalg.eigvalsh(linear).min() > 0


def test_map_of_equal_covariances_is_the_identity():
    for scale in (1e-6, 1.0):
        same = covariance(2, 27) * scale
        torch.testing.assert_close(transport(same, same).linear, torch.eye(27, dtype=torch.float64), rtol=0, atol=1e-9)


def test_map_is_equivariant_to_rotations():
    source, target = covariance(0), covariance(1)
    rotation = torch.linalg.qr(covariance(7)).Q
    turned = transport(rotation @ source @ rotation.T, rotation @ target @ rotation.T).linear
    torch.testing.assert_close(turned, rotation @ transport(source, target).linear @ rotation.T)


def test_gain_bounds_every_stretch_of_flat_content():
    values = torch.linalg.eigvalsh(transport(torch.zeros(5, 5), covariance(1), gain=5).linear)
    assert values.max() <= 5 + 1e-9 and values.min() >= 0.2 - 1e-9


def test_strength_walks_the_geodesic_of_pot():
    source, target = covariance(0), covariance(1)
    for strength in (0.0, 0.3, 1.0):
        step = transport(source, target, strength, ridge=0, gain=1e9)
        reached = step.linear @ source @ step.linear
        zeros, weights = np.zeros((2, 5)), np.array([1 - strength, strength])
        both = np.stack([source.numpy(), target.numpy()])
        _, expected = ot.gaussian.bures_wasserstein_barycenter(zeros, both, weights, eps=1e-12)
        np.testing.assert_allclose(reached.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_map_and_missing_part_add_up_to_the_target(strength):
    source, target = covariance(0), covariance(1)
    source[0], source[:, 0] = 0, 0  # a direction in which the content is flat
    full = transport(source, target, strength, ridge=0, gain=1e9)
    step = transport(source, target, strength, ridge=0, gain=2)
    regular = source + QUANTISATION * torch.eye(5)
    wanted = full.linear @ regular @ full.linear
    reached = step.linear @ regular @ step.linear
    completed = reached + step.missing @ step.missing
    assert torch.linalg.norm(completed - wanted) <= 0.5 * torch.linalg.norm(reached - wanted) + 1e-12
    assert torch.linalg.eigvalsh(completed - wanted).min() > -1e-6  # nothing is missing, up to conditioning
    assert transport(source, source, strength, gain=2).missing.abs().max() < 1e-5


def test_square_root():
    root = square_root(covariance(3))
    torch.testing.assert_close(root @ root, covariance(3) + QUANTISATION * torch.eye(5))


# --- methods: one contract ------------------------------------------------------------------------------------------

MODULES = {"colour": colour, "patches": patches, "texture": texture}
LEARN = {"colour": colour.learn, "patches": patches.learn}


@pytest.fixture(params=MODULES)
def method(request):
    return MODULES[request.param]


def test_style_equal_to_content_is_the_identity(method, picture):
    images = batch(picture(1), picture(2))
    torch.testing.assert_close(
        method.transfer(images, LEARN[method.STATISTICS](images), 1.0, [1, 2]), images, rtol=0, atol=1e-4
    )


def test_strength_zero_is_the_identity(method, picture):
    images = batch(picture(1))
    style = LEARN[method.STATISTICS](batch(picture(5)))
    torch.testing.assert_close(method.transfer(images, style, 0.0, [3]), images, rtol=0, atol=1e-5)


def test_strength_moves_steadily(method, picture):
    images, style = batch(picture(1)), LEARN[method.STATISTICS](batch(picture(5)))
    moved = [float((method.transfer(images, style, a, [3]) - images).abs().mean()) for a in (0, 0.25, 0.5, 0.75, 1)]
    assert all(b > a for a, b in itertools.pairwise(moved))


def test_rows_of_a_batch_do_not_mix(method, picture):  # bit-equality is the bank's promise, and tested there
    images = batch(*(picture(seed) for seed in range(5)))
    style = LEARN[method.STATISTICS](images.flip(0))
    together = method.transfer(images, style, 1.0, range(5))
    for i in range(5):
        alone = method.transfer(images[i : i + 1], {name: t[i : i + 1] for name, t in style.items()}, 1.0, [i])
        assert torch.allclose(alone[0], together[i], rtol=0, atol=1e-5)
        own = LEARN[method.STATISTICS](images[i : i + 1])
        assert all(
            torch.allclose(own[name][0], t[i], rtol=0, atol=1e-9)
            for name, t in LEARN[method.STATISTICS](images).items()
        )


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (33, 17), (64, 96)])
def test_any_size_stays_finite(method, shape, picture):
    images = batch(picture(1, *shape))
    result = method.transfer(images, LEARN[method.STATISTICS](batch(picture(5, 50, 50))), 1.0, [1])
    assert result.shape == images.shape and torch.isfinite(result).all()


def test_binary_content_stays_finite(method, picture):
    style = LEARN[method.STATISTICS](batch(picture(5)))
    binary = (batch(picture(3)).mean(1, keepdim=True) > 0.5).float().expand(-1, 3, -1, -1)
    assert torch.isfinite(method.transfer(binary, style, 1.0, [1])).all()


@pytest.mark.parametrize("module", [colour, patches])
def test_a_map_leaves_flat_content_flat(module, picture):
    flat = torch.full((1, 3, 64, 64), 0.5)
    result = module.transfer(flat, module.learn(batch(picture(5))), 1.0, [1])
    torch.testing.assert_close(result, result[..., :1, :1].expand_as(result), rtol=0, atol=1e-4)  # no stripes, no noise


# --- colour ---------------------------------------------------------------------------------------------------------


def test_colour_reaches_the_target_mean_and_covariance(picture):
    images, style = batch(picture(1)), colour.learn(batch(picture(5)))
    reached = colour.learn(colour.transfer(images, style, 1.0, [0]))
    torch.testing.assert_close(reached["mean"], style["mean"], rtol=0, atol=1e-5)
    torch.testing.assert_close(reached["covariance"], style["covariance"], rtol=0.01, atol=1e-4)


def test_colour_is_the_linear_map_of_pot(picture):
    content, style = batch(picture(1)), batch(picture(5))
    points = [image.flatten(2)[0].T.double().numpy() for image in (content, style)]
    expected = ot.da.LinearTransport(reg=QUANTISATION).fit(Xs=points[0], Xt=points[1]).transform(points[0])
    ours = colour.transfer(content, colour.learn(style), 1.0, [0]).flatten(2)[0].T
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-3)


# --- patches --------------------------------------------------------------------------------------------------------


def test_filter_equals_mapping_all_patches_and_averaging_the_overlaps(picture):
    image = batch(picture(1, 20, 24))[:, :, :12, :14].double()
    p = patches.PATCH
    linear = torch.from_numpy(np.random.default_rng(0).normal(size=(27, 27)))
    sums, hits = torch.zeros(3, 12, 14, dtype=torch.float64), torch.zeros(12, 14)
    for top in range(12 - p + 1):  # slow and obvious: one patch at a time
        for left in range(14 - p + 1):
            patch = image[0, :, top : top + p, left : left + p].reshape(27)
            sums[:, top : top + p, left : left + p] += (linear @ patch).view(3, p, p)
            hits[top : top + p, left : left + p] += 1
    slow = sums / hits
    fast = torch.nn.functional.conv2d(image, patches.overlap_filters(linear[None])[0])[0]
    torch.testing.assert_close(fast, slow[:, 2:-2, 2:-2])


def test_patch_statistics_are_those_of_all_patches(picture):
    image = batch(picture(1, 32, 32))
    mean, cov = patches.patch_statistics(image)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="reflect")[0].double()
    rows = [padded[:, y : y + 3, x : x + 3].reshape(27).numpy() for y in range(32) for x in range(32)]
    np.testing.assert_allclose(mean[0].numpy(), np.mean(rows, 0), atol=1e-12)
    np.testing.assert_allclose(cov[0].numpy(), np.cov(np.array(rows).T, bias=True), atol=1e-12)


def test_patch_covariances_come_closer_to_the_style(picture):
    rng = np.random.default_rng(0)
    rough = batch(np.clip(picture(1, 128, 128) + rng.normal(0, 20, (128, 128, 3)), 0, 255).astype(np.uint8))
    style = patches.learn(rough)
    content = batch(picture(7, 128, 128)) * 0.6 + 0.02 * torch.from_numpy(rng.random((1, 3, 128, 128))).float()
    before = patches.learn(content)
    after = patches.learn(patches.transfer(content, style, 1.0, [0]))
    for factor in patches.LEVELS:
        name = f"covariance/{factor}"

        def distance(held, name=name):
            return float(torch.linalg.norm(held[name] - style[name]) / torch.linalg.norm(style[name]))

        assert distance(after) < 0.5 * distance(before), name


# --- texture --------------------------------------------------------------------------------------------------------


def rough(picture, seed):
    noise = np.random.default_rng(seed).normal(0, 25, (128, 128, 3))
    return batch(np.clip(picture(seed, 128, 128) + noise, 0, 255).astype(np.uint8))


def covariance_error(images, style, factor):
    own, wanted = patches.learn(images)[f"covariance/{factor}"], style[f"covariance/{factor}"]
    return float(torch.linalg.norm(own - wanted) / torch.linalg.norm(wanted))


@pytest.mark.parametrize("factor", patches.LEVELS)
def test_texture_gives_even_flat_content_the_patch_covariance(picture, factor):
    flat, style = torch.full((1, 3, 128, 128), 0.5), patches.learn(rough(picture, 5))
    assert covariance_error(patches.transfer(flat, style, 1.0, [1]), style, factor) > 0.9
    assert covariance_error(texture.transfer(flat, style, 1.0, [1]), style, factor) < 0.45


def test_texture_comes_from_the_seed_alone(picture):
    image, style = batch(picture(1)), patches.learn(rough(picture, 5))
    first, again, other = (texture.transfer(image, style, 1.0, [seed]) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


# --- gamut ----------------------------------------------------------------------------------------------------------


def test_soft_gamut_stays_inside_and_keeps_what_did_not_change():
    rng = np.random.default_rng(0)
    content = torch.from_numpy(rng.random((2, 3, 16, 16))).float().round(decimals=1)  # holds exact 0 and 1
    wild = content + torch.from_numpy(rng.normal(0, 2, (2, 3, 16, 16))).float()
    bent = soft_gamut(content, wild)
    assert bent.min() >= 0 and bent.max() <= 1
    assert torch.equal(soft_gamut(content, content), content)
    gentle = content + 0.5 * (0.5 - content)
    torch.testing.assert_close(soft_gamut(content, gentle), gentle)


# --- assignment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("contents", "styles"), [(12, 4), (13, 4), (15, 4), (3, 5), (4, 4), (1, 3)])
def test_assignment_is_the_balanced_optimum(contents, styles):
    rng = np.random.default_rng(contents)
    x, y = rng.normal(size=(contents, 6)), rng.normal(size=(styles, 6))
    chosen = assignment.assign(assignment.costs(x, y))
    used = np.bincount(chosen, minlength=styles)
    assert used.max() - used.min() <= 1
    cost = ot.dist(x, y)
    total = cost[np.arange(contents), chosen].sum()
    if contents % styles == 0:  # POT's exact solver, uniform marginals
        assert total == pytest.approx(ot.emd2([], [], cost) * contents, rel=1e-9)
    else:  # some style is used once more: the best over all ways to say which
        extras = itertools.combinations(range(styles), contents % styles)
        least = contents // styles
        weights = [np.array([least + (s in extra) for s in range(styles)]) / contents for extra in extras]
        best = min(ot.emd2(np.full(contents, 1 / contents), w, cost) * contents for w in weights)
        assert total == pytest.approx(best, rel=1e-9)


def test_assignment_is_balanced_over_several_blocks(monkeypatch):
    monkeypatch.setattr(assignment, "BLOCK", 8)
    x = np.random.default_rng(0).normal(size=(30, 3))
    for contents, styles in ((24, 4), (29, 5), (30, 7), (24, 20), (30, 11)):
        used = np.bincount(assignment.assign(assignment.costs(x[:contents], x[:styles])), minlength=styles)
        assert used.sum() == contents and used.max() - used.min() <= 1, (contents, styles)


def test_descriptor_distance_is_the_bures_distance_where_covariances_commute():
    a, b = torch.tensor([0.3, 0.1, 0.2]).diag(), torch.tensor([0.1, 0.4, 0.2]).diag()
    ours = float((square_root(a) - square_root(b)).square().sum())
    bures = ot.gaussian.bures_wasserstein_distance(np.zeros(3), np.zeros(3), a.double().numpy(), b.double().numpy())
    assert ours == pytest.approx(float(bures) ** 2, abs=4 * QUANTISATION)


def test_an_image_is_nearest_to_itself(picture):
    images = batch(*(picture(seed) for seed in range(6)))
    described = assignment.descriptor(images).numpy()
    assert assignment.assign(assignment.costs(described, described)).tolist() == list(range(6))


# --- the measured table ---------------------------------------------------------------------------------------------


def test_table_shows_the_measured_rows_of_methods_and_presets(tmp_path, monkeypatch):
    row = {"closed@efficientnet-lite0": 0.25, "closed@efficientnet-lite2": -0.5, "copies": 0.0123, "mebibytes": 400.4}
    measured = {"colour": row, "patches@0.5": {"structure": 0.875}, "texture": {"labels": 1.0}}
    (tmp_path / "leaderboard.json").write_text(json.dumps(measured))
    monkeypatch.setattr(leaderboard, "files", lambda package: tmp_path)
    monkeypatch.setattr(leaderboard, "PRESETS", {"fast": ("patches", 0.5), "strong": ("texture", 1.0)})
    head, *lines = leaderboard.table().splitlines()
    found = {line.split("  ")[0]: line for line in lines if line}
    assert set(METHODS) < set(found) and all(METHODS[name].summary in found[name] for name in METHODS)
    assert found["colour"].split("  ")[-1] == METHODS["colour"].summary
    assert found["colour"].split()[1:5] == ["0.25", "-0.50", "0.012", "400"]
    assert found["patches"].split() == ["patches", *METHODS["patches"].summary.split()]
    assert found["--preset fast"].split()[2:] == ["0.88", *["--method", "patches", "--strength", "0.5"]]
    assert found["--preset strong"].split()[2:] == ["1.00", *["--method", "texture", "--strength", "1"]]
    assert found["--preset fast"].index("0.88") < found["--preset fast"].index("--method") < len(head) + 30
