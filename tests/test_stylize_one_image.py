import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage import feature

from metrics.errors import InputError
from stylize.patterns import FAMILIES, _canny
from stylize.patterns import one_image as family
from stylize.patterns.class_json import from_json, to_json

ROOT = Path(__file__).parent.parent
GOLDEN = "aa95a3c7e86f4c1db1c255a0625e3ec3adb868bb6d38538fafe1cf14c8a3007d"


def klass(class_id, seed=5, **options):
    return family.sample_class(seed, class_id, **({"photo": family.example()} | options))


def made_photo(path):
    """A lossless photo whose bytes every decoder agrees on."""
    y, x = np.mgrid[:60, :90]
    red = (x // 7 + y // 11) % 3 * 90 + x // 3
    Image.fromarray(np.stack([red, 255 - red // 2, (x * y) % 251], 2).astype(np.uint8)).save(path)
    return path


def digest(folder):
    photo = made_photo(Path(folder) / "photo.png")
    images = [family.render(klass(2, 1, photo=photo, representation=r), 3, 32) for r in family.REPRESENTATIONS]
    return hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()


# Same pixels everywhere


@pytest.mark.slow
def test_golden_here_and_in_a_process_of_its_own(tmp_path):
    assert digest(tmp_path) == GOLDEN
    code = "import sys; sys.path.insert(0, 'tests'); import test_stylize_one_image as t; print(t.digest(sys.argv[1]))"
    run = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == GOLDEN


@pytest.mark.parametrize("size", [16, 37, 200, 512])
def test_order_does_not_matter(size):
    jobs = [(c, i) for c in range(2) for i in range(2)]
    images = {job: family.render(klass(job[0]), job[1], size) for job in jobs}
    family._photo.cache_clear()
    family._planes.cache_clear()
    for c, i in reversed(jobs):
        assert np.array_equal(images[c, i], family.render(klass(c), i, size))
    assert len({image.tobytes() for image in images.values()}) == 4
    assert images[0, 0].shape == (size, size, 3)
    assert images[0, 0].dtype == np.uint8


@pytest.mark.parametrize("representation", family.REPRESENTATIONS)
@pytest.mark.parametrize("size", [16, 61])
def test_torch_gives_the_same_bits(representation, size):
    params = klass(0, representation=representation)
    expected = np.array([family.render(params, i, size) for i in (4, 0, 7)])
    got = family.render_torch(params, [4, 0, 7], size)
    assert got.dtype == torch.uint8
    assert np.array_equal(got.numpy().transpose(0, 2, 3, 1), expected)


# Canny edges


@pytest.mark.parametrize("name", ["cat", "coffee", "gravel", "peaks"])
@pytest.mark.parametrize(("sigma", "low", "high"), [(1.0, 0.85, 0.95), (2.05, 0.7, 0.88), (3.0, 0.5, 0.5)])
def test_canny_is_that_of_scikit_image(name, sigma, low, high):
    with Image.open(ROOT / f"assets/photos/learn/{name}.jpg") as photo:
        grey = np.asarray(photo.convert("L").resize((160, 120)), np.float64) / 255
    expected = feature.canny(grey, sigma, low, high, use_quantiles=True)
    assert expected.sum() > 100
    assert np.array_equal(_canny.canny(grey, sigma, low, high), expected)


def test_canny_of_noise_and_of_nothing():
    grey = np.random.default_rng(0).random((64, 48))
    expected = feature.canny(grey, 1.5, 0.6, 0.8, use_quantiles=True)
    assert np.array_equal(_canny.canny(grey, 1.5, 0.6, 0.8), expected)
    for level in (0.0, 0.3, 255.0):
        assert not _canny.canny(np.full((40, 40), level), 2.0, 0.7, 0.88).any()


def test_canny_finds_a_step():
    grey = np.zeros((32, 32))
    grey[:, 16:] = 1
    edges = _canny.canny(grey, 1.0, 0.7, 0.9)
    assert edges[1:-1, 15:17].any(1).all()
    edges[:, 15:17] = False
    assert not edges.any()


# The maps


@pytest.mark.parametrize("representation", family.REPRESENTATIONS)
def test_image_is_the_mapped_photo(representation):
    """Against SciPy's linear interpolation of the same square."""
    params, size = klass(3, representation=representation), 48
    planes = family._planes(params.photo, params.sha256, size, representation, params.sigma, params.thresholds)
    assert (planes[:, 0] == 0).all() and (planes[:, :, -2:] == 0).all()
    a, b, e, c, d, f = params.affine
    matrix = np.linalg.inv([[d, c, f], [b, a, e], [0, 0, 1]])  # rows, then columns
    shift = np.array([[1, 0, (1 - size) / 2], [0, 1, (1 - size) / 2], [0, 0, size]]) / size
    pixels = np.linalg.inv(shift) @ matrix @ shift
    image = family.render(params, 0, size)
    for k in range(3):
        plane = planes[k % len(planes), 1:-2, 1:-2]
        expected = ndimage.affine_transform(plane, pixels[:2, :2], pixels[:2, 2], order=1, mode="grid-constant")
        assert np.abs(image[..., k] - expected).max() < 0.5 + 1e-6
    assert (image == image[..., :1]).all() == (representation != "rgb")


def test_identity_gives_the_photo():
    params = klass(0, representation="grey", delta=0.0, jitter=0.0)
    assert params.affine == family.IDENTITY
    with Image.open(params.photo) as photo:
        assert photo.size == params.photo_size
        square = photo.crop((75, 0, 375, 300)).resize((64, 64), Image.Resampling.LANCZOS)
    expected = np.asarray(square, np.float64) @ [0.299, 0.587, 0.114]
    assert np.abs(family.render(params, 0, 64)[..., 0] - expected).max() < 0.5 + 1e-6


def test_classes_are_perturbations_of_the_identity():
    maps = np.array([klass(c, select=False).affine for c in range(400)]) - family.IDENTITY
    assert np.abs(maps).max() <= 0.25
    assert maps.mean(0) == pytest.approx(np.zeros(6), abs=0.03)
    assert maps.std(0) == pytest.approx(np.full(6, 0.5 / 12**0.5), rel=0.1)


def test_instance_0_is_the_class_and_others_stay_near():
    params = klass(1, jitter=0.04)
    assert family.place(params, 0) == params.affine
    moved = np.array([family.place(params, i) for i in range(1, 200)]) - params.affine
    assert 0.018 < np.abs(moved).max() <= 0.02 + 1e-12
    fixed = klass(1, jitter=0.0)
    assert np.array_equal(family.render(fixed, 5, 32), family.render(fixed, 0, 32))


def test_selection_and_its_acceptance():
    assert np.mean([klass(c).draws for c in range(40)]) < 1.3
    wide = [klass(c, delta=0.9) for c in range(40)]
    assert max(params.draws for params in wide) > 1
    free = [klass(c, delta=0.9, select=False) for c in range(40)]
    assert {params.draws for params in free} == {1}

    def kept(params):
        key = (params.photo, params.sha256, family.PROBE, "canny", params.sigma, params.thresholds)
        edges = family._planes(*key)
        return family._warp(edges, family._inverse(params.affine)).sum() / edges.sum()

    assert min(map(kept, wide)) >= family.KEPT > min(map(kept, free))
    assert all(w.affine == f.affine for w, f in zip(wide, free, strict=True) if w.draws == 1)


def test_search_that_cannot_finish_says_what_it_saw(monkeypatch):
    monkeypatch.setattr(family, "KEPT", 50.0)
    with pytest.raises(
        InputError, match=r"class 7 of seed 5: 0 of 3 maps with delta 0.5.*acceptance 0 %.*smaller delta"
    ):
        klass(7, max_draws=3)


# The photo


def test_no_photo_names_the_option_and_a_shipped_photo():
    with pytest.raises(InputError, match=r"photo=None.*photo=/\S+/photos/learn/cat.jpg"):
        family.sample_class(0, 0)
    assert (family.example()).is_file()


def test_photos_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.jpg: no such file.*photo=/\S+/photos"):
        klass(0, photo=tmp_path / "nowhere.jpg")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text.png: not an image that can be decoded.*photo=/\S+/photos"):
        klass(0, photo=tmp_path / "text.png")
    for level in (0, 77, 255):
        Image.new("RGB", (64, 48), (level, level, level // 2)).save(tmp_path / "flat.png")
        with pytest.raises(InputError, match=r"flat.png: no edges.*constant image.*photo=/\S+/photos"):
            klass(0, photo=tmp_path / "flat.png", representation="grey")


def test_other_bytes_under_the_same_path_are_refused(tmp_path):
    path = made_photo(tmp_path / "photo.png")
    params = klass(0, photo=path)
    assert params.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert params.photo_size == (90, 60)
    Image.effect_noise((90, 60), 50).convert("RGB").save(path)
    family._photo.cache_clear()
    family._planes.cache_clear()
    with pytest.raises(InputError, match=f"class was made from {params.sha256}"):
        family.render(params, 0, 32)
    path.unlink()
    with pytest.raises(InputError, match=f"needs the file with SHA-256 {params.sha256}"):
        family.render_torch(params, [0], 32)


# Parameters as data, and bad input


def test_json_round_trip(monkeypatch):
    monkeypatch.setitem(FAMILIES, "one-image", "photo")
    params = klass(1)
    assert from_json(to_json("one-image", [params])) == ("one-image", [params])
    document = json.loads(to_json("one-image", [params]))
    document["classes"][0]["affine"] = [1.0, 0.0]
    with pytest.raises(InputError, match=r"affine: expected 6 numbers; got 2"):
        from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"photo": ""}, "photo is ''; expected the path"),
        ({"sha256": "ABC"}, "sha256 is 'ABC'; expected 64 hexadecimal digits"),
        ({"photo_size": (300, 4)}, "an entry of photo_size is 4"),
        ({"representation": "gray"}, "Did you mean 'grey'"),
        ({"sigma": -1.0}, "sigma is -1.0; expected a finite number from 0 to 0.1"),
        ({"thresholds": (0.9, 0.8)}, "expected the low one first"),
        ({"affine": (1.0, 1.0, 0.0, 1.0, 1.0, 0.0)}, "can scale the photo's area by -0.0402"),
        ({"affine": (1.0, 0.0, float("nan"), 0.0, 1.0, 0.0)}, "an entry of affine is nan"),
        ({"jitter": 2.0}, "jitter is 2.0"),
        ({"draws": 0}, "draws is 0"),
    ],
)
def test_bad_parameters(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(klass(0), **change)


def test_bad_options():
    with pytest.raises(InputError, match=r"delta is 1.5; expected a finite number from 0 to 0.9"):
        klass(0, delta=1.5)
    with pytest.raises(InputError, match=r"delta \+ jitter is 1"):
        klass(0, delta=0.8, jitter=0.2)


@pytest.mark.parametrize("size", [0, 7, 8193])
def test_bad_size(size):
    for render in (lambda p: family.render(p, 0, size), lambda p: family.render_torch(p, [0], size)):
        with pytest.raises(InputError, match=r"size is .*; expected an integer from 8 to 8192"):
            render(klass(0))
