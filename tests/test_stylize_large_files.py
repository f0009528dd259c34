"""Files of strangers that say they are huge: refused by their header, before anything of that size is allocated."""

import json
import struct
import subprocess
import sys

import pytest

from metrics.errors import InputError
from stylize.styles import style_file
from stylize.styles.bank import StyleBank, learn

FEW = ["colour"]


def inflate(path, shapes, metadata):
    """A sparse safetensors file of zeros with these float64 shapes; takes no room on the disk."""
    entries, end = {"__metadata__": metadata}, 0
    for name, (dtype, size, shape) in shapes.items():
        count = size
        for side in shape:
            count *= side
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + count]}
        end += count
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)


def colour_file(path, sources, styles):
    held = {name: [] for name in ("licences", "unlicensed")}
    header = {**held, "skipped": {}, "seed": 0, "crops": 1, "size": 32, "sources": [{}] * sources, "version": 1}
    shapes = {
        "colour/mean": ("F64", 8, (styles, 3)),
        "colour/covariance": ("F64", 8, (styles, 3, 3)),
        "descriptors": ("F32", 4, (styles, 756)),
    }
    inflate(path, shapes, {style_file.FORMAT: json.dumps(header)})


PEAK = """
import resource, sys
from pathlib import Path
from metrics.errors import InputError
from stylize.styles.bank import StyleBank
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    StyleBank.load(Path(sys.argv[1]))
except InputError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_a_style_file_of_styles_that_it_does_not_name_costs_nothing(tmp_path):
    colour_file(tmp_path / "s.safetensors", 2, 500_000)  # 1.6 GB
    command = [sys.executable, "-c", PEAK, str(tmp_path / "s.safetensors")]
    error, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "no torch.float64 tensor 'colour/mean' of shape [2, 3]" in error
    assert int(grown) < 100_000  # KiB


def test_a_style_file_larger_than_a_worker_can_hold_is_not_even_opened(tmp_path):
    colour_file(tmp_path / "s.safetensors", 2, 10**9)
    with pytest.raises(InputError, match=r"its styles take 2905\.7 GiB, at most 2 GiB expected"):
        StyleBank.load(tmp_path / "s.safetensors")


def test_a_style_file_with_more_than_a_worker_can_hold_is_refused(tmp_path, monkeypatch):
    colour_file(tmp_path / "s.safetensors", 1000, 1000)
    monkeypatch.setattr(style_file, "MAX_BYTES", 2**20)
    with pytest.raises(InputError, match=r"its styles take 0\.0 GiB, at most .* expected\. Learn from fewer photos"):
        StyleBank.load(tmp_path / "s.safetensors")


def test_more_crops_than_a_style_file_may_hold_are_refused_before_any_work(folder, picture):
    photos = folder("photos", {"a.png": picture()})
    with pytest.raises(InputError, match=r"photos: its styles take .* GiB, at most 2 GiB expected\. .*fewer --crops"):
        learn(photos, methods=FEW, crops=10**9)


@pytest.mark.parametrize(
    "shapes", [{"<s>": (2000, 768)}, {"<s>": (2, 2, 2)}, {"<s>": ()}, {"<s>": (1, 4), "<t>": (1, 4)}]
)
def test_an_embedding_is_one_small_tensor(tmp_path, shapes):
    from stylize.diffusion.placeholder import read_embedding

    path = tmp_path / "e.safetensors"
    inflate(path, {name: ("F32", 4, shape) for name, shape in shapes.items()}, {"format": "pt"})
    with pytest.raises(
        InputError, match=rf"holds {len(shapes)} tensors \(.*Expected one \[vectors, hidden\] of at most"
    ):
        read_embedding(path)


def test_an_embedding_of_terabytes_is_not_even_opened(tmp_path):
    from stylize.diffusion.placeholder import read_embedding

    path = tmp_path / "e.safetensors"
    inflate(path, {"<s>": ("F32", 4, (10**9, 768))}, {"format": "pt"})
    with pytest.raises(InputError, match="bytes, far more than any embedding has"):
        read_embedding(path)
