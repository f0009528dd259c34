import math
from itertools import groupby

import numpy as np
import pytest
import torch

from metrics.comparison import compare as gap
from metrics.comparison import sets as comparison_sets
from metrics.comparison.compare import compare
from metrics.comparison.structure import edge_f_score, gradient_correlation
from metrics.errors import InputError
from metrics.features.extraction import FeatureSet
from metrics.image_sets.items import ImageSet
from metrics.image_sets.open import open_images
from metrics.report import from_json, to_json
from metrics.statistics.kid import kid


@pytest.fixture
def features(monkeypatch):
    """Stands in for the network alone: ``features({"root name": array})``; everything after it is real."""
    held = {}

    def work(images, network, **options):
        values = held[images.root.name]
        keys = tuple(item.key for item in images)[: len(values)]
        groups = tuple(item.group for item in images)[: len(values)]
        labels = tuple(item.label for item in images)[: len(values)]
        return FeatureSet(torch.from_numpy(values), keys, labels, groups, "net", "f", {}, str(images.root))

    class Network:
        name, fingerprint, preprocessing = "net", "f", {}

    monkeypatch.setattr(comparison_sets, "extract", work)
    monkeypatch.setattr(gap, "load_extractor", lambda *a, **k: Network())
    return held.update


def normal(seed, count, shift=0.0, size=6):
    return np.random.default_rng(seed).normal(shift, 1, (count, size))


def images(folder, picture, name, count):
    return folder(name, {f"{i}.png": picture(0, 16, 16) for i in range(count)})


def test_values_are_those_of_the_statistics(folder, picture, features):
    features({"raw": normal(0, 12, 2), "out": normal(0, 12, 1), "real": normal(1, 10), "photos": normal(2, 8)})
    roots = {n: images(folder, picture, n, c) for n, c in (("raw", 12), ("out", 12), ("real", 10), ("photos", 8))}
    report = compare(roots["out"], roots["real"], before=roots["raw"], floor=roots["photos"])
    r, a, f = (kid(normal(*x), normal(1, 10)).value for x in ((0, 12, 2), (0, 12, 1), (2, 8)))
    assert [row.role for row in report.rows] == ["before", "after", "floor"]
    assert report.row("after").measurements[0].value == pytest.approx(a, rel=1e-12)
    assert report.row("after").measurements[0].name == "kid@net"
    closed = report.closed[0]
    assert closed.value == pytest.approx(1 - (a - f) / (r - f), rel=1e-12) and 0 < closed.value < 1
    assert closed.low < closed.value < closed.high and closed.se > 0
    assert from_json(to_json(report)) == report


def test_gap_closed_error_is_the_jackknife_by_brute_force(folder, picture, features):
    raw, out, real, photos = normal(0, 9, 2), normal(0, 9, 1), normal(1, 7), normal(2, 6)
    features({"raw": raw, "out": out, "real": real, "photos": photos})
    roots = {n: images(folder, picture, n, c) for n, c in (("raw", 9), ("out", 9), ("real", 7), ("photos", 6))}
    report = compare(roots["out"], roots["real"], before=roots["raw"], floor=roots["photos"], metrics=["kid"])

    def share(raw, out, real, photos):
        r, a, f = (kid(x, real).value for x in (raw, out, photos))
        return 1 - (a - f) / (r - f)

    samples = [
        [share(np.delete(raw, i, 0), np.delete(out, i, 0), real, photos) for i in range(9)],
        [share(raw, out, np.delete(real, i, 0), photos) for i in range(7)],
        [share(raw, out, real, np.delete(photos, i, 0)) for i in range(6)],
    ]
    variance = sum((len(s) - 1) * np.var(s) for s in samples)
    assert report.closed[0].se == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_pairs_are_matched_by_key_not_by_order(folder, picture, features):
    raw = normal(0, 12, 2)
    features({"raw": raw, "out": normal(0, 12, 1)[1:], "real": normal(1, 10)})
    before = images(folder, picture, "raw", 12)
    after = images(folder, picture, "out", 12)
    (after / "0.png").unlink()
    report = compare(after, images(folder, picture, "real", 10), before=before, metrics=["kid"])
    assert report.row("before").measurements[0].value == pytest.approx(kid(raw[1:], normal(1, 10)).value)
    assert "1 images without a partner" in report.row("after").measurements[0].warnings[0]


def test_without_a_floor_set_the_reference_is_halved(folder, picture, features):
    features({"out": normal(0, 12, 1), "real": normal(1, 40)})
    report = compare(images(folder, picture, "out", 12), images(folder, picture, "real", 40))
    floor = report.row("floor").measurements[0]
    assert abs(floor.value) < 0.3 * report.row("after").measurements[0].value
    assert floor.low < floor.value < floor.high and "20 random halvings" in floor.warnings[0]
    again = compare(images(folder, picture, "out", 12), images(folder, picture, "real", 40))
    assert again == report and not report.closed


