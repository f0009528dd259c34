"""Distances fed batch by batch: the numbers of the whole, whatever the batches, objects and processes."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from metrics.errors import InputError
from metrics.statistics.frechet import frechet
from metrics.statistics.kid import kid
from metrics.torchmetrics import FrechetInceptionDistance, KernelInceptionDistance


class Means:
    """An extractor of 12 features: 2 x 2 means."""

    dim, fingerprint, name = 12, "means", "means"

    def __call__(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


def images(seed, count, shift=0):
    drawn = np.random.default_rng(seed).integers(0, 200, (count, 3, 8, 8)) + shift
    return torch.from_numpy(drawn.astype(np.uint8))


FAKE, REAL = images(0, 70, 20), images(1, 90)


def fed(kind, batch, fake=FAKE, real=REAL, **options):
    metric = kind(Means(), **options)
    for part in fake.split(batch):
        metric.update(part, real=False)
    for part in real.split(batch):
        metric.update(part, real=True)
    return metric


@pytest.mark.parametrize("batch", [1, 7, 90])
def test_without_a_whole_block_it_is_the_kid_of_all_pairs(batch):
    found = fed(KernelInceptionDistance, batch).compute()
    expected = kid(Means()(FAKE), Means()(REAL))
    assert (found.value, found.se, found.n, found.m) == (expected.value, expected.se, 70, 90)
    assert float(found) == found.value


@pytest.mark.parametrize("batch", [1, 7, 90])
def test_blocks_are_the_mean_of_their_kids(batch):
    found = fed(KernelInceptionDistance, batch, block=30).compute()
    x, y = Means()(FAKE), Means()(REAL)
    blocks = [kid(x[s : s + 30], y[s : s + 30]).value for s in (0, 30)]
    assert found.value == pytest.approx(np.mean(blocks), rel=1e-12)
    assert found.se == pytest.approx(np.std(blocks, ddof=1) / np.sqrt(2), rel=1e-9)
    assert found.warnings == ("40 images fill no block of 30 and are left out.",)


@pytest.mark.parametrize("batch", [1, 16])
def test_the_frechet_distance_is_that_of_the_whole(batch):
    found = fed(FrechetInceptionDistance, batch).compute()
    assert found.value == pytest.approx(frechet(Means()(FAKE), Means()(REAL)).value, rel=1e-8)
    assert (found.se, found.n, found.m) == (None, 70, 90)


@pytest.mark.parametrize("kind", [KernelInceptionDistance, FrechetInceptionDistance])
def test_merge_reset_and_going_on(kind):
    whole, first = fed(kind, 10), fed(kind, 10, FAKE[:40], REAL[:30])
    second = fed(kind, 10, FAKE[40:60], REAL[30:])
    before = second.compute()
    first.merge(second)
    assert second.compute() == before
    first.update(FAKE[60:], real=False)
    assert first.compute().value == pytest.approx(whole.compute().value, rel=1e-9)
    assert (first.compute().n, first.compute().m) == (70, 90)
    first.reset()
    with pytest.raises(InputError):
        first.compute()


def test_blocks_of_merged_parts_hold_every_image_once():
    first = fed(KernelInceptionDistance, 9, FAKE[:35], REAL[:50], block=10)
    first.merge(fed(KernelInceptionDistance, 9, FAKE[35:], REAL[50:], block=10))
    found = first.compute()
    assert (found.n, found.m) == (70, 90) and found.warnings == ("20 images fill no block of 10 and are left out.",)
    with pytest.raises(InputError, match="blocks of 10 and 20"):
        first.merge(fed(KernelInceptionDistance, 9, block=20))


def test_bad_batches_are_refused():
    metric = FrechetInceptionDistance("random-conv")
    with pytest.raises(InputError, match="Expected a batch of images"):
        metric.update(torch.rand(2, 3, 8, 8), real=True)
    metric.update(images(0, 0), real=True)
    with pytest.raises(InputError):
        metric.compute()


PROCESS = """
import sys, torch, torch.distributed as distributed
sys.path[:0] = {path!r}
from test_metrics_torchmetrics import FAKE, REAL, Means, fed
from metrics.torchmetrics import FrechetInceptionDistance, KernelInceptionDistance
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
for kind in (KernelInceptionDistance, FrechetInceptionDistance):
    print(repr(fed(kind, 8, FAKE[rank::2], REAL[rank::2]).compute().value))
distributed.destroy_process_group()
"""


def test_processes_share_their_states(tmp_path):
    program = PROCESS.format(path=[str(path) for path in sys.path if path])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank), str(tmp_path / "meet")], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0].split() for process in started]
    assert said[0] == said[1] and len(said[0]) == 2
    x, y = (torch.cat([half[0::2], half[1::2]]) for half in (FAKE, REAL))
    assert float(said[0][0]) == pytest.approx(kid(Means()(x), Means()(y)).value, rel=1e-9)
    assert float(said[0][1]) == pytest.approx(frechet(Means()(x), Means()(y)).value, rel=1e-8)
