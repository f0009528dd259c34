import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from skimage.feature import canny

from metrics.comparison.structure import QUANTILE, SIGMA, edge_f_score, edges, gradient_correlation
from metrics.errors import InputError

MEASURES = [gradient_correlation, edge_f_score]


@pytest.fixture
def scene():
    """Overlapping discs of random grey with a little noise: ``scene(seed) -> uint8 [64,64,3]``."""

    def make(seed=0, size=64):
        rng = np.random.default_rng(seed)
        grid = np.mgrid[:size, :size]
        image = np.full((size, size, 3), 128.0)
        for _ in range(12):
            centre, radius = rng.integers(0, size, 2), rng.integers(4, size // 3)
            image[np.hypot(*(grid - centre[:, None, None])) < radius] = rng.integers(60, 190, 3)
        return (image + rng.normal(0, 2, image.shape)).round().astype(np.uint8)

    return make


def batch(*images):
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("measure", MEASURES)
def test_an_image_keeps_itself(measure, scene):
    assert measure(scene(), scene()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("gain", "offset"), [(0.5, 20), (1.3, -30), (-1, 255)])
def test_brightness_and_contrast_do_not_count(measure, scene, gain, offset):
    changed = (scene() * float(gain) + offset).round().astype(np.uint8)
    assert measure(scene(), changed) > 0.98
    other = (scene(1) * float(gain) + offset).round().astype(np.uint8)
    assert measure(scene(2), other) == pytest.approx(measure(scene(2), scene(1)), abs=0.02)


@pytest.mark.parametrize("measure", MEASURES)
def test_symmetric_and_less_for_more_damage(measure, scene):
    whole = scene()
    damaged = [np.where(np.arange(64)[:, None, None] < row, scene(1), whole) for row in (0, 16, 32, 64)]
    values = [measure(whole, image) for image in damaged]
    assert values == sorted(values, reverse=True) and values[-1] < 0.4 < 0.999 < values[0]
    assert [measure(image, whole) for image in damaged] == pytest.approx(values, abs=1e-12)


def test_gradient_correlation_is_pearsons_of_gaussian_gradient_magnitudes(scene):
    grey = [scene(seed).astype(float) @ (0.299, 0.587, 0.114) for seed in (0, 1)]
    magnitudes = [ndimage.gaussian_gradient_magnitude(image, SIGMA).ravel() for image in grey]
    expected = stats.pearsonr(*magnitudes).statistic
    assert gradient_correlation(scene(0), scene(1)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_edges_are_cannys(scene, seed):
    """Against scikit-image, whose Sobel filter ranks gradients a little differently: bracketed by two quantiles."""
    grey = scene(seed).astype(float) @ (0.299, 0.587, 0.114)
    fewer, more = (canny(grey, SIGMA, q, q, use_quantiles=True) for q in (QUANTILE + 0.02, QUANTILE - 0.03))
    ours = edges(scene(seed))
    inside = np.zeros_like(ours)
    inside[2:-2, 2:-2] = True  # scikit-image finds no edge at the border
    assert fewer.sum() < (ours & inside).sum() < more.sum()
    assert (ndimage.distance_transform_edt(~ours) <= 1)[fewer].mean() > 0.97
    assert (ndimage.distance_transform_edt(~more) <= 1)[ours & inside].mean() > 0.97


def test_a_step_has_one_edge_where_it_is():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 25:] = 200
    assert set(np.nonzero(edges(image))[1].tolist()) == {24, 25}
    diagonal = np.where(np.add.outer(np.arange(40), np.arange(40))[..., None] < 40, 0, [[[200] * 3]]).astype(np.uint8)
    rows, columns = np.nonzero(edges(diagonal)[4:-4, 4:-4])
    assert len(rows) >= 31 and set((rows + columns + 8).tolist()) <= {39, 40}


def test_edge_f_score_by_brute_force(scene):
    a, b = (np.argwhere(edges(scene(seed))) for seed in (0, 1))
    near = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) <= 1
    precision, recall = near.any(0).mean(), near.any(1).mean()
    expected = 2 * precision * recall / (precision + recall)
    assert edge_f_score(scene(0), scene(1)) == pytest.approx(expected, abs=1e-12)


def test_tolerance_is_the_distance_that_an_edge_may_have_moved():
    first, second = np.zeros((2, 40, 40, 3), np.uint8)
    first[:, 20:], second[:, 23:] = 200, 200
    scores = [edge_f_score(first, second, tolerance) for tolerance in (0, 1, 2, 3)]
    assert scores == [0, 0, 0.5, 1]  # either edge is two pixels wide


@pytest.mark.parametrize("measure", MEASURES)
def test_flat_images(measure, scene):
    black, grey = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 77, np.uint8)
    assert measure(black, grey) == 1
    assert measure(black, scene()) == measure(scene(), grey) == 0


@pytest.mark.parametrize("measure", MEASURES)
def test_a_batch_is_its_images(measure, scene):
    values = measure(batch(scene(0), scene(1)), batch(scene(2), scene(1)))
    assert values.dtype == np.float64
    assert values.tolist() == [measure(scene(0), scene(2)), measure(scene(1), scene(1))]


@pytest.mark.parametrize("measure", MEASURES)
def test_refusals(measure, scene):
    with pytest.raises(InputError, match=r"content is \[64, 64, 3\], result \[32, 32, 3\]"):
        measure(scene(), scene(0, 32))
    for wrong in (scene() / 255, scene()[..., 0], batch(scene()).float()):
        with pytest.raises(InputError, match=r"Expected a NumPy image uint8 \[H,W,3\] or a torch batch"):
            measure(wrong, wrong)
    with pytest.raises(InputError, match="tolerance = -1"):
        edge_f_score(scene(), scene(), -1)
