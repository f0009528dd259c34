import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.comparison.slices import holm, slices


def test_labels_and_tags_become_named_rows():
    labels = ["cat", "dog", "cat", None, 3, "cat"]
    tags = [{"weather": "rain"}, {"weather": "sun"}, {"weather": "rain", "day": "1"}, {}, {"weather": "sun"}, {}]
    found = slices(labels, tags, least=2)
    assert found.rows == {"label: cat": (0, 2, 5), "weather: rain": (0, 2), "weather: sun": (1, 4)}
    assert list(found.rows) == ["label: cat", "weather: rain", "weather: sun"]
    assert found.small == {"label: dog": 1, "label: 3": 1, "day: 1": 1}


def test_what_every_image_has_is_no_slice():
    assert slices(["cat"] * 20, [{"method": "texture"}] * 20).rows == {}
    assert slices([None] * 20).rows == slices([]).rows == {}


def test_ten_images_make_a_slice():
    labels = ["a"] * 10 + ["b"] * 9
    assert slices(labels).rows == {"label: a": tuple(range(10))}
    assert slices(labels).small == {"label: b": 9}


def slow_holm(p):
    """The definition: the least alpha that rejects; the smallest p are rejected while p <= alpha / (number left)."""
    adjusted = []
    for target in range(len(p)):
        candidates = sorted({min(1.0, k * value) for value in p for k in range(1, len(p) + 1)} | {1.0})
        adjusted.append(next(alpha for alpha in candidates if target in rejected(p, alpha)))
    return adjusted


def rejected(p, alpha):
    done, left = set(), sorted(range(len(p)), key=lambda i: p[i])
    while left and min(1.0, p[left[0]] * len(left)) <= alpha:
        done.add(left.pop(0))
    return done


@given(st.lists(st.floats(0, 1), min_size=0, max_size=7))
def test_holm_equals_the_definition(p):
    assert holm(p) == pytest.approx(slow_holm(p), abs=1e-12)


def test_holm_of_a_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_bounds_the_chance_of_any_false_rejection():
    p = np.random.default_rng(0).random((2000, 10))
    false = np.mean([min(holm(row)) <= 0.05 for row in p.tolist()])
    assert abs(false - 0.05) < 0.015  # independent nulls: 1 - (1 - 0.005) ** 10 = 0.0489