def test_the_halved_floor_of_dependent_crops_is_near_zero(folder, picture, features):
    """Crops share their photo's mean; halves of photos from one distribution are at distance 0 all the same."""
    rng = np.random.default_rng(0)
    crops = np.repeat(rng.standard_normal((24, 6)), 8, axis=0) + 0.3 * rng.standard_normal((192, 6))
    features({"out": normal(0, 12, 1), "real": crops})
    report = compare(images(folder, picture, "out", 12), images(folder, picture, "real", 24), crops=8, metrics=["kid"])
    assert abs(report.row("floor").measurements[0].value) < 0.25


def test_crops_count_photos_as_the_independent_units(folder, picture, features):
    features({"out": normal(0, 12, 1), "real": normal(1, 40)})
    report = compare(images(folder, picture, "out", 12), images(folder, picture, "real", 10), crops=4)
    assert (report.reference.images, report.reference.groups) == (40, 10)
    assert report.config["crops"] == 4 and report.config["crop size"] == 16


def test_no_gap_to_close_is_said(folder, picture, features):
    features({"raw": normal(1, 10), "out": normal(0, 10, 1), "real": normal(1, 10), "photos": normal(2, 10, 3)})
    roots = {n: images(folder, picture, n, 10) for n in ("raw", "out", "real", "photos")}
    report = compare(roots["out"], roots["real"], before=roots["raw"], floor=roots["photos"])
    assert math.isnan(report.closed[0].value) and "no gap to close" in report.closed[0].warnings[0]


def test_examples_pair_content_style_and_result(folder, picture, features):
    row = '{"file_name": "0.png", "style": {"key": "cat#1", "photo": "cat", "box": [1, 2, 8]}}'
    features({"raw": normal(0, 3, 2), "out": normal(0, 3, 1), "real": normal(1, 10), "photos": normal(2, 2)})
    raw, out = images(folder, picture, "raw", 3), images(folder, picture, "out", 3)
    (out / "metadata.jsonl").write_text(row)
    photos = folder("photos", {"cat.png": picture(0, 16, 16), "dog.png": picture(1, 16, 16)})
    report = compare(out, images(folder, picture, "real", 10), before=raw, floor=photos)
    first = report.examples[0]
    assert (first.content, first.style, first.result) == (
        str(raw / "0.png"),
        str(photos / "cat.png"),
        str(out / "0.png"),
    )
    assert first.style_box == (1, 2, 8) and report.examples[1].style is None


def test_images_that_are_real_ones_too_are_told(folder, picture, features):
    features({"out": np.concatenate([normal(1, 3), normal(0, 9, 1)]), "real": normal(1, 10), "photos": normal(2, 8)})
    roots = {n: images(folder, picture, n, c) for n, c in (("out", 12), ("real", 10), ("photos", 8))}
    report = compare(roots["out"], roots["real"], floor=roots["photos"], metrics=["fid"])
    said = "3 of 12 images have the very features of a real one: the gap reads too small."
    assert report.row("after").measurements[0].warnings[0] == said
    assert "very features" not in str(report.row("floor"))


def test_refusals(folder, picture, features, tmp_path):
    features({"out": normal(0, 3), "real": normal(1, 3), "one": normal(0, 1)})
    out, real = images(folder, picture, "out", 3), images(folder, picture, "real", 3)
    with pytest.raises(InputError, match=r"unknown metric 'kidd'. Did you mean 'kid'"):
        compare(out, real, metrics=["kidd"])
    with pytest.raises(InputError, match="no metric named"):
        compare(out, real, metrics=[])
    with pytest.raises(InputError, match=r"at least 4 are needed to be halved"):
        compare(out, real)
    with pytest.raises(InputError, match="no such folder"):
        compare(out, tmp_path / "none")
    with pytest.raises(InputError, match=r"1 independent image\(s\), and at least 2 are needed"):
        compare(images(folder, picture, "one", 1), real)


def test_end_to_end_with_a_real_network(folder, picture):
    """Photos of another kind are farther away than photos of the same kind, and skipped files are reported."""
    near = folder("near", {**{f"{i}.png": picture(100 + i) for i in range(12)}, "bad.png": b"text"})
    rng = np.random.default_rng(0)
    far = folder("far", {f"{i}.png": rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for i in range(12)})
    real = folder("real", {f"{i}.png": picture(i) for i in range(12)})
    seen = []

    report = compare(near, real, before=far, metrics=["kid"], batch_size=5, progress=seen.append)
    assert report.row("after").measurements[0].value < 0.2 * report.row("before").measurements[0].value
    assert report.row("after").set.skipped == (("bad", "not an image that can be decoded"),)
    assert report.extractor["name"] == "efficientnet-lite0"
    parts = [what for what, _ in groupby(step.what for step in seen)]
    assert [what.partition(":")[0] for what in parts] == ["features"] * 3 + ["low-level", "structure"]
    last = {step.what: step for step in seen}
    assert all(step.done == step.total for step in last.values())


