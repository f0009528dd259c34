"""Styles as augmentation: torchvision's and albumentations' habits, data loaders of every kind, the same draws."""

from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from metrics.errors import InputError
from stylize import Stylize, StylizedDataset, learn, transfer
from stylize.styles.bank import to_batch


@pytest.fixture
def bank(folder, picture):
    return learn(folder("photos", {f"{i}.png": picture(i, 80, 80) for i in range(4)}), crops=2, size=48)


class Pictures(Dataset):
    """Noise with its number as the label."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (40, 48, 3), dtype=np.uint8)), index


class Arrays(Dataset):
    """``dataset`` with its images as tensors."""

    def __init__(self, dataset, transform=None):
        self.dataset, self.transform = dataset, transform

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        image, label = self.dataset[index]
        return np.array(self.transform(image) if self.transform else image), label


def test_every_kind_of_image_gives_the_same_result_of_its_kind(bank):
    array = np.array(Pictures()[0][0])
    stylize = Stylize(bank, "texture", 0.75)
    result = stylize(array)
    assert result.dtype == np.uint8 and result.shape == array.shape and not np.array_equal(result, array)
    assert np.array_equal(np.asarray(stylize(Image.fromarray(array))), result)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    assert torch.equal(stylize(tensor).permute(1, 2, 0), torch.from_numpy(result))
    assert isinstance(stylize(tv_tensors.Image(tensor)), tv_tensors.Image)
    assert np.array_equal(stylize(image=array, mask=1)["image"], result) and stylize(image=array, mask=1)["mask"] == 1


def test_the_result_is_that_of_the_bank(bank):
    array = np.array(Pictures()[0][0])
    result = torch.from_numpy(Stylize(bank, "colour")(array)).permute(2, 0, 1)[None]
    every = [bank.transfer(to_batch(array), ["k"], method="colour", plan={"k": style}) for style in range(len(bank))]
    assert any(torch.equal(result, one) for one in every)


def test_boxes_masks_and_labels_stay(bank):
    image = tv_tensors.Image(torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes([[1, 2, 10, 12]], format="XYXY", canvas_size=(40, 48))
    mask = tv_tensors.Mask(torch.ones(40, 48, dtype=torch.uint8))
    sample = {"image": image, "target": {"boxes": boxes, "mask": mask, "label": 3}}
    result = v2.Compose([Stylize(bank), v2.ToDtype(torch.float32, scale=True)])(sample)
    assert result["image"].dtype == torch.float32 and not torch.equal(result["image"], image / 255)
    assert torch.equal(result["target"]["boxes"], boxes) and torch.equal(result["target"]["mask"], mask)
    assert result["target"]["label"] == 3


def test_draws_come_from_seed_epoch_and_pixels_alone(bank):
    images = [np.asarray(image) for image, _ in (Pictures()[i] for i in range(6))]
    state = torch.get_rng_state()
    stylize = Stylize(bank, seed=3)
    first = [stylize(image) for image in images]
    assert torch.equal(torch.get_rng_state(), state)
    again = [stylize(image) for image in reversed(images)][::-1]
    assert all(map(np.array_equal, first, again))
    stylize.set_epoch(1)
    assert not all(map(np.array_equal, first, map(stylize, images)))
    assert not all(map(np.array_equal, first, map(Stylize(bank, seed=4), images)))


def test_p_is_the_share_that_is_stylised(bank):
    images = [np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8) for i in range(200)]
    stylize = Stylize(bank, "colour", p=0.25)
    changed = sum(not np.array_equal(stylize(image), image) for image in images)
    assert 30 < changed < 70
    assert all(np.array_equal(Stylize(bank, "colour", p=0)(image), image) for image in images[:9])


@pytest.mark.parametrize(("workers", "start"), [(2, "fork"), pytest.param(1, "spawn")])
def test_workers_of_every_kind_give_the_same_pixels(bank, tmp_path, workers, start):
    bank.save(tmp_path / "style.safetensors")
    data = Arrays(Pictures(), Stylize(tmp_path / "style.safetensors"))
    here = [image for image, _ in DataLoader(data)]
    there = [image for image, _ in DataLoader(data, num_workers=workers, multiprocessing_context=start)]
    assert all(map(torch.equal, here, there))


@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
def test_a_new_epoch_reaches_workers_that_live_on(bank):
    transform = Stylize(bank)
    loader = DataLoader(Arrays(Pictures(), transform), num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 0):
        transform.set_epoch(epoch)
        epochs.append([image for image, _ in loader])
    assert all(map(torch.equal, epochs[0], epochs[2])) and not all(map(torch.equal, epochs[0], epochs[1]))


def test_a_stylised_dataset_keeps_labels_and_order(bank):
    data = StylizedDataset(Pictures(), bank, "texture", 0.5)
    assert len(data) == 6 and [label for _, label in (data[i] for i in range(6))] == list(range(6))
    assert isinstance(data[0][0], Image.Image) and np.array_equal(data[5][0], data[-1][0])
    assert not np.array_equal(data[0][0], Pictures()[0][0])
    before = np.asarray(data[2][0])
    data.set_epoch(1)
    assert any(not np.array_equal(data[i][0], before) for i in (2,)) or len(bank) == 1
    with pytest.raises(InputError, match="map-style dataset"):
        StylizedDataset(iter([]), bank)


def test_samples_of_every_form(bank):
    image, label = Pictures()[0]
    expected = np.asarray(StylizedDataset(Pictures(), bank)[0][0])
    pair = namedtuple("Pair", "image label")(image, label)
    by_name, named, alone, listed = (
        StylizedDataset([sample], bank)[0] for sample in ({"image": image, "label": label}, pair, image, [image, label])
    )
    for found in (by_name["image"], named.image, alone, listed[0]):
        assert np.array_equal(found, expected)
    assert by_name["label"] == named.label == listed[1] == label and type(named) is type(pair)
    with pytest.raises(InputError, match="got a dict"):
        StylizedDataset([{"pixels": image}], bank)[0]


def test_one_image_and_one_photo(picture, tmp_path):
    content = Image.fromarray(picture(0, 60, 80))
    dark = picture(1, 70, 90) // 4
    result = transfer(content, Image.fromarray(dark))
    assert isinstance(result, Image.Image) and result.size == content.size
    assert abs(np.asarray(result).mean() - dark.mean()) < 30 < np.asarray(content).mean() - dark.mean()
    Image.fromarray(dark).save(tmp_path / "dark.png")
    assert np.array_equal(transfer(content, tmp_path / "dark.png"), result)
    assert np.array_equal(transfer(np.asarray(content), dark), result)
    assert np.array_equal(transfer(content, dark, "colour", 0.0), content)


def test_what_cannot_be_stylised_is_named(bank, folder, picture):
    stylize = Stylize(bank)
    for image, what in (
        (torch.rand(3, 8, 8), r"torch.float32 \[3, 8, 8\]"),
        (np.zeros((8, 8), np.uint8), r"uint8 \[8, 8\]"),
        ("a.png", "a str"),
    ):
        with pytest.raises(InputError, match=rf"got {what}. Expected a PIL image"):
            stylize.apply_to(image)
    with pytest.raises(InputError, match="expected the share of images to stylise, 0 to 1"):
        Stylize(bank, p=1.5)
    with pytest.raises(InputError, match="unknown style method 'textur'"):
        Stylize(bank, "textur")
    with pytest.raises(InputError, match="holds no statistics for the method 'spectrum'"):
        Stylize(bank, "spectrum")
    assert len(Stylize(folder("more", {f"{i}.png": picture(i, 300, 300) for i in range(2)}), "colour").bank) == 16
