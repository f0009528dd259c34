import json
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from metrics.errors import InputError
from metrics.image_sets.decode import sha256
from metrics.image_sets.ledger import licences
from metrics.image_sets.open import open_images
from stylize.styles.bank import StyleBank, learn, to_batch
from stylize.styles.gamut import soft_gamut
from stylize.styles.methods import METHODS

SLOW = [name for name, method in METHODS.items() if method.slow]
LEVELLED = [name for name, method in METHODS.items() if method.levels > 1]


@pytest.fixture
def photos(folder, picture):
    return folder(
        "photos", {f"{name}.png": picture(seed, 90, 120) for seed, name in enumerate(("cat", "tree", "house"))}
    )


@pytest.fixture
def bank(photos):
    return learn(photos, crops=4, size=64, seed=5)


@pytest.fixture
def images(picture):
    return torch.cat([to_batch(picture(seed + 20)) for seed in range(6)])


KEYS = [f"c{i}/x" for i in range(6)]
FAST = [name for name in METHODS if name not in SLOW]
CLOSED = ["colour", "histogram", "fda", "patches", "texture", "gmm", "sliced", "spectrum", "pyramid", "colour+pyramid"]


def test_a_bank_knows_its_sources(bank):
    assert len(bank) == 12
    assert bank.sources[0]["key"] == "cat#0" and bank.sources[0]["photo"] == "cat"
    left, top, side = bank.sources[0]["box"]
    assert 45 <= side <= 90 and left + side <= 120 and top + side <= 90
    assert bank.header["unlicensed"] == ["cat", "house", "tree"]


def test_save_and_load_keep_everything_and_are_deterministic(bank, photos, tmp_path):
    bank.save(tmp_path / "a.safetensors")
    learn(photos, crops=4, size=64, seed=5).save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = StyleBank.load(tmp_path / "a.safetensors")
    assert again.sources == bank.sources and again.header == bank.header
    for method in bank.statistics:
        for name, tensor in bank.statistics[method].items():
            assert torch.equal(again.statistics[method][name], tensor)


@pytest.mark.parametrize("method", FAST)
def test_results_do_not_depend_on_batch_or_order(photos, images, method):
    bank = learn(photos, methods=[method], crops=1, size=64, seed=5)
    together = bank.transfer(images, KEYS, method=method)
    assert not torch.equal(together, images)
    for i in (4, 1):
        assert torch.equal(bank.transfer(images[i : i + 1], KEYS[i : i + 1], method=method)[0], together[i])
    assert together.dtype == torch.uint8 and together.shape == images.shape


@pytest.mark.parametrize("method", CLOSED)
def test_a_style_crop_stylised_by_itself_is_unchanged(photos, method):
    crops = open_images(photos).crops(1, 64, seed=5)
    image = to_batch(crops[2].read())
    bank = learn(photos, methods=[method], crops=1, size=64, seed=5)
    result = bank.transfer(image, ["k"], method=method, plan={"k": 2})
    assert (result.int() - image.int()).abs().max() <= 1


def test_strength_zero_returns_the_content(bank, images):
    assert torch.equal(bank.transfer(images, KEYS, 0.0), images)


def test_without_a_plan_keys_draw_styles_from_the_seed(bank):
    drawn = [bank.random_style(f"{i}") for i in range(600)]
    counts = np.bincount(drawn, minlength=12)
    assert counts.min() > 20 and drawn == [bank.random_style(f"{i}") for i in range(600)]


def test_bad_arguments_name_what_was_expected(bank, images):
    with pytest.raises(InputError, match=r"unknown style method 'patch'. Did you mean 'patches'"):
        bank.transfer(images, KEYS, method="patch")
    with pytest.raises(InputError, match=r"strength 1.5: expected 0"):
        bank.transfer(images, KEYS, 1.5)
    with pytest.raises(InputError, match=r"strength nan"):
        bank.transfer(images, KEYS, float("nan"))
    with pytest.raises(InputError, match=r"expected uint8 \[6,3,H,W\]"):
        bank.transfer(images.float(), KEYS)
    with pytest.raises(InputError, match=r"crops = 0"):
        learn("anywhere", crops=0)


