"""KID in blocks: a state that shards, machines and resumed runs add up, for sets too large for all pairs.

The full U-statistic needs every pair of images. Here block b of x meets block b of y only, each pair of blocks gives
one unbiased KID, and their mean is the estimate (Zaremba, Gretton and Blaschko, "B-tests", 2013; blocks as in
k-diffusion's evaluation). Blocks are independent, so their spread gives an honest standard error.

An image belongs to a block by its position in its set, never by when it arrives: block = position // size. So any
split of the work gives the same blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ..errors import InputError
from ..features.tensor_file import write_tensors
from .jackknife import Jackknife, jackknife
from .kid import kid
from .pair import Features, check_features

SCHEMA = "reverse-stylize/block-kid/1"
SIDES = ("x", "y")


@dataclass(frozen=True)
class BlockKidValue:
    """Mean of ``blocks`` independent KIDs of ``size`` images a side; ``left_out`` images are in no complete block.

    ``error`` is the standard error of the mean, with ``blocks`` − 1 degrees of freedom; undefined for one block.
    """

    value: float
    error: Jackknife
    blocks: int
    size: int
    left_out: int


class BlockKid:
    """Mergeable block-KID of features ``x`` against ``y``.

    ``dimensions`` is D, ``fingerprint`` the extractor's, ``size`` the images of a block. ``values[b]`` is the KID of
    block b once all its 2·``size`` images have come; until then their features are kept (float32 ``[D]`` each).

    However the images are split into batches, shards and runs, and in whatever order the parts are merged, the blocks
    are the same images in the same order, each is computed once, and the mean is exactly rounded: the result has the
    same bits on machines whose matrix products have the same bits, and agrees to float32 products otherwise (see
    ``metrics.statistics.kid.kid``). Rows must be independent images: for crops of one photo take ``kid`` with groups.
    """

    def __init__(self, dimensions: int, fingerprint: str, size: int = 1000) -> None:
        if size < 2:
            raise InputError(f"size = {size}. Expected at least 2 images per block; 1000 is usual.")
        self.dimensions = dimensions
        self.fingerprint = fingerprint
        self.size = size
        self.values: dict[int, float] = {}
        self._waiting: dict[str, dict[int, torch.Tensor]] = {side: {} for side in SIDES}

    def update(self, side: str, start: int, batch: Features) -> None:
        """Add ``batch [B,D]``: the images at positions ``start``, ``start + 1``, ... of set ``side``, "x" or "y".

        Args:
            side: ``x`` or ``y``.
            start: position of the first image of the batch in its set.
            batch: features ``[N,D]``.

        Raises:
            InputError: another side, a negative position, a position that has come before, or bad features.
        """
        if side not in SIDES or start < 0:
            raise InputError(f"got side {side!r} and start {start}. Expected 'x' or 'y', and a position from 0 up.")
        rows = check_features(batch, "batch", least=1).float().cpu()
        if rows.shape[1] != self.dimensions:
            raise InputError(f"batch has {rows.shape[1]} features per image. Expected {self.dimensions}.")
        arrived = {start + index: row.clone() for index, row in enumerate(rows)}
        self._refuse_repeats({side: arrived}, {})
        self._take(side, arrived)

    def merge(self, other: BlockKid) -> None:
        """Add everything that ``other`` has seen; ``other`` stays as it is.

        Raises:
            InputError: another extractor or block size, or an image that both have seen.
        """
        self._refuse_other(other)
        self._refuse_repeats(other._waiting, other.values)
        self.values.update(other.values)
        for side in SIDES:
            self._take(side, other._waiting[side])

    def result(self) -> BlockKidValue:
        """The mean over all complete blocks.

        Returns:
            The mean, its standard error and the images that no block holds.

        Raises:
            InputError: no block is complete.
        """
        if not self.values:
            raise InputError(
                f"no complete block. Expected at least {self.size} images on each side, or use the function kid."
            )
        values = np.array([self.values[block] for block in sorted(self.values)])
        count, total = len(values), math.fsum(values)
        rest = (total - values) / (count - 1) if count > 1 else np.empty(0)
        error = jackknife(rest) if count > 1 else Jackknife(None, None, "one block; a standard error needs two")
        left_out = sum(len(rows) for rows in self._waiting.values())
        return BlockKidValue(total / count, error, count, self.size, left_out)

    def waiting(self, side: str) -> torch.Tensor:
        """The features ``float32 [n,D]`` of images of ``side`` that are in no complete block, by position."""
        rows = self._waiting[side]
        return torch.stack([rows[position] for position in sorted(rows)]) if rows else torch.empty(0, self.dimensions)

    def append(self, other: BlockKid) -> None:
        """Add everything that ``other`` has seen as if its images had come after ours, whatever their positions were.

        Complete blocks stay as they are; the rest fill blocks of both.

        Raises:
            InputError: another extractor or block size.
        """
        self._refuse_other(other)
        first = min((0, *self.values))
        self.values |= {first - 1 - number: other.values[block] for number, block in enumerate(sorted(other.values))}
        for side in SIDES:
            if len(rows := other.waiting(side)):
                self.extend(side, rows)

    def extend(self, side: str, batch: Features) -> None:
        """Add ``batch [B,D]`` after all images of ``side`` that have come; errors as of ``update``."""
        waiting = max(self._waiting[side], default=-1) + 1
        self.update(side, max(waiting, (max(self.values, default=-1) + 1) * self.size), batch)

    def save(self, path: Path) -> None:
        """Write a ``.safetensors`` file, whole or not at all."""
        header = {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "size": str(self.size),
            "dimensions": str(self.dimensions),
        }
        blocks = sorted(self.values)
        tensors = {
            "blocks": torch.tensor(blocks, dtype=torch.int64),
            "values": torch.tensor([self.values[block] for block in blocks], dtype=torch.float64),
        }
        for side, rows in self._waiting.items():
            positions = sorted(rows)
            tensors[f"{side}.positions"] = torch.tensor(positions, dtype=torch.int64)
            tensors[f"{side}.features"] = torch.stack([rows[p] for p in positions]) if rows else torch.empty(0, 0)
        write_tensors(path, tensors, header)

    @classmethod
    def load(cls, path: Path) -> BlockKid:
        """Read what ``save`` wrote.

        Returns:
            The state, to go on with.

        Raises:
            InputError: no such file, damaged, or another schema.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such file. Expected a file that BlockKid.save wrote.")
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("schema") != SCHEMA:
                    raise InputError(f"{path}: schema {header.get('schema')!r}. Expected {SCHEMA!r}: compute it again.")
                result = cls(int(header["dimensions"]), header["fingerprint"], int(header["size"]))
                blocks, values = file.get_tensor("blocks").tolist(), file.get_tensor("values").tolist()
                result.values = dict(zip(blocks, values, strict=True))
                for side in SIDES:
                    positions = file.get_tensor(f"{side}.positions").tolist()
                    rows = file.get_tensor(f"{side}.features").float()
                    result._take(side, dict(zip(positions, rows, strict=True)))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError) and "schema" in str(error):
                raise
            raise InputError(f"{path}: damaged block-KID file ({error}). Compute it again.") from error
        return result

    def _take(self, side: str, rows: Mapping[int, torch.Tensor]) -> None:
        """Keep new rows by position, then finish the blocks that are complete."""
        self._waiting[side].update(rows)
        for block in sorted({position // self.size for position in rows}):
            self._finish(block)

    def _refuse_other(self, other: BlockKid) -> None:
        if (self.fingerprint, self.dimensions, self.size) != (other.fingerprint, other.dimensions, other.size):
            raise InputError(
                f"block KIDs of extractors {self.fingerprint!r} and {other.fingerprint!r}, {self.dimensions} and "
                f"{other.dimensions} features, blocks of {self.size} and {other.size}. Expected the same of both."
            )

    def _refuse_repeats(self, rows: Mapping[str, Mapping[int, torch.Tensor]], values: Mapping[int, float]) -> None:
        """Images that are here already; nothing has been added yet."""
        for side, arrived in rows.items():
            ours = self._waiting[side]
            twice = [p for p in arrived if p in ours or p // self.size in self.values]
            twice += [p for p in ours if p // self.size in values]
            twice += [block * self.size for block in self.values.keys() & values.keys()]
            if twice:
                raise InputError(
                    f"position {min(twice)} of {side} has come before. Expected every image once; merge each "
                    "shard once."
                )

    def _finish(self, block: int) -> None:
        positions = range(block * self.size, (block + 1) * self.size)
        if not all(position in self._waiting[side] for side in SIDES for position in positions):
            return
        x, y = (torch.stack([self._waiting[side][position] for position in positions]) for side in SIDES)
        self.values[block] = kid(x, y).value
        for side in SIDES:
            for position in positions:
                del self._waiting[side][position]
