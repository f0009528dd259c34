"""Damaged files for every reader: only the errors that a reader promises may come out, in time and in little memory.

    python tests/chaos/damaged_files.py [--inputs 12000] [--seed 0]

A sound file of every kind is damaged at random: bytes flipped, cut off, overwritten with zeros, inserted, repeated.
Prints a row per kind: inputs, how many were read all the same, how many were refused; ends with 1 on any other error,
or on one that takes longer than SECONDS or more than MEMORY.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import signal
import sys
import tarfile
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from metrics.budget_gate.budgets import read_budgets
from metrics.comparison.compare import compare
from metrics.errors import InputError
from metrics.extractors import load_extractor
from metrics.features.extraction import FeatureSet, extract
from metrics.features.feature_source import read_feature_file
from metrics.features.statistics_file import read_statistics, write_statistics
from metrics.image_sets.decode import ImageError, decode, dimensions
from metrics.image_sets.ledger import licences
from metrics.image_sets.open import open_images
from metrics.report import write_report
from metrics.report.reading import read_report
from stylize.patterns.dataset import resolve_classes
from stylize.styles.bank import StyleBank, learn
from stylize.styles.methods.network import SHIPPED, read_network

SECONDS = 10  # one reader, one file
MEMORY = 1.5  # GB beyond what the imports and sound files take
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "TGA")
Reader = Callable[[bytes], object]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy with one to four faults."""
    broken = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not broken:
            break
        at, length = rng.randrange(len(broken)), rng.choice((1, 1, 2, 4, 16, 256))
        fault = rng.randrange(6)
        if fault == 0:
            broken[at] ^= 1 << rng.randrange(8)
        elif fault == 1:
            broken[at] = rng.choice((0, 1, 127, 128, 254, 255))
        elif fault == 2:
            del broken[at:]
        elif fault == 3:
            broken[at : at + length] = bytes(min(length, len(broken) - at))
        elif fault == 4:
            broken[at:at] = rng.randbytes(length)
        else:
            broken[at:at] = broken[at : at + length]
    return bytes(broken)


