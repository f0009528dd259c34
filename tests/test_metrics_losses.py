"""Whatever belongs to a set and cannot be had stands in its losses; what is no image stands in its notes."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metrics.errors import InputError
from metrics.image_sets.decode import ImageError, decode, dimensions
from metrics.image_sets.items import Crop, cut
from metrics.image_sets.metadata import normalised
from metrics.image_sets.open import open_images


def image(seed=0, side=16):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(seed=0, format="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(image(seed)).save(buffer, format, **options)
    return buffer.getvalue()


PNG = encoded()


def rows(*lines):
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def facts(images):
    return [(item.key, item.label, item.tags, dict(item.companions), sorted(item.beside)) for item in images]


@pytest.fixture(params=["folder", "zip", "zip of a folder", "tar", "pattern", "list"])
def packed(request, folder, tmp_path):
    """The same files as an image set of every kind."""

    def make(files):
        if request.param in ("folder", "pattern", "list"):
            root = folder("set", files)
            if request.param == "folder":
                return root
            if request.param == "pattern":
                return f"{root}/**/*"
            names = [name for name in files if name.endswith((".png", ".jpg"))]
            (root / "list.txt").write_text("\n".join(names))
            return root / "list.txt"
        if request.param == "tar":
            return write_tar(tmp_path / "set.tar", files)
        top = "photos of mine/" if request.param == "zip of a folder" else ""
        return write_zip(tmp_path / "set.zip", {top + name: data for name, data in files.items()})

    return make


@pytest.mark.parametrize("write", ["{}", "./{}", "y/./../{}", ".\\{}", "x//../{}"])
def test_names_in_metadata_are_normalised(packed, write):
    def name(text):
        return write.replace("{}", text)

    files = {f"{n}.png": encoded(n) for n in range(2)} | {f"masks/{n}.png": encoded(9 + n) for n in range(2)}
    lines = [
        {"file_name": name(f"{n}.png"), "label": "cat", "mask_file_name": name(f"masks/{n}.png")} for n in range(2)
    ]
    images = open_images(packed({**files, "metadata.jsonl": rows(*lines)}))
    expected = [(str(n), "cat", {}, {"mask_file_name": f"masks/{n}.png"}, ["mask_file_name"]) for n in range(2)]
    assert facts(images) == expected
    assert images[1].load_companion("mask_file_name") == encoded(10)
    assert images.losses == ()


@pytest.mark.parametrize(
    ("name", "folder_", "expected"),
    [
        ("a.png", "", "a.png"),
        ("./a.png", "train", "train/a.png"),
        ("b/../a.png", "", "a.png"),
        ("../a.png", "train", "a.png"),
        ("..\\a.png", "train", "a.png"),
        ("../a.png", "", None),
        ("/a.png", "", None),
        ("C:\\a.png", "", None),
        ("\\\\server\\a.png", "", None),
        (".", "", None),
    ],
)
def test_normalised(name, folder_, expected):
    assert normalised(name, folder_) == expected


def test_metadata_of_every_split_count_and_a_split_is_a_tag(packed):
    files = {}
    for split in ("train", "test"):
        for n in range(2):
            files[f"{split}/{n}.png"] = encoded(n)
            files[f"{split}/masks/{n}.png"] = encoded(9 + n)
        lines = [{"file_name": f"{n}.png", "label": "cat", "mask_file_name": f"masks/{n}.png"} for n in range(2)]
        files[f"{split}/metadata.jsonl"] = rows(*lines)
    images = open_images(packed(files))
    mask = "mask_file_name"
    assert facts(images) == [
        (f"{split}/{n}", "cat", {"split": split}, {mask: f"{split}/masks/{n}.png"}, [mask])
        for split in ("test", "train")
        for n in range(2)
    ]
    assert (images.losses, images.notes) == ((), ())


def test_splits_of_class_folders_are_tags_and_classes_stay_labels(folder):
    files = {f"{split}/{label}/0.png": PNG for split in ("train", "val") for label in ("cat", "dog")}
    assert [(item.label, item.tags) for item in open_images(folder("set", files))] == [
        ("cat", {"split": "train"}),
        ("dog", {"split": "train"}),
        ("cat", {"split": "val"}),
        ("dog", {"split": "val"}),
    ]
    vehicles = folder("vehicles", {f"{label}/0.png": PNG for label in ("train", "car")})
    assert [(item.label, item.tags) for item in open_images(vehicles)] == [("car", {}), ("train", {})]


def test_the_nearer_metadata_count(folder):
    files = {"a/0.png": PNG, "a/1.png": PNG}
    files["metadata.jsonl"] = rows({"file_name": "a/0.png", "label": "far"}, {"file_name": "a/1.png", "label": "far"})
    files["a/metadata.csv"] = b"file_name,label\n0.png,near\n"
    assert open_images(folder("set", files)).labels == ["near", "far"]


def test_a_zip_of_a_folder_equals_the_folder(tmp_path, folder):
    files = {"cat/0.png": encoded(0), "dog/1.png": encoded(1), "README.md": b"hello"}
    expected = facts(open_images(folder("set", files)))
    packed = {f"my set/{name}": data for name, data in files.items()}
    forks = {f"__MACOSX/my set/._{name[-5:]}": b"\0" for name in files}
    assert facts(open_images(write_zip(tmp_path / "set.zip", packed | forks))) == expected
    assert open_images(write_zip(tmp_path / "set.zip", packed | forks)).notes == (
        "passed over, as no images of the set: 1 .md",
    )
    one_class = write_zip(tmp_path / "one.zip", {"cat/0.png": PNG})
    assert [(item.key, item.label) for item in open_images(one_class)] == [("cat/0", "cat")]


CSV = (
    b'\xef\xbb\xbffile_name,label,score,note\r\n0.png,cat,1.5,"a, ""b"""\r\n1.png,dog,2.0,\r\n'
    b"1.png,cow,2.0,\r\n2.png,,0.0,x\r\ngone.png,cat,0.0,x\r\n"
)


