import json
import sys
from datetime import datetime

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler, Subset, SubsetRandomSampler

from metrics.errors import InputError
from metrics.features.extraction import extract
from metrics.image_sets import torch_dataset
from metrics.image_sets.decode import ImageError
from metrics.image_sets.open import open_images


@pytest.fixture
def pixels(picture):
    return np.stack([picture(seed, 24, 32) for seed in range(7)])


@pytest.fixture
def expected(folder, pixels):
    return open_images(folder("set", {f"{index:06d}.png": image for index, image in enumerate(pixels)}))


class Pairs(Dataset):
    """(image, label) pairs; ``make`` turns ``uint8 [H,W,3]`` into what the dataset yields."""

    def __init__(self, pixels, make=Image.fromarray):
        self.pixels, self.make, self.read = pixels, make, []

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        self.read.append(index)
        return self.make(self.pixels[index]), index % 3


def same(images, expected, labels=None):
    assert [(item.key, item.group) for item in images] == [(item.key, item.group) for item in expected]
    assert images.labels == (labels or [None] * len(expected))
    for item, other in zip(images, expected, strict=True):
        assert item.read().dtype == np.uint8
        assert np.array_equal(item.read(), other.read())
        assert item.dimensions() == other.dimensions()


def chw(image):
    return torch.from_numpy(image).permute(2, 0, 1)


def test_tensors_and_arrays_equal_the_folder(pixels, expected):
    batch = torch.from_numpy(pixels)
    for source in (pixels, batch, batch.permute(0, 3, 1, 2), pixels.transpose(0, 3, 1, 2)):
        same(open_images(source), expected)
    crops, others = open_images(pixels).crops(2, 16), expected.crops(2, 16)
    assert all(np.array_equal(a.read(), b.read()) for a, b in zip(crops, others, strict=True))


def test_arrays_of_other_shapes_and_types_are_refused(pixels):
    with pytest.raises(InputError, match=r"got float32 images, which could be scaled or normalised in any way"):
        open_images(torch.from_numpy(pixels).float() / 255)
    for bad in (pixels[0], pixels[..., :2], pixels[..., None], pixels[:0]):
        with pytest.raises(InputError, match=r"got an array of shape .*Expected images: uint8 \[N,3,H,W\]"):
            open_images(bad)
    with pytest.raises(InputError, match=r"got images of 32x4\. Expected at least 8x8"):
        open_images(pixels[:, :4])


def test_a_pixel_digest_knows_shape_and_values(pixels):
    image = pixels[0]
    digests = {open_images(a[None])[0].digest() for a in (image, image.transpose(1, 0, 2), image.reshape(32, 24, 3))}
    assert len(digests) == 3
    assert open_images(pixels)[0].digest() == open_images(torch.from_numpy(pixels).permute(0, 3, 1, 2))[0].digest()
    assert open_images(pixels)[0].digest() != open_images(pixels)[1].digest()


@pytest.mark.parametrize("make", [Image.fromarray, chw, torch.from_numpy, np.array])
def test_datasets_of_pairs_equal_the_folder(pixels, expected, make):
    same(open_images(Pairs(pixels, make)), expected, [0, 1, 2, 0, 1, 2, 0])


def test_grey_images_of_datasets_repeat_in_all_channels(pixels):
    for make in (lambda image: torch.from_numpy(image[None, ..., 0]), lambda image: image[..., 0]):
        item = open_images(Pairs(pixels, make))[2]
        assert np.array_equal(item.read(), np.repeat(pixels[2][..., :1], 3, 2))


def test_labels_come_from_targets_without_reading(pixels):
    data = Pairs(pixels)
    data.targets = torch.tensor([5, 4, 3, 2, 1, 0, 9])
    images = open_images(Subset(data, [1, 3]))
    assert images.labels == [4, 2] and set(data.read) == {1}  # the first, to see what it is
    assert np.array_equal(images[1].read(), pixels[3])