def picture(seed: int = 0, side: int = 24) -> Image.Image:
    """A noisy image."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def encoded(format: str, **options: Any) -> bytes:
    """The bytes of a small image."""
    buffer = io.BytesIO()
    picture().save(buffer, format, **options)
    return buffer.getvalue()


def look(data: bytes) -> None:
    """Both decoders of an image."""
    dimensions(data)
    decode(data)


def at(path: Path, read: Callable[[Path], object]) -> Reader:
    """A reader of bytes from one of a file."""

    def reader(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return reader


def whole_set(path: Path) -> None:
    """Open a set, read its images and look up its licences."""
    images = open_images(path)
    for item in images:
        try:
            item.read()
            for column in item.companions:
                item.load_companion(column)
        except ImageError:
            continue
    licences(images)


def kinds(folder: Path) -> dict[str, tuple[bytes, Reader]]:
    """Sound bytes and reader of every kind."""
    found: dict[str, tuple[bytes, Reader]] = {name: (encoded(name), look) for name in FORMATS}
    exif = Image.Exif()
    exif[0x0112] = 6
    found["JPEG with EXIF"] = (encoded("JPEG", exif=exif), look)
    members = {
        "a.png": encoded("PNG"),
        "b/c.jpg": encoded("JPEG"),
        "metadata.jsonl": b'{"file_name": "a.png", "label": 1}\n',
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    found["zip"] = (buffer.getvalue(), at(folder / "set.zip", whole_set))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    found["tar"] = (buffer.getvalue(), at(folder / "set.tar", whole_set))
    root = folder / "set"
    root.mkdir()
    for number in range(6):
        picture(number, 64).save(root / f"{number}.png")
    sidecars = {
        "metadata.jsonl": b'{"file_name": "0.png", "label": "x", "mask_file_name": "1.png", "group": 3}\n' * 3,
        "ledger.json": json.dumps(
            {
                "schema": 1,
                "images": [{"file": "0.png", "licence": "CC0-1.0", "author": "me", "source": "x", "sha256": "0" * 64}],
            }
        ).encode(),
        "0.png.license": b"SPDX-FileCopyrightText: 2026 me\n\nSPDX-License-Identifier: CC0-1.0\n",
    }
    for name, data in sidecars.items():
        other = folder / name.replace(".", "-")
        other.mkdir()
        picture().save(other / "0.png")
        found[name] = (data, at(other / name, lambda path: whole_set(path.parent)))
    csv = folder / "csv"
    csv.mkdir()
    picture().save(csv / "0.png")
    found["metadata.csv"] = (
        b"file_name,label\n0.png,cat\n1.png,dog\n",
        at(csv / "metadata.csv", lambda path: whole_set(path.parent)),
    )
    return found | models(folder, root)


def models(folder: Path, root: Path) -> dict[str, tuple[bytes, Reader]]:
    """The files that this program writes itself."""
    made = folder / "made"
    made.mkdir()
    learn(root, methods=["colour", "histogram"], crops=1, size=32).save(made / "s.safetensors")
    features = extract(open_images(root), load_extractor("random-conv"))
    features.save(made / "f.safetensors")
    write_statistics(made / "m.npz", np.zeros(4), np.eye(4))
    np.save(made / "f.npy", features.features.numpy())
    write_report(compare(root, root, extractor="random-conv", permutations=0, metrics=("kid",)), made / "report")
    (made / "b.toml").write_bytes(b"confidence = 0.9\n[after.kid]\nmax = 0.05\n")
    (made / "c.json").write_text(classes(), encoding="utf-8")
    readers: dict[str, tuple[Path, Callable[[Path], object]]] = {
        "style file": (made / "s.safetensors", StyleBank.load),
        "features": (made / "f.safetensors", FeatureSet.load),
        "statistics": (made / "m.npz", read_statistics),
        "array": (made / "f.npy", read_feature_file),
        "report": (made / "report/report.json", read_report),
        "budgets": (made / "b.toml", read_budgets),
        "classes": (made / "c.json", lambda path: resolve_classes(path, None, {})),
        "network": (SHIPPED, read_network),
    }
    return {
        name: (path.read_bytes(), at(folder / f"broken{path.suffix}", read)) for name, (path, read) in readers.items()
    }


def classes() -> str:
    """Two classes of a pattern family as JSON."""
    from stylize.patterns import load_family
    from stylize.patterns.class_json import to_json

    return to_json("visual-atom", [load_family("visual-atom").sample_class(0, number) for number in range(2)])


def main() -> int:
    """Run the campaign; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rng, failures = random.Random(options.seed), 0
    signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as folder:
        found = kinds(Path(folder))
        for data, read in found.values():
            read(data)
        ceiling = _peak() + MEMORY
        each = -(-options.inputs // len(found))
        for name, (data, read) in found.items():
            outcomes = Counter(_try(read, damaged(data, rng)) for _ in range(each if len(data) < 2**20 else each // 4))
            if _peak() > ceiling:
                outcomes["too much memory"] += 1
            wrong = sum(count for outcome, count in outcomes.items() if outcome not in ("read", "refused"))
            failures += wrong
            print(f"{name:16} {sum(outcomes.values()):6} inputs  {dict(outcomes)}", flush=True)
    print(f"{failures} failures")
    return int(failures > 0)


def _try(read: Reader, data: bytes) -> str:
    signal.alarm(SECONDS)
    try:
        read(data)
    except (ImageError, InputError) as error:
        return "refused" if "\n" not in str(error) else "several lines"
    except Exception as error:
        traceback.print_exc(limit=-3)
        return type(error).__name__
    finally:
        signal.alarm(0)
    return "read"


def _too_long(number: int, frame: Any) -> None:
    raise TimeoutError(f"longer than {SECONDS} s")


def _peak() -> float:
    """The most memory that this process has had so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    sys.exit(main())