def test_unreadable_photos_are_listed_not_fatal(folder, picture):
    root = folder("some", {"a.png": picture(1, 80, 80), "b.jpg": b"text", "c.png": b""})
    bank = learn(root, crops=2, size=32)
    assert len(bank) == 2 and set(bank.header["skipped"]) == {"b", "c"}
    with pytest.raises(InputError, match=r"none of 1 photos can be read; the first: b: not an image"):
        learn(folder("none", {"b.jpg": b"text"}))


def test_files_that_are_no_bank_are_refused(bank, tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="no such style file"):
        StyleBank.load(path)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(InputError, match="not a style file"):
        StyleBank.load(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="not a style bank"):
        StyleBank.load(path)
    bank.save(path)
    data = path.read_bytes().replace(b'version\\": 1', b'version\\": 7')
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"version 7; this program reads version 1. Learn it again"):
        StyleBank.load(path)


@pytest.mark.parametrize("damage", ["nan", "shape", "missing", "huge", "negative"])
def test_damaged_banks_are_refused(bank, tmp_path, damage):
    from safetensors import safe_open

    path = tmp_path / "x.safetensors"
    bank.save(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    if damage == "nan":
        tensors["colour/mean"][0] = float("nan")
    elif damage == "shape":
        tensors["colour/mean"] = tensors["colour/mean"][:3].clone()
    elif damage == "huge":
        tensors["colour/mean"] *= 1e300
    elif damage == "negative":
        tensors["colour/covariance"] *= -1
    else:
        del tensors["colour/mean"]
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match=r"damaged style bank.*colour/(mean|covariance)"):
        StyleBank.load(path)


def test_licences_count_only_while_the_digest_holds(photos, picture):
    entries = [
        {
            "file": f"{name}.png",
            "licence": "CC0-1.0",
            "author": "me",
            "source": "here",
            "sha256": sha256(photos / f"{name}.png"),
        }
        for name in ("cat", "tree")
    ]
    entries[1]["sha256"] = "0" * 64
    (photos / "ledger.json").write_text(json.dumps({"schema": 1, "images": entries}))
    found = licences(open_images(photos))
    assert [row["key"] for row in found.rows] == ["cat"] and found.unlicensed == ("house", "tree")
    bank = learn(photos, crops=1, size=32)
    assert [row["author"] for row in bank.header["licences"]] == ["me"]


def test_a_broken_ledger_is_an_error(photos):
    (photos / "ledger.json").write_text("[]")
    with pytest.raises(InputError, match="not a licence ledger"):
        learn(photos, crops=1, size=32)


@pytest.mark.parametrize("entry", ["sources", "licences", "seed"])
def test_a_damaged_header_is_refused(bank, tmp_path, entry):
    path = tmp_path / "x.safetensors"
    replace(bank, header={**bank.header, entry: "abc"}).save(path)
    if entry == "sources":
        replace(bank, sources=()).save(path)
    with pytest.raises(InputError, match=r"damaged style bank.*header"):
        StyleBank.load(path)


def test_learning_does_not_depend_on_the_number_of_threads(photos, tmp_path):
    for threads in (1, 2):
        torch.set_num_threads(threads)
        learn(photos, crops=2, size=128).save(tmp_path / f"{threads}.safetensors")
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()


def test_somebody_elses_ledger_above_the_photos_is_left_alone(photos):
    (photos.parent / "ledger.json").write_text('{"accounts": []}')
    assert licences(open_images(photos)).rows == ()


# --- methods: composed, and learnt on request -----------------------------------------------------------------------


def test_a_composition_is_one_method_after_the_other(photos, images):
    bank = learn(photos, crops=2, size=64)
    plan = {key: index for index, key in enumerate(KEYS)}
    image = images[:1].float() / 255
    for stage in ("colour", "patches"):
        module = import_module(f"stylize.styles.methods.{stage}")
        style = {name: values[:1] for name, values in bank.statistics[stage].items()}
        image = soft_gamut(image, module.transfer(image, style, 0.7, [0]))
    got = bank.transfer(images[:1], KEYS[:1], 0.7, method="colour+patches", plan=plan)
    assert torch.equal(got, (image * 255).round().to(torch.uint8))
    other = bank.transfer(images[:1], KEYS[:1], 0.7, method="patches+colour", plan=plan)
    assert not torch.equal(got, other)
    with pytest.raises(InputError, match=r"unknown style method 'colur'. Did you mean 'colour'"):
        bank.transfer(images, KEYS, method="patches+colur")


