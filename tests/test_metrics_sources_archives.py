import io
import json
import pickle
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from metrics.errors import InputError
from metrics.image_sets import member as limits
from metrics.image_sets.decode import ImageError
from metrics.image_sets.ledger import licences
from metrics.image_sets.open import open_images, read_location


def png(seed=0, height=24, width=32):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


ROWS = [
    {"file_name": "a/1.png", "label": "cat", "group": "video 1", "weather": "rain", "mask_file_name": "masks/1.png"},
    {"file_name": "b/2.png", "weather": "sun", "score": 0.5, "style": {"photo": "x"}},
]
FILES = {
    "a/1.png": png(1),
    "a/10.png": png(10),
    "b/2.png": png(2),
    "masks/1.png": png(3),
    ".hidden/4.png": png(4),
    "notes.txt": b"no image",
    "metadata.jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
}


def write_zip(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path, files, **changes):
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for attribute, value in changes.get(name, {}).items():
                setattr(info, attribute, value)
            archive.addfile(info, io.BytesIO(data))
    return path


def facts(images):
    return [(item.key, item.label, item.group, item.tags, item.companions) for item in images]


def same(images, expected):
    assert facts(images) == facts(expected)
    for item, other in zip(images, expected, strict=True):
        assert np.array_equal(item.read(), other.read())
        assert item.dimensions() == other.dimensions()
        assert item.digest() == other.digest()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_equals_the_folder_that_was_packed(folder, tmp_path, method):
    images, expected = open_images(write_zip(tmp_path / "set.zip", FILES, method)), open_images(folder("set", FILES))
    assert facts(expected) == [
        ("a/1", "cat", "video 1", {"weather": "rain"}, {"mask_file_name": "masks/1.png"}),
        ("a/10", "a", "a/10", {}, {}),
        ("b/2", "b", "b/2", {"weather": "sun", "score": "0.5"}, {}),
    ]
    same(images, expected)
    same(images.crops(2, 16), expected.crops(2, 16))


def test_a_zip_of_many_members_and_a_comment_is_read(tmp_path):
    path = write_zip(tmp_path / "set.zip", {f"{i}.png": png(i, 8, 8) for i in range(70)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"a comment after the directory"
    assert [item.key for item in open_images(path)] == [str(i) for i in range(70)]


def test_locations_name_members_and_read_them_again(folder, tmp_path):
    path, root = write_zip(tmp_path / "set.zip", FILES), folder("set", FILES)
    item = open_images(path)[0]
    assert item.location == f"{path}::a/1.png"
    assert np.array_equal(read_location(item.location), item.read())
    shard = write_tar(tmp_path / "set.tar", {"a/1.png": FILES["a/1.png"]})
    assert open_images(shard)[0].location == f"{shard}::a/1.png"
    assert np.array_equal(read_location(f"{shard}::a/1.png"), item.read())
    assert np.array_equal(read_location(str(root / "a/1.png")), item.read())
    for text, reason in [
        (f"{path}::a/9.png", "no member 'a/9.png'"),
        (f"{tmp_path}/gone.zip::a.png", "the archive is gone"),
        ("(8 images in memory)::000003", "not a file"),
        (f"{path}::notes.txt", "not an image"),
    ]:
        with pytest.raises(ImageError, match=reason):
            read_location(text)


def test_a_file_name_with_colons_is_a_file(folder):
    root = folder("set", {"a::b.png": png()})
    assert np.array_equal(read_location(str(root / "a::b.png")), open_images(root)[0].read())


def test_archived_images_are_no_files(tmp_path):
    item = open_images(write_zip(tmp_path / "set.zip", {"a.png": png()}))[0]
    with pytest.raises(InputError, match=r"set\.zip::a\.png: not a file of its own\. Expected a folder of images"):
        _ = item.path


def test_members_are_read_by_many_threads_and_after_pickling(tmp_path):
    files = {f"{i}.png": png(i) for i in range(40)}
    for path in (write_zip(tmp_path / "set.zip", files), write_tar(tmp_path / "set.tar", files)):
        images = open_images(path)
        alone = [item.read() for item in images]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda item: item.read(), list(images) * 4))
        assert all(np.array_equal(image, alone[i % 40]) for i, image in enumerate(together))
        assert np.array_equal(pickle.loads(pickle.dumps(images[3])).read(), alone[3])


