"""Every command in places where something is missing: a home, room, permission, streams, shared memory, a locale.

    python tests/chaos/places.py [--only PLACE,COMMAND]

Each command runs once undisturbed. In every place it must then end with one of that place's exit codes, in one line
where that is 2, with the same bytes where it is 0, and with nothing half written; where it was refused, the same
command in a place without faults must continue to the same bytes. Prints a row per place; ends with 1 if anything else
happens. Places that take mounts or capabilities need root on Linux, and are skipped otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from random_kills import MODULES, PROGRAM, images, same, tree

NAMELESS = 12345  # a user id without a name or a home
RUN = 'exec "$@"'
MOUNTS = f"mount --make-rprivate / && {{}} && {RUN}"
AS_OWNER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")  # root obeys permissions as others do
AS_NAMELESS = (
    *("setpriv", f"--reuid={NAMELESS}", f"--regid={NAMELESS}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),  # as the interpreter may lie in root's home
)


@dataclass(frozen=True)
class Place:
    """Where a command runs: a line of bash, what starts it, variables (None: not set), and what may come of it."""

    shell: str = RUN
    before: tuple[str, ...] = ()
    variables: tuple[tuple[str, str | None], ...] = ()
    codes: tuple[int, ...] = (0,)

    @property
    def root(self) -> bool:
        """Whether only root can make it."""
        return bool(self.before)


def mounted(line: str, *codes: int) -> Place:
    """A place of mounts that nobody else sees."""
    return Place(MOUNTS.format(line), ("unshare", "-m"), codes=codes or (0,))


EITHER = (0, 2)
PLACES = {
    "odd variables": Place(
        variables=(
            *(("HOME", "/proc/none"), ("PYTHONWARNINGS", "error"), ("PYTHONOPTIMIZE", "2")),
            *(("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")),
        )
    ),
    "no name, no home": Place(before=AS_NAMELESS, variables=(("HOME", None),)),
    "read-only system": mounted('export TMPDIR=/dev/shm && mount --bind "$OUT" "$OUT" && mount -o remount,bind,ro /'),
    "read-only out": mounted('mount --bind "$OUT" "$OUT" && mount -o remount,bind,ro "$OUT"', 2),
    "full disk": mounted('mount -t tmpfs -o size=4k none "$OUT"', 2),
    "full home": mounted('mkdir -p "$HOME" && mount -t tmpfs -o size=4k none "$HOME"'),
    "no shared memory": mounted("mount -t tmpfs -o ro none /dev/shm", *EITHER),
    "out of another": Place(f'chmod 555 "$OUT" && {RUN}', AS_OWNER, codes=(2,)),
    "closed out": Place(f'chmod 000 "$OUT" && {RUN}', AS_OWNER, codes=(2,)),
    "files of 2 kB": Place(f"ulimit -f 2 && {RUN}", codes=EITHER),
    "few open files": Place(f"ulimit -n 40 && {RUN}", codes=EITHER),
    "closed streams": Place(f"{RUN} >&- 2>&- <&-"),
    "nobody reads": Place('"$@" 2>&1 | true; exit "${PIPESTATUS[0]}"'),
    "full stdout": Place(f"{RUN} >/dev/full", codes=EITHER),
    "full stderr": Place(f"{RUN} 2>/dev/full", codes=EITHER),
    "folder that is gone": Place(f'mkdir "$OUT-here" && cd "$OUT-here" && rmdir "$OUT-here" && {RUN}', codes=EITHER),
}


def commands(data: Path) -> dict[str, list[str]]:
    """Every command by name, as small as it works; ``{out}`` is the folder that it fills."""
    photos, contents = images(data / "photos", 10, 64, 100), images(data / "set", 40, 48)
    shutil.copyfile(photos / "a/000.png", photos / "a/é.png")
    (contents / "a/002.png").rename(contents / "a/日本.png")
    style, report = data / "style.safetensors", data / "report"
    start(["stylize", "learn", str(photos), str(style), "--crops", "1", "--size", "48"], data, data, Place())
    compare = f"domain-gap compare {contents} {photos} --extractor random-conv --permutations 20"
    start([*compare.split(), "-o", str(report)], data, data, Place())
    lines = f"""
        render    stylize render visual-atom {{out}}/o --classes 2 --per-class 33 --size 48
        learn     stylize learn {photos} {{out}}/s.safetensors --crops 2 --size 48
        apply     stylize apply {style} {contents} {{out}}/o
        train     stylize train {photos} {contents} {{out}}/n.safetensors --steps 1 --size 32 --batch 2
        tune      stylize tune {photos} {contents} {{out}}/o --trials 1 --images 20 --labels 0 --copies 1 --structure 0
        compare   {compare} -o {{out}}/o
        stats     domain-gap stats {contents} -o {{out}}/f.safetensors --extractor random-conv
        audit     domain-gap audit {contents} {photos} -o {{out}}/o --images 4
        gate      domain-gap gate {report} --max kid=100 --junit {{out}}/j.xml --scalars {{out}}/m.json
        generate  stylize generate {{out}}/o --classes {contents} --per-class 1 --steps 1
    """
    return {name: words for name, *words in map(str.split, lines.strip().splitlines())}


def start(words: list[str], out: Path, data: Path, place: Place) -> subprocess.CompletedProcess[str]:
    """Run the command there, to its end."""
    program = PROGRAM.format(name=words[0], module=MODULES[words[0]])
    words = [word.replace("{out}", str(out)) for word in words]
    named: dict[str, str | None] = {
        "HOME": str(data / "home"),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH"),
        "OUT": str(out),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **dict(place.variables),
    }
    return subprocess.run(
        [*place.before, "bash", "-c", place.shell, "bash", sys.executable, "-c", program, *words[1:]],
        env={name: value for name, value in named.items() if value is not None},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=300,
    )


def faults(name: str, words: list[str], place: Place, data: Path, expected: dict[str, bytes]) -> tuple[int, list[str]]:
    """The exit code of a command in a place, and what was wrong there."""
    out = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=data))
    if place.before == AS_NAMELESS:
        os.chown(out, NAMELESS, NAMELESS)
    done = start(words, out, data, place)
    out.chmod(0o755)
    told = [line for line in done.stderr.splitlines() if line.startswith(f"{words[0]}: ")]
    wrong = [line for line in done.stderr.splitlines() if line.startswith("Traceback") or ": unexpected " in line]
    if done.returncode not in place.codes:
        wrong.append(f"exit code {done.returncode}: {done.stderr[-600:]}")
    if done.returncode == 2 and len(told) != 1 and "2>" not in place.shell:
        wrong.append(f"{len(told)} lines say why: {done.stderr[-600:]}")
    wrong += [f"left behind: {path}" for path in out.rglob("*.part.tmp")]
    if done.returncode != 0:
        again = start(words, out, data, Place())
        if again.returncode != 0:
            wrong.append(f"does not continue: {again.stderr[-600:]}")
    if same(tree(out), expected):
        wrong.append("other bytes")
    shutil.rmtree(out)
    return done.returncode, wrong


def main() -> int:
    """Run the campaign; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="places and commands, with commas")
    only, failures = set(filter(None, parser.parse_args().only.split(","))), 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        data = Path(folder)
        data.chmod(0o755)
        given = commands(data)
        given = {name: words for name, words in given.items() if name in only or not only & given.keys()}
        for name, words in given.items():
            (data / name).mkdir()
            done = start(words, data / name, data, Place())
            assert done.returncode == 0, done.stderr
        expected = {name: tree(data / name) for name in given}
        for title, place in PLACES.items():
            if only & PLACES.keys() and title not in only:
                continue
            if place.root and (sys.platform != "linux" or os.geteuid() != 0):
                print(f"{title:20} skipped: needs root on Linux")
                continue
            tasks = [pool.submit(faults, name, words, place, data, expected[name]) for name, words in given.items()]
            results = dict(zip(given, [task.result() for task in tasks], strict=True))
            codes = Counter(code for code, _ in results.values())
            failures += sum(bool(wrong) for _, wrong in results.values())
            print(f"{title:20} exit codes {dict(codes)}", flush=True)
            for name, (_, wrong) in results.items():
                for line in wrong:
                    print(f"    {name}: {line.strip()}", flush=True)
    print(f"{failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
