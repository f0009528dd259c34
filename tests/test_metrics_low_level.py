import numpy as np
import pytest
from PIL import Image

from metrics.errors import InputError
from metrics.statistics.low_level import MEASURES, common_side, lab, low_level_gaps, measure_low_level

NAMES = [measure.name for measure in MEASURES]


def one(image, side=128):
    return {name: float(values[0]) for name, values in measure_low_level([image], side=side).items()}


def flat(red, green, blue, side=32):
    return np.full((side, side, 3), (red, green, blue), dtype=np.uint8)


def field(slope, side=128, seed=0, contrast=20.0):
    """Grey image whose power falls with frequency to the power ``slope``."""
    rng = np.random.default_rng(seed)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    radius[0, 0] = np.inf
    values = np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) * radius ** (slope / 2)).real
    values = 128 + contrast * values / values.std()
    return values.clip(0, 255).round().astype(np.uint8)[..., None].repeat(3, 2)


def test_lab_equals_scikit_image():
    from skimage.color import rgb2lab

    rgb = np.random.default_rng(0).random((40, 3))
    rgb[:4] = [[0, 0, 0], [1, 1, 1], [0.04, 0.04, 0.04], [0.001, 0.02, 0.0]]
    np.testing.assert_allclose(lab(rgb).T, rgb2lab(rgb), atol=1e-9)


def test_colour_measures_are_means_of_what_scikit_image_gives(picture):
    from skimage.color import lab2lch, rgb2lab

    image = picture(3, 64, 64)
    reference = rgb2lab(image)
    found = one(image, 64)
    assert found["brightness"] == pytest.approx(reference[..., 0].mean(), abs=1e-4)
    assert found["contrast"] == pytest.approx(reference[..., 0].std(), abs=1e-4)
    assert found["red-green"] == pytest.approx(reference[..., 1].mean(), abs=1e-4)
    assert found["yellow-blue"] == pytest.approx(reference[..., 2].mean(), abs=1e-4)
    assert found["saturation"] == pytest.approx(lab2lch(reference)[..., 1].mean(), abs=1e-4)
    assert found["colour variety"] == pytest.approx(np.sqrt(reference[..., 1:].var((0, 1)).sum()), abs=1e-4)


def test_of_flat_images():
    grey, red = one(flat(119, 119, 119), 32), one(flat(255, 0, 0), 32)
    assert grey["brightness"] == pytest.approx(50.0, abs=0.1)
    assert grey["saturation"] == pytest.approx(0, abs=0.01)
    assert (red["red-green"], red["yellow-blue"]) == pytest.approx((80.1, 67.2), abs=0.1)
    assert one(flat(0, 0, 255), 32)["yellow-blue"] == pytest.approx(-107.9, abs=0.1)
    for found in (grey, red):
        assert (found["contrast"], found["edge density"]) == pytest.approx((0, 0), abs=1e-5)
        assert (found["sharpness"], found["spectrum slope"]) == pytest.approx((1, 0), abs=1e-3)


@pytest.mark.parametrize("slope", [0, -1, -2, -3])
def test_spectrum_slope_is_the_one_that_made_the_image(slope):
    found = [one(field(slope, seed=seed))["spectrum slope"] for seed in range(12)]
    assert np.mean(found) == pytest.approx(slope, abs=0.1)


def test_sharpness_of_noise_edges_and_gradual_changes():
    assert one(field(0))["sharpness"] == pytest.approx(4, abs=0.3)  # gradient energy of noise falls like 1/σ⁴
    edge = np.full((128, 128, 3), 60, dtype=np.uint8)
    edge[:, 50:] = 160
    assert one(edge)["sharpness"] == pytest.approx(np.sqrt(2), abs=0.04)  # ... and that of a step like 1/σ
    ramp = np.tile(np.arange(0, 256, 2, dtype=np.uint8)[None, :, None], (128, 1, 3))
    assert one(ramp)["sharpness"] == pytest.approx(1, abs=0.05)


def test_blur_lowers_sharpness_and_slope_whatever_the_contrast():
    from skimage.filters import gaussian

    sharp = field(-1.5)
    blurred = (255 * gaussian(sharp, 1.5, channel_axis=2)).round().astype(np.uint8)
    assert one(blurred)["sharpness"] < one(sharp)["sharpness"] - 0.5
    assert one(blurred)["spectrum slope"] < one(sharp)["spectrum slope"] - 0.5
    assert one(field(-1.5, contrast=10.0))["sharpness"] == pytest.approx(one(sharp)["sharpness"], abs=0.02)


