import dataclasses
import hashlib
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from test_stylize_rcdb import reference_draw, reference_polygons

from metrics.errors import InputError
from stylize import patterns
from stylize.patterns import _contours as contours
from stylize.patterns import seg_contours
from stylize.patterns.class_json import from_json, to_json

# Sha256 of image and mask of instance 3 of class 2 of seed 1 at 48 pixels
GOLDEN = "71f52c245bac61df21068e146e0005709fdadd6e24a5fbf5e75b0c241685917c"


@cache
def klass(class_id, categories=20, contours=6, **options):
    return seg_contours.sample_class(5, class_id, categories=categories, contours=contours, **options)


@pytest.mark.parametrize("size", [16, 200, 512])
def test_image_and_mask_match_the_slow_formula(size):
    """Fixed point against float64: a coordinate may fall on the other side of a pixel's edge."""
    params = klass(1)
    stacks, greys, labels = seg_contours.place(params, 2)
    image, mask = seg_contours.render_with_mask(params, 2, size)
    assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((size, size), np.uint8)
    expected = reference_draw(stacks, size)
    assert (mask > 0).mean() > 0.05
    assert (mask != labels[expected]).mean() < 1e-4
    assert (image != greys[expected][..., None]).mean() < 1e-4
    assert (image[mask == 0] == 0).all(), "what is drawn has a label"
    assert np.array_equal(seg_contours.render(params, 2, size), image)


def pillow_areas(params, instance, size, ring):
    stacks, _, labels = seg_contours.place(params, instance)
    image, first = Image.new("L", (size, size)), 1
    pen = ImageDraw.Draw(image)
    for stack in stacks:
        label, polygons = int(labels[first]), [*reference_polygons(stack)]
        outer, inner = ([(x * size / 512, y * size / 512) for x, y in polygons[k]] for k in (-1, 0))
        pen.polygon(outer, fill=label)
        if ring:
            pen.polygon(inner, fill=0)
            pen.line([*inner, inner[0]], fill=label)
            pen.line([*outer, outer[0]], fill=label)
        first += stack.polygons
    return np.asarray(image)


@pytest.mark.parametrize(("mask", "differing"), [("ring", 1e-4), ("disc", 4e-3)])
def test_areas_match_pillow(mask, differing):
    """Pillow fills thin spikes in its own way where no line is drawn over their edge."""
    params = klass(1, mask=mask)
    areas = seg_contours.render_with_mask(params, 0, 512)[1]
    assert len(np.unique(areas)) > 2
    assert (areas != pillow_areas(params, 0, 512, mask == "ring")).mean() < differing


def test_area_of_a_star_is_where_the_winding_is_odd():
    """A pentagram has an empty core; outside the frame nothing is written and nothing is lost."""
    t = 4 * np.pi * np.arange(6) / 5
    corners = np.round([30 + 40 * np.cos(t), 30 + 40 * np.sin(t)]).astype(np.int32)
    areas = np.zeros((60, 60), np.uint8)
    seg_contours.fill(areas, corners, 9)
    y, x = np.mgrid[:60, :60]
    crossings = np.zeros((60, 60), int)
    for (x0, y0), (x1, y1) in zip(corners.T[:-1].tolist(), corners.T[1:].tolist(), strict=True):
        spans = (min(y0, y1) <= y) & (y < max(y0, y1))
        crossings += spans & (x >= x0 + (x1 - x0) * (y - y0) / (y1 - y0))
    assert np.array_equal(areas, np.where(crossings % 2, 9, 0))
    assert areas[30, 30] == 0 and areas[30, 59] == 9


def test_ring_of_one_polygon_is_its_line():
    params = dataclasses.replace(klass(0), categories=((50, 1, 0.5, 0.0, 40, 1.0, 1.0),), contours=1)
    _, lines = seg_contours.render_with_mask(params, 1, 256)
    _, ring = seg_contours.render_with_mask(dataclasses.replace(params, mask="ring"), 1, 256)
    assert lines.any() and np.array_equal(lines, ring)


def test_categories_have_the_published_distribution():
    params = klass(0, categories=254, contours=32, min_ink=0)
    assert len(params.categories) == params.draws == 254 and params.contours == 32
    columns = seg_contours.Category(*np.array(params.categories).T)
    weights = np.exp(-np.arange(3, 501) / 100)  # of floor(Exp(mean 100)) between 3 and 500
    assert columns.vertices.min() >= 3 and columns.vertices.max() <= 500
    assert columns.vertices.mean() == pytest.approx(np.average(np.arange(3, 501), weights=weights), abs=18)
    for field, least, most in (("polygons", 1, 50), ("noise", 0, 4), ("step", 0, 0.1), ("radius", 0, 50)):
        values = getattr(columns, field)
        assert values.min() >= least and values.max() <= most
        assert values.mean() == pytest.approx((least + most) / 2, rel=0.12)
    for values in (columns.oval_x, columns.oval_y):
        assert values.min() >= 1 and values.max() <= 2 and values.mean() == pytest.approx(1.5, abs=0.06)


