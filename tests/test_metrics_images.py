import hashlib
import io
import json
import os
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageCms

from metrics.errors import InputError
from metrics.image_sets.decode import ImageError, decode, dimensions, sha256
from metrics.image_sets.items import natural
from metrics.image_sets.open import open_images

SQUARE = np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3)


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def close(image, expected, tolerance=0):
    assert image.dtype == np.uint8 and image.shape == expected.shape
    assert np.abs(image.astype(int) - expected.astype(int)).max() <= tolerance


def test_rgb_is_unchanged():
    close(decode(encoded(Image.fromarray(SQUARE))), SQUARE)


def test_grey_repeats_in_all_channels():
    grey = SQUARE[..., 0].copy()
    close(decode(encoded(Image.fromarray(grey))), np.repeat(grey[..., None], 3, 2))


def test_one_bit():
    bits = Image.new("1", (8, 8), 1)
    close(decode(encoded(bits)), np.full((8, 8, 3), 255, np.uint8))


def test_alpha_is_composited_on_white():
    rgba = Image.new("RGBA", (8, 8), (200, 0, 100, 51))  # alpha one fifth
    expected = np.broadcast_to(np.rint(np.array([200, 0, 100]) * 0.2 + 255 * 0.8), (8, 8, 3)).astype(np.uint8)
    close(decode(encoded(rgba)), expected, 1)


def test_grey_alpha():
    close(decode(encoded(Image.new("LA", (8, 8), (100, 0)))), np.full((8, 8, 3), 255, np.uint8))


def test_palette_with_transparency():
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30] + [0] * 762)
    expected = np.broadcast_to(np.array([10, 20, 30], np.uint8), (8, 8, 3))
    close(decode(encoded(palette)), expected)
    close(decode(encoded(palette, transparency=1)), np.full((8, 8, 3), 255, np.uint8))


def test_sixteen_bit_grey_is_scaled():
    deep = np.full((8, 8), 32896, np.uint16)  # 128 * 257
    close(decode(encoded(Image.fromarray(deep))), np.full((8, 8, 3), 128, np.uint8))


def test_float_tiff_must_lie_in_unit_range():
    half = Image.fromarray(np.full((8, 8), 0.5, np.float32))
    close(decode(encoded(half, "TIFF")), np.full((8, 8, 3), 128, np.uint8))
    with pytest.raises(ImageError, match=r"outside \[0, 1\]"):
        decode(encoded(Image.fromarray(np.full((8, 8), 2.0, np.float32)), "TIFF"))


