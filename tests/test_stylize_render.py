import json

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from metrics.errors import InputError
from metrics.image_sets.open import open_images
from stylize import iter_apply, iter_render, learn
from stylize.patterns import FAMILIES, fractal_svd, load_family, seg_contours
from stylize.patterns.class_json import from_json, to_json
from stylize.patterns.dataset import MultiInstanceDataset, PatternDataset, SegmentationDataset
from stylize.patterns.health import health

FAMILY = "neural-fractal"


def render(*arguments, **options):
    return list(iter_render(*arguments, **{"size": 32, **options}))


def tree(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_labelled_tree_of_pure_images(tmp_path):
    steps = render(FAMILY, tmp_path / "out", classes=3, per_class=2, seed=7)
    assert (steps[-1].done, steps[-1].total) == (6, 6)
    images = open_images(tmp_path / "out")
    assert [item.key for item in images][:3] == ["00000/00000", "00000/00001", "00001/00000"]
    assert images.labels == ["00000"] * 2 + ["00001"] * 2 + ["00002"] * 2
    module = load_family(FAMILY)
    assert np.array_equal(images[3].read(), module.render(module.sample_class(7, 1), 1, 32))
    row = json.loads((tmp_path / "out/metadata.jsonl").read_text().splitlines()[3])
    assert (row["label"], row["class"], row["instance"], row["seed"]) == ("00001", 1, 1, 7) and row["draws"] >= 1


def test_workers_shards_and_json_change_no_pixel(tmp_path):
    render(FAMILY, tmp_path / "one", classes=3, per_class=3)
    render(FAMILY, tmp_path / "many", classes=3, per_class=3, workers=3, shard_size=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "many")
    module = load_family(FAMILY)
    (tmp_path / "classes.json").write_text(to_json(FAMILY, [module.sample_class(0, i) for i in range(3)]))
    render(tmp_path / "classes.json", tmp_path / "given", per_class=3)
    assert {k: v for k, v in tree(tmp_path / "given").items() if k != "run.json"} == {
        k: v for k, v in tree(tmp_path / "one").items() if k != "run.json"
    }


def test_bad_requests(tmp_path):
    for options, message in [
        ({"classes": 0}, "classes = 0, per_class = 30: expected at least 1"),
        ({"size": 9000}, "size 9000: expected 16 to 5000"),
        ({"format": "gif"}, "unknown image format 'gif'"),
    ]:
        with pytest.raises(InputError, match=message):
            render(FAMILY, tmp_path / "out", **options)
    with pytest.raises(InputError, match="Did you mean 'neural-fractal'"):
        render("neural-fractals", tmp_path / "out")
    with pytest.raises(InputError, match=r"no such file\. Write one with"):
        render(tmp_path / "none.json", tmp_path / "out")


def test_options_reach_the_family_and_unknown_ones_are_refused(tmp_path):
    render(FAMILY, tmp_path / "out", classes=1, per_class=1, options={"activation": "holomorphic"})
    module = load_family(FAMILY)
    expected = module.render(module.sample_class(0, 0, activation="holomorphic"), 0, 32)
    assert np.array_equal(open_images(tmp_path / "out")[0].read(), expected)
    data = PatternDataset(FAMILY, 1, 1, 32, options={"activation": "holomorphic"})
    assert np.array_equal(np.asarray(data[0][0]), expected)
    with pytest.raises(InputError, match=r"unknown option of neural-fractal 'activaton'. Did you mean 'activation'"):
        render(FAMILY, tmp_path / "no", options={"activaton": "split"})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_describes_itself(family):
    module = load_family(family)
    assert module.__doc__ and len(module.__doc__) > 300 and FAMILIES[family]
    assert module.Parameters.__doc__


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON document of pattern classes"),
        ("[]", "not a JSON document"),
        ('{"schema": 2, "family": "neural-fractal", "classes": [{}]}', "schema 2"),
        ('{"schema": 1, "family": "neural-fractal", "classes": []}', "at least one class"),
        ('{"schema": 1, "family": "mandelbrot", "classes": [{}]}', "unknown pattern family 'mandelbrot'"),
        ('{"schema": 1, "family": "neural-fractal", "classes": [{}]}', "needs exactly the keys"),
        ('{"schema": 1, "family": "neural-fractal", "classes": [3]}', "got int"),
    ],
)
def test_what_is_no_class_document_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        from_json(text)


# --- PatternDataset -------------------------------------------------------------------------------------------------


def test_dataset_is_a_drop_in_for_an_image_folder(tmp_path):
    data = PatternDataset(FAMILY, classes=3, instances=2, size=24, seed=7)
    assert len(data) == 6 and data.classes == ["00000", "00001", "00002"]
    assert data.class_to_idx["00002"] == 2 and data.targets == [0, 0, 1, 1, 2, 2]
    image, target = data[3]
    assert isinstance(image, Image.Image) and target == 1
    render(FAMILY, tmp_path / "out", classes=3, per_class=2, seed=7, size=24)
    files = open_images(tmp_path / "out")
    assert all(np.array_equal(np.asarray(data[i][0]), files[i].read()) for i in range(6))
    assert np.array_equal(np.asarray(data[-1][0]), np.asarray(data[5][0]))
    with pytest.raises(IndexError):
        data[6]


