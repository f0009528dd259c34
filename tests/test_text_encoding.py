"""Text files are UTF-8 whatever the locale says: nothing that reads or writes text leaves the encoding to it."""

import ast
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metrics.files import name_of, path_text
from metrics.image_sets.decode import ImageError
from metrics.image_sets.open import read_location

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path for top in ("stylize", "metrics", "examples", "benchmarks", "assets") for path in (ROOT / top).rglob("*.py")
)
OTHERS = {"Image", "tarfile", "zipfile", "gzip"}  # whose open() reads no text


def unspecified(source):
    """Lines of calls that open, read or write text without an encoding; ruff sees those of known types only."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = getattr(getattr(function, "value", None), "id", "")
        texts = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        text_mode = owner not in OTHERS and (not node.args or any(mode in {"r", "w", "a", "x"} for mode in texts))
        if (name == "read_text" and not node.args) or name == "write_text" or (name == "open" and text_mode):
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("call", ["p.read_text()", "p.write_text(x)", "p.open('a')", "open(p, 'w')", "p.open()"])
def test_the_check_sees_what_leaves_it_to_the_locale(call):
    assert unspecified(call) == [1]
    assert unspecified(f"{call[:-1]}{'' if call.endswith('()') else ', '}encoding='utf-8')") == []


def test_every_text_file_is_utf8():
    sealed = {"stylize/tuning/report.py": 1, "metrics/features/array_file.py": 1}  # images, and bytes of a zip
    found = {str(path.relative_to(ROOT)): unspecified(path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: lines for name, lines in found.items() if len(lines) > sealed.get(name, 0)} == {}


LOCALES = {"utf8": {"LC_ALL": "C.UTF-8"}, "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}}
PROGRAM = """
import json, sys
from metrics.files import path_text
from metrics.image_sets.open import open_images, read_location
from metrics.image_sets.ledger import licences
rows = []
for root in sys.argv[1:]:
    images = open_images(root)
    found = licences(images)
    rows.append([path_text(images.root), list(found.rows), list(found.unlicensed)])
    for item in images:
        rows.append([item.key, item.location, read_location(item.location).shape[0]])
print(json.dumps(rows))
"""


def test_paths_are_written_and_licences_found_alike_in_every_locale(tmp_path):
    root, packed = tmp_path / "ü", tmp_path / "ö.zip"
    (root / "日本").mkdir(parents=True)
    Image.fromarray(np.full((16, 16, 3), 9, np.uint8)).save(root / "日本/é.png")
    digest = hashlib.sha256((root / "日本/é.png").read_bytes()).hexdigest()
    row = {"file": "日本/é.png", "author": "me", "licence": "CC0-1.0", "source": "own", "title": "t", "sha256": digest}
    (root / "ledger.json").write_text(json.dumps({"schema": 1, "images": [row]}), encoding="utf-8")
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("日本/é.png", "ledger.json"):
            archive.write(root / name, name)
    shown = []
    for variables in LOCALES.values():
        words = [sys.executable, "-c", PROGRAM, root, packed]
        run = subprocess.run(words, env={**os.environ, **variables}, capture_output=True, check=False)
        assert run.returncode == 0, run.stderr
        shown.append(json.loads(run.stdout))
    assert shown[0] == shown[1]
    for place, location in ((root, f"{root}/日本/é.png"), (packed, f"{packed}::日本/é.png")):
        (name, rows, unlicensed), image, *shown[0] = shown[0]
        assert name == str(place) and len(rows) == 1 and not unlicensed
        assert image == ["日本/é", location, 16]


@pytest.mark.parametrize("name", ["é", "\udce9.png", "\ud800"])
def test_names_of_any_bytes_go_there_and_back(name):
    if name != "\ud800":  # half of a pair names no file
        assert path_text(Path(name_of(name))) == name
    with pytest.raises(ImageError):
        read_location(name)
