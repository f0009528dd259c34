import os

import numpy as np
import pytest

from metrics.errors import InputError
from metrics.image_sets.file_list import expand
from metrics.image_sets.open import open_images


@pytest.fixture
def root(folder, picture):
    row = b'{"file_name": "b/y.jpg", "label": "dog", "group": "walk"}'
    names = ["a/x.png", "a/x10.png", "a/x9.png", "b/y.jpg", "b/c/z.png"]
    return folder("set", {**{name: picture(i, 24, 20 + i) for i, name in enumerate(names)}, "metadata.jsonl": row})


def same(images, expected):
    assert [(item.key, item.label, item.group) for item in images] == [
        (item.key, item.label, item.group) for item in expected
    ]
    assert all(np.array_equal(item.read(), other.read()) for item, other in zip(images, expected, strict=True))


def test_lists_patterns_and_paths_equal_the_folder(root, tmp_path, monkeypatch):
    expected = open_images(root)
    assert [item.key for item in expected] == ["a/x9", "a/x10", "a/x", "b/c/z", "b/y"]
    assert [item.group for item in expected][-1] == "walk"
    paths = [item.path for item in reversed(expected)]
    (root / "list.txt").write_text("\n".join(path.relative_to(root).as_posix() for path in paths) + "\n\n")
    (tmp_path / "outside.txt").write_text("\n".join(f"set/{path.relative_to(root)}" for path in paths))
    same(open_images(root / "list.txt"), expected)
    same(open_images(paths), expected)
    same(open_images([os.path.relpath(path) for path in paths]), expected)
    same(open_images(f"{root}/**/*.*"), expected)
    same(open_images(root / "**/*"), expected)
    same(open_images(f"{root}/{{a,b}}/**/*"), expected)
    outside = open_images(tmp_path / "outside.txt")  # keys are relative to the list
    assert [item.key for item in outside][:2] == ["set/a/x9", "set/a/x10"]
    monkeypatch.chdir(root)
    same(open_images("**/*.*"), expected)
    same(open_images("list.txt"), expected)


def test_paths_of_one_folder_are_keyed_below_it(root):
    images = open_images([root / "a/x.png", root / "a/x9.png"])
    assert [(item.key, item.label) for item in images] == [("x9", None), ("x", None)]


def test_absolute_paths_outside_the_list_are_keyed_by_what_they_share(root, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/list.txt").write_text(f"{root}/a/x.png\n{root}/b/y.jpg\n")
    assert [item.key for item in open_images(tmp_path / "deep/list.txt")] == ["a/x", "b/y"]


def test_a_list_may_name_files_of_any_suffix(folder, picture):
    root = folder("set", {"a.png": picture()})
    (root / "a.png").rename(root / "a.image")
    (root / "list.txt").write_text("a.image\n")
    assert open_images(root / "list.txt")[0].read().shape == (64, 64, 3)


def test_what_lists_and_patterns_cannot_be(root, tmp_path):
    (root / "list.txt").write_text("a/x.png\n\na/nothing.png\n")
    with pytest.raises(InputError, match=r"list\.txt:3: .*a/nothing\.png: no such file\. Expected one image per line"):
        open_images(root / "list.txt")
    (root / "list.txt").write_text("a/x.png\n./a/x.png\n")
    with pytest.raises(InputError, match="is named twice"):
        open_images(root / "list.txt")
    (root / "list.txt").write_text("\n")
    with pytest.raises(InputError, match=r"list\.txt: no images named"):
        open_images(root / "list.txt")
    (root / "list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not a text file in UTF-8"):
        open_images(root / "list.txt")
    with pytest.raises(InputError, match="no such folder or file, and as a pattern it matches nothing"):
        open_images(f"{root}/*.jpeg")
    with pytest.raises(InputError, match="no images match this pattern"):
        open_images(f"{root}/*.jsonl")
    with pytest.raises(InputError, match=r"x\.png: one image, not a folder"):
        open_images(root / "a/x.png")
    with pytest.raises(InputError, match="an empty sequence of paths: no images named"):
        open_images([])
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        open_images([root / "gone.png"])
    (tmp_path / "x.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"a \.parquet file is no image set\. Expected a folder of images, a \.zip"):
        open_images(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"got a int\. Expected a folder of images"):
        open_images(3)


def test_an_image_set_is_passed_through(root):
    images = open_images(root)
    assert open_images(images) is images


def test_braces_stand_for_numbers_and_choices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar", "t-10.tar"):
        (tmp_path / name).touch()
    assert [str(path) for path in expand("s-{08..10}.tar")] == ["s-08.tar", "s-09.tar", "s-10.tar"]
    assert [str(path) for path in expand("{s,t}-{10..10}.tar")] == ["s-10.tar", "t-10.tar"]
    assert expand("plain.tar") is None
    for pattern in ("s-{0..99999999}.tar", "{0..999}{0..999}{0..999}"):
        with pytest.raises(InputError, match="stands for more than 1000000 names"):
            expand(pattern)
