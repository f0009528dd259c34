"""A report as JSON: there and back, and what is refused."""

import json
import math
from dataclasses import replace

import pytest
from gap_reports import full_report, measured, report, row
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.comparison.gap_report import Example
from metrics.errors import InputError
from metrics.report import from_json, to_html, to_json, to_markdown


def test_json_reads_back_exactly():
    full = full_report()
    original = replace(full, slices=full.slices[:2])  # the third has no number, and NaN equals nothing
    assert from_json(to_json(original)) == original
    assert math.isnan(from_json(to_json(full)).slices[2].measurement.value)


@given(
    key=st.text(),
    value=st.floats(allow_nan=False, allow_infinity=False),
    config=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=4,
    ),
)
@settings(max_examples=30, deadline=None)
def test_any_text_number_and_setting_reads_back(key, value, config):
    original = report(
        rows=(row("after", measured(value), skipped=[(key, key)]),),
        config={key: config},
        examples=(Example(key, None, None, None, key),),
    )
    assert from_json(to_json(original)) == original


def test_file_names_that_are_not_unicode_read_back():
    original = report(examples=(Example("a\udcff", None, None, None, "b\udcfe"),))
    assert from_json(to_json(original)) == original


def test_a_report_read_back_renders_the_same():
    original = full_report()
    again = from_json(to_json(original))
    assert to_json(again) == to_json(original)
    assert to_markdown(again) == to_markdown(original)
    assert to_html(again) == to_html(original)


def test_numbers_that_json_lacks_become_null():
    text = to_json(report(config={"b": math.inf, "a": [math.nan]}, closed=(math.nan, None)))
    document = json.loads(text, parse_constant=pytest.fail)
    assert document["config"] == {"b": None, "a": [None]}
    assert document["closed"][0]["value"] is None
    assert list(document)[:3] == ["schema", "reference", "rows"]
    assert math.isnan(from_json(text).closed[0].value)


def test_config_that_json_cannot_say_is_refused():
    with pytest.raises(TypeError):
        to_json(report(config={"device": object()}))


def without(document, name):
    return {key: value for key, value in document.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {**d, "schema": 1}, "schema 1.*reads schema 4"),
        (lambda d: {**d, "schema": "1"}, "no schema number"),
        (lambda d: {**d, "schema": True}, "no schema number"),
        (lambda d: without(d, "schema"), "no schema number"),
        (lambda d: [d], "no schema number"),
        (lambda d: without(d, "rows"), "exactly the fields"),
        (lambda d: {**d, "extra": 1}, "exactly the fields"),
        (lambda d: {**d, "rows": {}}, "report.rows: expected a list"),
        (lambda d: {**d, "rows": d["rows"] * 2}, "at most once"),
        (lambda d: {**d, "rows": [{**d["rows"][0], "role": "behind"}]}, "each of before, after, floor"),
        (lambda d: {**d, "reference": {**d["reference"], "images": 1.5}}, "images: expected a whole number"),
        (lambda d: {**d, "reference": {**d["reference"], "images": True}}, "images: expected a whole number"),
        (lambda d: {**d, "reference": {**d["reference"], "skipped": [["key"]]}}, r"skipped\[0\]: expected a list of 2"),
        (lambda d: {**d, "closed": [{**d["closed"][0], "value": "0.4"}]}, r"closed\[0\].value: expected a number"),
        (lambda d: {**d, "closed": [{**d["closed"][0], "value": 10**400}]}, "expected a finite number"),
        (lambda d: {**d, "extractor": {"name": 3}}, "extractor.name: expected text"),
        (lambda d: {**d, "config": []}, "config: expected an object"),
        (lambda d: {**d, "permuted": {"p": 0.1}}, "report.permuted: expected an object with exactly the fields"),
        (lambda d: {**d, "points": [{**d["points"][0], "role": "before"}]}, "points: expected roles after and real"),
        (lambda d: {**d, "slices": [{**d["slices"][0], "p_adjusted": "no"}]}, r"p_adjusted: expected a number"),
        (lambda d: {**d, "examples": [None]}, r"examples\[0\]: expected an object"),
    ],
)
def test_malformed_documents_are_refused(change, message):
    document = json.loads(to_json(full_report()))
    with pytest.raises(InputError, match=message):
        from_json(json.dumps(change(document)))


@pytest.mark.parametrize("text", ["", "{", "NaN", "[" * 100_000, "null", '{"schema": 1, "config": Infinity}'])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(InputError, match="not a report"):
        from_json(text)


def test_a_number_too_large_for_a_float_is_refused():
    text = to_json(report()).replace("0.0482", "1e999")
    with pytest.raises(InputError, match="finite"):
        from_json(text)