def test_only_what_is_asked_for_is_learnt(photos, images, tmp_path):
    bank = learn(photos, methods=["colour"], crops=1, size=64)
    assert set(bank.statistics) == {"colour"}
    bank.save(tmp_path / "s.safetensors")
    again = StyleBank.load(tmp_path / "s.safetensors")
    assert torch.equal(again.transfer(images, KEYS, method="colour"), bank.transfer(images, KEYS, method="colour"))
    with pytest.raises(
        InputError, match=r"no statistics for the method 'texture', only colour.*--method colour\+texture"
    ):
        again.transfer(images, KEYS, method="colour+texture")


def test_statistics_of_an_unknown_method_are_refused(bank, tmp_path):
    bank.save(tmp_path / "s.safetensors")
    with safe_open(tmp_path / "s.safetensors", "pt") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / "s.safetensors")
    save_file({**tensors, "colour/more": torch.zeros(1)}, tmp_path / "s.safetensors", metadata)
    with pytest.raises(InputError, match="unknown entry 'colour/more'"):
        StyleBank.load(tmp_path / "s.safetensors")
    renamed = {name.replace("colour/", "color/"): tensor for name, tensor in tensors.items()}
    save_file(renamed, tmp_path / "s.safetensors", metadata)
    with pytest.raises(InputError, match="statistics of color, patches; this program knows"):
        StyleBank.load(tmp_path / "s.safetensors")


# --- style files that cannot be of images ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved bank of every method whose statistics have rules of their own: (tensors, metadata)."""
    place = tmp_path_factory.mktemp("bank")
    draw = np.random.default_rng(3)
    for name in ("a", "b"):
        Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(place / f"{name}.png")
    methods = ["colour", "histogram", "fda", "gmm", "sliced", "spectrum", "pyramid", "regions"]
    learn(place, methods=methods, crops=1, size=32).save(place / "s.safetensors")
    with safe_open(place / "s.safetensors", "pt") as file:
        metadata = file.metadata()
    return load_file(place / "s.safetensors"), metadata


def entry(change):
    def changed(values):
        values.view(-1)[-1] = change
        return values

    return changed


DAMAGES = {
    "colour/mean": [entry(float("nan")), entry(float("inf")), entry(-0.1), entry(1.1)],
    "colour/covariance": [lambda v: v - 0.1 * torch.eye(3), lambda v: v + 10 * torch.eye(3)],
    "gmm/covariance/1": [lambda v: v + torch.randn(v.shape).double() * 0.01],
    "gmm/weight/1": [entry(-0.2), entry(0.9)],
    "histogram/quantiles": [lambda v: v.flip(-1), entry(float("nan"))],
    "pyramid/quantiles/bands": [lambda v: v.flip(-1)],
    "sliced/quantiles/2": [lambda v: v.flip(-1), entry(1e9)],
    "regions/quantiles": [lambda v: -v],
    "fda/amplitudes": [lambda v: -v, lambda v: v + 1.5],
    "spectrum/density": [lambda v: -v, entry(1e9), lambda v: v + torch.randn(v.shape).double()],
    "spectrum/typical": [lambda v: -v, entry(float("-inf"))],
    "pyramid/axes": [lambda v: 2 * v, lambda v: v[:, :1].expand(-1, 3, -1).contiguous()],
    "regions/axes": [lambda v: torch.zeros_like(v)],
    "regions/spread": [lambda v: -1 - v],
    "regions/texton": [lambda v: v + 1],
    "descriptors": [entry(float("nan")), entry(1e30)],
}


def test_the_undamaged_file_is_accepted(saved, tmp_path):
    tensors, metadata = saved
    save_file(tensors, tmp_path / "s.safetensors", metadata)
    assert len(StyleBank.load(tmp_path / "s.safetensors")) == 2


