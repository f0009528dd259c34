"""The files of a report: whole or not at all."""

import os
import stat

import pytest
from gap_reports import report

from metrics.comparison.gap_report import Example
from metrics.errors import InputError
from metrics.report import from_json, to_html, to_json, to_markdown, write_report


def test_three_files_are_written_with_common_permissions(tmp_path):
    folder = tmp_path / "new" / "folder"
    write_report(report(), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json", "report.md"]
    assert from_json((folder / "report.json").read_text(encoding="utf-8")) == report()
    assert (folder / "report.md").read_text(encoding="utf-8") == to_markdown(report())
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE((folder / "report.html").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_report_that_fails_leaves_the_old_one_whole(tmp_path, monkeypatch):
    write_report(report(), tmp_path)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        write_report(report(config={"bad": object()}, closed=None), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        write_report(report(closed=None), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(report(), tmp_path / "file")


def test_file_names_that_are_not_unicode_can_be_written(tmp_path):
    write_report(report(examples=(Example("a\udcff", None, None, None, "b\udcfe"),)), tmp_path)
    assert "a\\udcff" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_photos_without_a_licence_are_named():
    named = report(unlicensed=("holiday<1>",))
    assert "Real images without a licence entry (1)" in to_markdown(named)
    assert "<code>holiday&lt;1&gt;</code>" in to_html(named)
    assert from_json(to_json(named)) == named
