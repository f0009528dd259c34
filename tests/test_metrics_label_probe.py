import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from metrics.comparison.label_probe import FOLDS, RIDGE, label_probe, ridge_scores
from metrics.errors import InputError
from metrics.features.extraction import FeatureSet


def made(features, labels, keys=None, groups=None):
    keys = tuple(f"{label}/{row}" for row, label in enumerate(labels)) if keys is None else keys
    values = torch.from_numpy(np.asarray(features, dtype=np.float32))
    return FeatureSet(values, keys, tuple(labels), groups or keys, "net", "f", {}, "here")


def clusters(seed=0, classes=4, each=25, spread=1.0, size=12):
    """Gaussian classes around fixed means; ``spread`` is the noise."""
    means = np.random.default_rng(99).normal(0, 1, (classes, size))
    labels = np.repeat(np.arange(classes), each)
    noise = np.random.default_rng(seed).normal(0, spread, (len(labels), size))
    return made(means[labels] + noise, labels.tolist())


def rows(features, order):
    pick = [tuple(values[i] for i in order) for values in (features.keys, features.labels, features.groups)]
    return replace(features, features=features.features[list(order)], keys=pick[0], labels=pick[1], groups=pick[2])


@pytest.mark.parametrize(("n", "d"), [(30, 8), (8, 30)])
def test_ridge_is_least_squares_on_an_augmented_system(n, d):
    """|Xw + b − y|² + λ|w|² as one ordinary least-squares problem with d rows more and a column of ones."""
    rng = np.random.default_rng(0)
    x, y, test = rng.normal(3, 2, (n, d)), rng.normal(0, 1, (n, 3)), rng.normal(3, 2, (5, d))
    penalty = RIDGE * ((x - x.mean(0)) ** 2).sum(1).mean()
    system = np.block([[x, np.ones((n, 1))], [math.sqrt(penalty) * np.eye(d), np.zeros((d, 1))]])
    solution = np.linalg.lstsq(system, np.vstack([y, np.zeros((d, 3))]))[0]
    assert ridge_scores(x, y, test) == pytest.approx(test @ solution[:-1] + solution[-1], abs=1e-9)


def test_labels_that_all_survive_and_labels_that_are_gone():
    raw = clusters(0, spread=0.3)
    same = label_probe(raw, raw)
    assert (same.value, same.se, same.before, same.after) == (1, 0, 1, 1)
    assert (same.n, same.classes, same.chance, same.left_out) == (100, 4, 0.25, 0)
    noise = replace(raw, features=torch.from_numpy(np.random.default_rng(1).normal(size=(100, 12)).astype("f4")))
    gone = label_probe(noise, raw)
    assert abs(gone.after - gone.chance) < 0.15 and gone.value == gone.after / gone.before


def test_more_noise_keeps_less():
    raw = clusters(0, spread=0.5)
    kept = [label_probe(clusters(1, spread=spread), raw).value for spread in (0.5, 2, 8)]
    assert 1 >= kept[0] > kept[1] > kept[2]


def test_the_standard_error_is_how_the_ratio_scatters():
    """Over fresh draws of the data; folds trained on almost all images make the fixed-probe error a good one."""
    found = [label_probe(clusters(seed, 3, 60, 1.6, 6), clusters(1000 + seed, 3, 60, 1.2, 6)) for seed in range(60)]
    scatter = np.std([probe.value for probe in found], ddof=1)
    assert np.mean([probe.se for probe in found]) == pytest.approx(scatter, rel=0.3)


def test_groups_that_are_copies_do_not_shrink_the_error_nor_leak():
    """Every image four times over in one group: the same accuracy and error as once."""
    once_raw, once_out = clusters(0, 3, 40, 1.2), clusters(1, 3, 40, 2.0)

    def fourfold(features):
        more = rows(features, [i for i in range(len(features)) for _ in range(4)])
        return replace(more, keys=tuple(f"{key}#{i % 4}" for i, key in enumerate(more.keys)))

    once, four = label_probe(once_out, once_raw), label_probe(fourfold(once_out), fourfold(once_raw))
    assert four.n == 4 * once.n
    assert (four.value, four.se, four.before) == pytest.approx((once.value, once.se, once.before), rel=1e-12)


def test_order_does_not_matter_and_the_seed_does():
    raw, out = clusters(0, spread=1.5), clusters(1, spread=2.0)
    order = np.random.default_rng(0).permutation(len(raw))
    assert label_probe(rows(out, order), rows(raw, order[::-1])) == label_probe(out, raw)
    assert len({label_probe(out, raw, seed=seed).after for seed in range(6)}) > 1


def test_unlabelled_images_and_small_classes_are_left_out_and_counted():
    raw = clusters(0, 3, 10, 0.3)
    labels = (*raw.labels[:20], *["small"] * (FOLDS - 1), *[None] * (11 - FOLDS))
    probe = label_probe(raw, replace(raw, labels=labels))
    assert (probe.n, probe.classes, probe.left_out, probe.chance) == (20, 2, 10, 0.5)


def test_features_without_any_variation_say_nothing():
    raw = clusters(0, 2, 10)
    probe = label_probe(raw, replace(raw, features=torch.zeros(20, 12)))
    assert probe.before == 0.5 and math.isfinite(probe.value)


def test_refusals():
    raw = clusters(0, 3, FOLDS)
    with pytest.raises(InputError, match=r"1 class\(es\) among 5 images.*one folder per class"):
        label_probe(clusters(0, 1, 5), clusters(0, 1, 5))
    with pytest.raises(InputError, match=r"0 class\(es\)"):
        label_probe(raw, replace(raw, labels=(None,) * 15))
    with pytest.raises(InputError, match=r"0 of 3 classes have 5 images or more, and the largest has 4"):
        label_probe(clusters(0, 3, 4), clusters(0, 3, 4))
    with pytest.raises(InputError, match="different keys"):
        label_probe(rows(raw, range(14)), raw)
    with pytest.raises(InputError, match="cannot be compared"):
        label_probe(replace(raw, fingerprint="g"), raw)
