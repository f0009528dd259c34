"""GapReport -> Markdown, short enough for a CI log: the verdict, one table, and what the reader must know."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..comparison.gap_report import Explained, GapReport, SetSummary
from ..escapes import escaped
from .table import (
    blocks,
    kept_lines,
    low_level_sentences,
    notes,
    permutation,
    permuted_statistics,
    skipped,
    slice_lines,
    slice_units,
    warnings,
)
from .unit import p_value
from .verdict import verdict

FIRST = 5  # entries of a list before "and N more"
FULL = 2  # metrics told in full
SENTENCES, IMAGES = 3, 3  # of the low-level differences, and of each list of images that explain the gap


def to_markdown(report: GapReport) -> str:
    """The report as GitHub-flavoured Markdown, verdict first. Keys, paths and names can inject no markup."""
    result = verdict(report)
    parts = [
        [f"**{prose(result.headline)}**", prose(result.detail)],
        _table(report),
        _others(report),
        _kept(report),
        _slices(report),
        bullets("What differs", [prose(sentence) for sentence in low_level_sentences(report)], first=SENTENCES),
        _explained(report),
        _sets(report),
        bullets("Caveats", [f"{prose(sentence)} ({prose(place)})" for place, sentence in warnings(report)]),
        bullets("About the sets", [f"{role}: {prose(line)}" for role, line in notes(report)]),
        bullets("Skipped images", [f"{role} {code(key)}: {prose(why)}" for role, key, why in skipped(report)]),
        bullets("Licences of the real images", [_licence(row) for row in report.licences]),
        bullets("Real images without a licence entry", [code(key) for key in report.unlicensed]),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def code(text: str) -> str:
    """Untrusted text as a code span, in which nothing is interpreted."""
    text = escaped(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def prose(text: str) -> str:
    """Untrusted text as a sentence: markup characters are escaped and ``@name`` mentions nobody."""
    text = escaped(text).strip().replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w)|^[#>+=-]|^\d+(?=[.)]))", _escaped, text)
    return re.sub(r"(?<!\w)@", "&#64;", text)


def _table(report: GapReport) -> list[str]:
    """Everything about the first FULL metrics."""
    found = blocks(report)[:FULL]
    tested = any(m.p is not None for block in found for _, m in block.measured)
    rows = [["metric", "set", "value ± SE", "95 % CI", *(["p"] if tested else []), "n", "m"]]
    for block in found:
        metric = f"{prose(block.unit.label)} {code(block.name)}"
        for line in block.lines:
            p = [line.p] if tested else []
            rows.append([metric, prose(line.role), line.value, line.interval, *p, f"{line.n:,}", f"{line.m:,}"])
            metric = ""
    return aligned(rows, 2)


def _others(report: GapReport) -> list[str]:
    """The values of all other metrics, one row each."""
    found = blocks(report)[FULL:]
    roles = list(dict.fromkeys(role for block in found for role, _ in block.measured))
    rows = [["metric", *roles, "p", "closer to real"]]
    for block in found:
        measured = [block.get(role) for role in roles]
        values = ["–" if m is None else block.unit.with_error(m) for m in measured]
        after = block.get("after")
        p = p_value(None if after is None else after.p)
        rows.append([f"{prose(block.unit.label)} {code(block.name)}", *values, p, block.unit.direction])
    return aligned(rows, 1) if found else []


def _kept(report: GapReport) -> list[str]:
    lines = kept_lines(report)
    if not lines:
        return []
    rows = [["kept of the raw images", "value ± SE", "95 % CI", "n"]]
    for line in lines:
        name = f"{prose(line.label)} {code(line.name)}" + (f": {prose(line.note)}" if line.note else "")
        rows.append([name, line.value, line.interval, f"{line.n:,}"])
    return aligned(rows, 1)


def _slices(report: GapReport) -> list[str]:
    """The FIRST worst slices."""
    lines = slice_lines(report)
    if not lines:
        return []
    rows = [[f"worst slices ({len(lines):,} in all)", f"{prose(slice_units(report))} ± SE", "p (Holm)", "n", "m"]]
    for line in lines[:FIRST]:
        measured = line.slice.measurement
        rows.append([code(line.slice.name), line.value, line.p_adjusted, f"{measured.n:,}", f"{measured.m:,}"])
    return aligned(rows, 1)


def _explained(report: GapReport) -> list[str]:
    """The IMAGES worst images of both lists, by key."""
    lists = {"most synthetic-looking": report.most_synthetic, "least covered real images": report.least_covered}
    lines = [f"- {title}: {_keys(images)}" for title, images in lists.items() if images]
    return ["**Images to blame**", *lines] if lines else []


def _keys(images: Sequence[Explained]) -> str:
    return ", ".join(code(image.key) for image in images[:IMAGES])


def aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """A table whose first ``left`` columns are text and the others numbers; the first row is its head."""
    rows = [[_cell(text) for text in row] for row in rows]
    widths = [max(2, *map(len, column)) for column in zip(*rows, strict=True)]  # a rule needs a hyphen and a colon
    body = [_row(row, widths, left) for row in rows]
    rule = [":" + "-" * (w - 1) if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return [body[0], _row(rule, widths, left), *body[1:]]


def _row(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
    return f"| {' | '.join(padded)} |"


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)  # also inside code spans


def _sets(report: GapReport) -> list[str]:
    sets = [("reference", report.reference), *((row.role, row.set) for row in report.rows)]
    lines = [f"- {prose(role)}: {_counts(images)}, {code(images.root)}" for role, images in sets]
    facts = ", ".join(f"{prose(name)} {code(text)}" for name, text in report.extractor.items())
    tested = report.permuted
    if tested is not None:
        of = f", smallest p of {prose(permuted_statistics(tested))}" if tested.statistics else ""
        lines.append(f"- permutation test: {permutation(tested)}{of}")
    return ["**Image sets**", *lines, f"- extractor: {facts}"]


def _counts(images: SetSummary) -> str:
    groups = f" in {images.groups:,} groups" if images.groups != images.images else ""
    return f"{images.images:,} images{groups}"


def _licence(row: Mapping[str, str]) -> str:
    shown = [code(row["key"])] if row.get("key") else []
    shown += [prose(row[name]) for name in ("licence", "title", "author", "source") if row.get(name)]
    return ", ".join(shown)


BLANK = "(empty)"  # a bullet without text would make a heading of the line above


def bullets(title: str, entries: Sequence[str], file: str = "report.json", first: int = FIRST) -> list[str]:
    """A titled list of the ``first`` entries; ``file`` has all. Nothing when there is none."""
    if not entries:
        return []
    more = len(entries) - first
    rest = [f"- … and {more:,} more in `{file}`"] if more > 0 else []
    return [f"**{title} ({len(entries):,})**", *(f"- {entry.strip() or BLANK}" for entry in entries[:first]), *rest]


def _escaped(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"  # "1\\. " starts no list