def test_images_draw_every_category_and_place():
    params = klass(0, categories=254, contours=32, min_ink=0)
    placed = [seg_contours.place(params, i) for i in range(60)]
    assert {len(stacks) for stacks, _, _ in placed} == {32}
    centres = np.array([s.centre for stacks, _, _ in placed for s in stacks])
    assert centres.min() >= 0 and centres.max() <= 512 and centres.mean(0) == pytest.approx(256, abs=15)
    labels = np.concatenate([np.unique(labels[1:]) for _, _, labels in placed])
    assert labels.min() == 1 and labels.max() == 254 and len(np.unique(labels)) > 250
    for stacks, greys, owners in placed[:5]:
        assert greys[0] == owners[0] == 0
        assert len(greys) == len(owners) == 1 + sum(s.polygons for s in stacks)
        category = seg_contours.Category(*params.categories[owners[1] - 1])
        assert (stacks[0].vertices, stacks[0].noise) == (category.vertices, 2 * category.noise)
        assert stacks[0].radius == (category.radius * category.oval_x, category.radius * category.oval_y)


def test_empty_categories_are_drawn_again():
    params = klass(0, categories=254, contours=32)
    assert 0.75 < 254 / params.draws < 0.93
    for values in params.categories[::25]:
        stack = seg_contours._stack(seg_contours.Category(*values), (0.0, 0.0), 0)
        assert contours.ink(stack) >= contours.MIN_INK
    first = klass(0, categories=254, contours=32, min_ink=0).categories
    assert 0.75 < np.mean([a == b for a, b in zip(first, params.categories, strict=True)]) < 0.95


def test_search_that_cannot_finish_says_what_it_saw(monkeypatch):
    monkeypatch.setattr(contours, "MAX_DRAWS", 3)
    with pytest.raises(InputError, match=r"category 7/1 of seed 5: 0 of 3 draws touch 1 of the canvas"):
        seg_contours.sample_class(5, 7, min_ink=1)


def test_golden():
    params = seg_contours.sample_class(1, 2, categories=12, contours=8)
    image, mask = seg_contours.render_with_mask(params, 3, 48)
    assert hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest() == GOLDEN


def test_order_and_processes_do_not_matter():
    jobs = [(klass(c), i, 40) for c in range(2) for i in range(3)]
    expected = [seg_contours.render_with_mask(*job) for job in jobs]
    assert len({image.tobytes() for image, _ in expected}) == 6
    backwards = [seg_contours.render_with_mask(*job) for job in reversed(jobs)][::-1]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        elsewhere = list(pool.map(seg_contours.render_with_mask, *zip(*jobs, strict=True)))
    for other in (backwards, elsewhere):
        for a, b in zip(expected, other, strict=True):
            assert all(map(np.array_equal, a, b))


@pytest.mark.parametrize("size", [16, 200, 512])
def test_torch_gives_the_same_bits(size):
    torch.set_num_threads(1)
    params = klass(1)
    images, masks = seg_contours.render_with_mask_torch(params, [2, 0], size)
    assert (images.shape, images.dtype) == ((2, 3, size, size), torch.uint8)
    assert (masks.shape, masks.dtype) == ((2, size, size), torch.uint8)
    for n, instance in enumerate((2, 0)):
        image, mask = seg_contours.render_with_mask(params, instance, size)
        assert np.array_equal(images[n].permute(1, 2, 0).numpy(), image)
        assert np.array_equal(masks[n].numpy(), mask)
    assert torch.equal(seg_contours.render_torch(params, [2, 0], size), images)


def test_json_round_trip(monkeypatch):
    monkeypatch.setitem(patterns.FAMILIES, "seg-contours", "contours")
    assert from_json(to_json("seg-contours", [klass(0), klass(1)])) == ("seg-contours", [klass(0), klass(1)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": ()}, "expected a tuple of 1 to 254"),
        ({"categories": 3}, "expected a tuple of 1 to 254"),
        ({"categories": ((3, 1, 0.5),)}, "category 1 is .*expected vertices, polygons, noise"),
        ({"categories": ((2, 1, 0.5, 0.1, 5, 1.0, 1.0),)}, "vertices of category 1 is 2; expected an integer from 3"),
        ({"categories": ((3, 1, math.nan, 0.1, 5, 1.0, 1.0),)}, "noise of category 1 is nan"),
        ({"contours": 0}, "contours is 0; expected an integer from 1 to 128"),
        ({"draws": 0}, "draws is 0"),
    ],
)
def test_bad_parameters_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(klass(0), **change)


def test_bad_options():
    with pytest.raises(InputError, match="categories is 255; expected an integer from 1 to 254"):
        seg_contours.sample_class(0, 0, categories=255)
    with pytest.raises(InputError, match="Did you mean 'lines'"):
        seg_contours.sample_class(0, 0, mask="line")
    with pytest.raises(InputError, match="'ring' is drawn by render_with_mask only"):
        seg_contours.render_with_mask_torch(klass(0, mask="ring"), [0], 64)
    with pytest.raises(InputError, match="size is 9000"):
        seg_contours.render(klass(0), 0, 9000)
