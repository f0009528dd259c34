"""Memory is bounded: what is too large is refused by its header, and threads share one budget of pixels."""

import json
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from metrics.errors import InputError
from metrics.extractors import load_extractor, preprocess
from metrics.features import extraction as features
from metrics.features.extraction import extract
from metrics.image_sets import decode as decoding
from metrics.image_sets.decode import ImageError, decode
from metrics.image_sets.items import Item
from metrics.image_sets.open import open_images
from metrics.memory import PixelBudget, out_of_memory
from stylize import iter_apply, learn
from stylize.styles import gamut
from stylize.styles.bank import StyleBank, to_batch
from stylize.styles.methods import patches, spectrum
from stylize.writing.render import SIDES, iter_render
from stylize.writing.size_limit import check_size


def png_of_no_pixels(width, height):
    """A header that promises an image, and nothing that could be decoded."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def style(folder, picture, tmp_path):
    photos = folder("photos", {f"{seed}.png": picture(seed, 90, 90) for seed in range(2)})
    learn(photos, methods=("texture", "spectrum"), crops=1, size=64).save(tmp_path / "style.safetensors")
    return tmp_path / "style.safetensors"


def errors_of(out):
    return {row["key"]: row["error"] for row in map(json.loads, (out / "errors.jsonl").read_text().splitlines())}


def test_every_method_says_how_large_an_image_it_takes():
    check_size(2048, 2048, "network")
    check_size(4000, 3500, "texture")
    message = "too large: 4000x3500, at most 4.2 megapixels for the method texture:2[+]network; shrink it first"
    with pytest.raises(ImageError, match=message):
        check_size(4000, 3500, "texture:2+network")


@pytest.mark.parametrize("assignment", ["balanced", "random"])
def test_an_image_too_large_for_the_method_fails_alone_and_is_never_decoded(
    style, folder, picture, tmp_path, assignment
):
    images = {f"{seed}.png": picture(seed, 40, 40) for seed in range(4)}
    synthetic = folder("synthetic", {**images, "large.png": png_of_no_pixels(8000, 8000)})
    steps = list(iter_apply(style, synthetic, tmp_path / "out", assignment=assignment))
    assert (steps[-1].done, steps[-1].failed) == (4, 1)
    message = "too large: 8000x8000, at most 14 megapixels for the method texture; shrink it first"
    assert errors_of(tmp_path / "out") == {"large": message}


def exhausted_torch():
    torch.empty(2**60, dtype=torch.uint8)


def exhausted_numpy():
    np.empty(2**60, np.uint8)


@pytest.mark.parametrize("exhaust", [exhausted_torch, exhausted_numpy])
def test_memory_that_ends_on_one_image_fails_that_image(style, folder, picture, tmp_path, monkeypatch, exhaust):
    synthetic = folder("synthetic", {f"{seed}.png": picture(seed, 40, 40) for seed in range(4)})
    transfer = StyleBank.transfer

    def greedy(self, images, keys, *arguments, **options):
        if keys == ["2"]:
            exhaust()
        return transfer(self, images, keys, *arguments, **options)

    monkeypatch.setattr(StyleBank, "transfer", greedy)
    steps = list(iter_apply(style, synthetic, tmp_path / "out"))
    assert (steps[-1].done, steps[-1].failed) == (3, 1)
    assert errors_of(tmp_path / "out") == {"2": "not enough memory for it; use fewer workers, or shrink it first"}


def test_other_errors_are_no_lack_of_memory(style, folder, picture, tmp_path, monkeypatch):
    assert out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not out_of_memory(RuntimeError("shapes differ")) and not out_of_memory(OSError("out of memory"))

    def broken(*arguments, **options):
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(StyleBank, "transfer", broken)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        list(iter_apply(style, folder("synthetic", {"a.png": picture(0, 40, 40)}), tmp_path / "out"))


def test_an_image_that_does_not_fit_memory_is_a_loss_of_any_set(folder, picture, monkeypatch):
    root, pixels = folder("set", {"a.png": picture(0, 40, 40), "b.png": picture(1, 41, 40)}), decoding._pixels

    def greedy(image, bits):
        if image.width == 41 or image.height == 41:
            raise MemoryError
        return pixels(image, bits)

    monkeypatch.setattr(decoding, "_pixels", greedy)
    with pytest.raises(ImageError, match="not enough memory to decode it"):
        decode(root / "b.png")
    result = extract(open_images(root), load_extractor("random-conv"))
    assert result.keys == ("a",) and result.skipped == (("b", "not enough memory to decode it; shrink it first"),)


def test_threads_hold_no_more_pixels_than_agreed():
    budget, lock, held, most = PixelBudget(100), threading.Lock(), [0], [0]

    def work(pixels):
        with budget.hold(pixels):
            with lock:
                held[0] += pixels
                most[0] = max(most[0], held[0] if pixels <= 100 else held[0] - pixels)
            threading.Event().wait(0.001)
            with lock:
                held[0] -= pixels
        return pixels

    sizes = [30, 60, 100, 250, 10] * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, sizes)) == sizes
    assert 60 <= most[0] <= 100 and budget._held == 0


def test_extraction_decodes_within_the_budget_and_gives_the_same_features(folder, picture, monkeypatch):
    images, network = open_images(folder("set", {f"{i}.png": picture(i, 40, 40) for i in range(24)})), None
    network = load_extractor("random-conv")
    free = extract(images, network, workers=8)
    lock, at_once, most, pixels = threading.Lock(), [0], [0], Item.pixels

    def watched(self, loaded):
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        threading.Event().wait(0.002)
        with lock:
            at_once[0] -= 1
        return pixels(self, loaded)

    monkeypatch.setattr(features, "MAX_PIXELS", 2 * 40 * 40 + 1)
    monkeypatch.setattr(Item, "pixels", watched)
    bounded = extract(images, network, workers=8)
    assert most[0] == 2 and torch.equal(free.features, bounded.features)


@pytest.mark.parametrize("method", ["texture", "spectrum"])
def test_bands_change_no_byte(style, picture, monkeypatch, method):
    bank, image = StyleBank.load(style), to_batch(picture(7, 61, 83))
    whole = bank.transfer(image, ["k"], method=method)
    for module in (gamut, patches, spectrum):
        monkeypatch.setattr(module, "BAND", 83 * 5)
    assert torch.equal(bank.transfer(image, ["k"], method=method), whole)


def test_strips_have_the_patch_statistics_of_all_their_patches(monkeypatch):
    strip = torch.rand(1, 3, 40, 6000, generator=torch.Generator().manual_seed(0))
    mean, covariance = patches.patch_statistics(strip)
    monkeypatch.setattr(patches, "POSITIONS", 40 * 6000 // 16)
    fewer = patches.patch_statistics(strip)
    torch.testing.assert_close(fewer[0], mean, atol=0.02, rtol=0)
    torch.testing.assert_close(fewer[1], covariance, atol=0.01, rtol=0)
    assert not torch.equal(fewer[1], covariance)


AT_THE_LIMIT = """
import resource, sys
from stylize import learn
from stylize.writing.render import SIDES, iter_render
from stylize.styles.methods import style_method
from stylize.styles.bank import to_batch, to_image
from metrics.image_sets.open import open_images
import numpy as np, torch
torch.set_num_threads(1)
bank = learn(sys.argv[1], methods=["texture"], crops=1, size=64)
width = 4000
image = np.zeros((int(style_method("texture").megapixels * 1e6) // width, width, 3), np.uint8)
to_image(bank.transfer(to_batch(image), ["k"], 0.75, method="texture"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.slow
def test_the_largest_image_stays_below_two_gigabytes(folder, picture):
    photos = folder("photos", {"a.png": picture(0, 90, 90)})
    done = subprocess.run([sys.executable, "-c", AT_THE_LIMIT, photos], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2e9


@pytest.mark.parametrize("family", [*SIDES, "rcdb"])
def test_a_render_too_large_for_its_family_is_refused_before_any_work(family, tmp_path):
    most = SIDES.get(family, 8192)
    message = f"size {most + 1}: expected 16 to {most} pixels, with which a worker of {family} stays below 2 GB"
    with pytest.raises(InputError, match=message):
        list(iter_render(family, tmp_path / "out", size=most + 1))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("rows", [1, 7])
def test_a_large_image_is_prepared_band_by_band_and_the_same(picture, monkeypatch, interpolation, rows):
    image = torch.tensor(picture(3, 301, 203)).permute(2, 0, 1)[None]
    prepare = preprocess.Preprocess((64, 64), interpolation, 0.875, "center", (0.5,) * 3, (0.5,) * 3)
    whole = prepare(image)
    monkeypatch.setattr(preprocess, "BAND", image.shape[-1] * rows)
    assert torch.equal(prepare(image), whole)


LARGE_IMAGES = """
import resource, sys
from dataclasses import replace
from metrics.extractors import load_extractor
from metrics.features.extraction import extract
from metrics.image_sets.items import ImageSet
from metrics.image_sets.open import open_images
images = open_images(sys.argv[1])
many = ImageSet(images.root, [replace(images[0], key=str(number)) for number in range(8)])
extract(many, load_extractor("random-conv"), workers=8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.slow
def test_eight_threads_read_images_of_64_megapixels_below_two_gigabytes(folder):
    images = folder("large", {"a.png": np.full((8000, 8000, 3), 99, np.uint8)})
    done = subprocess.run([sys.executable, "-c", LARGE_IMAGES, images], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2e9
