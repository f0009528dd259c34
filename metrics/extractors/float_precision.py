"""True float32: TF32 and bfloat16 shortcuts switched off around a computation, whatever the program set before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Matrix products and convolutions inside the block use IEEE float32, on CPU and CUDA; the old state comes back.

    CUDA convolutions use TF32 by default (10-bit mantissa), and ``torch.set_float32_matmul_precision("medium")`` makes
    even CPU products use bfloat16. The switches are process-wide, so other threads see them too.
    """
    backends = torch.backends
    switches = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision
