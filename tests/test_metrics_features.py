import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from metrics.errors import InputError
from metrics.extractors import load_extractor
from metrics.extractors.extractor import Extractor
from metrics.features.extraction import FeatureSet, check_comparable, extract, iter_extract
from metrics.image_sets.items import ImageSet
from metrics.image_sets.open import open_images

torch.set_num_threads(1)


class Means(torch.nn.Module):
    """A tiny network: the mean of each colour channel; black images give NaN if ``fragile``."""

    def __init__(self, fragile=False):
        super().__init__()
        self.fragile = fragile

    def forward(self, x):
        means = x.mean((2, 3))
        return means / means.sum(1, keepdim=True) if self.fragile else means


def small(name="means", size="8x8", fragile=False):
    def prepare(images):
        return torch.nn.functional.interpolate(images.float() + 1e-3 * (not fragile), (8, 8), mode="area")

    extractor = Extractor(name, Means(), prepare, architecture="means", preprocessing={"size": size})
    extractor._network.fragile = fragile
    return extractor


@pytest.fixture
def mixed(folder, picture):
    """Twelve images of three labels and several sizes; one is damaged, one is empty."""
    images = {f"{'abc'[i % 3]}/{i}.png": picture(i, 40 + 7 * (i % 4), 64 - 5 * (i % 3)) for i in range(12)}
    return folder("mixed", {**images, "a/broken.png": b"\x89PNG but not really", "c/empty.jpg": b""})


@pytest.fixture(scope="module")
def lite0():
    return load_extractor()


def test_features_carry_keys_labels_groups_and_provenance(mixed):
    extractor = small()
    images = open_images(mixed)
    result = extract(images, extractor, batch_size=5)
    assert result.features.shape == (12, 3)
    assert result.features.dtype == torch.float32
    assert result.keys == tuple(item.key for item in images if "broken" not in item.key and "empty" not in item.key)
    assert result.labels == tuple(key[0] for key in result.keys)
    assert result.groups == result.keys
    assert (result.extractor, result.fingerprint, result.root) == ("means", extractor.fingerprint, str(mixed))
    assert result.preprocessing == {"size": "8x8"}


def test_each_row_is_its_own_image(mixed):
    result = extract(open_images(mixed), small(), batch_size=4)
    by_key = {item.key: item for item in open_images(mixed)}
    for key, row in zip(result.keys, result.features, strict=True):
        expected = small()(torch.tensor(by_key[key].read()).permute(2, 0, 1)[None])[0]
        assert torch.equal(row, expected)


def test_unreadable_images_are_listed_never_measured(mixed):
    result = extract(open_images(mixed), small())
    assert dict(result.skipped).keys() == {"a/broken", "c/empty"}
    assert dict(result.skipped)["c/empty"] == "empty file (0 bytes)"
    assert not (result.features == 0).all(1).any()


@pytest.mark.parametrize("batch_size", [1, 4, 7, 14, 99])
def test_progress_counts_every_image(mixed, batch_size):
    job = iter_extract(open_images(mixed), small(), batch_size=batch_size)
    steps = [step.done for step in job]
    assert len(job) == 14
    assert steps == sorted(set(steps))
    assert steps[-1] == 14
    assert len(job.result) == 12


def test_result_finishes_what_iteration_began(mixed):
    job = iter_extract(open_images(mixed), small(), batch_size=4)
    assert next(iter(job)).done < 14
    assert torch.equal(job.result.features, extract(open_images(mixed), small()).features)


def close(a, b):
    """Equal but for float32 rounding: the CPU's kernels depend on the shape of the batch and on the threads."""
    return a.shape == b.shape and (a - b).norm() < 2e-6 * b.norm()


@pytest.fixture
def few(mixed):
    images = open_images(mixed)
    return ImageSet(images.root, images[:8])  # with a damaged one


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_features_do_not_depend_on_the_batch_size(few, lite0, batch_size):
    whole = extract(few, lite0, batch_size=32)
    parts = extract(few, lite0, batch_size=batch_size)
    assert close(parts.features, whole.features)
    assert parts.keys == whole.keys
    assert parts.skipped == whole.skipped


def test_features_do_not_depend_on_the_order_of_the_set(few, lite0):
    order = np.random.default_rng(0).permutation(len(few))
    straight = extract(few, lite0, batch_size=3)
    shuffled = extract(ImageSet(few.root, [few[i] for i in order]), lite0, batch_size=3)
    rows = dict(zip(shuffled.keys, shuffled.features, strict=True))
    assert close(torch.stack([rows[key] for key in straight.keys]), straight.features)


