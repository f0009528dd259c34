"""A report as Markdown: short, and no text in it is markup."""

import re
from dataclasses import replace

from gap_reports import FID, HOSTILE, MARKUP, hostile_report, measured, parts, report, row
from hypothesis import given, settings
from markdown_it import MarkdownIt

from metrics.comparison.gap_report import Slice
from metrics.report import to_markdown
from metrics.statistics.measurement import LowLevel


def test_markdown_of_a_long_report_stays_short():
    many = [(f"class/{i}", "empty file (0 bytes)") for i in range(5000)]
    sentences = [f"warning {i}" for i in range(40)]
    rows = tuple(
        row(role, measured(0.04, 0.001, warnings=sentences), measured(99.0, name=FID), skipped=many)
        for role in ("before", "after", "floor")
    )
    licences = tuple(
        {"key": f"p{i}", "licence": "CC0-1.0", "author": "A", "source": "https://x.org"} for i in range(99)
    )
    text = to_markdown(report(rows=rows, licences=licences))
    assert len(text.splitlines()) <= 60
    for count in ("(40)", "(15,000)", "(99)", "and 35 more", "and 14,995 more", "and 94 more"):
        assert count in text


def test_markdown_table_holds_every_number():
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in to_markdown(report()).splitlines()]
    assert ["KID × 1000 `kid@efficientnet-lite0`", "before", "48.2 ± 1.1", "46.0 to 50.4", "1,000", "500"] in lines
    assert ["", "floor", "1.3 ± 0.4", "0.5 to 2.1", "1,000", "500"] in lines
    assert ["", "gap closed", "41 % ± 6 %", "29 % to 53 %", "1,000", "500"] in lines


def tokens(markdown):
    def flat(found):
        for token in found:
            yield token.type
            yield from flat(token.children or ())

    return list(flat(MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)))


@given(MARKUP)
@settings(max_examples=100, deadline=None)
def test_no_text_changes_the_structure_of_the_markdown(text):
    allowed = {"text", "text_special", "code_inline", "softbreak"}
    plain = [token for token in tokens(to_markdown(hostile_report("plain"))) if token not in allowed]
    hostile = [token for token in tokens(to_markdown(hostile_report(text))) if token not in allowed]
    assert hostile == plain


def test_markdown_neither_mentions_nor_colours():
    text = to_markdown(hostile_report(HOSTILE))
    assert "\x1b" not in text
    assert not re.search(r"(?<![\w`])@everyone", re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text))


def cells(markdown):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines() if line[:1] == "|"]


def test_markdown_tells_what_explains_the_gap():
    tested = replace(report(**parts()).row("after").measurements[0], p=0.0051)
    text = to_markdown(report(rows=(row("after", tested),), **parts()))
    table = cells(text)
    assert [
        "KID × 1000 `kid@efficientnet-lite0`",
        "after",
        "29.00 ± 0.90",
        "27.20 to 30.80",
        "0.0051",
        "1,000",
        "500",
    ] in table
    assert ["", "after − before", "−19.20 ± 0.60", "−20.40 to −18.00", "–", "1,000", "500"] in table
    assert ["worst slices (3 in all)", "KID × 1000 ± SE", "p (Holm)", "n", "m"] in table
    assert ["`rock plain`", "40.0 ± 5.0", "0.006", "1,000", "500"] in table
    lines = text.splitlines()
    assert lines[lines.index("**What differs (2)**") + 1] == "- The power spectrum falls faster."
    assert "- most synthetic-looking: `s/1 plain`" in lines
    assert "- least covered real images: `photo plain`" in lines
    combined = "- permutation test: p = 0.005 (199 permutations), smallest p of KID, RBF MMD and energy distance"
    assert combined in lines


def test_markdown_without_these_parts_does_not_mention_them():
    text = to_markdown(report())
    for part in ("slices", "What differs", "blame", "permutation", "| p", "after − before"):
        assert part not in text


def test_markdown_lists_three_sentences_five_slices_and_three_images_of_many():
    few = parts()
    many = {
        **few,
        "slices": tuple(Slice(f"c{i}", "all", measured(i / 100), 0.1) for i in range(1000)),
        "low_level": tuple(LowLevel(f"p{i}", "", 1, 2, 1, i, None, f"Sentence {i}.") for i in range(9)),
        "most_synthetic": few["most_synthetic"] * 12,
    }
    text = to_markdown(report(**many))
    assert len(text.splitlines()) < 40
    assert re.findall(r"Sentence \d", text) == ["Sentence 8", "Sentence 7", "Sentence 6"]
    assert re.findall(r"`c(\d+)`", text) == ["999", "998", "997", "996", "995"]
    assert text.count("`s/1 plain`") == 3


def test_metrics_after_the_second_have_one_row_each():
    names = ("kid", "fid", "cmmd", "recall", "c2st")
    rows = [row(role, *(measured(0.5, name=f"{name}@x", p=0.02) for name in names)) for role in ("after", "floor")]
    table = cells(to_markdown(report(rows=tuple(rows), closed=None)))
    assert ["metric", "after", "floor", "p", "closer to real"] in table
    assert ["recall `recall@x`", "0.500", "0.500", "0.02", "higher"] in table
    assert ["C2ST AUC `c2st@x`", "0.500", "0.500", "0.02", "lower"] in table
    assert sum(line[0].startswith("CMMD") for line in table) == 1


def test_a_column_of_single_characters_leaves_the_table_a_table():
    few = replace(measured(0.5, p=1.0), n=2, m=3)
    text = to_markdown(report(rows=(row("after", few),), closed=None))
    assert MarkdownIt("commonmark").enable("table").render(text).count("<table>") == 1
