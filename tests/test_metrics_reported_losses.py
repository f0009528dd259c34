"""Every kind of loss, in every set of a comparison, reaches every report and the gate; and so does every note."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from gap_reports import plain_text, report
from PIL import Image

from metrics.budget_gate.budgets import combine, from_flags
from metrics.budget_gate.gate import gate
from metrics.comparison.compare import compare
from metrics.comparison.gap_report import SetSummary
from metrics.copy_audit.audit import audit
from metrics.extractors import load_extractor
from metrics.features.extraction import FeatureSet, extract
from metrics.image_sets.items import ImageSet
from metrics.image_sets.open import open_images
from metrics.report import audit_to_html, audit_to_markdown, from_json, to_html, to_json, to_markdown
from metrics.report.audit import audit_verdict
from metrics.report.junit import to_junit
from metrics.report.step_summary import gate_markdown
from metrics.statistics.kid import kid

FAST = {"extractor": "random-conv", "permutations": 0, "explained": 0, "metrics": ("kid",)}
NOTE = "3 files are no images"


def images(root, count, first=0, **losses):
    root.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = np.random.default_rng(first + i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((32, 32)).save(root / f"{i:03}.png")
    return root


def lossy(root, **more):
    whole = open_images(root)
    return ImageSet(whole.root, whole.items, [("gone/1", "no such file"), ("gone/2", "cut off")], [NOTE])


@pytest.fixture
def sets(tmp_path):
    return {
        "synthetic": images(tmp_path / "s", 8),
        "real": images(tmp_path / "r", 8, 100),
        "before": images(tmp_path / "b", 8, 200),
        "floor": images(tmp_path / "f", 8, 300),
    }


def decided(found):
    return gate(found, combine(None, from_flags(maximum=["kid=1e9"]), None, ()))


WHICH = {"synthetic": "under test", "real": "of the reference", "before": "of the raw set", "floor": "of the floor"}


@pytest.mark.parametrize("role", WHICH)
def test_losses_of_any_set_reach_all_reports_and_the_gate(sets, role):
    assert decided(compare(**sets, **FAST)).verdict == "pass"
    found = compare(**{**sets, role: lossy(sets[role])}, **FAST)
    assert from_json(to_json(found)) == found
    summary = json.loads(to_json(found))
    told = (
        summary["reference"]
        if role == "real"
        else next(r for r in summary["rows"] if r["role"] == {"synthetic": "after"}.get(role, role))["set"]
    )
    assert told["skipped"] == [["gone/1", "no such file"], ["gone/2", "cut off"]] and told["notes"] == [NOTE]
    assert told["photos"] == 8
    result = decided(found)
    assert (result.verdict, result.exit_code) == ("fail", 1)
    sentence = f"2 of 10 images {WHICH[role]} could not be read"
    step = gate_markdown(result, found)
    for text in (result.checks[-1].sentence, to_junit(result), step):
        assert sentence in text
    assert f"2 images {WHICH[role]} could not be read" in step and step.count(NOTE) == 1
    for text in (to_markdown(found), plain_text(to_html(found))):
        assert text.count("gone/1") == text.count("cut off") == text.count(NOTE) == 1
    ElementTree.fromstring(to_junit(result))


def test_a_split_reference_is_told_once(sets):
    found = compare(sets["synthetic"], lossy(sets["real"]), **FAST)
    assert to_markdown(found).count("gone/1") == 1 and len(decided(found).checks) == 2


@pytest.mark.parametrize(("lost", "verdict"), [(1, "pass"), (2, "fail")])
def test_the_gate_counts_whole_images_not_crops(lost, verdict):
    """1 of 100 photos is within one per cent, 2 are beyond it, however many crops there are of each."""
    summary = SetSummary("real", 1600, 99, tuple((str(i), "damaged") for i in range(lost)), photos=100 - lost)
    assert decided(replace(report(), reference=summary)).verdict == verdict


def test_a_photo_whose_crops_fail_is_one_loss(tmp_path):
    root = images(tmp_path / "r", 6)
    data = (root / "003.png").read_bytes()
    (root / "003.png").write_bytes(data[: len(data) * 2 // 3])  # the header says a size, the pixels cannot be read
    found = extract(open_images(root).crops(5, 16), load_extractor("random-conv"))
    assert [key for key, _ in found.skipped] == ["003"] and (len(found), found.photos) == (25, 5)


def test_losses_in_a_feature_file_fail_the_gate_too(sets, tmp_path):
    network = load_extractor("random-conv")
    for role in ("synthetic", "real"):
        extract(lossy(sets[role]), network).save(tmp_path / f"{role}.safetensors")
    loaded = FeatureSet.load(tmp_path / "real.safetensors")
    assert (loaded.photos, loaded.notes, len(loaded.skipped)) == (8, (NOTE,), 2)
    for given in ({"synthetic": tmp_path / "synthetic.safetensors"}, {"real": tmp_path / "real.safetensors"}):
        result = decided(compare(**{**{name: sets[name] for name in ("synthetic", "real")}, **given}, **FAST))
        assert result.verdict == "fail" and "2 of 10 images" in result.checks[-1].sentence


@pytest.mark.slow
def test_an_audit_lists_the_losses_of_all_its_sets(sets, monkeypatch):
    monkeypatch.setattr("metrics.copy_audit.audit.HELD_CROPS", 4)
    found = audit(lossy(sets["synthetic"]), lossy(sets["real"]), held_out=lossy(sets["floor"]), images=2, patches=2)
    assert len(found.skipped) == 6 and found.notes == (NOTE,) * 3 and found.lost == 0.2
    assert audit_verdict(found).headline.startswith("Undecided: 20 % of the results could not be read")
    assert "4 photos could not be read: copies of them are not seen." in found.warnings
    for text in (audit_to_markdown(found), plain_text(audit_to_html(found))):
        assert "gone/1" in text and NOTE in text and "20 % of the results" in text
    whole = audit(sets["synthetic"], sets["real"], images=2, patches=2)
    assert whole.lost == 0 and audit_verdict(whole).tone == "closed"


# Copies


@pytest.mark.slow
def test_ten_images_ten_times_are_ten_observations(tmp_path):
    once, often, other = images(tmp_path / "once", 10), tmp_path / "often", images(tmp_path / "other", 12, 500)
    often.mkdir()
    for path in once.iterdir():
        for copy in range(10):
            (often / f"{path.stem}-{copy}.png").write_bytes(path.read_bytes())
    network = load_extractor("random-conv")
    x, y, z = (extract(open_images(root), network) for root in (once, often, other))
    assert y.notes == (
        "90 images are byte-identical copies of others in the set: equal images count as one observation.",
    )
    assert len(set(y.groups)) == 10 and x.notes == z.notes == ()
    clusters = [key.split("-")[0] for key in y.keys]
    expected = kid(y.features, z.features, groups_x=clusters)
    plain, distinct = kid(y.features, z.features), kid(x.features, z.features)
    found = compare(often, other, **FAST).rows[0].measurements[0]
    assert found.value == pytest.approx(expected.value, rel=1e-6) and found.se == pytest.approx(expected.se, rel=1e-6)
    assert found.value == pytest.approx(distinct.value, rel=1e-3) and found.se == pytest.approx(distinct.se, rel=1e-3)
    assert found.se > 1.1 * plain.se


def test_copies_of_photos_join_their_crops_and_groups(tmp_path):
    root = images(tmp_path / "r", 6)
    (root / "copy.png").write_bytes((root / "002.png").read_bytes())
    rows = [{"file_name": f"00{i}.png", "group": "a" if i < 2 else f"g{i}"} for i in range(6)]
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = extract(open_images(root).crops(3, 16), load_extractor("random-conv"))
    group = dict(zip(found.keys, found.groups, strict=True))
    assert group["copy#0"] == group["002#1"] == "g2" and group["000#0"] == group["001#2"] == "a"
    assert len(set(found.groups)) == 5 and "1 image is a byte-identical copy" in found.notes[-1]


def test_pairs_with_copies_on_one_side_are_compared(tmp_path):
    raw, stylised, real = tmp_path / "raw", images(tmp_path / "s", 9, 50), images(tmp_path / "real", 8, 100)
    images(raw, 9)
    for i in range(3):
        (raw / f"00{i}.png").write_bytes((raw / "000.png").read_bytes())
    found = compare(stylised, real, before=raw, **FAST)
    assert {row.set.groups for row in found.rows if row.role in ("before", "after")} == {7}
    assert found.change[0].se is not None


def test_a_set_of_one_image_is_measured_and_says_what_that_means(tmp_path):
    same = images(tmp_path / "same", 6)
    for path in sorted(same.iterdir())[1:]:
        path.write_bytes((same / "000.png").read_bytes())
    other = images(tmp_path / "other", 6, 100)
    for synthetic, real in ((same, other), (other, same), (same, same)):
        found = compare(synthetic, real, **{**FAST, "metrics": ("kid", "fid", "rbf", "energy")})
        assert np.isfinite(found.rows[0].measurements[0].value)
        assert "too few are left to tell" in to_markdown(found)
