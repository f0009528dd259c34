import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metrics.copy_audit import audit as copies
from metrics.copy_audit import patch_search
from metrics.copy_audit.audit import audit, clustered
from metrics.copy_audit.patch_search import CELLS, Descriptor, Scale, cut_patches, sample_patches, search
from metrics.copy_audit.report import Case, CopyReport, ScaleRate
from metrics.errors import InputError
from metrics.image_sets.decode import decode
from metrics.image_sets.items import ImageSet
from metrics.image_sets.open import open_images
from metrics.report import audit_to_html, audit_to_markdown, write_audit
from metrics.report.audit import audit_verdict

PHOTOS = Path(__file__).parent.parent / "assets" / "photos"
SIZE = 96


def subset(part, names):
    items = [item for item in open_images(PHOTOS / part) if item.key in names]
    return ImageSet(PHOTOS / part, items)


REAL = subset("learn", ("astronaut", "cat", "coffee", "gravel"))
HELD = subset("judge", ("fig", "grass", "hopper", "raccoon"))
FEW, FEW_HELD = (ImageSet(photos.root, photos.items[:2]) for photos in (REAL, HELD))


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(copies, "HELD_CROPS", 20)


@pytest.fixture(scope="module")
def crops():
    """Eight crops of the style photos, and eight of photos that nobody copies."""
    strangers = subset("tune", ("dahlia", "dogs", "drum", "sunset"))
    return [[item.read() for item in images.crops(2, SIZE, 5)] for images in (REAL, strangers)]


def gaussian(image, seed):
    """Random-phase texture with the spectrum and mean of ``image``."""
    spectrum = np.fft.fft2(image.astype(float), axes=(0, 1))
    phase = np.fft.fft2(np.random.default_rng(seed).normal(size=image.shape[:2]))
    phase /= np.abs(phase)
    phase[0, 0] = 1
    return np.fft.ifft2(spectrum * phase[..., None], axes=(0, 1)).real


ATTACKS = {
    "verbatim": lambda own, other, seed: own,
    "darker and flatter": lambda own, other, seed: own * 0.5 + 20.0,
    "mirrored": lambda own, other, seed: own[:, ::-1],
    "blended": lambda own, other, seed: 0.7 * own + 0.3 * other,
    "texture": lambda own, other, seed: gaussian(own, seed),
    "unrelated": lambda own, other, seed: other,
}


def attack(folder, crops, *names):
    """Eight images of every named attack, in a folder of its own."""
    made = {
        f"{name}/{i}.png": ATTACKS[name](*pair, i).round().clip(0, 255).astype(np.uint8)
        for name in names
        for i, pair in enumerate(zip(*crops, strict=True))
    }
    return folder("out", made)