def test_dictionaries_and_bare_images(pixels, expected):
    named = Samples([{"image": chw(image), "label": "cat"} for image in pixels])
    same(open_images(named), expected, ["cat"] * 7)
    same(open_images(Samples([chw(image) for image in pixels])), expected)
    with pytest.raises(InputError, match=r"samples with x, y\. Expected one of image, img, pixel_values"):
        open_images(Samples([{"x": 1, "y": 2}]))


class Samples(Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class Stream(IterableDataset):
    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return iter(self.samples)


def test_float_datasets_are_refused_before_any_work(pixels):
    data = Pairs(pixels, lambda image: chw(image).float() / 255)
    for source in (data, DataLoader(data, batch_size=2), DataLoader(data, collate_fn=list)):
        with pytest.raises(InputError, match=r"got float32 images.*leave out ToTensor and Normalize"):
            open_images(source)
    with pytest.raises(InputError, match="got a str as image"):
        open_images(Samples(["a", "b"]))
    with pytest.raises(InputError, match="empty"):
        open_images(Samples([]))


def test_loaders_that_shuffle_and_batch_are_read_as_their_dataset(pixels, expected):
    data = Pairs(pixels, chw)
    for options in ({}, {"shuffle": True}, {"batch_size": 3}, {"batch_size": None}):
        same(open_images(DataLoader(data, **options)), expected, [0, 1, 2, 0, 1, 2, 0])


def test_other_loaders_are_iterated_once(pixels, expected):
    data = Pairs(pixels, chw)
    images = open_images(DataLoader(data, batch_size=3, drop_last=True))
    assert len(images) == 6 and images.labels == [0, 1, 2, 0, 1, 2]
    chosen = open_images(DataLoader(data, batch_size=2, sampler=SubsetRandomSampler([4])))
    assert len(chosen) == 1 and np.array_equal(chosen[0].read(), pixels[4]) and chosen.labels == [1]
    batches = open_images(DataLoader(data, batch_sampler=[[5, 1], [0]]))
    assert batches.labels == [2, 1, 0] and np.array_equal(batches[0].read(), pixels[5])
    with pytest.raises(InputError, match="got samples with x"):
        open_images(DataLoader(data, batch_size=2, collate_fn=lambda batch: {"x": batch}))
    dicts = DataLoader(
        Samples([{"image": chw(image), "label": i} for i, image in enumerate(pixels)]),
        4,
        sampler=SequentialSampler(pixels),
    )
    same(open_images(dicts), expected, list(range(7)))
    same(open_images(Stream([(chw(image), "x") for image in pixels])), expected, ["x"] * 7)
    same(open_images(DataLoader(Stream([chw(image) for image in pixels]), batch_size=4)), expected)


def test_streams_beyond_memory_are_refused(pixels, monkeypatch):
    monkeypatch.setattr(torch_dataset, "MOST", 5000)
    with pytest.raises(InputError, match=r"Stream: more than .* GiB of images.*Pass a map-style Dataset"):
        open_images(Stream([chw(image) for image in pixels]))


def test_a_sample_that_raises_is_one_unreadable_image(pixels):
    class Fragile(Samples):
        def __getitem__(self, index):
            if index == 2:
                raise RuntimeError("disk on fire\nand more")
            return self.samples[index]

    images = open_images(Fragile([chw(image) for image in pixels]))
    with pytest.raises(ImageError, match=r"the dataset raised RuntimeError \(disk on fire\)$"):
        images[2].read()


def test_features_of_every_source_are_the_same(pixels, expected):
    from metrics.extractors.extractor import Extractor

    class Means(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    extractor = Extractor("means", Means(), lambda x: x.float(), architecture="means", preprocessing={})
    whole = extract(expected, extractor)
    for source in (pixels, Pairs(pixels), DataLoader(Pairs(pixels, chw), batch_size=2)):
        result = extract(open_images(source), extractor, workers=4)
        assert torch.equal(result.features, whole.features) and result.keys == whole.keys


@pytest.fixture
def hub(pixels, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "group": datasets.Value("string"),
            "weather": datasets.Value("string"),
            "boxes": datasets.Sequence(datasets.Value("int32")),
        }
    )
    rows = {
        "image": [Image.fromarray(image) for image in pixels],
        "label": [0, 1, 0, 1, 0, 1, -1],
        "group": ["v", "v", "w", "w", None, None, "x"],
        "weather": ["rain"] * 7,
        "boxes": [[1, 2]] * 7,
    }
    return datasets.Dataset.from_dict(rows, features=features)


def test_hugging_face_datasets_equal_the_folder(hub, expected, tmp_path):
    hub.save_to_disk(str(tmp_path / "saved"))
    for source in (hub, tmp_path / "saved", hub.with_format("torch")):
        images = open_images(source)
        assert [item.key for item in images] == [item.key for item in expected]
        assert images.labels == ["cat", "dog", "cat", "dog", "cat", "dog", None]
        assert [item.group for item in images] == ["v", "v", "w", "w", "000004", "000005", "x"]
        assert images[0].tags == {"weather": "rain"}
        assert all(np.array_equal(a.read(), b.read()) for a, b in zip(images, expected, strict=True))
    assert open_images(tmp_path / "saved").root == tmp_path / "saved"
    assert open_images(tmp_path / "saved")[1].location == f"{tmp_path}/saved::000001"


def test_a_lone_class_column_is_the_label(hub):
    assert open_images(hub.rename_column("label", "animal")).labels[:2] == ["cat", "dog"]
    assert open_images(hub.remove_columns(["label", "weather", "group", "boxes"])).labels == [None] * 7


def test_other_columns_are_metadata_as_json_has_them(pixels):
    datasets = pytest.importorskip("datasets")
    kinds = {
        "image": datasets.Image(),
        "mask": datasets.Image(),
        "label": [datasets.Value("int32")],
        "objects": {"box": datasets.Sequence(datasets.Value("float32")), "kind": datasets.ClassLabel(names=["a", "b"])},
        "taken": datasets.Value("timestamp[s]"),
        "lux": datasets.Value("float64"),
        "raw": datasets.Value("binary"),
    }
    picture = Image.fromarray(pixels[0])
    row = {"image": picture, "mask": picture, "label": [1], "objects": {"box": [0.5, 2], "kind": 1}}
    row |= {"taken": datetime(2026, 1, 2), "lux": float("inf"), "raw": b"x"}
    dataset = datasets.Dataset.from_list([row], features=datasets.Features(kinds))
    found = open_images(dataset)[0].metadata
    assert found == {"objects": {"box": [0.5, 2.0], "kind": 1}, "taken": "2026-01-02 00:00:00", "lux": None}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_hugging_face_datasets_that_cannot_be_read(hub, tmp_path, monkeypatch):
    import datasets

    splits = datasets.DatasetDict({"train": hub, "test": hub})
    splits.save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(InputError, match=r"a dataset of several splits \(test, train\)\. Name the folder of one"):
        open_images(tmp_path / "splits")
    with pytest.raises(InputError, match=r"got a DatasetDict\. Expected a datasets\.Dataset"):
        open_images(splits)
    with pytest.raises(InputError, match=r"columns weather \(Value\)\. Expected one image column"):
        open_images(hub.select_columns(["weather"]))
    with pytest.raises(InputError, match="dataset without rows"):
        open_images(hub.select([]))
    saved = tmp_path / "splits/train"
    next(saved.glob("*.arrow")).write_bytes(b"broken")
    with pytest.raises(InputError, match="a damaged Hugging Face dataset"):
        open_images(saved)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        InputError, match=r"the package datasets is missing\. Install it: pip install 'reverse-stylize\[datasets\]'"
    ):
        open_images(saved)


def test_a_row_without_an_image_is_unreadable(hub, pixels):
    import datasets

    data = datasets.Dataset.from_dict(
        {"image": [None, Image.fromarray(pixels[0])]}, features=datasets.Features({"image": datasets.Image()})
    )
    images = open_images(data)
    with pytest.raises(ImageError, match="no image in this row"):
        images[0].read()
    assert np.array_equal(images[1].read(), pixels[0])
