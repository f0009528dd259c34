"""What a comparison says beyond the distance: permutation test, change, slices, layers, causes; features as sources."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from metrics.commands import main as cli
from metrics.comparison.compare import compare
from metrics.errors import InputError
from metrics.extractors import levels, load_extractor
from metrics.features.extraction import iter_extract
from metrics.features.statistics_file import write_statistics
from metrics.image_sets.open import open_images
from metrics.report import from_json, to_json, verdict
from metrics.statistics.frechet import frechet
from metrics.statistics.frechet_sources import mean_and_covariance
from metrics.statistics.kid import kid
from metrics.statistics.measure import measure
from metrics.statistics.mmd import paired_difference
from metrics.statistics.permutation import permutation_test
from metrics.statistics.table import METRICS

NET = "random-conv"  # needs no weights and little time


@pytest.fixture
def sets(folder, picture):
    """(synthetic, before, real): the synthetic images of class 1 are dark, those of class 0 are like the real ones."""
    near = {f"{c}/{i}.png": picture(50 + 20 * c + i, 48, 48) // (1 + 3 * c) for c in range(2) for i in range(12)}
    raw = {key: 255 - image // 3 for key, image in near.items()}
    real = {f"{i}.png": picture(200 + i, 48, 48) for i in range(16)}
    return folder("near", near), folder("raw", raw), folder("real", real)


def features(root):
    work = iter_extract(open_images(root), load_extractor(NET))
    for _ in work:
        pass
    return work.result


def test_permutation_test_of_the_report_is_the_one_of_the_features(sets):
    after, _, real = sets
    report = compare(after, real, extractor=NET, permutations=99, seed=3)
    x, y = features(after), features(real)
    test = permutation_test(x.features, y.features, permutations=99, seed=3, groups_x=x.groups, groups_y=y.groups)
    assert report.permuted.p == test.combined and report.permuted.permutations == 99
    assert {m.name: m.p for m in report.row("after").measurements} == {
        f"kid@{NET}": test.p_values["kid"],
        f"fid@{NET}": test.p_values["fid"],
    }
    assert report.row("floor").measurements[0].p is None
    assert compare(after, real, extractor=NET, permutations=0).permuted is None


def test_a_test_that_is_left_out_is_said(sets, monkeypatch):
    monkeypatch.setattr("metrics.comparison.compare.TESTABLE", 30)
    report = compare(sets[0], sets[2], extractor=NET, metrics=["kid"], explained=0)
    assert report.permuted is None and report.config["permutations"] == 0
    assert any("No permutation test" in text for text in report.row("after").measurements[0].warnings)


def test_images_too_small_for_low_level_measures_are_said(folder, picture, sets):
    tiny = folder("tiny", {f"{i}.png": picture(i, 12, 12) for i in range(8)})
    report = compare(tiny, sets[2], extractor=NET, metrics=["kid"], permutations=0)
    assert report.low_level == () and report.most_synthetic
    assert any("smaller than 16 px" in text for text in report.row("after").measurements[0].warnings)


def test_change_is_paired_and_shares_its_reference(sets):
    after, before, real = sets
    report = compare(after, real, before=before, extractor=NET, metrics=["kid"], permutations=0)
    x, raw, y = features(after), features(before), features(real)
    a, b = (kid(one.features, y.features) for one in (x, raw))
    value, error = paired_difference(a, b, paired_rows=True)
    assert report.change[0].value == pytest.approx(value) and report.change[0].se == pytest.approx(error.se)
    assert report.change[0].value < 0 and report.change[0].se < math.hypot(a.se, b.se)
    held = report.resampled[0]
    assert held.name == f"kid@{NET}" and np.allclose(held.set, a.loo_x) and np.allclose(held.reference, a.loo_y)


def test_a_set_against_itself_has_changed_nothing(sets):
    after, _, real = sets
    report = compare(after, real, before=after, extractor=NET, metrics=["kid"], permutations=0, explained=0)
    assert (report.change[0].value, report.change[0].se) == (0, 0) and report.closed[0].value == 0
    assert verdict(report).headline.endswith("exactly as the raw set: nothing was changed.")


def test_slices_find_the_bad_class(sets):
    after, _, real = sets
    report = compare(after, real, extractor=NET, slices=["label"], permutations=99)
    good, bad = sorted(report.slices, key=lambda one: one.name)
    assert (good.name, bad.name) == ("label: 0", "label: 1") and good.reference == "all real images"
    assert bad.measurement.value > 3 * max(good.measurement.value, 0) and bad.measurement.n == 12
    assert bad.measurement.p <= bad.p_adjusted < 0.05 < good.p_adjusted
    with pytest.raises(InputError, match=r"unknown slice 'lable'\. Did you mean 'label'"):
        compare(after, real, extractor=NET, slices=["lable"])


def test_a_tag_with_its_own_real_images_is_compared_with_those(folder, picture):
    def tagged(name, first):
        root = folder(name, {f"{i}.png": picture(first + i, 48, 48) // (1 + 3 * (i % 2)) for i in range(24)})
        lines = [json.dumps({"file_name": f"{i}.png", "light": "night" if i % 2 else "day"}) for i in range(24)]
        (root / "metadata.jsonl").write_text("\n".join(lines))
        return root

    report = compare(tagged("out", 0), tagged("real", 100), extractor=NET, slices=["light"], permutations=99)
    assert [one.reference for one in report.slices] == ["light: day", "light: night"]
    assert all(one.p_adjusted > 0.05 and one.measurement.m == 12 for one in report.slices)


def test_small_slices_are_named_not_dropped(folder, picture, sets):
    images = {f"a/{i}.png": picture(i, 48, 48) for i in range(12)} | {f"b/{i}.png": picture(90 + i) for i in range(3)}
    small = compare(folder("out", images), sets[2], extractor=NET, slices=["label"], permutations=0).slices[1]
    assert small.name == "label: b" and math.isnan(small.measurement.value) and small.measurement.n == 3
    assert "needs 10" in small.measurement.warnings[0] and small.p_adjusted is None


@pytest.mark.slow
def test_profile_goes_from_low_to_high(folder, picture, sets):
    report = compare(sets[0], sets[2], profile=True, permutations=0, explained=0, metrics=["rbf"])
    assert [one.name for one in report.profile] == [f"rbf@{name}" for name in levels()]
    last = report.row("after").measurements[0]
    assert report.profile[-1].value == pytest.approx(last.value, rel=1e-3)
    assert all(0 < one.value < 2 for one in report.profile)  # of one scale, whatever the layer's
    assert report.extractor["fingerprint"] == load_extractor().fingerprint  # not that of all layers


def test_causes_name_the_bad_images_and_say_why(sets):
    after, _, real = sets
    report = compare(after, real, extractor=NET, permutations=0, explained=5)
    assert all(one.key.startswith("1/") and one.file.endswith(f"{one.key}.png") for one in report.most_synthetic)
    scores = [one.score for one in report.most_synthetic]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    assert all(one.key in {str(i) for i in range(16)} for one in report.least_covered)
    assert any("darker" in gap.sentence for gap in report.low_level if gap.sentence)
    assert sum(point.role == "real" for point in report.points) == 16 and len(report.points) == 40
    assert from_json(to_json(report)) == report
    bare = compare(after, real, extractor=NET, permutations=0, explained=0)
    assert not (bare.low_level or bare.most_synthetic or bare.points)


def test_crops_of_one_photo_are_named_once(folder, picture, sets):
    photos = folder("photos", {f"{i}.png": picture(i, 96, 96) for i in range(5)})
    report = compare(sets[0], photos, extractor=NET, crops=6, permutations=0)
    assert len(report.least_covered) == 5 and len({one.file for one in report.least_covered}) == 5
    assert all(one.box is not None and "#" in one.key for one in report.least_covered)


def test_features_stand_in_for_images(sets, tmp_path):
    after, _, real = sets
    features(real).save(tmp_path / "real.safetensors")
    whole, partial = (compare(after, r, extractor=NET, permutations=9) for r in (real, tmp_path / "real.safetensors"))
    assert partial.row("after").measurements == whole.row("after").measurements
    assert partial.row("floor").measurements == whole.row("floor").measurements
    assert partial.low_level == () and partial.most_synthetic[0].key == whole.most_synthetic[0].key
    assert partial.most_synthetic[0].neighbour_file == "" and not partial.licences
    with pytest.raises(InputError, match="crops are cut of images"):
        compare(after, tmp_path / "real.safetensors", extractor=NET, crops=2)
    with pytest.raises(InputError, match="cannot be compared"):
        compare(after, tmp_path / "real.safetensors")
    with pytest.raises(InputError, match="Layers take images"):
        compare(after, tmp_path / "real.safetensors", extractor=NET, profile=True)


def test_sizes_that_make_a_gap_of_their_own_are_said(folder, picture, sets):
    large = folder("large", {f"{i}.png": picture(i, 160, 160) for i in range(5)})
    quick = {"extractor": NET, "permutations": 0, "explained": 0, "metrics": ["kid"]}
    first = compare(sets[0], large, **quick).row("after").measurements[0].warnings[0]
    assert "short side of 48 px and the real ones of 160 px" in first
    tiny = folder("tiny", {f"{i}.png": picture(i, 24, 24) for i in range(5)})
    assert "enlarged" in compare(sets[0], tiny, crops=2, **quick).row("after").measurements[0].warnings[0]
    assert not any(
        "short side" in text for text in compare(sets[0], sets[2], **quick).row("after").measurements[0].warnings
    )


def test_what_cannot_work_is_refused_before_any_image_is_decoded(sets, tmp_path, monkeypatch):
    after, _, real = sets
    features(real).save(tmp_path / "real.safetensors")
    monkeypatch.setattr("metrics.comparison.sets.extract", lambda *a, **k: pytest.fail("extraction began"))
    with pytest.raises(InputError, match="unknown slice 'weather'"):
        compare(after, real, extractor=NET, slices=["weather"])
    with pytest.raises(InputError, match="have no labels and no metadata"):
        compare(real, after, extractor=NET, slices=["label"])
    with pytest.raises(InputError, match="cannot be compared with those of efficientnet-lite0"):
        compare(after, tmp_path / "real.safetensors")


def test_references_are_told_apart_by_content(sets, folder, picture):
    after, _, real = sets
    same = folder("same", {f"{i}.png": picture(200 + i, 48, 48) for i in range(16)})
    other = folder("other", {f"{i}.png": picture(200 + i + (i == 3), 48, 48) for i in range(16)})
    digests = [
        compare(after, root, extractor=NET, permutations=0, explained=0, metrics=["kid"]).reference.digest
        for root in (real, same, other)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_every_metric_can_be_measured(sets):
    x, y = features(sets[0]), features(sets[2])
    report = compare(sets[0], sets[2], extractor=NET, metrics=METRICS, permutations=19)
    assert [m.name for m in report.row("after").measurements] == [f"{name}@{NET}" for name in METRICS]
    by_name = {m.name.partition("@")[0]: m for m in report.row("after").measurements}
    assert by_name["kid"].value == kid(x.features, y.features).value
    assert by_name["fid"].value == frechet(x.features, y.features).value
    assert 0.5 < by_name["c2st"].value <= 1 and by_name["c2st"].p < 0.1
    assert by_name["cmmd"].se > 0 and any("published" in text for text in by_name["cmmd"].warnings)
    floors = {m.name.partition("@")[0]: m for m in report.row("floor").measurements}
    assert floors["kid"].value == 0 and floors["kid"].low < 0 < floors["kid"].high < by_name["kid"].value
    assert floors["fid"].value > 0 and math.isnan(floors["coverage"].value) and math.isnan(by_name["recall"].value)
    assert measure("rbf", x, x).measurement.value < 0.1 * by_name["rbf"].value


def test_a_score_that_takes_more_photos_is_undefined_not_fatal(folder, picture, sets):
    few = folder("few", {f"{i}.png": picture(i, 48, 48) for i in range(4)})
    report = compare(sets[0], few, extractor=NET, metrics=["kid", "coverage", "precision"], permutations=0)
    kid_, *scores = report.row("after").measurements
    assert kid_.value > 0 and all(math.isnan(score.value) for score in scores)
    assert all("4 independent images, too few for nearest neighbours" in score.warnings[0] for score in scores)


def test_a_floor_that_a_metric_cannot_have_is_said(folder, picture, sets):
    few = folder("few", {f"{i}.png": picture(i, 48, 48) for i in range(5)})
    floor = compare(sets[0], few, extractor=NET, metrics=["precision"], permutations=0).row("floor").measurements[0]
    assert math.isnan(floor.value) and floor.warnings[0].startswith("No floor: ")


def test_commands_for_features_and_statistics(sets, tmp_path, monkeypatch):
    monkeypatch.setenv("REVERSE_STYLIZE_CACHE", str(tmp_path / "cache"))
    after, _, real = sets
    run = CliRunner().invoke
    for root, name in ((after, "a.safetensors"), (real, "b.npz")):
        words = ["stats", str(root), "-o", str(tmp_path / name), "--extractor", NET]
        assert run(cli.app, words, catch_exceptions=False).exit_code == 0
    x, y = features(after), features(real)
    write_statistics(tmp_path / "own.npz", y.features.double().mean(0).numpy(), np.cov(y.features.double().T.numpy()))
    for first in (str(after), str(tmp_path / "a.safetensors")):
        for second in (str(real), str(tmp_path / "b.npz"), str(tmp_path / "own.npz")):
            result = run(cli.app, ["frechet", first, second, "--extractor", NET], catch_exceptions=False)
            assert float(result.stdout) == pytest.approx(frechet(x.features, y.features).value, rel=1e-4)
    assert "40 features" in run(cli.app, ["cache"], catch_exceptions=False).stdout
    assert "0 features" in run(cli.app, ["cache", "clear"], catch_exceptions=False).stdout
    monkeypatch.setattr("metrics.extractors.load_extractor", lambda *words, **options: pytest.fail("needs no network"))
    result = run(cli.app, ["frechet", str(tmp_path / "a.safetensors"), str(tmp_path / "b.npz")], catch_exceptions=False)
    assert float(result.stdout) == pytest.approx(frechet(x.features, y.features).value, rel=1e-4)
    with pytest.raises(InputError, match=r"no such folder\. Make it first"):
        run(cli.app, ["stats", str(real), "-o", str(tmp_path / "none/x.npz")], catch_exceptions=False)
    with pytest.raises(InputError, match=r"1 readable image\(s\)\. A covariance needs at least 2"):
        mean_and_covariance(x.subset([0]))
    with pytest.raises(InputError, match="--max-size goes with prune, not with clear"):
        run(cli.app, ["cache", "clear", "--max-size", "1"], catch_exceptions=False)
    with pytest.raises(InputError, match=r"extractor 'nonsense': all sets are given as features, of random-conv"):
        compare(tmp_path / "a.safetensors", tmp_path / "a.safetensors", extractor="nonsense")
    with pytest.raises(InputError, match=r"unknown action 'clean'\. Did you mean 'clear'"):
        run(cli.app, ["cache", "clean"], catch_exceptions=False)
    with pytest.raises(InputError, match=r"expected a name ending in \.safetensors"):
        run(cli.app, ["stats", str(real), "-o", str(tmp_path / "x.txt"), "--extractor", NET], catch_exceptions=False)
