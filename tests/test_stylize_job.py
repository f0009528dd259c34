import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from metrics.errors import InputError
from stylize.engines import local as processes
from stylize.engines.local import in_parallel
from stylize.writing.job import Failure, Image, Job

KEYS = [f"k{i}" for i in range(10)]
CONFIG = {"command": "test", "strength": 1.0}


def work(keys):
    for key in keys:
        yield Image(key, f"sub/{key}.bin", key.encode() * 100, {"label": key[-1]})


def work_with_failures(keys):
    for key in keys:
        yield Failure(key, "broken") if key in ("k3", "k7") else next(iter(work([key])))


def tree(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def complete(out, task=work, config=CONFIG, **options):
    with Job(out, config) as started:
        return list(started.run(task, KEYS, **options))


def test_a_finished_folder_holds_images_metadata_and_configuration(tmp_path):
    steps = complete(tmp_path / "out", shard_size=4)
    assert [step.done for step in steps] == [0, 4, 8, 10] and steps[-1].total == 10
    found = tree(tmp_path / "out")
    assert sorted(found) == sorted([f"sub/{key}.bin" for key in KEYS] + ["metadata.jsonl", "run.json"])
    rows = [json.loads(line) for line in found["metadata.jsonl"].splitlines()]
    assert rows[0] == {"file_name": "sub/k0.bin", "label": "0"} and len(rows) == 10
    assert json.loads(found["run.json"])["config"] == CONFIG


@pytest.fixture(autouse=True)
def _processes_for_little_work(monkeypatch):
    monkeypatch.setattr(processes, "SHARDS_PER_WORKER", 1)


@pytest.mark.parametrize("options", [{"workers": 4, "shard_size": 3}, {"shard_size": 1}, {"shard_size": 100}])
def test_workers_and_shard_size_change_no_byte(options, tmp_path):
    complete(tmp_path / "a", work_with_failures)
    complete(tmp_path / "b", work_with_failures, **options)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def work_on_numbers(numbers):
    assert len(numbers) <= 3
    yield from work(f"k{number}" for number in numbers)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_task_gets_the_values_of_a_mapping_shard_by_shard(workers, tmp_path):
    complete(tmp_path / "a")
    with Job(tmp_path / "b", CONFIG) as started:
        list(started.run(work_on_numbers, {key: int(key[1:]) for key in KEYS}, workers=workers, shard_size=3))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_the_same_command_again_does_nothing(tmp_path):
    complete(tmp_path / "out")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    (step,) = complete(tmp_path / "out")
    assert step.done == step.total and step.failed == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}


def test_an_interrupted_run_continues_with_the_missing_shards(tmp_path):
    complete(tmp_path / "whole", shard_size=2)
    seen = []

    def stops(keys):
        seen.extend(keys)
        if "k6" in keys:
            raise KeyboardInterrupt
        return work(keys)

    with pytest.raises(KeyboardInterrupt):
        complete(tmp_path / "out", stops, shard_size=2)
    done_before = list(seen)
    steps = complete(tmp_path / "out", lambda keys: (seen.extend(keys), work(keys))[1], shard_size=2)
    assert steps[0].done == 6
    assert seen[len(done_before) :] == ["k6", "k7", "k8", "k9"]
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_failures_are_listed_and_counted(tmp_path):
    steps = complete(tmp_path / "out", work_with_failures)
    assert (steps[-1].done, steps[-1].failed) == (8, 2)
    rows = [json.loads(line) for line in (tmp_path / "out/errors.jsonl").read_text().splitlines()]
    assert rows == [{"key": "k3", "error": "broken"}, {"key": "k7", "error": "broken"}]
    assert json.loads((tmp_path / "out/run.json").read_text())["errors"] == 2


def test_too_many_failures_stop_the_run_and_keep_its_work(tmp_path):
    with pytest.raises(InputError, match=r"2 items failed \(at most 1 allowed\); the first: k3: broken"):
        complete(tmp_path / "out", work_with_failures, shard_size=2, max_errors=1)
    with pytest.raises(InputError, match=r"2 items failed"):  # the same command again gets no further
        complete(tmp_path / "out", work_with_failures, shard_size=2, max_errors=1)
    assert complete(tmp_path / "out", work_with_failures, shard_size=2)[-1].done == 8


def test_a_run_without_any_result_is_an_error(tmp_path):
    with pytest.raises(InputError, match="the first: k0: no"):
        complete(tmp_path / "out", lambda keys: [Failure(key, "no") for key in keys])
    assert not (tmp_path / "out/run.json").exists()