@pytest.mark.parametrize(
    ("name", "damage"), [(name, damage) for name, damages in DAMAGES.items() for damage in damages]
)
def test_statistics_that_no_image_has_are_refused_by_name(saved, tmp_path, name, damage):
    tensors, metadata = saved
    torch.manual_seed(0)
    save_file({**tensors, name: damage(tensors[name].clone())}, tmp_path / "s.safetensors", metadata)
    with pytest.raises(InputError, match=rf"damaged style bank: '{name}'.*Learn it again"):
        StyleBank.load(tmp_path / "s.safetensors")


@pytest.mark.parametrize("method", ["gatys", "nnst"])
def test_features_of_another_encoder_are_refused(photos, tmp_path, method, monkeypatch):
    bank = learn(photos, methods=[method], crops=1, size=32)
    assert bank.header["encoders"][method]["name"] == "efficientnet-lite0"
    path = tmp_path / "s.safetensors"
    bank.save(path)
    assert len(StyleBank.load(path)) == 3
    other = {method: {"name": "efficientnet-lite0", "fingerprint": "0" * 16}}
    for encoders in (other, {}, "efficientnet-lite0"):
        replace(bank, header={**bank.header, "encoders": encoders}).save(path)
        with pytest.raises(InputError, match=rf"{method} are not those.*encoder efficientnet-lite0.*--method {method}"):
            StyleBank.load(path)


# --- photos and contents at the edge --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FAST)
def test_one_photo_smaller_than_its_crops_gives_a_style(folder, picture, images, method):
    bank = learn(folder("one", {"p.png": picture(1, 24, 20)}), methods=[method], crops=1, size=64)
    result = bank.transfer(images[:1], KEYS[:1], method=method)
    assert len(bank) == 1 and result.shape == images[:1].shape and not torch.equal(result, images[:1])


@pytest.mark.parametrize("method", ["colour", "patches", "texture", "gmm", "spectrum", "pyramid", "regions", "crops"])
def test_grey_photos_give_almost_grey_results(folder, picture, images, method):
    grey = np.repeat(picture(1, 90, 90)[..., :1], 3, -1)
    bank = learn(folder("grey", {"p.png": grey}), methods=[method], crops=1, size=64)
    result = bank.transfer(images[:1], KEYS[:1], method=method).float()
    assert (result.amax(1) - result.amin(1)).mean() < 0.25 * (images[:1].amax(1) - images[:1].amin(1)).float().mean()


@pytest.mark.parametrize("method", FAST)
@pytest.mark.parametrize("value", [0, 128])
def test_flat_content_neither_fails_nor_depends_on_the_batch(photos, method, value):
    bank = learn(photos, methods=[method], crops=1, size=64)
    flat = torch.full((2, 3, 40, 56), value, dtype=torch.uint8)
    result = bank.transfer(flat, ["a", "a"], method=method)
    assert torch.equal(result[0], result[1])


@pytest.mark.parametrize("method", FAST)
def test_content_far_larger_than_the_crops(photos, picture, method):
    bank = learn(photos, methods=[method], crops=1, size=32)
    large = to_batch(picture(2, 320, 448))
    result = bank.transfer(large, ["k"], method=method)
    assert result.shape == large.shape and not torch.equal(result, large)


# --- methods of several scales --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LEVELLED)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_levels_are_the_finest_so_many_scales(photos, images, method, levels, monkeypatch):
    bank = learn(photos, methods=[method], crops=1, size=64)
    found = bank.transfer(images[:1], KEYS[:1], method=f"{method}:{levels}")
    for name in ("patches", "gmm", "sliced"):
        monkeypatch.setattr(import_module(f"stylize.styles.methods.{name}"), "LEVELS", (4, 2, 1)[3 - levels :])
    assert torch.equal(found, bank.transfer(images[:1], KEYS[:1], method=method))
    monkeypatch.undo()
    assert torch.equal(found, bank.transfer(images[:1], KEYS[:1], method=method)) == (levels == 3)


def test_levels_that_a_method_does_not_have_are_refused(bank, images):
    for word in ("patches:0", "texture:4", "texture:", "texture:two", "texture: 1"):
        with pytest.raises(InputError, match=rf"method {word}: expected .*:1 \(the finest scale alone\) to .*:3"):
            bank.transfer(images, KEYS, method=word)
    with pytest.raises(InputError, match=r"colour has no levels to choose from; patches, texture, gmm, sliced have"):
        bank.transfer(images, KEYS, method="texture+colour:1")