def test_metadata_as_csv_and_their_odd_rows(packed):
    images = open_images(packed({f"{n}.png": encoded(n) for n in range(4)} | {"metadata.csv": CSV}))
    assert [(item.label, item.metadata.get("score"), item.metadata.get("note")) for item in images] == [
        ("cat", 1.5, 'a, "b"'),
        ("cow", 2.0, None),
        (None, 0.0, "x"),
        (None, None, None),
    ]
    odd = "1 rows without a file, 1 further rows for a file that has one, of which the last counts"
    assert any(odd in note and "1 rows without a label" in note for note in images.notes)


def test_labels_that_a_data_frame_has_widened_are_whole_numbers_and_nan_is_none(folder, picture):
    root = folder("set", {"a.png": picture(0), "b.png": picture(1), "c.png": picture(2)})
    rows = ['{"file_name": "a.png", "label": 3.0, "view": NaN}', '{"file_name": "b.png", "label": NaN, "view": 2.5}']
    (root / "metadata.jsonl").write_text("\n".join([*rows, '{"file_name": "c.png", "label": 7}']))
    images = open_images(root)
    assert images.labels == [3, None, 7]
    assert [item.tags for item in images.items] == [{}, {"view": "2.5"}, {}]
    assert any("1 rows without a label" in note for note in images.notes)
    (root / "metadata.jsonl").unlink()
    (root / "metadata.csv").write_text("file_name,label\na.png,3.0\nb.png,\nc.png,7.0\n")
    assert open_images(root).labels == [3, None, 7]


def test_a_second_row_that_changes_a_label_is_named(folder, picture):
    root = folder("set", {"a.png": picture(0), "b.png": picture(1)})
    rows = ["a.png,1", "b.png,2", "b.png,2", "a.png,5"]
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    images = open_images(root)
    assert images.labels == [5, 2]
    assert any(
        "2 further rows" in note and "1 of them change a label, the first that of a.png" in note
        for note in images.notes
    )


def test_a_row_without_a_file_is_a_loss(tmp_path, folder):
    files = {"0.png": PNG, "metadata.jsonl": rows({"file_name": "0.png"}, {"file_name": "gone.png"})}
    where = {
        folder("set", files): "metadata.jsonl names it, and there is no such file",
        write_zip(tmp_path / "set.zip", files): "metadata.jsonl names it, and there is no such file",
        write_tar(tmp_path / "set.tar", files): "metadata.jsonl names it, and there is no such file",
    }
    for source, reason in where.items():
        ((name, why),) = open_images(source).losses
        assert name == "gone.png" and why.endswith(reason)
    outside = rows({"file_name": "0.png"}, {"file_name": "../0.png"}, {"file_name": "/etc/x.png"})
    (folder("set", {}) / "metadata.jsonl").write_bytes(outside)
    losses = open_images(folder("set", {})).losses
    assert [name for name, _ in losses] == ["../0.png", "/etc/x.png"]
    assert all("not a file below the root" in reason for _, reason in losses)