def test_another_configuration_is_refused_and_named(tmp_path):
    complete(tmp_path / "done")
    with pytest.raises(InputError, match=r"finished run with strength = 1.0, and this command says strength = 0.5"):
        complete(tmp_path / "done", config={**CONFIG, "strength": 0.5})
    with pytest.raises(KeyboardInterrupt):
        complete(tmp_path / "half", lambda keys: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(InputError, match=r"unfinished run with strength = 1.0"):
        complete(tmp_path / "half", config={**CONFIG, "strength": 0.5})


def test_a_finished_run_with_missing_images_is_not_called_complete(tmp_path):
    complete(tmp_path / "out")
    (tmp_path / "out/sub/k4.bin").unlink()
    with pytest.raises(InputError, match=r"1 of its files are gone, e\.g\. sub/k4\.bin"):
        complete(tmp_path / "out")


def test_notes_are_recorded_and_may_differ(tmp_path):
    for spelling in ("a", "./a"):
        with Job(tmp_path / "out", CONFIG, {"synthetic": spelling}) as started:
            list(started.run(work, KEYS))
    assert json.loads((tmp_path / "out/run.json").read_text())["synthetic"] == "a"


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        complete(tmp_path / "out")
    assert tree(tmp_path / "out") == {"precious.txt": b"mine"}
    with pytest.raises(InputError, match="is a file"):
        complete(tmp_path / "out/precious.txt")
    (tmp_path / "out/precious.txt").unlink()
    (tmp_path / "out/run.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="not written by this command"):
        complete(tmp_path / "out")


def test_two_runs_cannot_share_a_folder(tmp_path):
    with Job(tmp_path / "out", CONFIG), pytest.raises(InputError, match="another process"):
        complete(tmp_path / "out")


def test_remember_computes_once_per_run(tmp_path):
    calls = []
    for _ in range(2):
        with Job(tmp_path / "out", CONFIG) as started:
            assert started.remember("plan", lambda: calls.append(1) or {"a": 1}) == {"a": 1}
    assert calls == [1]


def test_parallel_results_and_errors():
    assert sorted(in_parallel(abs, [-3, 1, -2], 2)) == [1, 2, 3]
    with pytest.raises(TypeError):
        list(in_parallel(abs, ["x", 1], 2))


@pytest.mark.slow
def test_kill_nine_in_the_middle_changes_no_byte(tmp_path):
    """A process tree killed with SIGKILL leaves no worker behind, and the same command finishes the same bytes."""
    script = tmp_path / "slow.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            from stylize.writing.job import Image, Job
            def task(keys):
                for key in keys:
                    time.sleep(0.05)
                    yield Image(key, f"sub/{key}.bin", key.encode() * 100, {"label": key[-1]})
            if __name__ == "__main__":
                with Job(sys.argv[1], {"command": "test", "strength": 1.0}) as job:
                    for step in job.run(task, [f"k{i}" for i in range(40)], workers=2, shard_size=2):
                        print(step.done, flush=True)
            """
        )
    )
    command = [sys.executable, str(script)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    with subprocess.Popen([*command, str(tmp_path / "out")], stdout=subprocess.PIPE, start_new_session=True) as process:
        while int(process.stdout.readline()) < 4:
            pass
        os.kill(process.pid, signal.SIGKILL)
    left = _wait_for_end(process.pid)
    assert not left, f"workers outlived their parent: {left}"
    markers = len(list((tmp_path / "out/.job").glob("*.json"))) - 1
    assert 2 <= markers < 20
    (tmp_path / "out/sub/.123.part.tmp").write_bytes(b"half a file")
    subprocess.run([*command, str(tmp_path / "out")], check=True, capture_output=True)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def _wait_for_end(session, seconds=10):
    """Processes of the session that are still alive after a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True).stdout.split()
        if not alive:
            return []
        time.sleep(0.1)
    return alive


def test_too_many_failures_stop_the_run_within_a_shard(tmp_path):
    seen = []

    def work(keys):
        for key in keys:
            seen.append(key)
            yield Failure(key, "broken") if key in ("k1", "k3") else Image(key, f"{key}.bin", b"x", {})

    keys = [f"k{n}" for n in range(20)]
    with pytest.raises(InputError, match=r"2 items failed \(at most 1"), Job(tmp_path / "out", {"a": 1}) as job:
        list(job.run(work, keys, max_errors=1))
    assert seen == keys[:4]
    with Job(tmp_path / "out", {"a": 1}) as job:
        assert list(job.run(work, keys, max_errors=2))[-1].done == 18
