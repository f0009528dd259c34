import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from metrics.errors import InputError
from metrics.extractors.extractor import Extractor
from metrics.features import array_file
from metrics.features.extraction import FeatureSet, check_comparable, extract
from metrics.features.feature_source import is_feature_file, open_features
from metrics.features.statistics_file import read_skipped, read_statistics, write_statistics
from metrics.image_sets.open import open_images
from metrics.report.files import write_files
from metrics.statistics.frechet_sources import frechet_of_sources

X = np.random.default_rng(0).standard_normal((50, 6))
MU, SIGMA = X.mean(0), np.cov(X, rowvar=False)


def test_statistics_round_trip_and_files_of_pytorch_fid(tmp_path):
    np.savez_compressed(tmp_path / "theirs.npz", mu=MU, sigma=SIGMA)  # as its save_fid_stats does
    write_statistics(tmp_path / "ours.npz", MU, SIGMA)
    for name in ("theirs.npz", "ours.npz"):
        mu, sigma = read_statistics(tmp_path / name)
        assert mu.dtype == sigma.dtype == np.float64
        assert np.array_equal(mu, MU) and np.allclose(sigma, SIGMA, rtol=0, atol=1e-16)
    with np.load(tmp_path / "ours.npz") as file:  # as its load of an .npz does
        assert np.array_equal(file["mu"][:], MU) and np.array_equal(file["sigma"][:], SIGMA)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".npz"] == []


def test_frechet_distance_of_files_is_that_of_features(tmp_path):
    from scipy.linalg import sqrtm

    y = X @ np.diag([1, 2, 1, 1, 0.5, 1]) + 0.3
    write_statistics(tmp_path / "a.npz", MU, SIGMA)
    write_statistics(tmp_path / "b.npz", y.mean(0), np.cov(y, rowvar=False))
    (mu, sigma), (nu, tau) = read_statistics(tmp_path / "a.npz"), read_statistics(tmp_path / "b.npz")
    distance = ((mu - nu) ** 2).sum() + np.trace(sigma + tau - 2 * sqrtm(sigma @ tau).real)
    from metrics.statistics.frechet import frechet

    assert distance == pytest.approx(frechet(torch.from_numpy(X), torch.from_numpy(y)).value, rel=1e-6)


def test_float32_statistics_are_accepted_and_made_symmetric(tmp_path):
    rough = SIGMA.astype(np.float32)
    rough[0, 1] *= 1 + 1e-7
    np.savez(tmp_path / "s.npz", mu=MU.astype(np.float32), sigma=rough)
    sigma = read_statistics(tmp_path / "s.npz")[1]
    assert np.array_equal(sigma, sigma.T)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": MU}, r"holds mu\. Expected the arrays mu and sigma"),
        ({}, "holds nothing"),
        ({"mu": MU, "sigma": SIGMA[:4]}, r"sigma float64 \[4, 6\]\. Expected floats \[D\] and \[D,D\]"),
        ({"mu": MU[None], "sigma": SIGMA}, r"mu is float64 \[1, 6\]"),
        ({"mu": MU.astype(int), "sigma": SIGMA}, "mu is int64"),
        ({"mu": MU * np.nan, "sigma": SIGMA}, "NaN or infinite"),
        ({"mu": MU, "sigma": np.triu(SIGMA)}, "not symmetric"),
        ({"mu": MU, "sigma": -SIGMA}, "negative on its diagonal"),
    ],
)
def test_statistics_that_cannot_be(tmp_path, arrays, message):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_statistics(tmp_path / "s.npz")


class Trap:
    def __reduce__(self):
        return (open, ("/tmp/never-made-by-a-pickle", "w"))


def test_pickles_are_never_loaded(tmp_path):
    trap = np.array([Trap()], dtype=object)
    np.savez(tmp_path / "s.npz", mu=trap, sigma=SIGMA)
    np.savez(tmp_path / "f.npz", features=trap)
    np.save(tmp_path / "s.npy", trap)
    (tmp_path / "p.npy").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "p.npz").write_bytes(pickle.dumps(Trap()))
    for name in ("f.npz", "s.npy", "p.npy", "p.npz"):
        with pytest.raises(
            InputError, match=r"cannot be read \(no plain array, and pickled Python objects are never loaded"
        ):
            open_features(tmp_path / name, extractor())
    with pytest.raises(InputError, match="pickled Python objects are never loaded"):
        read_statistics(tmp_path / "s.npz")


