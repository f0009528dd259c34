"""The shipped photographs: every one licensed, attributed, intact, usable, and in one split only."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metrics.image_sets.decode import decode, sha256
from metrics.image_sets.ledger import licences
from metrics.image_sets.open import open_images

PHOTOS = Path(__file__).parents[1] / "assets" / "photos"
LEDGER = json.loads((PHOTOS / "ledger.json").read_text(encoding="utf-8"))
ROWS = LEDGER["images"]
FILES = [row["file"] for row in ROWS]
ALLOWED = {"CC0-1.0", "CC-BY-2.0", "CC-BY-4.0", "LicenseRef-PublicDomain"}
SUBJECTS = {"animal", "food", "landscape", "people", "object", "building", "texture", "plant"}
REQUIRED = ("file", "title", "subject", "licence", "author", "source", "package", "changes", "sha256")
MAX_BYTES = 6_000_000
NEAR = 10  # of 64 hash bits: these photos differ in 20 or more, an edited copy from its original in 3 or fewer


def split(file: str) -> str:
    return file.split("/")[0]


def difference_hash(image: np.ndarray) -> np.ndarray:
    """64 bits: is each cell of the 8 x 9 grey thumbnail darker than its right neighbour?"""
    thumbnail = Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX)
    grey = np.asarray(thumbnail, dtype=np.int16)
    return (grey[:, :-1] < grey[:, 1:]).ravel()


def distance(a: np.ndarray, b: np.ndarray) -> int:
    """Differing hash bits of two images, the lesser of ``b`` and its mirror image."""
    reference = difference_hash(a)
    return min(int((reference != difference_hash(image)).sum()) for image in (b, b[:, ::-1]))


@pytest.fixture(scope="module")
def pixels() -> dict[str, np.ndarray]:
    return {file: decode(PHOTOS / file) for file in FILES}


def test_the_ledger_lists_exactly_the_files_of_the_tree():
    on_disk = {p.relative_to(PHOTOS).as_posix() for p in PHOTOS.rglob("*") if p.is_file()} - {"ledger.json"}
    assert LEDGER["schema"] == 1
    assert len(set(FILES)) == len(FILES)
    assert set(FILES) == on_disk


@pytest.mark.parametrize("row", ROWS, ids=FILES)
def test_each_photo_has_an_allowed_licence_and_a_named_origin(row):
    assert [name for name in REQUIRED if not row.get(name, "").strip()] == []
    assert row["licence"] in ALLOWED
    assert row["subject"] in SUBJECTS
    assert row["source"].startswith(("https://", "http://"))
    if row["licence"].startswith("CC-BY"):  # the licence asks for author, link, licence link and the changes made
        assert "unknown" not in row["author"].lower()
        assert row["licence_url"].startswith("https://creativecommons.org/licenses/by/")
        assert row["licence_url"].rstrip("/").endswith(row["licence"].removeprefix("CC-BY-"))


@pytest.mark.parametrize("row", ROWS, ids=FILES)
def test_each_digest_matches(row):
    assert sha256(PHOTOS / row["file"]) == row["sha256"]


@pytest.mark.parametrize(
    "root", [PHOTOS, *(PHOTOS / name for name in ("learn", "tune", "judge"))], ids=lambda p: p.name
)
def test_the_package_finds_a_licence_for_every_photo(root):
    images = open_images(root)
    found = licences(images)
    assert found.unlicensed == ()
    assert len(found.rows) == len(images)


def test_the_splits_have_their_sizes_and_varied_subjects():
    members = {name: [row for row in ROWS if split(row["file"]) == name] for name in ("learn", "tune", "judge")}
    assert {name: len(rows) for name, rows in members.items()} == {"learn": 9, "tune": 4, "judge": 5}
    assert sum(map(len, members.values())) == len(ROWS)
    for rows in members.values():
        assert len({row["subject"] for row in rows}) >= 4
    assert {row["subject"] for row in members["learn"]} == SUBJECTS


def test_the_photos_stay_small():
    assert sum((PHOTOS / file).stat().st_size for file in FILES) <= MAX_BYTES


@pytest.mark.parametrize("file", FILES)
def test_each_photo_is_a_plain_upright_srgb_jpeg_of_usable_size(file, pixels):
    height, width, channels = pixels[file].shape
    assert channels == 3
    assert min(height, width) >= 256
    assert max(height, width) <= 1024
    with Image.open(PHOTOS / file) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert "icc_profile" not in image.info  # already converted to sRGB
        assert len(image.getexif()) == 0  # upright, and nothing private inside


def test_each_split_has_colour(pixels):
    for name in ("learn", "tune", "judge"):
        spread = [np.ptp(pixels[file].astype(np.int16), axis=2).mean() for file in FILES if split(file) == name]
        assert sum(value > 10 for value in spread) >= len(spread) - 1  # at most one grey texture


def test_no_photo_is_in_two_splits(pixels):
    assert len({row["sha256"] for row in ROWS}) == len(ROWS)
    pairs = [(a, b) for a, b in combinations(FILES, 2) if split(a) != split(b)]
    assert [(a, b) for a, b in pairs if distance(pixels[a], pixels[b]) <= NEAR] == []


@pytest.mark.parametrize("file", FILES)
def test_the_near_copy_check_sees_an_edited_copy(file, pixels):
    original = pixels[file]
    height, width = original.shape[:2]
    smaller = np.asarray(Image.fromarray(original).resize((width // 2, height // 2), Image.Resampling.LANCZOS))
    edited = np.clip(smaller.astype(np.float64) * 0.8 + 30, 0, 255).astype(np.uint8)[:, ::-1]
    assert distance(original, edited) <= NEAR