def test_whole_numbers_in_csv_are_numbers_and_codes_are_text(folder):
    files = {f"{n}.png": PNG for n in range(2)}
    files["metadata.csv"] = b"file_name,label,zip,mixed\n0.png,3,007,1\n1.png,12,123,x\n"
    images = open_images(folder("set", files))
    assert images.labels == [3, 12]
    assert [(item.metadata["zip"], item.metadata["mixed"]) for item in images] == [("007", "1"), ("123", "x")]


def test_metadata_as_parquet(folder):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    root = folder("set", {"a/0.png": PNG, "a/1.png": PNG})
    table = {"file_name": ["0.png", "1.png"], "label": [1, None], "boxes": [[[1, 2]], []], "raw": [b"x", b"y"]}
    parquet.write_table(arrow.table(table), root / "a/metadata.parquet")
    images = open_images(root)
    assert images.labels == [1, "a"]
    assert dict(images[0].metadata) == {"file_name": "a/0.png", "label": 1, "boxes": [[1, 2]]}
    (root / "a/metadata.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match=r"metadata\.parquet: not a readable Parquet file"):
        open_images(root)


def test_metadata_that_cannot_be_meant(folder):
    root = folder("set", {"0.png": PNG, "metadata.csv": b"image_id,label\n0,cat\n"})
    assert open_images(root).notes == (f"{root}/metadata.csv: no column 'file_name', so it was passed over",)
    (root / "metadata.jsonl").write_bytes(rows({"file_name": "0.png"}))
    with pytest.raises(InputError, match=r"metadata\.jsonl: there is also metadata\.csv in this folder"):
        open_images(root)
    other = folder("other", {"0.png": PNG, "notes/metadata.jsonl": rows({"file_name": "0.png", "label": "x"})})
    images = open_images(other)
    assert (images.labels, images.losses) == ([None], ())
    assert "names no file below notes, so it was passed over" in images.notes[0]
    for data, message in [
        (b"file_name,label\n0.png,a,b\n", "row 2 has more cells than the header"),
        (b"file_name,label\n,a\n", "row 2 has no file_name"),
        (b'file_name,label\n"0.png,a\n', "not a CSV file in UTF-8"),
        (b"file_name,label\n0.png,caf\xe9\n", "not a CSV file in UTF-8"),
    ]:
        with pytest.raises(InputError, match=message):
            open_images(folder("broken", {"0.png": PNG, "metadata.csv": data}))


def test_companions_that_are_not_there(folder):
    names = ["masks/0.png", "", None, "gone.png", "/etc/hostname", "../set/0.png", ".hidden/0.png", "pipe.png"]
    files = {f"{n}.png": encoded(n) for n in range(len(names))} | {"masks/0.png": PNG, ".hidden/0.png": PNG}
    files["metadata.jsonl"] = rows(*({"file_name": f"{n}.png", "mask_file_name": m} for n, m in enumerate(names)))
    root = folder("set", files)
    os.mkfifo(root / "pipe.png")
    images = open_images(root)
    assert len(images) == len(names)
    assert [sorted(item.beside) for item in images] == [["mask_file_name"], *([[]] * 7)]
    assert [sorted(item.companions) for item in images][1:3] == [[], []]
    for item in images[3:]:
        with pytest.raises(ImageError, match="is missing, or hidden, or lies outside the set"):
            item.load_companion("mask_file_name")


def test_what_a_folder_cannot_give_is_listed(folder):
    root = folder("set", {"a.png": PNG, "b/c.png": PNG, "notes.txt": b"hi", "d.svg": b"<svg/>", "photo": PNG})
    (root / "dangling.png").symlink_to("gone/annex")
    (root / "loop.png").symlink_to("loop.png")
    (root / "class").symlink_to("gone/folder")
    (root / "text.txt").symlink_to("gone")
    os.mkfifo(root / "pipe.jpg")
    (root / "e.heic").write_bytes(b"\0")
    (root / "f.foo").write_bytes(encoded(1, "JPEG"))
    (root / "g.foo").write_bytes(b"data")
    (root / ".h.png").write_bytes(PNG)
    images = open_images(root)
    assert [item.key for item in images] == ["a", "b/c"]
    losses = dict(images.losses)
    assert "Too many levels of symbolic links" in losses.pop("loop.png")
    assert losses == {
        "class": "a link to a file that is gone",
        "dangling.png": "a link to a file that is gone",
        "pipe.jpg": "not a regular file, but a pipe, socket or device",
        "d.svg": "a .svg file, which is not read: convert it to PNG",
        "e.heic": "a .heic file, which is not read: convert it to PNG",
        "f.foo": "an image by its first bytes, and .foo is not read: rename it",
        "photo": "an image by its first bytes, and a name without suffix is not read: rename it",
    }
    assert images.notes == ("passed over, as no images of the set: 1 .foo, 1 .txt, 1 hidden image",)
    assert images.crops(1, 16).notes == images.notes and len(images.crops(1, 16).losses) == 8


def test_archives_list_the_same(tmp_path):
    files = {"a.png": PNG, "b.heic": b"x", "c": PNG, "notes.txt": b"hi", ".h.png": PNG}
    expected = {
        "b.heic": "a .heic file, which is not read: convert it to PNG",
        "c": "an image by its first bytes, and a name without suffix is not read: rename it",
    }
    for source in (write_zip(tmp_path / "set.zip", files), write_tar(tmp_path / "set.tar", files)):
        images = open_images(source)
        assert dict(images.losses) == expected
        assert images.notes == ("passed over, as no images of the set: 1 .txt, 1 hidden image",)


def test_a_set_of_losses_alone_says_why(folder):
    root = folder("set", {"a.heic": b"x"})
    with pytest.raises(InputError, match=r"1 cannot be read; the first: a\.heic: a \.heic file, which is not read"):
        open_images(root)
    (root / "shard-0.tar").write_bytes(b"x")
    with pytest.raises(InputError, match=r"Name its archives themselves, such as '.*/\*\.tar'"):
        open_images(root)
    for empty in ("", "  "):
        with pytest.raises(InputError, match="got an empty path: an unset variable"):
            open_images(empty)


def test_patterns_list_dangling_links_and_folders(folder):
    root = folder("set", {"a.png": PNG, "b/c.png": PNG, "d.heic": b"", "e.txt": b""})
    (root / "gone.png").symlink_to("nowhere")
    images = open_images(f"{root}/*")
    assert dict(images.losses) == {
        "gone.png": "a link to a file that is gone",
        "d.heic": "a .heic file, which is not read: convert it to PNG",
    }
    assert images.notes == (
        "passed over, as no images of the set: 1 .txt",
        f"{root}/* matches 1 folders, which it does not look into; '{root}/**/*' does",
    )


def test_linked_class_folders_are_read_again_and_loops_are_not(folder):
    root = folder("set", {"cat/0.png": PNG})
    (root / "kitten").symlink_to("cat")
    (root / "cat/up").symlink_to(root)
    assert [(item.key, item.label) for item in open_images(root)] == [("cat/0", "cat"), ("kitten/0", "kitten")]
    for n in range(20):
        (root / f"copy{n}").symlink_to("cat")
    with pytest.raises(InputError, match="more than 16 links lead to"):
        open_images(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_folder_without_permission_is_a_loss():
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        root, other = Path(place, "set"), Path(place, "other")
        (root / "closed").mkdir(parents=True)
        other.mkdir()
        for file in (root / "a.png", root / "closed/b.png", root / "c.png", other / "a.png"):
            file.write_bytes(PNG)
        (root / "closed").chmod(0)
        (root / "c.png").chmod(0)
        Path(place).chmod(0o755)
        program = (
            "import os, sys; from metrics.image_sets.open import open_images\n"
            "[item.read() for item in open_images(sys.argv[2])]\n"
            "os.setgid(65534); os.setuid(65534); images = open_images(sys.argv[1]); print(len(images), images.losses)\n"
            "for item in images:\n"
            "    try: item.read()\n"
            "    except ValueError as error: print(item.key, error)"
        )
        words = [sys.executable, "-c", program, str(root), str(other)]
        run = subprocess.run(words, capture_output=True, text=True, check=True)
    assert run.stdout == (
        "2 (('closed', 'a folder that cannot be listed (Permission denied)'),)\nc permission denied\n"
    )


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "avif", "pgm", "pbm", "pnm", "jp2", "j2k", "tga", "dib", "apng"])
def test_every_kind_that_pillow_reads(folder, suffix):
    root = folder("set", {})
    lossless = suffix not in ("jfif", "jpe", "avif")
    mode = {"pgm": "L", "pbm": "1"}.get(suffix, "RGB")
    source = Image.fromarray(np.kron(image(3, 4), np.ones((8, 8, 1), np.uint8))).convert(mode)
    source.save(root / f"a.{suffix}")
    images = open_images(root)
    assert images.losses == () and len(images) == 1
    expected = np.asarray(source.convert("RGB")).astype(int)
    assert np.abs(images[0].read() - expected).mean() <= (0 if lossless else 12)
    assert images[0].dimensions() == (32, 32)