def test_broken_missing_and_huge_files(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"s\.npz: no such file"):
        read_statistics(tmp_path / "s.npz")
    np.savez_compressed(tmp_path / "s.npz", mu=MU, sigma=SIGMA)
    np.savez_compressed(tmp_path / "f.npz", features=X)
    data = (tmp_path / "f.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[:200])
    flipped = bytearray(data)
    flipped[150:160] = b"0123456789"
    (tmp_path / "flipped.npz").write_bytes(flipped)
    np.save(tmp_path / "cut.npy", X)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:500])
    for name in ("cut.npz", "flipped.npz", "cut.npy"):
        with pytest.raises(InputError, match="cannot be read"):
            open_features(tmp_path / name, extractor())
    monkeypatch.setattr(array_file, "MOST", 300)
    with pytest.raises(InputError, match=r"the array sigma\.npy unpacks to more than"):
        read_statistics(tmp_path / "s.npz")


def test_a_member_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        archive.writestr("features.npy", b"text")
    with pytest.raises(InputError, match=r"cannot be read \(features is no array\)"):
        open_features(tmp_path / "s.npz", extractor())


def test_a_header_that_asks_for_more_memory_than_there_is(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999, 9), }".ljust(117) + b"\n"
        archive.writestr("features.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"0" * 64)
    with pytest.raises(InputError, match="cannot be read"):
        open_features(tmp_path / "s.npz", extractor())


class Means(torch.nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def extractor():
    return Extractor("means", Means(), lambda x: x.float(), architecture="means", preprocessing={"size": "own"})


@pytest.fixture
def photos(folder, picture):
    row = b'{"file_name": "a/1.png", "weather": "rain"}'
    return folder("set", {**{f"{'ab'[i % 2]}/{i}.png": picture(i) for i in range(6)}, "metadata.jsonl": row})


def test_one_call_for_images_files_and_sets(photos, tmp_path):
    steps = []
    expected = open_features(photos, extractor(), batch_size=2, progress=steps.append)
    assert (steps[-1].done, steps[-1].total) == (6, 6)
    expected.save(tmp_path / "f.safetensors")
    np.save(tmp_path / "f.npy", expected.features.numpy())
    np.savez(
        tmp_path / "f.npz", features=expected.features.double(), keys=expected.keys, labels=expected.labels, other=X
    )
    np.savez(tmp_path / "lone.npz", arr_0=expected.features)
    sources = [expected, tmp_path / "f.safetensors", str(tmp_path / "f.npy"), tmp_path / "f.npz", tmp_path / "lone.npz"]
    sources += [open_images(photos), [item.path for item in open_images(photos)]]
    for source in sources:
        features = open_features(source, extractor()).features
        assert torch.equal(features, expected.features) and features.dtype == torch.float32
    assert open_features(tmp_path / "f.safetensors", extractor()).tags == expected.tags
    named = open_features(tmp_path / "f.npz", extractor())
    assert (named.keys, named.labels, named.groups) == (expected.keys, expected.labels, expected.keys)
    plain = open_features(tmp_path / "f.npy", extractor())
    assert plain.keys[:2] == ("000000", "000001") and set(plain.labels) == {None}
    check_comparable(named, plain)
    with pytest.raises(InputError, match="cannot be compared"):
        check_comparable(plain, expected)
    np.save(tmp_path / "wide.npy", X)
    with pytest.raises(InputError, match="'6 columns of a plain array' and '3 columns of a plain array'"):
        check_comparable(open_features(tmp_path / "wide.npy", extractor()), plain)
    assert is_feature_file("x.NPY") and not is_feature_file(photos) and not is_feature_file(X)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": MU, "sigma": SIGMA}, "holds mu and sigma, the statistics of features, not features"),
        ({"a": X, "b": X}, r"holds a, b\. Expected an array named 'features'"),
        ({"features": X[0]}, r"float64 \[6\]\. Expected features: floats \[N,D\]"),
        ({"features": X[:0]}, r"float64 \[0, 6\]"),
        ({"features": X.astype(int)}, "int64"),
        ({"features": np.where(X > 2.2, np.nan, X)}, r"rows hold NaN or infinite values \(rows \d+"),
        ({"features": X * 1e300}, r"50 rows hold NaN or infinite values \(rows 0, 1, 2, 3, 4\)"),
        ({"features": X, "labels": ["a"]}, r"labels is <U1 \[1\]\. Expected 50 texts or whole numbers"),
        ({"features": X, "groups": X[:, 0]}, "groups is float64"),
    ],
)
def test_features_that_cannot_be(tmp_path, arrays, message):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(InputError, match=message):
        open_features(tmp_path / "f.npz", extractor())