def test_an_archive_that_changes_is_noticed(tmp_path):
    for path, write in ((tmp_path / "set.zip", write_zip), (tmp_path / "set.tar", write_tar)):
        images = open_images(write(path, {"a.png": png(1)}))
        write(path, {"a.png": png(2, 30, 30)})
        with pytest.raises(ImageError, match="its archive has changed"):
            images[0].read()


def test_a_damaged_member_is_one_unreadable_image(tmp_path):
    path = write_zip(tmp_path / "set.zip", {"a.png": png(1), "b.png": png(2)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    a, b = open_images(path)
    with pytest.raises(ImageError, match="its checksum does not match"):
        a.read()
    assert b.read().shape == (24, 32, 3)
    path = write_zip(tmp_path / "deflated.zip", {"a.png": b"0" * 1000})
    data = bytearray(path.read_bytes())
    data[36] = 0xFF  # an impossible block
    path.write_bytes(data)
    with pytest.raises(ImageError, match="damaged archive member"):
        open_images(path)[0].read()


def test_a_member_never_unpacks_to_more_than_the_directory_says(tmp_path):
    path = write_zip(tmp_path / "set.zip", {"a.png": b"0" * 100_000})
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", 10)
    path.write_bytes(data)
    with pytest.raises(ImageError, match="checksum"):
        open_images(path)[0].read()


UNSAFE = ["/etc/a.png", "../a.png", "a/../../b.png", "a\\..\\b.png", "C:a.png", "a\nb.png"]


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names_are_refused(tmp_path, name):
    for path in (
        write_zip(tmp_path / "set.zip", {"ok.png": png(), name: png()}),
        write_tar(tmp_path / "set.tar", {"ok.png": png(), name: png()}),
    ):
        with pytest.raises(InputError, match=r"has an unsafe name\. Expected relative names") as caught:
            open_images(path)
        assert repr(name) in str(caught.value)


def test_a_member_without_a_name_is_refused(tmp_path):
    path = write_zip(tmp_path / "set.zip", {"a": png(), "b.png": png()})
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 28 : place + 32] = b"\x00\x00\x01\x00"  # the name's byte becomes an extra field
    path.write_bytes(data)
    with pytest.raises(InputError, match="the member '' has an unsafe name"):
        open_images(path)


def test_links_and_devices_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        info = zipfile.ZipInfo("a.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match=r"the member 'a\.png' is a link\. Expected files and folders only"):
        open_images(tmp_path / "set.zip")
    for kind, word in [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "device"),
        (b"6", "device"),
    ]:
        path = write_tar(tmp_path / "set.tar", {"b.png": b""}, **{"b.png": {"type": kind, "linkname": "/etc/passwd"}})
        with pytest.raises(InputError, match=rf"the member 'b\.png' is a {word}"):
            open_images(path)


def test_zip_bombs_are_refused(tmp_path, monkeypatch):
    bomb = write_zip(tmp_path / "bomb.zip", {"a.png": bytes(limits.PLAIN + 1)})
    with pytest.raises(InputError, match=r"unpacks from \d+ to 16777217 bytes, over 100-fold: a zip bomb"):
        open_images(bomb)
    assert open_images(write_zip(tmp_path / "flat.zip", {"a.png": bytes(limits.PLAIN)}))  # small enough to try
    monkeypatch.setattr(limits, "LARGEST", 1000)
    large = np.random.default_rng(0).bytes(1001)
    for path in (write_zip(tmp_path / "l.zip", {"a.png": large}), write_tar(tmp_path / "l.tar", {"a.png": large})):
        with pytest.raises(InputError, match="has 1001 bytes unpacked, more than"):
            open_images(path)


def test_overlapping_members_are_refused(tmp_path):
    """Two directory entries of one local file: the trick of bombs that are not nested."""
    path = write_zip(tmp_path / "set.zip", {"a.png": png(1), "b.png": png(2)})
    data = path.read_bytes()
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    path.write_bytes(data[: second + 42] + struct.pack("<I", 0) + data[second + 46 :])
    with pytest.raises(InputError, match="overlaps another: a zip bomb"):
        open_images(path)


def test_encrypted_members_and_other_methods_are_refused(tmp_path):
    path = write_zip(tmp_path / "set.zip", {"a.png": png()})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"'a\.png' is encrypted\. Pack the images without a password"):
        open_images(path)
    with pytest.raises(InputError, match=r"compressed by method 14\. Expected store \(0\) or deflate \(8\)"):
        open_images(write_zip(tmp_path / "lzma.zip", {"a.png": png()}, zipfile.ZIP_LZMA))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_and_keys_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("a.png", png(1))
        archive.writestr("./a.png", png(2))
    with pytest.raises(InputError, match=r"two members are named 'a\.png'"):
        open_images(tmp_path / "twice.zip")
    with pytest.raises(InputError, match="share the key 'a'"):
        open_images(write_zip(tmp_path / "keys.zip", {"a.png": png(1), "a.jpg": png(2)}))
    with pytest.raises(InputError, match=r"two members are named 'a\.png'"):
        open_images(write_tar(tmp_path / "twice.tar", {"a.png": png(1), "./a.png": png(2)}))
    write_tar(tmp_path / "x-0.tar", {"a.png": png(1)})
    write_tar(tmp_path / "x-1.tar", {"a.jpg": png(2)})
    with pytest.raises(InputError, match=r"the key 'a' is in x-0\.tar and in x-1\.tar"):
        open_images(tmp_path / "x-*.tar")
    with pytest.raises(InputError, match=r"the sample 'a' holds 2 images \(png, jpg\)"):
        open_images(write_tar(tmp_path / "two.tar", {"a.png": png(1), "a.jpg": png(2)}))


