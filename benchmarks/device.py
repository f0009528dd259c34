"""Images per second on a CUDA device beside one thread of the CPU, in one run: styles, patterns and features at 256².

Run:      python benchmarks/device.py

Compute alone, without files: medians of REPEATS after one warm-up, the device synchronised around each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from metrics.extractors import load_extractor
from metrics.statistics.kid import kid
from stylize.patterns import FAMILIES, load_family
from stylize.styles.bank import learn
from stylize.styles.methods import METHODS

PHOTOS = Path(__file__).parent.parent / "assets" / "photos" / "learn"
SIZE, BATCH, REPEATS = 256, 8, 3
OPTIONS = {"one-image": {"photo": str(PHOTOS / "cat.jpg")}}


def main() -> None:
    torch.set_num_threads(1)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}\n")
    print("| what | CPU, images/s | device, images/s | ratio |\n|---|---|---|---|")
    images = torch.cat([rendered("neural-fractal", k) for k in range(BATCH)])
    bank, keys = learn(PHOTOS, methods=list(METHODS), crops=1, size=SIZE), [str(k) for k in range(BATCH)]
    for method in (name for name, facts in METHODS.items() if not facts.slow):
        row(method, lambda batch, method=method: bank.transfer(batch, keys[: len(batch)], method=method), images, 1)
    for name in FAMILIES:
        family = load_family(name)
        params = family.sample_class(0, 0, **OPTIONS.get(name, {}))
        cpu = rate(lambda family=family, params=params: [family.render(params, k, SIZE) for k in range(BATCH)], BATCH)
        gpu = rate(lambda f=family, p=params: f.render_torch(p, range(8 * BATCH), SIZE, "cuda"), 8 * BATCH)
        print(f"| render {name} | {cpu:.1f} | {gpu:.1f} | {gpu / cpu:.1f} |", flush=True)
    for precision in ("float32", "bfloat16"):
        networks = {d: load_extractor(device=d, precision=precision) for d in ("cpu", "cuda")}
        row(f"efficientnet-lite0, {precision}", lambda batch, n=networks: n[batch.device.type](batch), images, 16)
    x, y = torch.randn(20_000, 1280), torch.randn(20_000, 1280) + 0.1
    row("kid, 20 000 features a side", lambda batch: kid(batch, y.to(batch.device)), x, 1)


def rendered(name: str, class_id: int) -> torch.Tensor:
    family = load_family(name)
    return torch.from_numpy(family.render(family.sample_class(0, class_id), 0, SIZE)).permute(2, 0, 1)[None]


def row(what: str, work: Callable[[torch.Tensor], object], images: torch.Tensor, times: int) -> None:
    cpu = rate(lambda: work(images), len(images))
    more = images.cuda().repeat(times, 1, 1, 1) if times > 1 else images.cuda()
    gpu = rate(lambda: work(more), len(more))
    print(f"| {what} | {cpu:.1f} | {gpu:.1f} | {gpu / cpu:.1f} |", flush=True)


def rate(work: Callable[[], object], count: int) -> float:
    seconds = []
    for _ in range(REPEATS + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return count / float(np.median(seconds[1:]))


if __name__ == "__main__":
    main()
