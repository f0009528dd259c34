"""Measure the domain gap of a change in CI, and let the job pass, fail, or say that there are too few images to tell.

    python examples/domain_gap_in_ci.py tour; echo $?     # 0 pass, 1 fail, 3 inconclusive

Two renderers stand for the main branch and for a pull request. The snippets in docs/ci do the same without Python.
"""

import sys
from pathlib import Path

from metrics import compare, gate, write_report
from stylize import render
from stylize.shipped import shipped

BUDGETS = {
    "after": {"kid": {"max": 0.5}},  # absolute: the upper 95 % bound must be at most this
    "baseline": {"kid": {"max_increase": 0.01}},  # relative: at most so much worse than the main branch
}


def main(work: Path, per_class: int = 30, size: int = 64) -> int:
    """Returns the exit code of the job."""
    reports = {}
    for name, family in (("main", "neural-fractal"), ("pull-request", "moire")):
        render(family, work / name, classes=4, per_class=per_class, size=size)  # here: your renderer
        reports[name] = compare(work / name, shipped("photos") / "judge", crops=16, metrics=["kid"])
        write_report(reports[name], work / f"report-{name}")  # keep that of main as an artifact of the job

    result = gate(reports["pull-request"], BUDGETS, baseline=reports["main"])
    print(result.headline)
    for check in result.checks:
        print(f"- {check.sentence}")
    worst = [image.key for image in reports["pull-request"].most_synthetic[:3]]
    print(f"look first at {', '.join(worst)}; {work / 'report-pull-request' / 'report.html'}")
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "tour")))