def test_broken_and_empty_archives(tmp_path):
    for name, message in [("a.zip", "not a readable zip"), ("a.tar", "not a readable tar")]:
        (tmp_path / name).write_bytes(b"this is no archive" * 50)
        with pytest.raises(InputError, match=message):
            open_images(tmp_path / name)
    with pytest.raises(InputError, match="no images found in this archive"):
        open_images(write_zip(tmp_path / "empty.zip", {"notes.txt": b""}))
    with pytest.raises(InputError, match="no images found in this archive"):
        open_images(write_tar(tmp_path / "empty.tar", {"notes.txt": b""}))
    path = write_tar(tmp_path / "cut.tar", {"a.png": png(), "b.png": png()})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="not a readable tar"):
        open_images(path)
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(InputError, match=r"compressed, so its members cannot be found\. Unpack it once: gzip -d"):
        open_images(path)


def test_a_tar_whose_sizes_lead_back_is_refused(tmp_path):
    path = write_tar(tmp_path / "set.tar", {"a.png": b"0" * 600, "b.png": b"1" * 600})
    data = bytearray(path.read_bytes())
    second = 512 + 1024
    data[second + 124 : second + 136] = (256**12 - 2048).to_bytes(12, "big")  # base 256: minus 2048 bytes
    data[second + 148 : second + 156] = b" " * 8
    data[second + 148 : second + 156] = b"%06o\0 " % sum(data[second : second + 512])
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"impossible size|not a readable tar"):
        open_images(path)


def test_a_tar_header_that_claims_more_than_there_is_takes_no_memory(tmp_path):
    path = write_tar(tmp_path / "set.tar", {"a.png": png(), "b.png": b""}, **{"b.png": {"type": b"x"}})
    data = bytearray(path.read_bytes())
    start = data.index(b"b.png")
    data[start + 124 : start + 136] = b"77777777777\0"  # 8 GiB of extended header
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"not a readable tar|impossible size"):
        open_images(path)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


