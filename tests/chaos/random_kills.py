"""Random kills of every long command, and two runs at once: the same command must end with the same bytes.

    python tests/chaos/random_kills.py [--minutes 12] [--seed 0]

Each command runs once undisturbed. Then it is started again and again in a session of its own, and killed at a random
moment by a random signal, or one of its workers is, until a run comes to its end; its files are compared with those of
the undisturbed run. Prints a row per command; ends with 1 if a byte differs, a process or temporary file stays behind,
or a traceback shows.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

AT_ONCE = 2  # commands that are disturbed at a time
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
VOLATILE = ("lock",)  # names of files that may stay or not: they hold nothing
PROGRAM = "import sys; sys.argv[0] = {name!r}; from {module} import main; main()"
MODULES = {"stylize": "stylize.commands.main", "domain-gap": "metrics.commands.main"}


@dataclass
class Tally:
    """What happened to one command."""

    name: str
    kills: int = 0
    ends: int = 0
    differing: int = 0
    left: int = 0
    tracebacks: int = 0

    def __str__(self) -> str:
        return (
            f"{self.name:10} {self.kills:4} kills {self.ends:4} ends {self.differing:3} differing files "
            f"{self.left:3} left behind {self.tracebacks:3} tracebacks"
        )


def images(root: Path, count: int, side: int, first: int = 0) -> Path:
    """Smooth random images in two class folders."""
    for number in range(count):
        rng = np.random.default_rng(first + number)
        path = root / "ab"[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side)).save(path)
    return root


def commands(data: Path) -> dict[str, list[str]]:
    """Every long command by name, on inputs below ``data``; ``{out}`` is what it fills."""
    photos, contents = images(data / "photos", 12, 96, 100), images(data / "set", 96, 64)
    style = str(data / "style.safetensors")
    start(["stylize", "learn", str(photos), style, "--crops", "2", "--size", "64"], data / "cache").wait()
    warm = ["stylize", "render", "visual-atom", str(data / "warm"), "--classes", "1", "--per-class", "1"]
    start(warm, data / "cache").wait()  # compiles, which takes longer than the work
    lines = f"""
        render    stylize render visual-atom {{out}} --classes 4 --per-class 64 --size 32 --workers 2
        learn     stylize learn {photos} {{out}}/s.safetensors --crops 8 --size 128
        apply     stylize apply {style} {contents}-many {{out}} --workers 2
        compare   domain-gap compare {contents} {photos} -o {{out}} --extractor random-conv
        stats     domain-gap stats {contents} -o {{out}}/f.safetensors --extractor random-conv
        audit     domain-gap audit {contents} {photos} -o {{out}} --images 8
        tune      stylize tune {photos} {contents} {{out}} --trials 3 --images 20 --extractor random-conv
        train     stylize train {photos} {contents} {{out}}/n.safetensors --steps 3 --size 32 --batch 2
        generate  stylize generate {{out}} --classes {contents} --per-class 4 --steps 2
    """
    return {name: words for name, *words in map(str.split, lines.strip().splitlines())}


def start(words: list[str], cache: Path) -> subprocess.Popen[str]:
    """The command in a session of its own."""
    program = PROGRAM.format(name=words[0], module=MODULES[words[0]])
    environment = {**os.environ, "REVERSE_STYLIZE_CACHE": str(cache), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", program, *words[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )


def alive(session: int) -> list[str]:
    """Processes of a session that are no zombies, ten seconds later at most."""
    for _ in range(100):
        shown = subprocess.run(
            ["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True, text=True, check=False
        )
        left = [line for line in shown.stdout.splitlines() if "Z" not in line]
        if not left:
            return []
        time.sleep(0.1)
    return left


def workers_of(parent: int) -> list[int]:
    """The processes that a run has started to share its work."""
    shown = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in shown.stdout.splitlines() if "spawn_main" in line]


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder that may not vary; pages name the folder itself."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name.strip(".") not in VOLATILE)
    here = str(root).encode()
    return {path.relative_to(root).as_posix(): path.read_bytes().replace(here, b"OUT") for path in files}


def same(found: dict[str, bytes], expected: dict[str, bytes]) -> int:
    """How many files differ; of an Optuna study, whose file holds times, only that it is there counts."""
    names = found.keys() | expected.keys()
    varies = {name for name in names if name.endswith(".sqlite3")}
    return sum(found.get(name) != expected.get(name) for name in names - varies)


def disturb(name: str, words: list[str], data: Path, seconds: float, most: int, rng: random.Random) -> Tally:
    """Kill a command again and again, until ``most`` kills or the time."""
    until = time.monotonic() + seconds
    tally, whole = Tally(name), data / f"{name}-whole"
    whole.mkdir()
    began = time.monotonic()
    _, said = (process := start([word.replace("{out}", str(whole)) for word in words], data / "cache")).communicate()
    lasts = time.monotonic() - began
    assert process.returncode == 0, said
    expected, out = tree(whole), data / f"{name}-out"
    cache = data / ("cache" if words[0] == "stylize" else f"cache-{name}")  # features are computed anew
    while tally.kills < most and time.monotonic() < until:
        out.mkdir(exist_ok=True)
        process = start([word.replace("{out}", str(out)) for word in words], cache)
        try:
            _, said = process.communicate(timeout=rng.uniform(0.3, 1.1) * lasts)
            tally.ends += 1
            tally.differing += process.returncode != 0 or same(tree(out), expected)
            tally.left += sum(path.name.endswith(".part.tmp") for path in out.rglob("*"))
            subprocess.run(["rm", "-rf", str(out)], check=True)
        except subprocess.TimeoutExpired:
            number = rng.choice(SIGNALS)
            workers = workers_of(process.pid)
            one_worker = bool(workers) and rng.random() < 0.3
            os.kill(rng.choice(workers) if one_worker else process.pid, signal.SIGKILL if one_worker else number)
            _, said = process.communicate()
            tally.kills += 1
            tally.differing += one_worker and process.returncode not in (0, 2)
            if one_worker or number != signal.SIGKILL:
                tally.left += sum(path.name.endswith(".part.tmp") for path in out.rglob("*"))
        tally.left += len(alive(process.pid))
        if "Traceback" in said:
            tally.tracebacks += 1
            print(said, file=sys.stderr)
    return tally


def at_once(name: str, words: list[str], data: Path) -> Tally:
    """Two runs of one command: both end with the same bytes, or one is refused in one line."""
    tally, out = Tally(f"2 {name}"), data / f"{name}-twice"
    out.mkdir()
    both = [start([word.replace("{out}", str(out)) for word in words], data / "cache") for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    tally.ends = sum(process.returncode == 0 for process in both)
    tally.tracebacks = sum("Traceback" in text for text in said)
    tally.differing = (tally.ends == 0) + same(tree(out), tree(data / f"{name}-whole"))
    tally.left = sum(len(alive(process.pid)) for process in both)
    return tally


def main() -> int:
    """Run the campaign; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--kills", type=int, default=16, help="of each command at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tallies: list[Tally] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        data = Path(folder)
        given = commands(data)
        images(data / "set-many", 300, 96, 500)
        share = 60 * options.minutes * AT_ONCE / len(given)

        def campaign(name: str) -> tuple[Tally, Tally]:
            rng = random.Random(f"{options.seed} {name}")
            return disturb(name, given[name], data, share, options.kills, rng), at_once(name, given[name], data)

        for pair in pool.map(campaign, given):
            tallies += pair
            print(*pair, sep="\n", flush=True)
    total = Tally("all", *(sum(getattr(one, field) for one in tallies) for field in list(vars(tallies[0]))[1:]))
    print(total)
    return int(total.differing + total.left + total.tracebacks > 0)


if __name__ == "__main__":
    sys.exit(main())
