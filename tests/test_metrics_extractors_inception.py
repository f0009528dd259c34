"""The Inception extractor and its presets, against torch-fidelity, clean-fid and torchmetrics on the same weights."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from cleanfid.fid import get_folder_features
from cleanfid.resize import build_resizer
from PIL import Image
from torch.nn.functional import interpolate
from torch_fidelity import calculate_metrics
from torchmetrics.image.fid import FrechetInceptionDistance

from metrics.errors import InputError
from metrics.extractors import inception, levels, load_extractor, load_levels
from metrics.extractors.inception_resize import PRESETS
from metrics.features.extraction import extract
from metrics.image_sets.decode import decode
from metrics.image_sets.open import open_images
from metrics.statistics.frechet import frechet
from metrics.statistics.kid import kid


def noise(*size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))


@pytest.fixture(scope="module")
def upstream():
    """torch-fidelity's network with all its features and random weights: the published ones need a download."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind = inception.FeatureExtractorInceptionV3
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(kind, "load_state_dict", lambda *a: None)
        network = kind("inception", ["64", "192", "768", "2048"])
    network.Conv2d_2b_3x3.bn.weight.data.fill_(30)  # features of size 1, as trained ones
    return network


@pytest.fixture(scope="module")
def inception_file(upstream, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(upstream.state_dict(), path)
    return path


def test_inception_is_torch_fidelitys(upstream, inception_file):
    extractor = load_extractor("inception", weights=inception_file)
    assert extractor.dim == 2048
    for size in [(299, 299), (64, 48), (350, 500)]:
        images = noise(1, 3, *size)
        with torch.inference_mode():
            *_, theirs = upstream(images)
        assert torch.linalg.norm(extractor(images) - theirs) < 1e-6 * torch.linalg.norm(theirs)
    # These are not the published weights, so the name must not claim them.
    assert extractor.name == f"inception-{inception.sha256(inception_file)[:8]}"


def test_inception_weights_that_do_not_fit(tmp_path):
    torch.save({"fc.weight": torch.ones(3)}, tmp_path / "small.pth")
    with pytest.raises(InputError, match=r"small.pth: does not fit torch-fidelity's Inception"):
        load_extractor("inception", weights=tmp_path / "small.pth")


def test_inception_offline_says_what_where_and_how(monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(InputError) as caught:
        load_extractor("inception")
    message = str(caught.value)
    assert "weights-inception-2015-12-05-6726825d.pth" in message
    assert "https://github.com/toshas/torch-fidelity/releases/" in message
    assert str(tmp_path / "hub" / "checkpoints") in message
    assert "--weights FILE" in message
    assert "--extractor efficientnet-lite0" in message


def test_inception_is_downloaded_to_the_cache_once_and_checked(monkeypatch, tmp_path, inception_file):
    calls = []

    def download(url, destination, hash_prefix, progress):
        calls.append((url, hash_prefix))
        Path(destination).write_bytes(inception_file.read_bytes())

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(InputError, match="damaged or altered, its SHA-256 is not 6726825d0af5"):
        load_extractor("inception")  # not the published file
    monkeypatch.setattr(inception, "SHA256", inception.sha256(inception_file))
    assert load_extractor("inception").name == "inception"
    assert calls == [(inception.URL_INCEPTION_V3, "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2")]


# --- the presets: resizes bit for bit, features to 1e-6 of their length, Fréchet distances to
# 1e-5 of their value, torch-fidelity's KID to 1e-4, because it computes kernels in float32

SIZES = [(32, 32), (256, 256), (512, 512), (1024, 1024), (299, 299), (180, 350), (640, 96)]


def picture(height, width, seed=0):
    """``uint8 [H,W,3]``: smooth colours with sharp edges and noise, where resizes differ most."""
    rng = np.random.default_rng(seed)
    image = np.asarray(Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((width, height))).copy()
    image[::7, ::5] = rng.integers(0, 256, image[::7, ::5].shape)
    image[height // 3 : height // 2] = 255 - image[height // 3 : height // 2]
    return image


def batch(image):
    return torch.tensor(image).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", SIZES)
def test_resizes_are_those_of_the_programs(size):
    image = picture(*size)
    theirs = torch.from_numpy(build_resizer("clean")(image)).permute(2, 0, 1)[None]
    assert torch.equal(PRESETS["clean"].compute(batch(image)), theirs)
    theirs = interpolate(batch(image).float(), (299, 299), mode="bilinear", align_corners=False, antialias=True)
    assert torch.equal(PRESETS["torchmetrics"].compute(batch(image)), theirs)
    results = [preset.compute(batch(image)) for preset in PRESETS.values()]
    different = {float(result.double().sum()) for result in results}
    assert len(different) == (1 if size == (299, 299) else 3)


@pytest.fixture(scope="module")
def extractors(inception_file):
    """Every preset, up to the first layer: the resizes matter, and it is quick."""
    names = {preset: f"inception:{preset}/64" for preset in PRESETS}
    return {preset: load_extractor(name, weights=inception_file) for preset, name in names.items()}


@pytest.mark.parametrize("size", SIZES)
def test_features_are_those_of_the_programs(size, extractors, upstream, first_features, metric):
    image = picture(*size)
    own = {
        "torch-fidelity": upstream(batch(image))[0],
        "clean": first_features(torch.from_numpy(build_resizer("clean")(image)).permute(2, 0, 1)[None]),
        "torchmetrics": metric.inception(batch(image)),
    }
    for preset, theirs in own.items():
        ours = extractors[preset](batch(image))
        assert ours.shape == theirs.shape == (1, 64)
        assert torch.linalg.norm(ours - theirs) < 1e-6 * torch.linalg.norm(theirs)


@pytest.fixture(scope="module")
def first_features(upstream):
    """The 64 features from an image resized to 299x299: clean-fid resizes first and calls a network with the result."""
    names = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1")
    layers = torch.nn.Sequential(*(getattr(upstream, name) for name in names))
    return lambda resized: layers((resized - 128) / 128).mean((2, 3))


@pytest.fixture(scope="module")
def metric(inception_file):
    return FrechetInceptionDistance(feature=64, feature_extractor_weights_path=str(inception_file))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two sets of images of several sizes; of the second one is grey and one has an opaque alpha channel."""
    root = tmp_path_factory.mktemp("sets")
    for name, start in (("a", 0), ("b", 100)):
        (root / name).mkdir()
        for number in range(9):
            size = [(32, 32), (300, 260), (120, 90)][number % 3]
            image = Image.fromarray(picture(*size, seed=start + number))
            image = image.convert({("b", 1): "L", ("b", 2): "RGBA"}.get((name, number), "RGB"))
            image.save(root / name / f"{number}.png")
    return root / "a", root / "b"


def features(folder, extractor):
    return extract(open_images(folder), extractor, batch_size=4, workers=1).features


def test_distances_are_torch_fidelitys(folders, extractors, inception_file):
    theirs = calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        fid=True,
        kid=True,
        kid_subset_size=9,
        kid_subsets=1,
        feature_layer_fid="64",
        feature_layer_kid="64",
        feature_extractor_weights_path=str(inception_file),
        batch_size=1,  # it cannot mix sizes
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    x, y = (features(folder, extractors["torch-fidelity"]) for folder in folders)
    assert frechet(x, y).value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert kid(x, y).value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)


def test_distances_are_torchmetrics(folders, extractors, metric):
    for folder, real in zip(folders, (True, False), strict=True):
        for path in sorted(folder.iterdir()):
            metric.update(batch(np.array(Image.open(path).convert("RGB"))), real=real)
    x, y = (features(folder, extractors["torchmetrics"]) for folder in folders)
    assert frechet(x, y).value == pytest.approx(float(metric.compute()), rel=1e-5)


def test_features_of_a_folder_are_clean_fids(folders, extractors, first_features):
    theirs = get_folder_features(
        str(folders[1]), model=first_features, num_workers=0, batch_size=1, device="cpu", mode="clean", verbose=False
    )
    ours = features(folders[1], extractors["clean"])
    assert np.linalg.norm(ours.numpy() - theirs) < 1e-6 * np.linalg.norm(theirs)


def test_transparent_images_differ_on_purpose(tmp_path):
    pixels = np.dstack([picture(40, 40), np.zeros((40, 40), np.uint8)])
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    assert (decode(tmp_path / "clear.png") == 255).all()  # shown on white; the others show hidden colours
    assert not (np.asarray(Image.open(tmp_path / "clear.png").convert("RGB")) == 255).all()


def test_presets_are_not_comparable_and_the_default_is_torch_fidelitys(extractors, inception_file):
    assert len({extractor.fingerprint for extractor in extractors.values()}) == 3
    plain = load_extractor("inception/64", weights=inception_file)
    assert plain.fingerprint == extractors["torch-fidelity"].fingerprint
    digits = inception.sha256(inception_file)[:8]
    assert extractors["clean"].name == f"inception-{digits}:clean/64"


def test_layers_are_torch_fidelitys(upstream, inception_file):
    assert levels("inception:clean") == tuple(f"inception:clean{end}" for end in ("/64", "/192", "/768", ""))
    extractor = load_levels("inception", weights=inception_file)
    images = batch(picture(200, 150))
    ours = extractor(images)
    assert [name.partition("/")[2] for name in extractor.columns] == ["64", "192", "768", ""]
    for columns, theirs in zip(extractor.columns.values(), upstream(images), strict=True):
        assert torch.linalg.norm(ours[:, columns] - theirs) < 1e-6 * torch.linalg.norm(theirs)