def test_a_run_length_tga_and_what_only_looks_like_one(tmp_path):
    source = Image.fromarray(image(3, 32))
    source.save(tmp_path / "a.tga", compression="tga_rle")
    whole = (tmp_path / "a.tga").read_bytes()
    assert np.array_equal(open_images([tmp_path / "a.tga"])[0].read(), np.asarray(source))
    (tmp_path / "a.tga").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError):
        open_images([tmp_path / "a.tga"])[0].read()


def test_tar_members_that_share_the_first_dot(tmp_path):
    files = {"a.jpg": PNG, "a.seg.png": encoded(1), "frame.1.png": encoded(2), "frame.2.png": encoded(3)}
    files |= {"frame.json": b'{"label": "x"}', "v1.0.png": encoded(4), "d/e.f.cls": b"3"}
    images = open_images(write_tar(tmp_path / "set.tar", files))
    assert [(item.key, item.label) for item in images] == [
        ("a", None),
        ("frame.1", "x"),
        ("frame.2", "x"),
        ("v1.0", None),
    ]
    assert np.array_equal(images[2].read(), image(3))
    assert images[0].companions == {"seg_file_name": "a.seg.png"}
    assert images[0].load_companion("seg_file_name") == encoded(1)
    assert (images.losses, images.notes) == ((), ("passed over, as no images of the set: 1 .cls",))