def test_transforms_and_workers():
    data = PatternDataset(FAMILY, 2, 4, 16, transform=transforms.ToTensor(), target_transform=lambda label: label + 10)
    alone = DataLoader(data, batch_size=4)
    workers = DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context="fork")
    for (x, y), (u, v) in zip(alone, workers, strict=True):
        assert x.shape == (4, 3, 16, 16) and x.equal(u) and y.equal(v)
    assert y.tolist() == [11] * 4


def test_dataset_from_json(tmp_path):
    module = load_family(FAMILY)
    (tmp_path / "c.json").write_text(to_json(FAMILY, [module.sample_class(5, 9), module.sample_class(6, 2)]))
    data = PatternDataset(tmp_path / "c.json", instances=1, size=16)
    assert np.array_equal(np.asarray(data[1][0]), module.render(module.sample_class(6, 2), 0, 16))
    with pytest.raises(InputError, match="3 classes were asked for; expected 1 to 2"):
        PatternDataset(tmp_path / "c.json", classes=3)
    with pytest.raises(InputError, match="expected at least 1"):
        PatternDataset(FAMILY, classes=0)


# --- masks and several labels ---------------------------------------------------------------------------------------

FEW = {"categories": 5, "contours": 4}


def test_masks_are_written_beside_the_images_and_are_no_images(tmp_path):
    render("seg-contours", tmp_path / "out", classes=1, per_class=2, options={**FEW, "mask": "ring"}, format="webp")
    images = open_images(tmp_path / "out")
    assert [item.key for item in images] == ["00000/00000", "00000/00001"]
    params = seg_contours.sample_class(0, 0, **FEW, mask="ring")
    for instance, item in enumerate(images):
        assert item.companions == {"mask_file_name": f"masks/{item.key}.png"}
        with Image.open(tmp_path / "out" / item.companions["mask_file_name"]) as mask:
            assert mask.mode == "L"
            assert np.array_equal(np.asarray(mask), seg_contours.render_with_mask(params, instance, 32)[1])
    (tmp_path / "out/masks/00000/00001.png").unlink()
    with pytest.raises(InputError, match=r"1 of its files are gone, e\.g\. masks/00000/00001\.png"):
        render("seg-contours", tmp_path / "out", classes=1, per_class=2, options={**FEW, "mask": "ring"}, format="webp")