def test_copies_are_found_and_nothing_else_is(folder, crops, monkeypatch):
    monkeypatch.setattr(copies, "CASES", 100)  # every image's worst patch
    report = audit(attack(folder, crops, *ATTACKS), REAL, held_out=HELD, patches=6)
    assert report.images == 48 and audit_verdict(report).tone == "away"
    assert report.calibration < 0.01 + 2 * report.calibration_se < 0.25 < report.rate
    caught = {name: [case for case in report.cases if case.copied and case.key.startswith(name)] for name in ATTACKS}
    counts = {name: len(cases) for name, cases in caught.items()}
    assert min(counts[name] for name in ("verbatim", "darker and flatter", "mirrored", "blended")) >= 7, counts
    assert max(counts[name] for name in ("texture", "unrelated")) <= 1, counts
    for name in ("verbatim", "darker and flatter", "mirrored", "blended"):
        photos = {case.key.partition("/")[2]: case.photo for case in caught[name]}
        assert all(photo == REAL.items[int(number) // 2].key for number, photo in photos.items())
    assert all(case.mirrored for case in caught["mirrored"])


@pytest.mark.slow
def test_a_case_points_at_the_place_that_was_copied(folder):
    photo = REAL.items[0].read()  # astronaut, 512 px
    flipped = np.asarray(Image.fromarray(photo[100:420, 150:470]).resize((SIZE, SIZE)))[:, ::-1]
    out = folder("out", {"a.png": flipped, "b.png": gaussian(flipped, 0).clip(0, 255).astype(np.uint8)})
    (out / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "style": {"photo": "astronaut"}}\n{"file_name": "b.png"}'
    )
    case = audit(out, REAL, held_out=HELD).cases[0]
    assert (case.key, case.photo, case.mirrored, case.copied, case.style) == ("a", "astronaut", True, True, "astronaut")
    centre = [case.box[i] + case.box[2] / 2 for i in (0, 1)]
    expected = 150 + (SIZE - centre[0]) * 320 / SIZE, 100 + centre[1] * 320 / SIZE
    found = [case.photo_box[i] + case.photo_box[2] / 2 for i in (0, 1)]
    assert math.dist(found, expected) < 0.1 * case.photo_box[2]
    assert case.photo_box[2] == pytest.approx(case.box[2] * 320 / SIZE, rel=0.12)
    assert case.correlation > 0.95 > case.rival and case.distinctness > 1.5


def test_without_held_out_photos_each_is_held_out_in_turn(folder, crops):
    report = audit(attack(folder, crops, "verbatim"), REAL, patches=4)
    assert report.rate > 0.5 > 0.1 > report.calibration and report.config["held out"] is None
    assert "Only 4 different photos" in report.warnings[0]


def test_a_photo_that_is_there_twice_hides_no_copy(folder):
    pictures = {f"{item.key}.png": item.read() for item in REAL}
    pictures["cat again.png"] = np.clip(pictures["cat.png"] * 1.1 + 3, 0, 255).astype(np.uint8)
    out = folder(
        "out",
        {f"{i}.png": item.read() for i, item in enumerate(ImageSet(REAL.root, REAL.items[1:2]).crops(3, SIZE, 5))},
    )
    assert audit(out, folder("doubled", pictures), held_out=FEW_HELD, patches=4).rate > 0.6


@pytest.mark.slow
def test_held_out_photos_that_are_not_are_said(folder, crops):
    leaked = folder("leaked", {f"{item.key}.png": item.read() for item in [*HELD, REAL[1]]})
    report = audit(attack(folder, crops, "unrelated"), REAL, held_out=leaked, patches=2)
    assert report.warnings[0].endswith("took no part in the calibration: cat.")
    assert report.calibration < 0.1


def test_the_search_is_exact():
    """Against every patch of every size, one by one."""
    scale = Scale("test", 24, 3)
    photo = REAL.items[2].read()[100:260, 100:300]
    descriptor = Descriptor(sample_patches(photo, scale, 500))
    image = HELD.items[0].read()[:80, :80]
    patches, _ = cut_patches(image, scale, np.random.default_rng(0).random((7, 2)))
    best = [(-2.0, None, None)] * len(patches)
    for fraction in patch_search.FRACTIONS:
        side = round(24 / fraction)
        small = np.array(Image.fromarray(photo).resize((round(side * 200 / 160), side), Image.Resampling.LANCZOS))
        for top in range(0, small.shape[0] - CELLS + 1, 3):
            for left in range(0, small.shape[1] - CELLS + 1, 3):
                cell = torch.tensor(small[top : top + CELLS, left : left + CELLS]).permute(2, 0, 1).float()
                if float((cell - cell.mean((1, 2), keepdim=True)).square().mean().sqrt()) < patch_search.CONTRAST:
                    continue
                there = descriptor(cell.reshape(1, -1))[0]
                for row, patch in enumerate(patches):
                    for mirrored in (False, True):
                        ours = patch.reshape(3, CELLS, CELLS).flip(2) if mirrored else patch
                        r = float(descriptor(ours.reshape(1, -1))[0] @ there)
                        if r > best[row][0]:
                            best[row] = r, mirrored, np.array([left, top, CELLS]) * 160 / side
    found = search(patches, photo, scale, descriptor)
    assert found.correlation == pytest.approx([r for r, _, _ in best], abs=1e-5)
    assert found.mirrored.tolist() == [mirrored for _, mirrored, _ in best]
    assert found.box == pytest.approx(np.stack([box for _, _, box in best]), abs=1e-6)


def test_the_descriptor_drops_brightness_and_contrast_and_little_else():
    scale = Scale("test", 64, 1)
    photos = [item.read() for item in REAL]
    descriptor = Descriptor(torch.cat([sample_patches(photo, scale, 1500) for photo in photos]))
    patches, boxes = cut_patches(photos[0], scale, np.random.default_rng(0).random((50, 2)))
    tinted = patches * 0.4 + torch.tensor([10.0, 40.0, -5.0]).repeat_interleave(CELLS**2)
    assert descriptor(tinted) == pytest.approx(descriptor(patches), abs=1e-5)
    centred = patches.reshape(50, 3, -1)
    centred = torch.nn.functional.normalize((centred - centred.mean(2, keepdim=True)).reshape(50, -1), dim=1)
    seen, true = descriptor(patches) @ descriptor(patches).T, centred @ centred.T
    assert (seen - true).abs().mean() < 0.1
    assert (boxes[:, 2] == 96).all() and boxes[:, :2].max() <= 512 - 96  # 12 of 64 cells of 512 pixels


def test_the_result_depends_on_nothing_but_keys_and_seed(folder, crops, monkeypatch):
    out = attack(folder, crops, "blended")
    report = audit(out, FEW, held_out=FEW_HELD, patches=3)
    monkeypatch.setattr(patch_search, "BLOCK", 777)
    items = open_images(out).items
    again = audit(ImageSet(out, items[::-1]), FEW, held_out=FEW_HELD, patches=3)
    assert again.rate == report.rate and again.scales == report.scales
    assert {case.key for case in again.cases} == {case.key for case in report.cases}


def test_the_standard_error_is_that_of_a_mean_of_equal_clusters_and_larger_for_dependent_ones():
    rng = np.random.default_rng(0)
    flags = rng.random(200) < 0.3
    rate, se = clustered(flags, np.arange(200))
    assert (rate, se) == pytest.approx((flags.mean(), flags.std(ddof=1) / math.sqrt(200)))
    means = flags.reshape(50, 4).mean(1)
    assert clustered(flags, np.repeat(np.arange(50), 4))[1] == pytest.approx(means.std(ddof=1) / math.sqrt(50))
    copied = np.repeat(rng.random(50) < 0.3, 4)
    assert clustered(copied, np.repeat(np.arange(50), 4))[1] > 1.8 * clustered(copied, np.arange(200))[1]
    assert clustered(flags[:4], np.zeros(4, int))[1] is None and clustered(flags[:0], np.arange(0)) == (0.0, None)


def test_flat_and_broken_results(folder):
    grey = {f"{i}.png": np.full((64, 64, 3), 90 + i, np.uint8) for i in range(3)}
    report = audit(folder("grey", {**grey, "x.png": b"text"}), FEW, held_out=FEW_HELD, patches=2)
    assert (report.rate, report.se, report.images, report.cases) == (0, None, 0, ())
    assert report.scales[0].plain == 6 and report.skipped == (("x", "not an image that can be decoded"),)
    assert audit_verdict(report).tone == "unclear"
    assert "too plain" in audit_to_markdown(report) and "No patch was distinct" in audit_to_html(report)


def test_refusals(folder, picture):
    out = folder("out", {"a.png": picture()})
    one, two = (folder(f"real{n}", {f"{i}.png": picture(i) for i in range(n)}) for n in (1, 2))
    with pytest.raises(InputError, match=r"2 different photos in all.*--held-out FOLDER"):
        audit(out, two)
    with pytest.raises(InputError, match="3 different photos in all, of which 1 are held out"):
        audit(out, two, held_out=folder("held", {"9.png": picture(9)}))
    with pytest.raises(InputError, match="2 different photos in all"):
        audit(out, one, held_out=folder("copy", {"0.png": picture(0), "1.png": picture(5)}))
    with pytest.raises(InputError, match="patches = 0: expected at least 1"):
        audit(out, two, patches=0)
    with pytest.raises(InputError, match="no image could be read"):
        audit(folder("bad", {"a.png": b"text"}), REAL)


def test_one_style_photo_is_told_by_the_held_out_ones(folder, crops):
    out = folder("out", {f"{i}.png": crop for i, crop in enumerate(crops[0][:2])})  # crops of the astronaut
    assert audit(out, ImageSet(REAL.root, REAL.items[:1]), held_out=HELD, patches=4).rate > 0.4


# Report

HOSTILE = "<script>alert(1)</script>|`a`|[x](javascript:1)\n# @everyone"


def made(rate=0.2, se=0.02, base=0.01, text="class/1", **fields):
    case = Case(text, "gone.png", (1, 2, 24), text, "gone.jpg", (3, 4, 48), True, "large", 0.98, 0.6, 4.1, True, text)
    scale = ScaleRate("large", 0.1875, 2.0, rate, se, 800, 20, base, 0.005, 700)
    values = {"images": 100, "scales": (scale,), "cases": (case,), "config": {"real": text}, "skipped": ((text, text),)}
    return CopyReport(rate, se, base, 0.005, **{**values, "warnings": (text,), **fields})


def test_the_verdict_needs_two_standard_errors():
    assert audit_verdict(made(0.2)).headline == "Real photos were copied: 20.0 % ± 2.0 % of the patches."
    assert audit_verdict(made(0.04)).tone == "closed" and audit_verdict(made(0.06)).tone == "away"
    assert "names 1.0 % ± 0.5 %" in audit_verdict(made()).detail


def test_markdown_has_the_numbers_and_no_foreign_markup():
    text = audit_to_markdown(made())
    assert "| 19 %                    | 20.0 % ± 2.0 % |    1.0 % ± 0.5 % |     800 |        20 |" in text
    assert "- `class/1` (1, 2, 24) copies `class/1` (3, 4, 48) mirrored, r = 0.98, with any other photo 0.60" in text
    assert len(audit_to_markdown(made(text=HOSTILE)).splitlines()) == len(text.splitlines())


def test_the_page_stands_alone_and_escapes(tmp_path):
    page = audit_to_html(made(text=HOSTILE))
    assert page.count("<script") == 1 and "&lt;script&gt;" in page and "cannot be shown" in page
    assert page.count("<figcaption>") == 1 and "http" not in page.replace("http-equiv", "")


def test_files_are_written_and_show_both_patches(folder, crops, tmp_path):
    report = audit(folder("out", {"a.png": crops[0][0], "b.png": crops[1][0]}), REAL, patches=2)
    write_audit(report, tmp_path / "audit")
    document = json.loads((tmp_path / "audit/audit.json").read_text())
    assert document["schema"] == 2 and document["rate"] == report.rate
    assert document["cases"][0]["photo_box"] == list(report.cases[0].photo_box)
    page = (tmp_path / "audit/audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * len(report.cases) == 4
    assert decode(Path(document["cases"][0]["photo_file"])).ndim == 3
    assert (tmp_path / "audit/audit.md").read_text() == audit_to_markdown(report)
