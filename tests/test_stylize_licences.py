"""What the commands say about licences, and write beside their results."""

import json

import pytest
from typer.testing import CliRunner

from metrics.errors import InputError
from metrics.image_sets.decode import sha256
from stylize.commands.main import app
from stylize.styles.bank import StyleBank, learn

SMALL = ["--method", "colour", "--size", "32", "--crops", "1"]


@pytest.fixture
def photos(folder, picture):
    root = folder("photos", {f"{name}.png": picture(i, 48, 48) for i, name in enumerate(("free", "shared", "silent"))})
    (root / "free.png.license").write_text("SPDX-License-Identifier: CC0-1.0\n", encoding="utf-8")
    (root / "shared.png.license").write_text("SPDX-License-Identifier: CC-BY-NC-SA-4.0\n", encoding="utf-8")
    return root


def run(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exit_code == 0
    return done


def test_a_photo_without_a_licence_stands_in_the_ledger_of_results(photos, folder, picture, tmp_path):
    style, out = tmp_path / "s.safetensors", tmp_path / "out"
    said = run("learn", photos, style, *SMALL).stderr
    assert (
        said.count("CC-BY-NC-SA-4.0") == 1 and "NC: no commercial use" in said and "no licence entry for silent" in said
    )
    run("apply", style, folder("synthetic", {"a.png": picture(9)}), out, "--method", "colour", "--workers", "1")
    rows = {row["file"]: row for row in json.loads((out / "ledger.json").read_text(encoding="utf-8"))["images"]}
    assert {file: row["licence"] for file, row in rows.items()} == {
        "free.png": "CC0-1.0",
        "shared.png": "CC-BY-NC-SA-4.0",
        "silent.png": "NOASSERTION",
    }
    assert all(row["sha256"] == sha256(photos / file) for file, row in rows.items())


def test_only_photos_under_allowed_licences_are_learnt_from(photos, tmp_path):
    style = tmp_path / "s.safetensors"
    with pytest.raises(InputError, match=r"2 of 3 photos are not under CC0-1\.0: shared \(CC-BY-NC-SA-4\.0\), silent"):
        run("learn", photos, style, *SMALL, "--allow", "cc0-1.0")
    with pytest.raises(InputError, match="unknown licence ''"):
        run("learn", photos, style, *SMALL, "--allow", "")
    assert not style.exists()
    (photos / "silent.png").unlink()
    run("learn", photos, style, *SMALL, "--allow", "CC0-1.0,CC-BY-NC-SA-4.0")
    assert len(StyleBank.load(style)) == 2


def test_a_style_file_of_an_earlier_version_still_names_its_photos(photos, folder, picture, tmp_path):
    bank = learn(photos, methods=["colour"], crops=1, size=32)
    del bank.header["unasserted"]
    bank.save(tmp_path / "s.safetensors")
    out = tmp_path / "out"
    run(
        "apply",
        tmp_path / "s.safetensors",
        folder("x", {"a.png": picture(9)}),
        out,
        "--method",
        "colour",
        "--workers",
        "1",
    )
    rows = json.loads((out / "ledger.json").read_text(encoding="utf-8"))["images"]
    assert {"file": "silent", "licence": "NOASSERTION", "sha256": ""} in rows


@pytest.mark.parametrize("rows", [["text"], [{}], [3]])
def test_a_header_without_a_ledger_is_refused(photos, tmp_path, rows):
    bank = learn(photos, methods=["colour"], crops=1, size=32)
    bank.header["unasserted"] = rows
    bank.save(tmp_path / "s.safetensors")
    with pytest.raises(InputError, match="'unasserted' is no ledger"):
        StyleBank.load(tmp_path / "s.safetensors")