def test_stylising_keeps_the_masks(tmp_path, folder, picture):
    render("seg-contours", tmp_path / "out", classes=1, per_class=2, options=FEW)
    learn(folder("photos", {"a.png": picture(1, 40, 40)}), crops=1, size=32).save(tmp_path / "style.safetensors")
    list(iter_apply(tmp_path / "style.safetensors", tmp_path / "out", tmp_path / "styled", method="colour"))
    before, after = open_images(tmp_path / "out"), open_images(tmp_path / "styled")
    assert [item.companions for item in after] == [item.companions for item in before]
    for item in after:
        name = item.companions["mask_file_name"]
        assert (tmp_path / "styled" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize("name", ["a/.job/config.json", "a/none.png"])
def test_a_companion_that_is_hidden_or_missing_is_listed_not_copied(tmp_path, folder, picture, name):
    root = folder("set", {"a/1.png": picture(1), "a/2.png": picture(2), "a/.job/config.json": b"{}"})
    folder(".", {"secret.png": picture(3)})
    rows = [{"file_name": "a/1.png"}, {"file_name": "a/2.png", "mask_file_name": name}]
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    learn(folder("photos", {"a.png": picture(1, 40, 40)}), crops=1, size=32).save(tmp_path / "style.safetensors")
    list(iter_apply(tmp_path / "style.safetensors", root, tmp_path / "styled", method="colour"))
    errors = [json.loads(line) for line in (tmp_path / "styled/errors.jsonl").read_text().splitlines()]
    assert [error["key"] for error in errors] == ["a/2"] and "companion" in errors[0]["error"]
    assert sorted(p.name for p in (tmp_path / "styled").rglob("*.png")) == ["1.png"]


def test_segmentation_dataset():
    data = SegmentationDataset(3, size=40, seed=2, options={**FEW, "mask": "disc"})
    params = seg_contours.sample_class(2, 0, **FEW, mask="disc")
    image, mask = seg_contours.render_with_mask(params, 2, 40)
    assert len(data) == 3 and data.parameters == params
    assert np.array_equal(np.asarray(data[2][0]), image) and np.array_equal(np.asarray(data[-1][1]), mask)
    pairs = SegmentationDataset(3, 40, 2, options={**FEW}, transforms=lambda image, mask: (image.size, mask.mode))
    assert pairs[0] == ((40, 40), "L")
    with pytest.raises(InputError, match="rcdb has no masks"):
        SegmentationDataset(3, family="rcdb")
    with pytest.raises(IndexError):
        data[3]


def test_multi_instance_dataset():
    data = MultiInstanceDataset(6, 4, size=48, seed=3, most=3)
    classes = [fractal_svd.sample_class(3, number) for number in range(6)]
    for index in (3, 0):
        image, label = fractal_svd.render_many(3, index, classes, 48, most=3)
        sample, target = data[index]
        assert np.array_equal(np.asarray(sample), image) and target.tolist() == label.tolist()
        assert 1 <= target.sum() <= 3
    loader = DataLoader(MultiInstanceDataset(6, 4, 48, transform=transforms.ToTensor()), batch_size=4)
    images, targets = next(iter(loader))
    assert images.shape == (4, 3, 48, 48) and targets.shape == (4, 6) and targets.dtype.is_floating_point
    with pytest.raises(InputError, match="expected at least 1 of each"):
        MultiInstanceDataset(0, 4)


# --- health ---------------------------------------------------------------------------------------------------------


def test_a_sound_set_has_no_warning(tmp_path):
    render(FAMILY, tmp_path / "out", classes=4, per_class=3)
    found = health(tmp_path / "out")
    assert found.looked_at == 12 and found.duplicates == 0 and 0 < found.acceptance <= 1
    assert found.nearest_class > 0.05 and len(found.lines()) == 1


def test_collapsed_classes_duplicates_and_empty_images_are_warned_of(folder):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
    root = folder("alike", {f"{c}/{i}.png": base for c in range(3) for i in range(2)})
    text = "\n".join(health(root).lines())
    assert "classes look alike" in text and "100.0% of the images have a twin" in text
    blank = folder("blank", {f"{c}/0.png": np.full((32, 32, 3), 40 * c, np.uint8) for c in range(4)})
    assert "100% of the images are nearly empty" in "\n".join(health(blank).lines())


def test_health_numbers_of_a_known_image(folder):
    half = np.zeros((32, 32, 3), np.uint8)
    half[:, 20:] = 255
    found = health(folder("half", {"a/0.png": half}))
    assert found.fill == pytest.approx(12 / 32) and found.edges == pytest.approx(2 / 32)
    assert found.nearest_class is None and found.acceptance is None


# --- every family, one contract -------------------------------------------------------------------------------------

OPTIONS = {"one-image": {"photo": "assets/photos/learn/cat.jpg"}}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_renders_purely_and_survives_json(family):
    module = load_family(family)
    first, second = (module.sample_class(3, number, **OPTIONS.get(family, {})) for number in (1, 2))
    image = module.render(first, 0, 48)
    assert image.shape == (48, 48, 3) and image.dtype == np.uint8 and image.std() > 0
    others = [module.render(first, 1, 48), module.render(second, 0, 48)]
    assert not any(np.array_equal(image, other) for other in others)
    name, again = from_json(to_json(family, [first, second]))
    assert name == family and again == [first, second]
    assert np.array_equal(module.render(again[0], 0, 48), image)


def test_one_image_without_its_photo_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match=r"photo"):
        render("one-image", tmp_path / "out", classes=1)


def test_too_small_a_perturbation_is_warned_of(tmp_path):
    """The published collapse of one perturbed fractal: classes at delta 0.01 cannot be told apart."""
    for size, delta, alike in ((128, 0.01, True), (128, 0.1, False), (256, 0.01, True), (256, 0.05, False)):
        out = tmp_path / f"{size} {delta}"
        render("one-fractal", out, classes=12, per_class=1, size=size, options={"delta": delta})
        assert ("classes look alike" in "\n".join(health(out).lines())) == alike, (size, delta, health(out))


@pytest.mark.parametrize("family", ["neural-fractal", "fractaldb", "seg-contours", "dead-leaves"])
def test_a_device_draws_the_same_set(family, tmp_path):
    """The tensors' path, which a GPU takes, on the CPU under another name."""
    size = {"size": 64, "classes": 2, "per_class": 3}
    render(family, tmp_path / "cpu", **size)
    render(family, tmp_path / "device", **size, device="cpu:0")
    here, there = tree(tmp_path / "cpu"), tree(tmp_path / "device")
    assert json.loads(there.pop("run.json"))["config"]["device"] == "cpu" and here.pop("run.json")
    assert here == there
    with pytest.raises(InputError, match="device 'nowhere' cannot be used here"):
        render(family, tmp_path / "other", **size, device="nowhere")


def test_a_family_without_tensors_is_drawn_on_the_cpu_alone(tmp_path, monkeypatch):
    monkeypatch.delattr("stylize.patterns.visual_atom.render_torch")
    with pytest.raises(InputError, match="visual-atom is drawn on the CPU alone"):
        render("visual-atom", tmp_path / "out", device="cpu:0")
