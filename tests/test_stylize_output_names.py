import json
import os
import subprocess
import sys

import numpy as np
import pytest

from metrics.errors import InputError
from metrics.image_sets.open import open_images
from stylize import learn
from stylize.writing import output_names
from stylize.writing.apply import iter_apply
from stylize.writing.output_names import claim
from stylize.writing.render import iter_render


@pytest.fixture
def style(folder, picture):
    path = folder("photos", {"p.png": picture(9, 40, 40)}) / "style.safetensors"
    learn(path.parent, methods=["colour"], crops=1, size=16).save(path)
    return path


def apply(style, source, out, **options):
    return list(iter_apply(style, source, out, method="colour", **options))


def rows(*lines):
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def test_a_mask_with_the_stem_of_its_image_is_not_lost(style, folder, picture, tmp_path):
    images = {f"{n}.jpg": picture(n, 16, 16) for n in range(2)} | {f"{n}.png": picture(5 + n, 16, 16) for n in range(2)}
    lines = [{"file_name": f"{n}.jpg", "mask_file_name": f"{n}.png"} for n in range(2)]
    source = folder("set", images | {"metadata.jsonl": rows(*lines)})
    with pytest.raises(InputError, match=r"'0\.png' would be written twice: as a result, and as the mask_"):
        apply(style, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    apply(style, source, tmp_path / "out", format="jpeg")
    for n in range(2):
        assert (tmp_path / f"out/{n}.png").read_bytes() == (source / f"{n}.png").read_bytes()
        assert open_images(tmp_path / "out")[n].read().shape == (16, 16, 3)
    assert len(open_images(tmp_path / "out")) == 2


@pytest.mark.parametrize("name", ["ledger.json", "run.json", "metadata.csv", "errors.jsonl", "Run.JSON"])
def test_a_companion_never_replaces_a_file_of_the_run(style, folder, picture, tmp_path, name):
    files = {"a.png": picture(0, 16, 16), "metadata.jsonl": rows({"file_name": "a.png", "mask_file_name": name})}
    source = folder("set", files | {name: b"mine"} if name != "metadata.csv" else files)
    with pytest.raises(InputError, match="a name that the run needs for itself"):
        apply(style, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["run.json/0.png", "ledger.json/0.png", "RUN.json/a/b.png"])
def test_a_folder_of_the_input_never_takes_the_name_of_a_file_of_the_run(style, folder, picture, tmp_path, key):
    with pytest.raises(InputError, match="a name that the run needs for itself"):
        apply(style, folder("set", {key: picture(0, 16, 16)}), tmp_path / "out")


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside.png", "C:\\x.png", "\\\\server\\share\\x.png"])
def test_a_companion_outside_the_set_is_refused_and_nothing_is_written(style, folder, picture, tmp_path, name):
    files = {"a.png": picture(0, 16, 16), "metadata.jsonl": rows({"file_name": "a.png", "mask_file_name": name})}
    with pytest.raises(InputError, match="outside this folder"):
        apply(style, folder("set", files), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_companions_that_are_empty_or_missing(style, folder, picture, tmp_path):
    names = ["", None, "gone.png", "masks/3.png"]
    files = {f"{n}.png": picture(n, 16, 16) for n in range(4)} | {"masks/3.png": picture(9, 16, 16)}
    files["metadata.jsonl"] = rows(*({"file_name": f"{n}.png", "mask_file_name": m} for n, m in enumerate(names)))
    out = tmp_path / "out"
    steps = apply(style, folder("set", files), out)
    assert (steps[-1].done, steps[-1].failed) == (3, 1)
    (error,) = [json.loads(line) for line in (out / "errors.jsonl").read_text(encoding="utf-8").splitlines()]
    assert error["key"] == "2" and "'gone.png' is missing" in error["error"]
    assert (out / "masks/3.png").is_file() and not (out / "2.png").exists()


def test_a_companion_that_several_images_share_is_no_collision(style, folder, picture, tmp_path):
    files = {f"{n}.png": picture(n, 16, 16) for n in range(2)} | {"camera.json": b"{}"}
    files["metadata.jsonl"] = rows(*({"file_name": f"{n}.png", "camera_file_name": "camera.json"} for n in range(2)))
    apply(style, folder("set", files), tmp_path / "out")
    assert (tmp_path / "out/camera.json").read_bytes() == b"{}"


def test_a_file_that_another_needs_as_folder(style, folder, picture, tmp_path):
    files = {"a.jpg": picture(0, 16, 16), "a.png/0.jpg": picture(1, 16, 16)}
    with pytest.raises(InputError, match=r"'a\.png' would be a file and also a folder"):
        apply(style, folder("set", files), tmp_path / "out")


def test_names_that_grow_too_long_are_refused_before_work(style, folder, picture, tmp_path):
    source = folder("set", {"a.png": picture(0, 16, 16)})
    (source / "a.png").rename(source / f"{'é' * 124}abc.png")  # 255 bytes
    apply(style, source, tmp_path / "png")
    with pytest.raises(InputError, match=r"longer than the file system allows \(255 bytes a name"):
        apply(style, source, tmp_path / "webp", format="webp")
    assert not (tmp_path / "webp").exists()
    with pytest.raises(InputError, match="longer than the file system allows"):
        claim(tmp_path, ["/".join(["x" * 200] * 30)])


def test_case_counts_where_the_system_tells_it(monkeypatch, tmp_path):
    claim(tmp_path, ["a.png", "A.png"])
    monkeypatch.setattr(output_names, "FOLDING", True)
    with pytest.raises(InputError, match=r"'A\.png' would be written twice, as this disk does not tell case"):
        claim(tmp_path, ["a.png", "A.png"])


def test_out_below_a_pattern_or_folder_is_refused(style, folder, picture, tmp_path):
    source = folder("set", {"a/0.png": picture(0, 16, 16)})
    for given in (source, f"{source}/**/*.png", f"{source}/a/*.png", f"{source}/{{a,b}}/*.png"):
        place = source / "a/out" if "/a/" in str(given) else source / "out"
        with pytest.raises(InputError, match="lies inside the input folder"):
            apply(style, source if given == source else given, place)
    apply(style, f"{source}/**/*.png", tmp_path / "out")


@pytest.mark.parametrize("options", [{"classes": 10**9}, {"classes": 10, "per_class": 10**12}])
def test_a_render_of_more_images_than_a_folder_can_hold_is_refused(tmp_path, options):
    with pytest.raises(InputError, match=r"Expected at most 20000000 in one folder"):
        list(iter_render("visual-atom", tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_losses_of_the_input_are_listed_counted_and_said(style, folder, picture, tmp_path):
    source = folder("set", {f"{n}.png": picture(n, 16, 16) for n in range(3)} | {"x.heic": b"", "notes.txt": b""})
    (source / "gone.png").symlink_to("annex/object")
    steps = apply(style, source, tmp_path / "out")
    assert (steps[0].failed, steps[-1].done, steps[-1].failed, steps[-1].total) == (2, 3, 2, 5)
    assert steps[-1].notes == ("passed over, as no images of the set: 1 .txt",)
    errors = [json.loads(line) for line in (tmp_path / "out/errors.jsonl").read_text(encoding="utf-8").splitlines()]
    assert errors == [
        {"key": "gone.png", "error": "a link to a file that is gone"},
        {"key": "x.heic", "error": "a .heic file, which is not read: convert it to PNG"},
    ]
    run = json.loads((tmp_path / "out/run.json").read_text(encoding="utf-8"))
    assert (run["images"], run["errors"], run["notes"]) == (3, 2, list(steps[-1].notes))
    with pytest.raises(InputError, match=r"2 images cannot be read \(at most 1 allowed\); the first: gone\.png"):
        apply(style, source, tmp_path / "strict", max_errors=1)
    assert not (tmp_path / "strict").exists()


def test_a_pipe_is_never_opened(style, folder, picture, tmp_path):
    source = folder("set", {"a.png": picture(0, 16, 16)})
    (source / "metadata.jsonl").write_bytes(rows({"file_name": "a.png", "mask_file_name": "pipe.png"}))
    os.mkfifo(source / "pipe.png")
    with pytest.raises(InputError, match="2 items failed"):
        apply(style, source, tmp_path / "out")


def test_zip_of_a_folder_and_splits_keep_masks_and_tags(style, tmp_path, picture):
    import zipfile

    from stylize.writing.encode import encode

    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for split in ("train", "test"):
            archive.writestr(f"top/{split}/0.png", encode(picture(1, 16, 16)))
            archive.writestr(f"top/{split}/masks/0.png", encode(np.zeros((16, 16), np.uint8)))
            line = {"file_name": "./0.png", "label": "cat", "mask_file_name": ".\\masks\\0.png"}
            archive.writestr(f"top/{split}/metadata.jsonl", rows(line))
    apply(style, tmp_path / "set.zip", tmp_path / "out")
    images = open_images(tmp_path / "out")
    assert [(item.key, item.label, item.tags["split"], item.companions) for item in images] == [
        (f"{split}/0", "cat", split, {"mask_file_name": f"{split}/masks/0.png"}) for split in ("test", "train")
    ]
    assert images[0].load_companion("mask_file_name") == encode(np.zeros((16, 16), np.uint8))


def test_a_disk_that_does_not_tell_case_is_noticed_on_linux_too(monkeypatch, tmp_path):
    monkeypatch.setattr(output_names, "FOLDING", False)
    (tmp_path / "Note.txt").write_bytes(b"")
    assert not output_names.folds_case(tmp_path)
    os.link(tmp_path / "Note.txt", tmp_path / "nOTE.TXT")  # what such a disk answers
    assert output_names.folds_case(tmp_path)
    for names in (["Ärger/a.png", "ärger/A.png"], ["caf\u00e9.png", "cafe\u0301.png"]):  # macOS tells neither
        with pytest.raises(InputError, match="would be written twice"):
            claim(tmp_path / "out", names)
    with pytest.raises(InputError, match="would be a file and also a folder"):
        claim(tmp_path / "out", ["A.png/0.png", "a.png"])


def test_names_in_any_locale_and_names_that_are_none(folder, picture, style, tmp_path):
    program = (
        "from stylize.writing.output_names import claim; from pathlib import Path; claim(Path('out'), ['\\u65e5.png'])"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    for name in ("m\ud800.png", "m\0.png"):
        files = {"a.png": picture(0, 16, 16), "metadata.jsonl": rows({"file_name": "a.png", "mask_file_name": name})}
        with pytest.raises(InputError, match="which no file can be called"):
            apply(style, folder("set", files), tmp_path / "out")


def test_half_of_a_surrogate_pair_in_a_column_is_carried_on(style, folder, picture, tmp_path):
    line = {"file_name": "a.png", "label": "\ud800", "text": "é"}
    apply(style, folder("set", {"a.png": picture(0, 16, 16), "metadata.jsonl": rows(line)}), tmp_path / "out")
    (row,) = (tmp_path / "out/metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert (json.loads(row)["label"], json.loads(row)["text"]) == ("\ud800", "é")


def test_metadata_of_a_subfolder_is_no_companion(style, folder, picture, tmp_path):
    files = {"a.png": picture(0, 16, 16), "sub/0.png": picture(1, 16, 16)}
    files["sub/metadata.jsonl"] = rows({"file_name": "0.png", "label": "dog"})
    files["metadata.jsonl"] = rows({"file_name": "a.png", "notes_file_name": "sub/metadata.jsonl"})
    with pytest.raises(InputError, match="a name that the run needs for itself"):
        apply(style, folder("set", files), tmp_path / "out")
