import hashlib
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from metrics.errors import InputError
from metrics.extractors.extractor import Extractor
from metrics.features import cache as module
from metrics.features.cache import FeatureCache, default_folder
from metrics.features.extraction import extract, iter_extract
from metrics.image_sets.items import Crop
from metrics.image_sets.open import open_images


class Mixed(torch.nn.Module):
    """A little network whose results depend on every pixel; it counts the images that it sees."""

    def __init__(self, seed=0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(192, 5, generator=torch.Generator().manual_seed(seed)))
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return torch.tanh(x.flatten(1) @ self.weight / 1000)


def extractor(seed=0, size=8):
    def prepare(images):
        return torch.nn.functional.interpolate(images.float(), (8, 8), mode="area")

    made = Extractor("mixed", Mixed(seed), prepare, architecture="mixed", preprocessing={"size": str(size)})
    made._network.seen = 0
    return made


def digest(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def vectors(count, width=64, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def filled(folder, count=10, width=64, **options):
    cache = FeatureCache(folder, **options)
    cache.put("f", [(digest(i), None, vector) for i, vector in enumerate(vectors(count, width))])
    return cache


@pytest.fixture
def photos(folder, picture):
    return folder("set", {f"{'ab'[i % 2]}/{i}.png": picture(i, 32 + i, 40) for i in range(9)} | {"c/bad.png": b"no"})


def test_vectors_come_back_bit_for_bit(tmp_path):
    with filled(tmp_path / "new" / "folder") as cache:
        assert all(torch.equal(cache.get("f", digest(i)), vector) for i, vector in enumerate(vectors(10)))
        assert cache.get("f", digest(10)) is None
        stats = cache.stats()
    assert (stats.entries, stats.hits, stats.misses, stats.damaged, stats.unsaved) == (10, 10, 1, 0, 0)
    with FeatureCache(tmp_path / "new" / "folder") as again:
        assert torch.equal(again.get("f", digest(3)), vectors(10)[3])


def test_the_key_is_extractor_content_crop_and_versions(tmp_path, monkeypatch):
    crop = Crop(1, 2, 30, 16)
    with filled(tmp_path) as cache:
        cache.put("f", [(digest(0), crop, torch.ones(3))])
        assert torch.equal(cache.get("f", digest(0), crop), torch.ones(3))
        assert cache.get("f", digest(0)).shape == (64,)
        for other in (Crop(0, 2, 30, 16), Crop(1, 0, 30, 16), Crop(1, 2, 31, 16), Crop(1, 2, 30, 17)):
            assert cache.get("f", digest(0), other) is None
        assert cache.get("g", digest(0)) is None
        for name, value in [("VERSION", 99), ("SCHEMA", 99)]:
            with monkeypatch.context() as patch:
                patch.setattr(module, name, value)
                assert cache.get("f", digest(0)) is None
        monkeypatch.setattr(module.PIL, "__version__", "0")
        assert cache.get("f", digest(0)) is None


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_features_with_and_without_a_cache_are_equal(photos, tmp_path, batch_size):
    images = open_images(photos)
    plain = extract(images, extractor(), batch_size=batch_size)
    with FeatureCache(tmp_path / "cache") as cache:
        first = extract(images, extractor(), batch_size=batch_size, cache=cache)
        network = extractor()
        second = extract(images, network, batch_size=batch_size, cache=cache, workers=4)
    for result in (first, second):
        assert torch.equal(result.features, plain.features)
        assert (result.keys, result.labels, result.groups) == (plain.keys, plain.labels, plain.groups)
        assert result.skipped == plain.skipped == (("c/bad", "not an image that can be decoded"),)
    assert network._network.seen == 0
    assert (cache.hits, cache.misses) == (9, 11)  # the bad image is looked up and misses twice


def test_only_what_is_new_is_computed(photos, tmp_path, picture):
    from PIL import Image

    with FeatureCache(tmp_path / "cache") as cache:
        extract(open_images(photos), extractor(), cache=cache)
        (photos / "a/0.png").rename(photos / "a/renamed.png")
        Image.fromarray(picture(99)).save(photos / "b/1.png")
        network = extractor()
        result = extract(open_images(photos), network, cache=cache)
        assert network._network.seen == 1
        plain = extract(open_images(photos), extractor())
        assert result.keys == plain.keys and torch.allclose(result.features, plain.features, rtol=0, atol=1e-6)
        other = extractor(seed=1)
        extract(open_images(photos), other, cache=cache)
        assert other._network.seen == 9


def test_crops_are_cached_by_their_box(photos, tmp_path):
    crops = open_images(photos).crops(3, 16)
    plain = extract(crops, extractor(), batch_size=4)
    with FeatureCache(tmp_path / "cache") as cache:
        extract(crops, extractor(), batch_size=4, cache=cache)
        network = extractor()
        assert torch.equal(extract(crops, network, cache=cache).features, plain.features)
        assert network._network.seen == 0
        extract(open_images(photos).crops(3, 16, seed=1), network, cache=cache)
        assert network._network.seen == 27


def test_images_in_memory_are_cached_too(tmp_path, picture):
    images = np.stack([picture(i) for i in range(5)])
    with FeatureCache(tmp_path / "cache") as cache:
        first = extract(open_images(images), extractor(), cache=cache)
        network = extractor()
        assert torch.equal(extract(open_images(images), network, cache=cache).features, first.features)
        assert network._network.seen == 0


def test_progress_goes_on_when_everything_is_known(photos, tmp_path):
    with FeatureCache(tmp_path / "cache") as cache:
        for _ in range(2):
            job = iter_extract(open_images(photos), extractor(), batch_size=4, cache=cache)
            steps = [step.done for step in job]
            assert steps == sorted(set(steps)) and steps[-1] == len(job) == 10


def change(path, statement, *values):
    database = sqlite3.connect(path)
    with database:
        database.execute(statement, values)
    database.close()


def test_changed_rows_are_counted_and_never_used(tmp_path):
    cache = filled(tmp_path)
    cache.close()
    database = sqlite3.connect(cache.path)
    rows = database.execute("SELECT key, vector FROM features ORDER BY rowid").fetchall()
    database.close()
    flipped = bytearray(rows[0][1])
    flipped[5] ^= 1
    change(cache.path, "UPDATE features SET vector = ? WHERE key = ?", bytes(flipped), rows[0][0])
    change(cache.path, "UPDATE features SET vector = ? WHERE key = ?", rows[2][1], rows[1][0])  # another's vector
    change(cache.path, "UPDATE features SET vector = ? WHERE key = ?", b"", rows[3][0])
    with FeatureCache(tmp_path) as cache:
        found = [cache.get("f", digest(i)) for i in range(5)]
        assert [vector is None for vector in found] == [True, True, False, True, False]
        assert (cache.damaged, cache.misses, cache.hits) == (3, 3, 2)
        cache.put("f", [(digest(0), None, vectors(10)[0])])
        assert torch.equal(cache.get("f", digest(0)), vectors(10)[0])
        assert cache.prune() == 2
        assert cache.stats().entries == 8


def test_a_damaged_extraction_entry_is_computed_again(photos, tmp_path):
    plain = extract(open_images(photos), extractor())
    with FeatureCache(tmp_path) as cache:
        extract(open_images(photos), extractor(), cache=cache)
    change(cache.path, "UPDATE features SET vector = zeroblob(36)")
    with FeatureCache(tmp_path) as cache:
        assert torch.equal(extract(open_images(photos), extractor(), cache=cache).features, plain.features)
        assert cache.damaged == 9
        assert torch.equal(extract(open_images(photos), extractor(), cache=cache).features, plain.features)
        assert cache.damaged == 9


def test_damaged_pages_are_misses_not_crashes(tmp_path):
    filled(tmp_path, 200, 256).close()
    path = tmp_path / module.FILE
    data = bytearray(path.read_bytes())
    data[3 * module.PAGE : -module.PAGE] = b"\x55" * (len(data) - 4 * module.PAGE)
    path.write_bytes(data)
    with FeatureCache(tmp_path) as cache:
        expected = vectors(200, 256)
        for i in range(200):
            vector = cache.get("f", digest(i))
            assert vector is None or torch.equal(vector, expected[i])
        assert cache.damaged > 0


def test_a_file_that_is_no_cache_is_named(tmp_path):
    (tmp_path / module.FILE).write_bytes(b"something else" * 1000)
    with pytest.raises(
        InputError, match=r"features\.sqlite: cannot be used as a feature cache \(file is not a database\)"
    ):
        FeatureCache(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="set REVERSE_STYLIZE_CACHE to a folder that can be written"):
        FeatureCache(tmp_path / "file")


def test_the_file_stays_below_its_bound_and_loses_the_oldest_first(tmp_path, monkeypatch):
    bound = 40 * module.PAGE
    expected = vectors(400, 1024)
    clock = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    with FeatureCache(tmp_path, max_bytes=bound) as cache:
        for i in range(400):
            clock[0] += 2 * module.FRESH
            cache.put("f", [(digest(i), None, expected[i])])
            assert cache.get("f", digest(0)) is not None  # used again and again
            assert cache.stats().size <= bound
        kept = [i for i in range(400) if cache.get("f", digest(i)) is not None]
    assert 0 in kept and kept[1:] == list(range(kept[1], 400)) and 150 < len(kept) < 330
    assert (tmp_path / module.FILE).stat().st_size <= bound + 2 * module.PAGE


def test_prune_and_clear_give_the_space_back(tmp_path):
    with filled(tmp_path, 300, 1024) as cache:
        before = cache.stats().size
        removed = cache.prune(before // 4)
        assert 200 < removed < 300 and cache.path.stat().st_size <= before // 4
        assert cache.stats().entries == 300 - removed
        assert cache.get("f", digest(299)) is not None and cache.get("f", digest(0)) is None
        assert cache.prune(0) == 300 - removed
        cache.put("f", [(digest(0), None, torch.ones(2))])
        cache.clear()
        assert cache.stats().entries == 0 and cache.get("f", digest(0)) is None


def test_writes_that_fail_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WAIT", 0.05)
    with FeatureCache(tmp_path) as cache:
        other = sqlite3.connect(cache.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        cache.put("f", [(digest(0), None, torch.ones(2))])
        assert cache.stats().unsaved == 1
        other.execute("ROLLBACK")
        other.close()


def work(folder, start, barrier):
    barrier.wait()
    with FeatureCache(folder) as cache:
        for i in range(start, start + 120):
            vector = torch.full((256,), float(i % 150))
            known = cache.get("f", digest(i % 150))
            assert known is None or torch.equal(known, vector)
            cache.put("f", [(digest(i % 150), None, vector)])
        assert cache.damaged == cache.unsaved == 0


@pytest.mark.slow
def test_two_processes_share_a_folder_from_its_creation_on(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=work, args=(tmp_path / "shared", start, barrier)) for start in (0, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    with FeatureCache(tmp_path / "shared") as cache:
        assert cache.stats().entries == 150
        assert all((cache.get("f", digest(i)) == i).all() for i in range(150))
    assert [path.name for path in (tmp_path / "shared").iterdir()] == [module.FILE]


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("REVERSE_STYLIZE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "reverse-stylize/features"
    monkeypatch.setenv("REVERSE_STYLIZE_CACHE", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.delenv("REVERSE_STYLIZE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache/reverse-stylize/features"


# Nothing about a cache ends a run


def lose_home(monkeypatch):
    for name in ("REVERSE_STYLIZE_CACHE", "XDG_CACHE_HOME", "HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)

    def nobody(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(module.Path, "home", classmethod(nobody))


def no_home(folder, monkeypatch):
    lose_home(monkeypatch)


def in_a_file(folder, monkeypatch):
    folder.write_bytes(b"")


def garbage(folder, monkeypatch):
    folder.mkdir()
    (folder / module.FILE).write_bytes(b"no database" * 999)


def truncated(folder, monkeypatch):
    filled(folder, 200, 256).close()
    data = (folder / module.FILE).read_bytes()
    (folder / module.FILE).write_bytes(data[: len(data) // 3])


def empty(folder, monkeypatch):
    folder.mkdir()
    (folder / module.FILE).touch()


def a_folder(folder, monkeypatch):
    (folder / module.FILE).mkdir(parents=True)


@pytest.mark.parametrize("fault", [no_home, in_a_file, garbage, truncated, empty, a_folder])
def test_a_command_goes_on_without_its_cache_and_says_so_once(fault, photos, tmp_path, monkeypatch, capsys):
    from metrics.commands import main as cli

    folder = tmp_path / "cache"
    monkeypatch.setenv("REVERSE_STYLIZE_CACHE", str(folder))
    fault(folder, monkeypatch)
    with cli._cache(True) as cache:
        found = extract(open_images(photos), extractor(), batch_size=2, cache=cache)
    assert torch.equal(found.features, extract(open_images(photos), extractor()).features)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ("without" in said or "could not be saved" in said)


def exclusive(path):
    """A process that has the file and lets nobody else in, not even to read."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    return other


def test_a_lock_that_stays_costs_one_wait(photos, tmp_path, monkeypatch, capsys):
    from metrics.commands import main as cli

    monkeypatch.setenv("REVERSE_STYLIZE_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "WAIT", 0.3)
    path = tmp_path / module.FILE
    FeatureCache(tmp_path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # readers are let in
    start = time.monotonic()
    with cli._cache(True) as cache:
        found = extract(open_images(photos), extractor(), batch_size=1, cache=cache)
    assert len(found) == 9 and time.monotonic() - start < 1.5
    assert "locked" in (said := capsys.readouterr().err) and said.count("\n") == 1 and "9 features" in said
    other.close()
    other = exclusive(path)
    with cli._cache(True) as cache:
        assert cache is None and len(extract(open_images(photos), extractor(), cache=cache)) == 9
    assert "going on without a cache" in (said := capsys.readouterr().err) and said.count("\n") == 1
    other.close()


def test_waiting_is_short():
    assert module.WAIT <= 2


def test_a_disk_that_fills_up(photos, tmp_path):
    with FeatureCache(tmp_path / "cache") as cache:
        cache._database.execute(f"PRAGMA max_page_count = {3}")
        result = iter_extract(open_images(photos), extractor(), batch_size=1, cache=cache)
        big = [(digest(i), None, torch.ones(module.PAGE)) for i in range(9)]
        cache.put("f", big)
        assert len(result.result) == 9 and "full" in cache.fault and cache.unsaved == 18


@pytest.mark.parametrize("error", [PermissionError, OSError])
def test_a_file_system_without_links_has_a_cache_too(tmp_path, monkeypatch, error):
    def refuse(part, path):
        raise error("no links here")

    monkeypatch.setattr(module.os, "link", refuse)
    with filled(tmp_path / "cache") as cache:
        assert cache.stats().entries == 10
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [module.FILE]


def test_what_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    def fail(part, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_name", fail)
    with pytest.raises(InputError, match="No space left"):
        FeatureCache(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root to become another user")
def test_another_users_cache_without_a_home(tmp_path):
    """Nobody may write the folder of a cache that root filled, nor read it."""
    filled(tmp_path / "cache").close()
    program = (
        "import os, metrics.features.cache; from metrics.commands.main import _cache\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "with _cache(True) as cache: print(cache)\n"
    )
    (tmp_path / "cache").chmod(0o700)
    for variables in ({"REVERSE_STYLIZE_CACHE": str(tmp_path / "cache")}, {"HOME": "/nonexistent"}):
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(module.__file__).parent.parent), **variables}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, encoding="utf-8")
        assert done.stdout == "None\n" and "going on without a cache" in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