def test_tags_and_rows_of_a_feature_set(photos, tmp_path):
    whole = extract(open_images(photos), extractor())
    assert [tags for tags in whole.tags if tags] == [] and len(whole.tags) == 6
    (photos / "metadata.jsonl").write_bytes(b'{"file_name": "b/1.png", "weather": "rain", "group": 7}')
    tagged = extract(open_images(photos), extractor())
    row = tagged.keys.index("b/1")
    assert tagged.tags[row] == {"weather": "rain"} and tagged.groups[row] == "7"
    part = tagged.subset([row, 0])
    assert part.keys == ("b/1", tagged.keys[0]) and part.tags == ({"weather": "rain"}, {})
    assert torch.equal(part.features, tagged.features[[row, 0]])
    assert (part.fingerprint, part.root, part.skipped) == (tagged.fingerprint, tagged.root, tagged.skipped)
    tagged.save(tmp_path / "f.safetensors")
    assert FeatureSet.load(tmp_path / "f.safetensors").tags == tagged.tags


# Files that are written, and how much of others is read


def test_equal_contents_are_equal_bytes(photos, tmp_path, monkeypatch):
    from metrics.statistics import block_kid, moments

    whole = extract(open_images(photos), extractor())
    state = moments.Moments(3, "f")
    state.update(whole.features)
    kid = block_kid.BlockKid(3, "f", 2)
    kid.update("x", 0, whole.features[:3])
    found = []
    for second in range(4):  # safetensors puts the entries of its header in any order, zip files hold the time
        monkeypatch.setattr("time.time", lambda second=second: 1.7e9 + 100 * second)
        for name, save in (("f.safetensors", whole.save), ("m.safetensors", state.save), ("b.safetensors", kid.save)):
            save(tmp_path / name)
        write_statistics(tmp_path / "s.npz", MU, SIGMA, images=50, skipped=[("a", "damaged")])
        found.append([path.read_bytes() for path in sorted(tmp_path.glob("*.*")) if path.is_file()])
    assert len(found[0]) == 4 and all(one == found[0] for one in found)
    assert FeatureSet.load(tmp_path / "f.safetensors").keys == whole.keys
    assert moments.Moments.load(tmp_path / "m.safetensors").n == 6


@pytest.mark.parametrize("name", ["f.safetensors", "s.npz", "report"])
def test_a_disk_that_is_full_leaves_nothing_and_names_the_file(photos, tmp_path, monkeypatch, name):
    def full(number):
        raise OSError(28, "No space left on device")

    whole = extract(open_images(photos), extractor())
    monkeypatch.setattr("metrics.files.os.fsync", full)
    with pytest.raises((OSError, InputError), match="No space left on device") as failed:
        if name == "report":
            write_files(tmp_path / "report", {"report.md": "text"})
        elif name == "s.npz":
            write_statistics(tmp_path / name, MU, SIGMA)
        else:
            whole.save(tmp_path / name)
    assert (
        name in str(failed.value)
        and [path for path in tmp_path.rglob("*") if path.is_file() and "set" not in str(path)] == []
    )


def test_losses_travel_with_the_statistics(tmp_path):
    lost = (("a/1", "damaged image data"), ("bad\udcff", "permission denied"))
    write_statistics(tmp_path / "s.npz", MU, SIGMA, images=50, skipped=lost)
    assert read_skipped(tmp_path / "s.npz") == (lost[0], ("bad\\udcff", "permission denied"))
    assert int(np.load(tmp_path / "s.npz")["images"]) == 50
    write_statistics(tmp_path / "none.npz", MU, SIGMA, images=50)
    np.savez(tmp_path / "theirs.npz", mu=MU, sigma=SIGMA)
    assert read_skipped(tmp_path / "none.npz") == read_skipped(tmp_path / "theirs.npz") == ()
    said = []
    frechet_of_sources(tmp_path / "s.npz", tmp_path / "theirs.npz", None, tell=said.append)
    assert said == ["skipped a/1: damaged image data", "skipped bad\\udcff: permission denied"]


def peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_only_named_arrays_are_read(tmp_path):
    np.savez_compressed(tmp_path / "f.npz", features=X, other=np.zeros((1000, 8000)), more=np.zeros((1000, 8000)))
    assert peak(lambda: open_features(tmp_path / "f.npz", extractor())) < 8_000_000
    np.savez_compressed(tmp_path / "s.npz", mu=MU, sigma=SIGMA, other=np.zeros((1000, 8000)))
    assert peak(lambda: read_statistics(tmp_path / "s.npz")) < 8_000_000


def test_arrays_are_bounded_in_sum_before_any_is_read(tmp_path, monkeypatch):
    large = {name: np.zeros((100, 2000)) for name in ("features", "keys", "labels")}
    np.savez_compressed(tmp_path / "f.npz", **large)
    np.save(tmp_path / "f.npy", np.zeros((300, 2000)))
    monkeypatch.setattr(array_file, "MOST", 4_000_000)  # one fits, or two, but not three
    for name in ("f.npz", "f.npy"):

        def refused(name=name):
            with pytest.raises(InputError, match="unpacks to more than"):
                open_features(tmp_path / name, extractor())

        assert peak(refused) < 1_000_000