def test_a_tar_of_a_folder_with_metadata_is_that_folder(tmp_path, folder):
    files = {"0.png": PNG, "masks/0.png": PNG, "metadata.csv": b"file_name,label,mask_file_name\n0.png,x,masks/0.png\n"}
    expected = facts(open_images(folder("set", files)))
    packed = write_tar(tmp_path / "set.tar", {f"set/{name}": data for name, data in files.items()})
    assert facts(open_images(packed)) == expected
    beside = write_tar(tmp_path / "wds.tar", {"a/x.jpg": PNG, "a/x.seg.png": PNG, "a/x.json": b'{"label": 3}'})
    assert facts(open_images(beside)) == [("a/x", 3, {}, {"seg_file_name": "a/x.seg.png"}, ["seg_file_name"])]


@pytest.mark.parametrize("field", ["cls", "json", "npy"])
def test_a_sample_whose_image_is_missing_is_a_loss(tmp_path, field):
    files = {"a.png": PNG, f"b.{field}": b"{}", "README.txt": b"hello", "notes.md": b"hi"}
    images = open_images(write_tar(tmp_path / "set.tar", files))
    assert images.losses == (("b", f"a sample without an image, only {field}"),)
    assert images.notes == ("passed over, as no images of the set: 1 .md, 1 .txt",)