def test_cmyk():
    close(decode(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")), np.full((8, 8, 3), 255, np.uint8), 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(SQUARE), exif=exif))
    turned = {
        1: SQUARE,
        2: SQUARE[:, ::-1],
        3: SQUARE[::-1, ::-1],
        4: SQUARE[::-1],
        5: SQUARE.transpose(1, 0, 2),
        6: np.rot90(SQUARE, -1),
        7: SQUARE[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(SQUARE, 1),
    }[orientation]
    close(decode(path), turned)
    assert dimensions(path) == (turned.shape[1], turned.shape[0])


def test_dimensions_of_a_torn_file_are_refused_as_its_pixels_are():
    whole = encoded(Image.fromarray(SQUARE))
    for length in range(len(whole) // 2):
        with pytest.raises(ImageError):
            decode(whole[:length])
        with suppress(ImageError):  # a header may come through, another error may not
            dimensions(whole[:length])


def linear_profile():
    """sRGB primaries with a linear transfer curve: a profile whose conversion must change the pixels."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    start = data.find(b"para")
    assert start > 0, "littlecms writes the transfer curve as a parametric curve"
    data[start + 12 : start + 16] = (65536).to_bytes(4, "big")  # gamma 1.0 in s15.16
    data[start + 16 : start + 36] = b"".join(v.to_bytes(4, "big") for v in (65536, 0, 65536, 0, 0))
    return bytes(data)


def test_icc_profile_is_converted_to_srgb():
    flat = Image.new("RGB", (8, 8), (55, 55, 55))  # linear 0.216 is sRGB 0.502
    expected = np.full((8, 8, 3), 128, np.uint8)
    close(decode(encoded(flat, icc_profile=linear_profile())), expected, 2)
    close(decode(encoded(flat, icc_profile=b"not a profile")), np.full((8, 8, 3), 55, np.uint8))


def test_icc_profile_of_an_image_with_alpha():
    flat = Image.new("RGBA", (8, 8), (55, 55, 55, 255))
    close(decode(encoded(flat, icc_profile=linear_profile())), np.full((8, 8, 3), 128, np.uint8), 2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"this is text, not an image", "not an image"),
        (encoded(Image.fromarray(SQUARE).resize((64, 64)), "JPEG")[:-200], "damaged"),
        (encoded(Image.fromarray(SQUARE))[:60], "damaged|cannot be opened|not an image"),
        (encoded(Image.new("RGB", (1, 1))), "too small: 1x1, at least 8x8"),
        (encoded(Image.new("1", (20000, 20000))), "too large"),
        (encoded(Image.new("1", (9000, 9000))), "too large: 9000x9000, at most 64 megapixels"),
    ],
)
def test_bad_files_are_one_line_errors(content, reason, tmp_path):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        decode(path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permissions(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(SQUARE)))
    path.chmod(0)
    with pytest.raises(ImageError, match="permission denied"):
        decode(path)


def test_permission_error_is_an_image_error(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(SQUARE)))

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(ImageError, match="permission denied"):
        decode(path)


def test_tree_keys_labels_and_natural_order(folder):
    root = folder("set", {"b/img10.png": SQUARE, "b/img2.JPG": SQUARE, "a/x.png": SQUARE, ".hidden/y.png": SQUARE})
    images = open_images(root)
    assert [item.key for item in images] == ["a/x", "b/img2", "b/img10"]
    assert images.labels == ["a", "b", "b"]
    close(images[0].read(), SQUARE)


def test_flat_folder_has_no_labels(folder):
    assert open_images(folder("set", {"x.png": SQUARE})).labels == [None]


def test_metadata_labels_win_over_folders(folder):
    rows = [{"file_name": "a/x.png", "label": "cat"}, {"file_name": "a/y.png"}]
    text = "\n".join(map(json.dumps, rows)).encode()
    root = folder("set", {"a/x.png": SQUARE, "a/y.png": SQUARE, "metadata.jsonl": text})
    assert open_images(root).labels == ["cat", "a"]


def test_broken_metadata_names_the_line(folder):
    root = folder("set", {"x.png": SQUARE, "metadata.jsonl": b'{"file_name": "x.png"}\nnonsense\n'})
    with pytest.raises(InputError, match=r"metadata\.jsonl:2"):
        open_images(root)


def test_missing_empty_file_and_duplicate_keys(folder, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        open_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no images found"):
        open_images(folder("empty", {"notes.txt": b"hi"}))
    with pytest.raises(InputError, match="not a folder"):
        open_images(folder("set", {"x.png": SQUARE}) / "x.png")
    with pytest.raises(InputError, match=r"share the key 'a/x'"):
        open_images(folder("twice", {"a/x.png": SQUARE, "a/x.jpg": SQUARE}))


def test_crops_are_inside_square_and_depend_on_nothing_else(folder, picture):
    root = folder("set", {"a.png": picture(1, 100, 150), "b.png": picture(2, 90, 80)})
    crops = open_images(root).crops(5, 32, seed=3)
    assert [item.key for item in crops][:2] == ["a#0", "a#1"] and len(crops) == 10
    assert {item.group for item in crops} == {"a", "b"}
    for item in crops:
        width, height = dimensions(item.path)
        box = item.crop
        assert min(width, height) / 2 - 1 <= box.side <= min(width, height)
        assert 0 <= box.left <= width - box.side and 0 <= box.top <= height - box.side
        assert item.read().shape == (32, 32, 3)
    (root / "a.png").unlink()
    alone = open_images(root).crops(7, 32, seed=3)
    assert [item.crop for item in alone][:5] == [item.crop for item in crops if item.group == "b"]
    assert [item.crop for item in open_images(root).crops(5, 32, seed=4)] != [item.crop for item in alone][:5]


def test_crops_list_what_cannot_be_opened(folder, picture):
    crops = open_images(folder("set", {"a.png": picture(), "b.png": b"text"})).crops(2, 16)
    assert len(crops) == 2
    assert crops.losses == (("b", "not an image that can be decoded"),)


def test_natural_order_mixes_digits_and_letters():
    assert sorted(["a10", "a9", "9", "b", "10"], key=natural) == ["9", "10", "a9", "a10", "b"]


def test_links_to_folders_are_followed_once(folder):
    root = folder("set", {"real/a.png": SQUARE})
    other = folder("other", {"b.png": SQUARE})
    (root / "linked").symlink_to(other)
    (root / "real/loop").symlink_to(root)
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    assert [item.key for item in open_images(root)] == ["linked/b", "real/a"]


def test_a_name_that_is_not_unicode_is_named(folder):
    root = folder("set", {"a.png": SQUARE})
    (root / "a.png").rename(os.fsdecode(os.fsencode(root) + b"/x\xff.png"))
    with pytest.raises(InputError, match=r"is not valid UTF-8\. Rename it"):
        open_images(root)


def test_blank_lines_of_metadata_are_passed_over(folder):
    root = folder("set", {"x.png": SQUARE, "metadata.jsonl": b'{"file_name": "x.png", "label": 3}\n\n'})
    assert open_images(root).labels == [3]


def test_groups_tags_and_digests_of_files(folder):
    row = {"file_name": "x.png", "group": 12, "weather": "rain", "night": True, "lux": 0.5, "boxes": [1], "text": None}
    root = folder("set", {"x.png": SQUARE, "y.png": SQUARE, "metadata.jsonl": json.dumps(row).encode()})
    x, y = open_images(root)
    assert (x.group, x.tags) == ("12", {"weather": "rain", "night": "True", "lux": "0.5"})
    assert (y.group, y.tags) == ("y", {})
    assert x.digest() == hashlib.sha256((root / "x.png").read_bytes()).hexdigest() == sha256(root / "x.png")
    assert x.location == str(root / "x.png") and x.path == root / "x.png" and x.dimensions() == (16, 12)
    (root / "x.png").unlink()
    with pytest.raises(ImageError, match="cannot be opened"):
        x.digest()