@pytest.fixture
def shards(tmp_path):
    for number in range(3):
        files = {}
        for index in range(2):
            key = f"{number}{index}"
            files[f"{key}.jpg"] = png(10 * number + index)
            files[f"{key}.cls"] = b"7\n" if index else b"dog"
            files[f"{key}.json"] = json.dumps({"group": f"video {number}", "weather": "rain", "boxes": [1]}).encode()
            files[f"{key}.seg.png"] = png(99)
        write_tar(tmp_path / f"train-{number:03d}.tar", files)
    return tmp_path


def test_webdataset_shards_by_every_way_to_name_them(shards, folder):
    expected = open_images(folder("set", {f"{n}{i}.jpg": png(10 * n + i) for n in range(3) for i in range(2)}))
    paths = [shards / f"train-{number:03d}.tar" for number in range(3)]
    for source in (shards / "train-{000..002}.tar", f"{shards}/train-*.tar", paths, [str(path) for path in paths]):
        images = open_images(source)
        assert [item.key for item in images] == [item.key for item in expected] == ["00", "01", "10", "11", "20", "21"]
        assert images.labels == ["dog", 7] * 3
        assert [item.group for item in images] == [f"video {number}" for number in (0, 0, 1, 1, 2, 2)]
        assert images[0].tags == {"weather": "rain"}
        assert all(np.array_equal(a.read(), b.read()) for a, b in zip(images, expected, strict=True))
    with pytest.raises(InputError, match=r"train-003\.tar: no such file, and the pattern names it"):
        open_images(shards / "train-{000..003}.tar")


def test_samples_without_an_image_are_listed(tmp_path):
    files = {"a.png": png(), "b.json": b"{}", "c/d.png": png(2), "c/d.json": b'{"label": "dog", "caption": "hi"}'}
    images = open_images(write_tar(tmp_path / "set.tar", files))
    assert [(item.key, item.label) for item in images] == [("a", None), ("c/d", "dog")]
    assert images.losses == (("b", "a sample without an image, only json"),)
    with pytest.raises(InputError, match=r"set\.tar::a\.json: not JSON"):
        open_images(write_tar(tmp_path / "set.tar", {"a.png": png(), "a.json": b"{nonsense"}))


def test_labels_and_groups_must_be_single_values(tmp_path, folder):
    for row, message in [({"label": [1, 2]}, r"label of a is \[1, 2\]"), ({"group": {"x": 1}}, "group of a is")]:
        files = {"a.png": png(), "metadata.jsonl": json.dumps({"file_name": "a.png", **row}).encode()}
        with pytest.raises(InputError, match=message):
            open_images(write_zip(tmp_path / "set.zip", files))


def test_broken_metadata_in_a_zip_names_the_line(tmp_path):
    with pytest.raises(InputError, match=r"set\.zip::metadata\.jsonl:1: expected one JSON object"):
        open_images(write_zip(tmp_path / "set.zip", {"a.png": png(), "metadata.jsonl": b"[]"}))


def test_crops_keep_the_group_of_the_metadata(tmp_path):
    crops = open_images(write_zip(tmp_path / "set.zip", FILES)).crops(2, 16)
    assert [item.group for item in crops] == ["video 1", "video 1", "a/10", "a/10", "b/2", "b/2"]
    assert [item.photo for item in crops][:3] == ["a/1", "a/1", "a/10"]


def test_the_ledger_in_a_zip_counts(folder, tmp_path):
    files = {"a/1.png": png(1), "a/2.png": png(2), "a/3.png": png(3)}
    expected = open_images(folder("set", files))
    entries = [
        {"file": f"{item.key}.png", "licence": "CC0-1.0", "author": "me", "source": "here", "sha256": item.digest()}
        for item in expected
    ]
    entries[1]["sha256"] = "0" * 64
    files["ledger.json"] = json.dumps({"schema": 1, "images": entries[:2]}).encode()
    found = licences(open_images(write_zip(tmp_path / "set.zip", files)))
    assert found == licences(open_images(folder("set", files)))
    assert [row["key"] for row in found.rows] == ["a/1"] and found.unlicensed == ("a/2", "a/3")
    assert licences(open_images(write_zip(tmp_path / "set.zip", files)).crops(2, 16)) == found
    assert licences(open_images(write_tar(tmp_path / "set.tar", {"a.png": png()}))).unlicensed == ("a",)