def test_every_cut_of_a_tar_is_refused_or_loses_nothing(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", {f"{n:02d}.png": encoded(n) for n in range(3)}).read_bytes()
    end = max(place for place in range(0, len(whole), 512) if any(whole[place : place + 512])) + 512
    for length in [*range(1, len(whole), 131), end, end + 511, end + 512, len(whole) - 1]:
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        if length < end + 512:
            with pytest.raises(InputError, match=r"cut off|not a readable tar"):
                open_images(tmp_path / "cut.tar")
        else:
            assert len(open_images(tmp_path / "cut.tar")) == 3


def test_damaged_headers_and_joined_tars_lose_nothing_silently(tmp_path):
    whole = write_tar(tmp_path / "a.tar", {f"{n}.png": encoded(n) for n in range(3)}).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        start = archive.getmembers()[1].offset
    (tmp_path / "b.tar").write_bytes(whole[:start] + b"junk" + whole[start + 4 :])
    with pytest.raises(InputError, match=r"no member begins at byte|not a readable tar"):
        open_images(tmp_path / "b.tar")
    (tmp_path / "b.tar").write_bytes(whole[:start] + bytes(512) + whole[start + 512 :])
    with pytest.raises(InputError, match="data follow its end mark"):
        open_images(tmp_path / "b.tar")
    (tmp_path / "b.tar").write_bytes(whole + whole)
    with pytest.raises(InputError, match="data follow its end mark"):
        open_images(tmp_path / "b.tar")


def test_crops_of_oriented_tiffs_equal_those_of_upright_pngs(folder):
    exif = Image.Exif()
    wide = image(5, 64)[:32]
    root = folder("tif", {})
    expected = folder("png", {})
    for orientation, turns in {1: 0, 3: 2, 6: -1, 8: 1}.items():
        exif[0x0112] = orientation
        Image.fromarray(wide).save(root / f"{orientation}.tif", exif=exif)
        Image.fromarray(np.rot90(wide, turns)).save(expected / f"{orientation}.png")
    ours, theirs = open_images(root).crops(4, 16), open_images(expected).crops(4, 16)
    assert [item.crop for item in ours] == [item.crop for item in theirs]
    assert all(np.array_equal(a.read(), b.read()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("box", [(-1, 0, 8), (0, -1, 8), (9, 0, 8), (0, 9, 8), (0, 0, 17)])
def test_a_crop_outside_the_image_is_refused(box):
    with pytest.raises(ImageError, match="lies outside the image of 16x16"):
        cut(image(), Crop(*box, 8))


@pytest.mark.parametrize("values", [np.full((8, 8), 40_000, np.int32), np.arange(64, dtype=np.int32).reshape(8, 8)])
def test_integers_of_32_bits_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="integer samples of 32 bits, whose white is not known"):
        open_images([tmp_path / "a.tif"])[0].read()


def test_twelve_bits_in_a_tiff_of_sixteen(tmp_path):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="use no more than 12 of them"):
        open_images([tmp_path / "a.tif"])[0].read()
    Image.fromarray(values * 16).save(tmp_path / "a.tif")
    assert (open_images([tmp_path / "a.tif"])[0].read()[..., 0] == np.rint(values * 16 / 257)).all()


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0x"])
def test_a_corrupt_exif_block_loses_no_image_and_warnings_change_nothing(format, exif):
    data = encoded(0, format, exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strict = open_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert all(np.array_equal(a, b) for a, b in zip(strict, open_bytes(data), strict=True))
    assert strict[0].shape == (16, 16, 3)


def open_bytes(data):
    return decode(data), np.array(dimensions(data))


def test_a_jpeg_whose_end_is_zeros_is_damaged():
    whole = encoded(0, "JPEG", quality=95)
    for share in (0.5, 0.7, 0.9):
        cut = int(len(whole) * share)
        with pytest.raises(ImageError, match="damaged"):
            open_bytes(whole[:cut] + bytes(len(whole) - cut))
    assert (open_bytes(whole + bytes(64))[0] == open_bytes(whole)[0]).all()


def test_names_are_utf_8_whatever_the_locale(folder):
    root = folder("set", {"é.png": PNG, "ü/ñ.png": PNG})
    (root / "metadata.jsonl").write_text('{"file_name": "é.png", "label": "café"}\n', encoding="utf-8")
    program = (
        "import sys, json; from metrics.image_sets.open import open_images\n"
        "images = open_images(sys.argv[1])\n"
        "print(json.dumps([[item.key, item.label, item.read().shape[0]] for item in images] + list(images.losses)))"
    )
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    run = subprocess.run(
        [sys.executable, "-c", program, str(root)], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout) == [["é", "café", 16], ["ü/ñ", "ü", 16]]


@pytest.mark.parametrize("format", ["AVIF", "WEBP", "JPEG2000", "TIFF", "GIF", "BMP", "PPM", "TGA"])
def test_damaged_headers_are_image_errors(format):
    whole = encoded(0, format)
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole)
        broken[rng.integers(0, min(len(whole), 400))] = rng.integers(0, 256)
        for read in (decode, dimensions):
            with contextlib.suppress(ImageError):
                read(bytes(broken))
