"""GapReport -> one HTML page that needs nothing else: one inline script, no external request, light and dark."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..comparison.gap_report import GapReport
from ..escapes import escaped
from .chart import chart, profile_chart
from .grid import ROWS, explained, grid
from .scatter import scatter
from .table import (
    blocks,
    kept_lines,
    low_level_lines,
    low_level_sentences,
    notes,
    permutation,
    permuted_statistics,
    skipped,
    slice_lines,
    slice_units,
    warnings,
)
from .unit import figures, p_value
from .verdict import verdict

SKIPPED, CAVEATS, SLICES, LOW_LEVEL, LICENCES = 200, 100, 1000, 50, 500  # rows listed; report.json lists all
LONGEST = 400  # characters of a text shown


def to_html(report: GapReport) -> str:
    """The report as a page of its own. All text is escaped; images that cannot be read are named as such.

    The page holds at most 120 thumbnails of ``grid.LARGEST`` bytes and ``scatter.POINTS`` points, and every list and
    text on it is cut at a bound, so that it stays below about 8 MB; pages of ordinary photos have 1 to 3 MB.

    Args:
        report: of ``compare``.

    Returns:
        The page.
    """
    return environment().get_template("report.html").render(**_numbers(report), **_images(report), **_origin(report))


def _numbers(report: GapReport) -> dict[str, Any]:
    charts = [(block, chart(block)) for block in blocks(report)]
    lines = slice_lines(report)
    caveats = warnings(report)
    return {
        "verdict": verdict(report),
        "warnings": caveats[:CAVEATS],
        "more_warnings": max(0, len(caveats) - CAVEATS),
        "metrics": charts,
        "permuted": report.permuted,
        "tested": report.permuted and (permutation(report.permuted), permuted_statistics(report.permuted)),
        "kept": kept_lines(report),
        "profile": profile_chart(report.profile),
        "slices": lines[:SLICES],
        "more_slices": max(0, len(lines) - SLICES),
        "slice_units": slice_units(report),
        "sentences": low_level_sentences(report)[:LOW_LEVEL],
        "low_level": low_level_lines(report)[:LOW_LEVEL],
    }


def _images(report: GapReport) -> dict[str, Any]:
    return {
        "most_synthetic": explained(report.most_synthetic, "after"),
        "least_covered": explained(report.least_covered, "real"),
        "scatter": scatter(report),
        "examples": grid(report.examples),
        "more_examples": max(0, len(report.examples) - ROWS),
    }


def _origin(report: GapReport) -> dict[str, Any]:
    left_out = skipped(report)
    return {
        "sets": [("reference", report.reference), *((row.role, row.set) for row in report.rows)],
        "skipped": left_out[:SKIPPED],
        "skipped_count": len(left_out),
        "notes": notes(report)[:CAVEATS],
        "licences": report.licences[:LICENCES],
        "more_licences": max(0, len(report.licences) - LICENCES),
        "unlicensed": report.unlicensed,
        "extractor": report.extractor,
        "config": flatten(report.config),
        "schema": report.schema,
    }


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (``a.b``, text) pairs in key order."""
    pairs: list[tuple[str, str]] = []
    for key in sorted(config):
        value, name = config[key], f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            pairs += flatten(value, f"{name}.")
        else:
            pairs.append((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return pairs


def link(text: str) -> str | None:
    """``text`` when it is a plain http(s) address, else None: no other scheme may become a link."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    plain = text.isprintable() and " " not in text
    return text if plain and parts.scheme in ("http", "https") and parts.hostname else None


def unbroken(text: str) -> str:
    """``41 % ± 6 %`` with no-break spaces, so that a number keeps its unit on its line."""
    return re.sub(r" ([±×=]) | (?=%)", lambda found: found[0].replace(" ", "\u00a0"), text)


def soft_breaks(text: str) -> Markup:
    """``text``, escaped and clipped, which may break after every single slash."""
    return Markup("/<wbr>").join(re.split(r"(?<=[^/])/(?=[^/])", escaped(clipped(text))))


def clipped(text: str) -> str:
    """``text`` of at most LONGEST characters, the middle left out."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} … {text[-half:]}"


def titled(text: str) -> str:
    """``text`` with a capital letter first, the others as they are: ``sliced Wasserstein``, ``KID``."""
    return text[:1].upper() + text[1:]


@cache
def environment() -> Environment:
    """The templates of this package: text is escaped, an undefined name is an error.

    ``script`` and ``style`` are the two files that every page holds, and ``policy`` lets only these two run.

    Returns:
        An environment of Jinja2.
    """
    environment = Environment(
        loader=PackageLoader("metrics", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (link, unbroken, soft_breaks, clipped, titled, figures, p_value)
    environment.filters.update({function.__name__: function for function in filters})
    folder = files("metrics.report") / "templates"
    script, style = ((folder / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    policy = (
        f"default-src 'none'; img-src data:; script-src {_source(script)}; style-src {_source(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    environment.globals.update(script=Markup(script), style=Markup(style), policy=policy)
    return environment


def _shown(value: Any) -> Any:
    """What a template prints: text that is no markup yet loses its control characters, which can turn what is read."""
    return escaped(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(text: str) -> str:
    """The content security policy's name of an inline script or style: its SHA-256."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