@pytest.mark.parametrize(("step", "seen"), [(8, False), (12, True)])
def test_edges_are_steps_of_lightness_of_ten_or_more(step, seen):
    from skimage.color import lab2rgb

    lightness = np.zeros((64, 64, 3))
    lightness[..., 0] = np.where(np.arange(64) < 30, 50, 50 + step)
    image = (255 * lab2rgb(lightness)).round().astype(np.uint8)
    assert (one(image, 64)["edge density"] > 0) is seen


@pytest.mark.parametrize("size", [192, 256, 384, 512])
def test_one_picture_at_several_sizes_reads_alike(size):
    large = Image.fromarray(field(-2, 512))
    expected, found = (one(np.asarray(large.resize((s, s), Image.Resampling.LANCZOS))) for s in (448, size))
    for measure in MEASURES:
        assert found[measure.name] == pytest.approx(expected[measure.name], abs=measure.visible)


def test_the_central_square_is_measured(picture):
    tall = np.zeros((100, 40, 3), dtype=np.uint8)
    tall[30:70] = square = picture(1, 40, 40)
    assert one(tall, 40) == one(square, 40)
    assert one(tall.transpose(1, 0, 2), 40)["brightness"] == pytest.approx(one(square, 40)["brightness"])


def test_images_are_measured_one_by_one_in_order(picture):
    images = [picture(seed, 40, 60) for seed in range(4)]
    together = measure_low_level(iter(images), side=32)
    assert list(together) == NAMES
    for row, image in enumerate(images):
        assert {name: values[row] for name, values in together.items()} == one(image, 32)
    assert measure_low_level([], side=32)["contrast"].shape == (0,)


def test_common_side_is_the_shortest_and_bounded():
    assert common_side([(640, 480), (100, 3000)]) == 100
    assert common_side([(640, 480), (1000, 3000)]) == 256
    with pytest.raises(InputError, match=r"the shortest side is 9 px\. Expected images of at least 16 px"):
        common_side([(9, 100)])
    with pytest.raises(InputError, match="the shortest side is 0 px"):
        common_side([])


def table(values):
    """Measures that are all 0 with some noise but for those given."""
    count = len(next(iter(values.values())))
    noise = np.random.default_rng(0).standard_normal((len(NAMES), count))
    return {name: np.asarray(values.get(name, noise[row]), dtype=float) for row, name in enumerate(NAMES)}


def gap_of(name, a, b, **groups):
    return next(g for g in low_level_gaps(table({name: a}), table({name: b}), **groups) if g.name == name)


def test_gap_of_two_samples_is_what_textbooks_say():
    rng = np.random.default_rng(1)
    a, b = 18 + 3 * rng.standard_normal(40), 31 + 4 * rng.standard_normal(40)
    gap = gap_of("saturation", a, b)
    assert (gap.mean, gap.real_mean) == (a.mean(), b.mean())
    assert gap.distance == pytest.approx(np.abs(np.sort(a) - np.sort(b)).mean(), rel=1e-12)
    assert gap.se == pytest.approx(np.sqrt(a.var(ddof=1) / 40 + b.var(ddof=1) / 40), rel=1e-9)
    from scipy.stats import median_abs_deviation

    spreads = [median_abs_deviation(side, scale="normal") for side in (a, b)]
    assert gap.effect == pytest.approx((a.mean() - b.mean()) / np.sqrt(np.mean(np.square(spreads))), rel=1e-4)
    assert gap.sentence == (
        f"The synthetic images are less saturated: mean chroma {a.mean():.1f} against {b.mean():.1f}."
    )
    assert gap_of("saturation", b, a).sentence.startswith("The synthetic images are more saturated")


def test_numbers_that_round_to_zero_have_no_sign():
    sentence = gap_of("red-green", np.full(9, -0.01), np.full(9, 5.0)).sentence
    assert sentence == "The synthetic images are greener: mean a* 0.0 against 5.0."


def test_effect_survives_outliers_and_sets_without_spread():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal(101), 3 + rng.standard_normal(101)
    wild = np.where(np.arange(101) == 7, 1e4, a)
    spread = (wild.mean() - b.mean()) / gap_of("brightness", wild, b).effect
    assert spread == pytest.approx((a.mean() - b.mean()) / gap_of("brightness", a, b).effect, rel=0.05)
    assert gap_of("brightness", np.full(20, 4.0), np.zeros(20)).effect == 4.0  # in visible differences