def sets_of_scenes(folder, picture, classes=2, each=6):
    raw = {f"{c}/{i}.png": picture(10 * c + i, 32, 32) for c in range(classes) for i in range(each)}
    out = {key: np.flipud(image) if key == "0/0.png" else image // 2 + 40 for key, image in raw.items()}
    return folder("raw", raw), folder("out", out)


def test_what_is_kept_of_structure_and_labels(folder, picture, features):
    before, after = sets_of_scenes(folder, picture)
    separate = np.repeat(np.eye(2, 6), 6, axis=0) * 9 + normal(0, 12) * 0.1
    features(
        {"raw": separate, "out": np.where(np.arange(12)[:, None] % 6 == 0, -separate, separate), "real": normal(1, 10)}
    )
    report = compare(after, images(folder, picture, "real", 10), before=before, metrics=["kid"])
    assert [kept.name for kept in report.kept] == ["gradient-correlation", "edge-f-score", "label-probe@net"]
    flipped = open_images(before)[0].read(), open_images(after)[0].read()
    for kept, measure in zip(report.kept, (gradient_correlation, edge_f_score), strict=False):
        values = [measure(a.read(), b.read()) for a, b in zip(open_images(before), open_images(after), strict=True)]
        assert measure(*flipped) < 0.6 < 0.95 < min(values[1:])
        assert kept.value == pytest.approx(np.mean(values)) and kept.n == 12
        assert kept.se == pytest.approx(np.std(values, ddof=1) / math.sqrt(12))
        assert kept.low < kept.value < kept.high
    probe = report.kept[2]
    assert probe.facts["accuracy before"] == 1 and probe.facts["chance"] == 0.5 and probe.facts["classes"] == 2
    assert probe.value == probe.facts["accuracy after"] < 1 and probe.n == 12
    assert from_json(to_json(report)) == report


def test_at_most_pairs_are_measured_and_spread_evenly(folder, picture, features, monkeypatch):
    monkeypatch.setattr("metrics.comparison.kept.PAIRS", 3)
    before, after = sets_of_scenes(folder, picture)
    features({"raw": normal(0, 12), "out": normal(1, 12), "real": normal(1, 10)})
    report = compare(after, images(folder, picture, "real", 10), before=before, metrics=["kid"])
    ends = [
        gradient_correlation(a.read(), b.read()) for a, b in zip(open_images(before), open_images(after), strict=True)
    ]
    assert report.kept[0].n == 3
    assert report.kept[0].value == pytest.approx(np.mean([ends[0], ends[6], ends[11]]), abs=1e-3)


def test_structure_of_pairs_that_cannot_be_compared(folder, picture, features):
    before = folder("raw", {f"{i}.png": picture(i, 32, 32) for i in range(6)})
    after = folder("out", {f"{i}.png": picture(i, 32, 32 + 8 * (i > 0)) for i in range(6)})
    features({"raw": normal(0, 6), "out": normal(1, 6), "real": normal(1, 10)})
    report = compare(after, images(folder, picture, "real", 10), before=before, metrics=["kid"])
    assert len(report.kept) == 2 and all(math.isnan(kept.value) for kept in report.kept)
    assert report.kept[0].warnings == (
        "5 pairs of images of different size were left out.",
        "Fewer than two pairs to measure.",
    )


def test_labels_that_cannot_be_probed_say_why(folder, picture, features):
    before, after = sets_of_scenes(folder, picture, 3, 4)
    features({"raw": normal(0, 12), "out": normal(1, 12), "real": normal(1, 10)})
    kept = compare(after, images(folder, picture, "real", 10), before=before, metrics=["kid"]).kept[2]
    assert math.isnan(kept.value) and "0 of 3 classes have 5 images or more" in kept.warnings[0]


def test_nothing_is_kept_of_unrelated_sets(folder, picture, features):
    features({"raw": normal(0, 6), "out": normal(1, 6), "real": normal(1, 10)})
    before = folder("raw", {f"a{i}.png": picture(i, 32, 32) for i in range(6)})
    report = compare(images(folder, picture, "out", 6), images(folder, picture, "real", 10), before=before)
    assert report.kept == ()


def test_image_sets_can_be_passed(folder, picture, features):
    features({"out": normal(0, 12, 1), "real": normal(1, 40)})
    out, real = images(folder, picture, "out", 12), images(folder, picture, "real", 40)
    subset = ImageSet(real, open_images(real).items)
    assert compare(open_images(out), subset) == compare(out, real)
