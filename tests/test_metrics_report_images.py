"""Thumbnails: the right pixels, few bytes, and a word where there is none."""

import base64
import io
import zipfile

import numpy as np
from gap_reports import plain_text, report, save
from PIL import Image

from metrics.comparison.gap_report import Example, Explained
from metrics.report import to_html
from metrics.report.grid import EXPLAINED, LARGEST, ROWS, SIDE, explained, grid


def pixels(uri):
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def test_the_style_box_is_cut_out(tmp_path):
    photo = np.zeros((300, 500, 3), np.uint8)
    photo[:, :250, 0] = 255
    photo[100:200, 300:400] = (0, 0, 255)
    path = save(tmp_path / "photo.png", photo)
    ((_, cells),) = grid((Example("a", path, path, (300, 100, 100), path),))
    content, style, result = (pixels(cell.uri) for cell in cells)
    assert content.shape == result.shape == (154, 256, 3)
    assert style.shape == (100, 100, 3)
    assert np.abs(style.astype(int) - (0, 0, 255)).max() < 8
    assert np.abs(content[:, :100].astype(int) - (255, 0, 0)).max() < 8


def test_thumbnails_match_a_plain_resize(tmp_path):
    rng = np.random.default_rng(0)
    smooth = np.asarray(Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((640, 640)))
    path = save(tmp_path / "a.png", smooth)
    ((_, (cell,)),) = grid((Example("a", None, None, None, path),))
    expected = np.asarray(Image.fromarray(smooth).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    assert (cell.width, cell.height) == (SIDE, SIDE)
    assert np.abs(pixels(cell.uri).astype(int) - expected).mean() < 3


def test_files_that_cannot_be_shown_are_said_so(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    good = save(tmp_path / "good.png", np.full((64, 64, 3), 9, np.uint8))
    examples = (
        Example("gone", str(tmp_path / "gone.png"), good, (60, 60, 10), good),
        Example("bad", str(tmp_path / "bad.png"), None, None, "nul\0.png"),
        Example("folder", str(tmp_path), good, (-1, 0, 10), "x" * 5000 + ".png"),
    )
    notes = [[cell.note for cell in cells] for _, cells in grid(examples)]
    assert notes[0][0] == "cannot be shown: the file is gone"
    assert "the box (60, 60, 10) lies outside the photo of 64x64" in notes[0][1]
    assert notes[0][2] == ""
    assert notes[1][0].startswith("cannot be shown: damaged image data")
    assert notes[1][1] == "none"
    assert notes[1][2].startswith("cannot be shown: ")
    assert all(note.startswith("cannot be shown: ") for note in notes[2])
    assert "the file is gone" in plain_text(to_html(report(examples=examples)))


def test_columns_that_no_example_fills_are_left_out(tmp_path):
    path = save(tmp_path / "a.png", np.full((64, 64, 3), 9, np.uint8))
    cells = [cells for _, cells in grid((Example("a", None, None, None, path), Example("b", path, None, None, path)))]
    assert [[cell.column for cell in row] for row in cells] == [["content", "result"]] * 2
    assert cells[0][0].note == "none"


def test_the_page_stays_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    coarse = save(tmp_path / "coarse.png", np.kron(noise[:64, :64], np.ones((4, 4, 1), np.uint8)))
    fine = save(tmp_path / "fine.png", noise[:256, :256])
    examples = tuple(Example(f"k{i}", fine, coarse, None, fine) for i in range(ROWS + 5))
    html = to_html(report(examples=examples))
    assert len(html) < 6_000_000  # pure noise is the worst that a JPEG can meet
    assert html.count("<img ") == 3 * ROWS
    assert f"The first {ROWS} of {ROWS + 5}." in plain_text(html)


def test_explained_images_stand_beside_their_nearest_neighbour(tmp_path):
    dark, light = (save(tmp_path / f"{v}.png", np.full((64, 64, 3), v, np.uint8)) for v in (9, 200))
    images = (Explained("s/1", dark, 0.2, "photo", light), Explained("s/2", "", 0.1, "photo", str(tmp_path / "gone")))
    (first, ours, nearest), (_, bare, gone) = explained(images, "after")
    assert first is images[0]
    assert (pixels(ours.uri).mean().round(), pixels(nearest.uri).mean().round()) == (9, 200)
    assert (ours.column, ours.role, ours.key) == ("synthetic", "after", "s/1")
    assert (nearest.column, nearest.role, nearest.key) == ("nearest real", "real", "photo")
    assert (bare.uri, bare.note) == (None, "none")
    assert gone.note == "cannot be shown: the file is gone"
    assert [thumb.column for thumb in explained(images, "real")[0][1:]] == ["real", "nearest synthetic"]
    assert len(explained(images * 20, "after")) == EXPLAINED


def test_a_file_that_changed_between_two_reports_is_read_again(tmp_path):
    path = save(tmp_path / "a.png", np.full((64, 64, 3), 9, np.uint8))
    before = explained((Explained("a", path, 0.2, "b", ""),), "after")[0][1]
    save(tmp_path / "a.png", np.full((64, 64, 3), 200, np.uint8))
    assert explained((Explained("a", path, 0.2, "b", ""),), "after")[0][1].uri != before.uri


def test_no_thumbnail_is_large(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    path = save(tmp_path / "noise.png", noise)
    (_, thumb, _) = explained((Explained("a", path, 0.2, "b", ""),), "after")[0]
    assert len(base64.b64decode(thumb.uri.partition(",")[2])) <= LARGEST
    assert pixels(thumb.uri).shape == (256, 256, 3)


def test_the_measured_square_is_cut_out(tmp_path):
    photo = np.zeros((100, 200, 3), np.uint8)
    photo[20:60, 120:160] = 200
    path = save(tmp_path / "photo.png", photo)
    one = Explained("a#1", path, 0.2, "b#2", path, (120, 20, 40), (0, 0, 40))
    _, ours, nearest = explained((one,), "real")[0]
    assert (ours.width, ours.height) == (nearest.width, nearest.height) == (40, 40)
    assert (pixels(ours.uri).mean().round(), pixels(nearest.uri).mean().round()) == (200, 0)


def test_images_in_archives_are_shown(tmp_path):
    path = save(tmp_path / "a.png", np.full((64, 64, 3), 200, np.uint8))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(path, "c/a.png")
    member = f"{tmp_path / 'set.zip'}::c/"
    images = (Explained("c/a", f"{member}a.png", 0.2, "c/b", f"{member}b.png"),)
    _, ours, nearest = explained(images, "after")[0]
    assert pixels(ours.uri).mean().round() == 200
    assert nearest.note.startswith("cannot be shown: ") and "gone" not in nearest.note
    (tmp_path / "set.zip").unlink()
    assert explained(images, "after")[0][1].note == "cannot be shown: the file is gone"
