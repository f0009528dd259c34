"""Tensors with a header as a ``.safetensors`` file: equal ones give equal bytes, and a file is whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from ..files import write_atomically


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> None:
    """Write tensors of any device and the entries of ``header``.

    Raises:
        OSError: the file cannot be written.
    """
    data = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, dict(header))
    write_atomically(path, _in_order(data))


def _in_order(data: bytes) -> bytes:
    """The same file with the entries of its header in order, of which safetensors keeps none."""
    end = 8 + int.from_bytes(data[:8], "little")
    facts = json.loads(data[8:end])
    facts["__metadata__"] = dict(sorted(facts["__metadata__"].items()))
    text = json.dumps({"__metadata__": facts.pop("__metadata__"), **facts}, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]