def test_features_do_not_depend_on_the_reading_threads(few, lite0):
    one, many = (extract(few, lite0, workers=workers) for workers in (1, 8))
    assert torch.equal(one.features, many.features)
    assert one.keys == many.keys


def test_features_do_not_depend_on_the_computing_threads(few, lite0):
    one = extract(few, lite0)
    torch.set_num_threads(2)
    assert close(extract(few, lite0).features, one.features)


def test_crops_keep_the_photo_as_their_group(mixed):
    result = extract(open_images(mixed).crops(3, 32), small(), batch_size=10)
    assert len(result) == 36
    assert result.groups == tuple(key.partition("#")[0] for key in result.keys)
    assert dict(result.skipped).keys() == {"a/broken", "c/empty"}


def test_reading_stays_at_most_one_batch_ahead(mixed):
    started = []

    class Watched(ImageSet):
        def __iter__(self):
            for item in self.items:
                started.append(item.key)
                yield item

    images = open_images(mixed)
    job = iter(iter_extract(Watched(images.root, images.items), small(), batch_size=2, workers=1))
    done = next(job).done
    assert len(started) <= done + 2 + 1
    job.close()


def test_nan_features_raise_with_the_file_names(folder, picture):
    root = folder("set", {"x/light.png": picture(), "x/black.png": np.zeros((20, 20, 3), np.uint8)})
    with pytest.raises(
        InputError, match=r"means gives NaN or infinite features for \S+x/black.png\. Remove these files"
    ):
        _ = extract(open_images(root), small(fragile=True))


def test_a_set_without_a_readable_image(folder):
    root = folder("bad", {"1.png": b"no", "2.png": b""})
    with pytest.raises(InputError, match=r"no image could be read. The first of 2: 1: not an image"):
        _ = extract(open_images(root), small())


def test_a_stopped_extraction_has_no_result(mixed):
    job = iter_extract(open_images(mixed), small(), batch_size=2)
    next(iter(job))
    iter(job).close()
    with pytest.raises(RuntimeError, match="stopped before its end"):
        _ = job.result


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": 0}])
def test_nonsense_options(mixed, options):
    with pytest.raises(InputError, match="Expected at least 1 of each"):
        iter_extract(open_images(mixed), small(), **options)


# --- files


@pytest.fixture
def saved(mixed, tmp_path):
    result = extract(open_images(mixed), small())
    path = tmp_path / "set.safetensors"
    result.save(path)
    return result, path


def test_save_and_load_give_the_same_set(saved):
    result, path = saved
    loaded = FeatureSet.load(path)
    assert torch.equal(loaded.features, result.features)
    for field in ("keys", "labels", "groups", "extractor", "fingerprint", "preprocessing", "root", "skipped"):
        assert getattr(loaded, field) == getattr(result, field)
    assert [file.name for file in path.parent.glob("set*")] == ["set.safetensors"]  # no temporary file stays


def test_labels_may_be_missing(folder, picture, tmp_path):
    result = extract(open_images(folder("flat", {"1.png": picture()})), small())
    result.save(tmp_path / "flat.safetensors")
    assert FeatureSet.load(tmp_path / "flat.safetensors").labels == (None,)


def test_files_that_are_not_features(saved, tmp_path):
    _, path = saved
    save_file({"features": torch.zeros(2, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"schema None. Expected 'reverse-stylize/features/1'"):
        FeatureSet.load(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no such file"):
        FeatureSet.load(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="damaged feature file"):
        FeatureSet.load(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("rows"),
        lambda tensors: tensors.update(features=tensors["features"][:-1].clone()),
        lambda tensors: tensors.update(features=tensors["features"].double()),
        lambda tensors: tensors.update(rows=torch.zeros(4, dtype=torch.uint8)),
    ],
)
def test_files_whose_parts_do_not_match(saved, tmp_path, change):
    from safetensors import safe_open

    _, path = saved
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, tmp_path / "changed.safetensors", metadata=header)
    with pytest.raises(InputError, match="damaged"):
        FeatureSet.load(tmp_path / "changed.safetensors")


def test_only_features_of_one_fingerprint_can_be_compared(mixed):
    images = open_images(mixed)
    one, same, other = (extract(images, small(size=size)) for size in ("8x8", "8x8", "9x9"))
    check_comparable(one, same)
    with pytest.raises(
        InputError, match=r"cannot be compared: fingerprints .* size '8x8' and '9x9'. Extract both with"
    ):
        check_comparable(one, other)