def test_a_sentence_needs_a_visible_difference_beyond_its_error():
    rng = np.random.default_rng(2)
    noise = rng.standard_normal(400)
    assert gap_of("contrast", noise + 0.9, noise).sentence is None  # certain, and too small to see
    assert gap_of("contrast", noise + 1.1, noise).sentence is not None
    few = 20 * rng.standard_normal(12)
    assert gap_of("contrast", few + 9, few).sentence is None  # visible, and uncertain


def test_errors_leave_out_whole_photos():
    rng = np.random.default_rng(3)
    b = np.repeat(10 * rng.standard_normal(6), 10) + 0.1 * rng.standard_normal(60)
    a = b.mean() + 3 + rng.standard_normal(60)
    photos = [i // 10 for i in range(60)]
    grouped = gap_of("brightness", a, b, groups_real=photos)
    means = b.reshape(6, 10).mean(1)
    assert grouped.se == pytest.approx(np.sqrt(a.var(ddof=1) / 60 + means.var(ddof=1) / 6), rel=1e-9)
    assert grouped.sentence is None
    assert gap_of("brightness", a[:30], np.full(30, a.mean() - 3)).sentence is not None


def test_few_sentences_without_a_gap():
    count = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        a, b = (dict(zip(NAMES, 50 * rng.standard_normal((len(NAMES), 25)), strict=True)) for _ in "ab")
        count += any(gap.sentence for gap in low_level_gaps(a, b))
    assert count / 200 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_sorted_by_effect_and_in_words(picture):
    real = [picture(seed, 48, 48) for seed in range(12)]
    grey = [np.repeat(image.mean(2, keepdims=True), 3, 2).astype(np.uint8) for image in real]
    gaps = low_level_gaps(measure_low_level(grey, side=48), measure_low_level(real, side=48))
    assert [abs(g.effect) for g in gaps] == sorted((abs(g.effect) for g in gaps), reverse=True)
    assert {g.name for g in gaps} == set(NAMES)
    said = {g.name for g in gaps if g.sentence}
    assert {"saturation", "colour variety"} <= said
    assert "sharpness" not in said
    assert {g.name for g in gaps[:2]} == {"saturation", "colour variety"}
    assert not any(g.sentence or g.effect for g in low_level_gaps(*2 * [measure_low_level(real, side=48)]))


def test_does_not_depend_on_the_order_of_images():
    rng = np.random.default_rng(4)
    a, b = (dict(zip(NAMES, rng.standard_normal((len(NAMES), 25)), strict=True)) for _ in "ab")
    order = rng.permutation(25)
    shuffled = low_level_gaps({name: values[order] for name, values in a.items()}, b)
    for one_gap, other in zip(low_level_gaps(a, b), shuffled, strict=True):
        assert other.effect == pytest.approx(one_gap.effect, rel=1e-9)
        assert other.se == pytest.approx(one_gap.se, rel=1e-9)


def test_bad_images_are_refused():
    with pytest.raises(InputError, match=r"image 1 is uint8 \[40, 40\]\. Expected uint8 \[H,W,3\]"):
        measure_low_level([flat(1, 2, 3), np.zeros((40, 40), np.uint8)], side=32)
    with pytest.raises(InputError, match="image 0 is float64"):
        measure_low_level([np.zeros((40, 40, 3))], side=32)
    with pytest.raises(InputError, match=r"image 0 is 32 x 32 px\. Measure both sets with side=32 or less"):
        measure_low_level([flat(1, 2, 3)], side=64)
    with pytest.raises(InputError, match="side = 8: expected 16 pixels or more"):
        measure_low_level([flat(1, 2, 3)], side=8)


def test_bad_tables_are_refused():
    good = table({"contrast": np.arange(5.0)})
    with pytest.raises(InputError, match=r"real has the measures .* Expected those of measure_low_level"):
        low_level_gaps(good, {"contrast": np.arange(5.0)})
    with pytest.raises(InputError, match=r"synthetic has 1 image\(s\)\. Expected at least 2"):
        low_level_gaps(table({"contrast": [1.0]}), good)
    with pytest.raises(InputError, match=r"real has NaN or infinite values for the images \[2\]"):
        low_level_gaps(good, table({"contrast": [1, 2, np.nan, 3]}))
    with pytest.raises(InputError, match="synthetic has measures of different lengths"):
        low_level_gaps(good | {"contrast": np.arange(4.0)}, good)
    with pytest.raises(InputError, match="groups_real: all rows are of one group"):
        low_level_gaps(good, good, groups_real=["a"] * 5)
