import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from metrics import compare
from metrics.errors import InputError
from metrics.image_sets.decode import sha256
from metrics.image_sets.open import open_images
from stylize import iter_apply, learn
from stylize.engines import local as processes
from stylize.styles.bank import StyleBank
from stylize.styles.methods.network import ARCHITECTURE, Stylizer, load, save_network
from stylize.writing.apply import make_plan


@pytest.fixture
def style(folder, picture, tmp_path):
    photos = folder("photos", {f"{seed}.png": picture(seed, 90, 90) for seed in range(3)})
    learn(photos, crops=2, size=64).save(tmp_path / "style.safetensors")
    return tmp_path / "style.safetensors"


@pytest.fixture
def synthetic(folder, picture):
    images = {f"class{i % 3}/{i}.png": picture(50 + i, 48 + 8 * (i % 2), 64) for i in range(11)}
    return folder("synthetic", {**images, "class1/broken.png": b"text", "class2/tiny.png": picture(1)[:1, :1]})


def tree(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def run(*arguments, **options):
    return list(iter_apply(*arguments, **options))


def test_output_mirrors_keys_labels_and_provenance(style, synthetic, tmp_path):
    steps = run(style, synthetic, tmp_path / "out")
    assert (steps[-1].done, steps[-1].failed, steps[-1].total) == (11, 2, 13)
    before, after = open_images(synthetic), open_images(tmp_path / "out")
    readable = [item for item in before if "broken" not in item.key and "tiny" not in item.key]
    assert [item.key for item in after] == [item.key for item in readable]
    assert after.labels == [item.label for item in readable]
    for source, result in zip(readable, after, strict=True):
        assert source.read().shape == result.read().shape
        assert not np.array_equal(source.read(), result.read())
    row = json.loads((tmp_path / "out/metadata.jsonl").read_text().splitlines()[0])
    assert row["file_name"] == "class0/0.png" and row["label"] == "class0" and row["source"] == "class0/0.png"
    assert row["method"] == "texture" and set(row["style"]) == {"key", "photo", "box"}
    errors = [json.loads(line) for line in (tmp_path / "out/errors.jsonl").read_text().splitlines()]
    assert [error["key"] for error in errors] == ["class1/broken", "class2/tiny"]
    ledger = json.loads((tmp_path / "out/ledger.json").read_text())
    assert [(row["file"], row["licence"]) for row in ledger["images"]] == [
        (f"{i}.png", "NOASSERTION") for i in range(3)
    ]


def test_one_and_two_workers_give_the_same_bytes(style, synthetic, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "SHARDS_PER_WORKER", 1)
    run(style, synthetic, tmp_path / "one", workers=1)
    run(style, synthetic, tmp_path / "two", workers=2, shard_size=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_styles_are_used_evenly(style, synthetic):
    plan = make_plan(StyleBank.load(style), open_images(synthetic))
    used = np.bincount(list(plan.values()), minlength=6)
    assert len(plan) == 11 and used.max() - used.min() <= 1


@pytest.mark.parametrize(("format", "kind", "suffix"), [("jpeg", "JPEG", ".jpg"), ("webp", "WEBP", ".webp")])
def test_lossy_formats(style, synthetic, tmp_path, format, kind, suffix):
    run(style, synthetic, tmp_path / "out", format=format, quality=80)
    path = tmp_path / f"out/class0/0{suffix}"
    with Image.open(path) as image:
        assert image.format == kind
    run(style, synthetic, tmp_path / "better", format=format, quality=100)
    assert (tmp_path / f"better/class0/0{suffix}").stat().st_size > path.stat().st_size


def test_every_photo_of_the_style_reaches_the_ledger(tmp_path):
    learn("assets/photos/learn", crops=1, size=32).save(tmp_path / "style.safetensors")
    run(tmp_path / "style.safetensors", "assets/photos/tune", tmp_path / "out")
    ledger = json.loads((tmp_path / "out/ledger.json").read_text())
    assert {row["file"] for row in ledger["images"]} == {f"learn/{p.name}" for p in open_paths("assets/photos/learn")}


def open_paths(root):
    return [item.path for item in open_images(root)]


def test_refusals(style, synthetic, tmp_path):
    for options, message in [
        ({"method": "gram"}, "unknown style method 'gram'"),
        ({"strength": 2}, "strength 2: expected"),
        ({"format": "bmp"}, "unknown image format 'bmp'"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"format": "jpeg", "quality": 0}, "quality 0: expected 1 to 100"),
    ]:
        with pytest.raises(InputError, match=message):
            run(style, synthetic, tmp_path / "out", **options)
    with pytest.raises(InputError, match="no such style file"):
        run(tmp_path / "none.safetensors", synthetic, tmp_path / "out")
    with pytest.raises(InputError, match="lies inside the input folder"):
        run(style, synthetic, synthetic / "out")
    assert not (tmp_path / "out").exists()


def test_a_list_of_files_leaves_its_folder_to_the_output(style, synthetic, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in synthetic.rglob("*.png"))
    (tmp_path / "list.txt").write_text("\n".join(files) + "\n")
    assert run(style, "list.txt", tmp_path / "out")[-1].done == 11


def test_another_input_or_strength_is_refused(style, synthetic, tmp_path, picture):
    run(style, synthetic, tmp_path / "out")
    with pytest.raises(InputError, match=r"strength = 0.75, and this command says strength = 0.5"):
        run(style, synthetic, tmp_path / "out", strength=0.5)
    Image.fromarray(picture(99)).save(synthetic / "class0/new.png")
    with pytest.raises(InputError, match=r"the input images or their metadata have changed since"):
        run(style, synthetic, tmp_path / "out")


def test_changed_pixels_or_labels_of_the_same_size_are_noticed(style, folder, picture, tmp_path):
    root = folder("bmp", {f"a/{i}.bmp": picture(i, 16, 16) for i in range(3)})
    run(style, root, tmp_path / "out")
    (root / "a/1.bmp").write_bytes((root / "a/2.bmp").read_bytes())
    with pytest.raises(InputError, match="the input images or their metadata have changed"):
        run(style, root, tmp_path / "out")


def test_unusual_names_and_labels_survive_the_round_trip(style, folder, picture, tmp_path):
    names = ["a\u2028b", "x5\u00b2", "01", "1", "weiß ☃"]
    rows = "\n".join(json.dumps({"file_name": f"{name}.png", "label": 7}) for name in names)
    root = folder("odd", {**{f"{n}.png": picture(i) for i, n in enumerate(names)}, "metadata.jsonl": rows.encode()})
    run(style, root, tmp_path / "out")
    before, after = open_images(root), open_images(tmp_path / "out")
    assert [item.key for item in after] == [item.key for item in before]
    assert after.labels == before.labels == [7] * 5


def test_random_assignment_is_each_keys_own_draw(style, synthetic, tmp_path):
    run(style, synthetic, tmp_path / "out", assignment="random", method="colour")
    bank = StyleBank.load(style)
    rows = [json.loads(line) for line in (tmp_path / "out/metadata.jsonl").read_text().splitlines()]
    for row in rows:
        key = row["file_name"].removesuffix(".png")
        assert row["style"] == dict(bank.sources[bank.random_style(key)])
    with pytest.raises(InputError, match=r"unknown assignment 'balance'. Did you mean 'balanced'"):
        run(style, synthetic, tmp_path / "no", assignment="balance")


def test_own_network_weights_are_used_and_part_of_the_configuration(synthetic, tmp_path):
    style, weights = tmp_path / "known.safetensors", tmp_path / "n.safetensors"
    learn("assets/photos/learn", crops=1, size=64).save(style)  # the network that comes along knows these
    painter = Stylizer(**ARCHITECTURE)
    with torch.no_grad():
        painter.load_state_dict({name: 0.9 * tensor for name, tensor in load().state_dict().items()})
    painter.known_precision.zero_()
    save_network(weights, painter, ARCHITECTURE, {"steps": 1})
    run(style, synthetic, tmp_path / "shipped", method="network")
    run(style, synthetic, tmp_path / "own", method="network", network=weights)
    images = [open_images(tmp_path / name)[0].read() for name in ("shipped", "own")]
    assert not np.array_equal(*images)
    assert json.loads((tmp_path / "own/run.json").read_text())["config"]["network"] == sha256(weights)
    with pytest.raises(InputError, match="the method colour uses no network"):
        run(style, synthetic, tmp_path / "no", method="colour", network=weights)
    with pytest.raises(InputError, match=r"none\.safetensors"):
        run(style, synthetic, tmp_path / "no", method="network", network=tmp_path / "none.safetensors")


def test_archives_give_the_same_bytes_as_the_folder(style, folder, picture, tmp_path):
    rows = [{"file_name": "a/0.png", "label": "cat", "mask_file_name": "masks/0.png"}, {"file_name": "b/1.png"}]
    root = folder("set", {"a/0.png": picture(1), "b/1.png": picture(2), "b/bad.png": b"x", "masks/0.png": picture(3)})
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", root)
    run(style, root, tmp_path / "from-folder")
    run(style, archive, tmp_path / "from-zip", workers=2, shard_size=1)
    run(style, [root / "a/0.png", root / "b/1.png", root / "b/bad.png"], tmp_path / "from-paths")
    (root / "metadata.jsonl").unlink()
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(root, ".")
    run(style, tmp_path / "set.tar", tmp_path / "from-tar")

    def written(name):
        files = tree(tmp_path / name)
        return files, json.loads(files.pop("run.json"))["config"]

    expected, config = written("from-folder")
    assert len(expected) == 6 and "masks/0.png" in expected
    for name in ("from-zip", "from-paths"):
        files, other = written(name)
        assert files == expected and other["images"] == config["images"]
    files, _ = written("from-tar")  # masks are images like any other where no metadata says what they are
    assert all(files[name] == expected[name] for name in ("a/0.png", "b/1.png"))
    with pytest.raises(InputError, match=r"set\.zip::a/0\.png: not a file of its own\. Expected a folder of images"):
        _ = open_images(archive)[0].path


def rows_of(root):
    return [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]


@pytest.fixture
def described(folder, picture):
    """Five images of two videos with tags, boxes and masks, and one without a row."""
    rows = [
        {
            "file_name": f"a/{i}.bmp",
            "group": f"video {i % 2}",
            "weather": ["rain", "sun"][i % 2],
            "objects": {"bbox": [[i, 1, 2, 3]]},
            "note": None,
            "mask_file_name": f"masks/{i}.png",
        }
        for i in range(5)
    ]
    images = {f"a/{i}.bmp": picture(i, 40, 40) for i in range(6)} | {f"masks/{i}.png": picture(i) for i in range(5)}
    return folder("described", {**images, "metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()}), rows


def test_every_column_of_the_input_is_kept(style, described, tmp_path):
    root, rows = described
    run(style, root, tmp_path / "out")
    before, after = open_images(root), open_images(tmp_path / "out")
    assert [item.group for item in after] == [item.group for item in before]
    assert [item.tags.get("weather") for item in after] == ["rain", "sun", "rain", "sun", "rain", None]
    for row, found in zip(rows, rows_of(tmp_path / "out"), strict=False):
        assert found.items() >= {**row, "file_name": row["file_name"].replace(".bmp", ".png"), "label": "a"}.items()
        assert set(found) - set(row) == {"label", "source", "style", "method", "strength", "seed", "version"}
    assert {"group", "weather", "objects"}.isdisjoint(rows_of(tmp_path / "out")[5])


def test_columns_are_kept_from_archives_by_shards_and_after_an_interruption(style, described, tmp_path):
    root, rows = described
    run(style, root, tmp_path / "whole")
    steps = iter_apply(style, root, tmp_path / "halves", shard_size=2)
    next(steps), next(steps)
    steps.close()
    assert (tmp_path / "halves/.job").is_dir()
    run(style, root, tmp_path / "halves", shard_size=2)
    assert tree(tmp_path / "halves") == tree(tmp_path / "whole")
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for row in rows:
            data = json.dumps({name: value for name, value in row.items() if "file_name" not in name}).encode()
            member = tarfile.TarInfo(row["file_name"].replace(".bmp", ".json"))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            tar.add(root / row["file_name"], row["file_name"])
    run(style, tmp_path / "set.tar", tmp_path / "tar")
    columns = ("group", "weather", "objects", "note")
    for row, found in zip(rows, rows_of(tmp_path / "tar"), strict=True):
        assert [found[name] for name in columns] == [row[name] for name in columns]


def test_other_columns_since_are_refused(style, described, tmp_path):
    root, rows = described
    run(style, root, tmp_path / "out")
    text = (root / "metadata.jsonl").read_text()
    (root / "metadata.jsonl").write_text(text.replace("sun", "fog"))
    with pytest.raises(InputError, match="the input images or their metadata have changed since"):
        run(style, root, tmp_path / "out")
    (root / "metadata.jsonl").write_text("\n".join(json.dumps(dict(reversed(row.items()))) for row in rows))
    run(style, root, tmp_path / "out")  # the same columns in another order


def test_columns_of_our_names_are_kept_as_those_of_the_source(style, folder, picture, tmp_path):
    row = {"file_name": "x.png", "seed": 7, "style": "oil", "source": "https://example.org/1"}
    root = folder("set", {"x.png": picture(1, 40, 40), "metadata.jsonl": json.dumps(row).encode()})
    run(style, root, tmp_path / "one")
    run(style, tmp_path / "one", tmp_path / "two", method="colour", strength=0.5)
    (once,), (twice,) = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert (once["seed"], once["source_seed"], once["method"]) == (0, 7, "texture")
    assert (once["source"], once["source_source"], once["source_style"]) == ("x.png", "https://example.org/1", "oil")
    assert (twice["method"], twice["source_method"]) == ("colour", "texture")
    assert (twice["seed"], twice["source_seed"], twice["source_source_seed"]) == (0, 0, 7)
    assert twice["source_style"] == once["style"] and twice["source_source_style"] == "oil"


def test_the_slices_of_a_stylised_set_are_those_of_its_source(style, folder, picture, tmp_path):
    rows = [{"file_name": f"{i}.png", "weather": ["rain", "sun"][i % 2], "group": f"v{i // 2}"} for i in range(24)]
    images = {f"{i}.png": picture(i, 24, 24) for i in range(24)}
    root = folder("tagged", {**images, "metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    run(style, root, tmp_path / "out")
    real = folder("real", {f"{i}.png": picture(90 + i, 24, 24) for i in range(6)})
    options = {"metrics": ["kid"], "slices": ["weather"], "extractor": "random-conv", "permutations": 0, "explained": 0}
    found = {one.name: one for one in compare(tmp_path / "out", real, **options).slices}
    assert set(found) == {"weather: rain", "weather: sun"}
    assert all(one.measurement.n == 12 for one in found.values())
