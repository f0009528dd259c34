"""Whole numbers of any kind mean what they mean to a list: in every family and in the data sets."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metrics.errors import InputError
from stylize.patterns import FAMILIES, load_family
from stylize.patterns.class_json import to_json
from stylize.patterns.dataset import MultiInstanceDataset, PatternDataset, SegmentationDataset

PHOTO = str(sorted((Path(__file__).parent.parent / "assets/photos").rglob("*.jpg"))[0])
CHEAP = ("moire", "spectrum-noise", "rcdb")


def sample(name, seed, number):
    options = {"photo": PHOTO} if name == "one-image" else {}
    return load_family(name).sample_class(seed, number, **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_numbers_of_numpy_and_torch_are_numbers(name):
    family, expected = load_family(name), sample(name, 1, 2)
    made = sample(name, np.int64(1), np.uint8(2))
    assert made == expected and type(made.seed) is type(made.class_id) is int
    assert to_json(name, [made]) == to_json(name, [expected])
    image = family.render(expected, 3, 24)
    assert np.array_equal(family.render(made, np.int64(3), np.int32(24)), image)
    if name in CHEAP:
        assert np.array_equal(family.render(made, torch.tensor(3), torch.tensor(24)), image)
        assert np.array_equal(family.render(made, True, 24), family.render(made, 1, 24))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_no_whole_number_is_refused(name):
    made = sample(name, 1, 2)
    for words in ((1.0, 2), (1, 2.0), ("1", 2), (1, None), (np.float64(1), 2)):
        with pytest.raises(InputError, match="expected an integer"):
            sample(name, *words)
    for words in ((1.0, 24), (1, 24.0), (np.float32(1), 24)):
        with pytest.raises(InputError, match="expected an integer"):
            load_family(name).render(made, *words)


def test_options_of_numpy_are_options():
    family = load_family("fractaldb")
    assert family.sample_class(0, 1, points=np.int64(5000)) == family.sample_class(0, 1, points=5000)


def test_data_sets_are_indexed_like_lists():
    kinds = (np.int64, np.uint16, torch.tensor)
    plain = PatternDataset("moire", 2, 3, 16, seed=5)
    given = PatternDataset("moire", np.int64(2), np.int32(3), np.int64(16), seed=np.int64(5))
    assert given.targets == plain.targets and {type(target) for target in given.targets} == {int}
    for kind in kinds:
        image, target = given[kind(4)]
        assert np.array_equal(image, plain[4][0]) and type(target) is int and target == 1
    assert np.array_equal(given[np.int64(-1)][0], plain[5][0]) and np.array_equal(given[True][0], plain[1][0])
    for outside in (6, -7, np.int64(6)):
        with pytest.raises(IndexError):
            given[outside]
    for no_index in (1.0, "1", None, np.float64(1)):
        with pytest.raises(TypeError):
            given[no_index]


def test_the_other_data_sets_too():
    several = MultiInstanceDataset(np.int64(2), np.int64(3), np.int64(32), seed=np.int64(1), most=np.int64(2))
    plain = MultiInstanceDataset(2, 3, 32, seed=1, most=2)
    assert np.array_equal(several[np.int64(2)][0], plain[2][0]) and torch.equal(several[-1][1], plain[2][1])
    masks, expected = (
        SegmentationDataset(np.int64(2), np.int64(48), seed=np.int64(3)),
        SegmentationDataset(2, 48, seed=3),
    )
    for part, other in zip(masks[np.int64(1)], expected[1], strict=True):
        assert np.array_equal(part, other)
    with pytest.raises(InputError, match=r"instances is 2\.5; expected an integer"):
        PatternDataset("moire", 2, 2.5)
