"""Stopping: within the item at hand, with the exit code of the signal, nothing left behind, and the work continues."""

import builtins
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from metrics.errors import InputError
from metrics.files import TEMPORARY, write_atomically
from metrics.image_sets.items import ImageSet
from stylize.engines import local as processes
from stylize.engines.local import in_parallel
from stylize.writing.job import Failure, Image, Job

SCRIPT = """
import sys, time
from metrics.errors import InputError
from metrics.commands.terminal import run
from stylize.commands.progress import finish
from stylize.writing.job import Failure, Image, Job
from pathlib import Path
import typer
app = typer.Typer()
def task(keys):
    for key in keys:
        time.sleep({seconds})
        yield Failure(key, "broken") if {fail} else Image(key, f"sub/{{key}}.bin", key.encode() * 100, {{}})
@app.command()
def main(out: Path):
    with Job(out, {{"command": "test"}}) as job:
        def steps():
            for step in job.run(task, [f"k{{i}}" for i in range(64)], workers=2, shard_size=8, max_errors=3):
                print("step", step.done, step.failed, flush=True)
                yield step
        finish(steps(), "work", out)
if __name__ == "__main__":
    run(app, "test")
"""


def start(tmp_path, out, seconds=0.2, fail="False"):
    script = tmp_path / "work.py"
    script.write_text(textwrap.dedent(SCRIPT).format(seconds=seconds, fail=fail), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(script), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def alive(session):
    """Processes of the session that are no zombies, a few seconds later: interpreters take a moment to end."""
    command = ["ps", "-o", "pid=,stat=", "-s", str(session)]
    for _ in range(50):
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        left = [line for line in found.splitlines() if " Z" not in line]
        if not left:
            return []
        time.sleep(0.1)
    return left


def tree(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("number", "whole_group"),
    [
        (signal.SIGINT, True),
        (signal.SIGTERM, False),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.slow),
        (signal.SIGHUP, True),
    ],
)
def test_a_signal_ends_the_run_within_the_item_at_hand(tmp_path, number, whole_group):
    process = start(tmp_path, tmp_path / "out")
    while process.stdout.readline().strip() == "step 0 0":
        pass
    sent = time.monotonic()
    os.killpg(process.pid, number) if whole_group else os.kill(process.pid, number)
    _, stderr = process.communicate(timeout=20)
    assert time.monotonic() - sent < 4  # a shard takes 1.6 s, the run 6.4 s
    assert process.returncode == 128 + number
    assert stderr.strip() == "test: interrupted. What is finished is kept: repeat the command to go on."
    assert not alive(process.pid)
    assert not list((tmp_path / "out").rglob(f"*{TEMPORARY}"))
    assert not (tmp_path / "out/run.json").exists()
    again = start(tmp_path, tmp_path / "out", seconds=0)
    assert again.communicate(timeout=60) and again.returncode == 0
    whole = start(tmp_path, tmp_path / "whole", seconds=0)
    assert whole.communicate(timeout=60) and whole.returncode == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_too_many_errors_end_the_run_at_once(tmp_path):
    process = start(tmp_path, tmp_path / "out", fail="True")
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "4 items failed (at most 3 allowed)" in stderr
    markers = len(list((tmp_path / "out/.job").glob("*.json"))) - 1
    assert markers <= 2, "other shards went on after the limit"
    assert not alive(process.pid)


def test_a_killed_worker_is_one_line(tmp_path):
    process = start(tmp_path, tmp_path / "out")
    while process.stdout.readline().strip() == "step 0 0":
        pass
    listed = ["ps", "-ww", "-o", "pid=,args=", "-s", str(process.pid)]
    found = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    worker = next(int(line.split()[0]) for line in found if "spawn_main" in line)
    os.kill(worker, signal.SIGKILL)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 2
    assert stderr.startswith("test: a worker process died: killed, perhaps for want of memory, or started by a script")
    assert stderr.endswith("repeat the command with fewer workers, such as --workers 1.\n") and stderr.count("\n") == 1
    assert not alive(process.pid)


def sleepy(seconds):
    time.sleep(seconds)
    return seconds


def test_a_worker_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(processes, "SHARDS_PER_WORKER", 1)
    monkeypatch.setattr(processes, "GRACE", 0.2)
    results = in_parallel(sleepy, [0, 60], 2)
    assert next(results) == 0
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 5


class Heavy:
    """What takes long to be taken down when the interpreter ends, like torch."""

    def __del__(self):
        time.sleep(60)


def load(argument):
    builtins.heavy = getattr(builtins, "heavy", None) or Heavy()


def test_a_worker_ends_at_once_whatever_it_has_loaded(monkeypatch):
    monkeypatch.setattr(processes, "SHARDS_PER_WORKER", 1)
    monkeypatch.setattr(processes, "GRACE", 60)
    results = in_parallel(load, range(2), 2)
    assert [next(results), next(results)] == [None, None]
    start = time.monotonic()
    assert next(results, "no more") == "no more"
    assert time.monotonic() - start < 30


def unguarded(tmp_path, workers):
    script = tmp_path / "unguarded.py"
    script.write_text(
        f"from stylize.engines.local import in_parallel\nprint(list(in_parallel(abs, range(64), {workers})))\n",
        encoding="utf-8",
    )
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)


def test_a_script_without_guard_is_told_so(tmp_path):
    run = unguarded(tmp_path, 2)
    assert run.returncode == 1 and "if __name__ == '__main__'" in run.stderr.splitlines()[-1]
    assert unguarded(tmp_path, 1).returncode == 0


def no_room(keys):
    for key in keys:
        yield Image(key, f"{key}.bin", b"x", {})


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "out/a.bin"

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as caught:
            write_atomically(path, b"x")
        assert caught.value.filename == str(path) and not list(path.parent.iterdir())
        with pytest.raises(OSError, match="No space left"), Job(tmp_path / "job", {}) as job:
            list(job.run(no_room, ["a"]))
    assert not list((tmp_path / "job").rglob(f"*{TEMPORARY}"))
    with Job(tmp_path / "job", {}) as job:
        list(job.run(no_room, ["a"]))
    assert (tmp_path / "job/a.bin").read_bytes() == b"x"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(disk)], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        program = "from stylize.commands.main import main; main()"
        command = [sys.executable, "-c", program, "render", "visual-atom", str(disk / "out"), "--classes", "2"]
        run = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, check=False)
        assert run.returncode == 2
        (line,) = run.stderr.strip().splitlines()
        assert str(disk / "out") in line and "No space left on device" in line
        assert not list(disk.rglob(f"*{TEMPORARY}"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_lock_that_another_holds(tmp_path):
    with (
        Job(tmp_path / "out", {}),
        pytest.raises(InputError, match="another process is at work in it"),
        Job(tmp_path / "out", {}),
    ):
        pass


def broken(keys):
    for key in keys:
        yield Failure(key, "broken")


def test_losses_count_towards_too_many_errors_before_work(tmp_path):
    images = ImageSet(Path("set"), [], [("a.png", "gone")] * 4, ["a note"])
    with pytest.raises(InputError, match="4 items failed"), Job(tmp_path / "out", {}, images=images) as job:
        list(job.run(broken, ["a"], max_errors=3))
