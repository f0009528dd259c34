"""GapReport -> one HTML page that needs nothing else: no script, no external request, light and dark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..gap_report import GapReport
from .chart import chart
from .grid import ROWS, grid
from .table import blocks, kept_lines, skipped, warnings
from .verdict import verdict

SKIPPED = 200  # skipped images listed; report.json lists all


def to_html(report: GapReport) -> str:
    """The report as a page of its own. All text is escaped; images that cannot be read are named as such.

    The page holds at most ``grid.ROWS`` examples as thumbnails, so its size is bounded (about 5 MB).
    """
    sets = [("reference", report.reference), *((row.role, row.set) for row in report.rows)]
    left_out = skipped(report)
    return (
        environment()
        .get_template("template.html")
        .render(
            verdict=verdict(report),
            metrics=[(block, chart(block)) for block in blocks(report)],
            kept=kept_lines(report),
            sets=sets,
            warnings=warnings(report),
            examples=grid(report.examples),
            more_examples=max(0, len(report.examples) - ROWS),
            skipped=left_out[:SKIPPED],
            skipped_count=len(left_out),
            licences=report.licences,
            unlicensed=report.unlicensed,
            extractor=report.extractor,
            config=flatten(report.config),
            schema=report.schema,
        )
    )


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
    return text.replace(" ± ", "\u00a0±\u00a0").replace(" %", "\u00a0%").replace(" × ", "\u00a0×\u00a0")


def soft_breaks(text: str) -> Markup:
    """``text``, escaped, which may break after every single slash."""
    return Markup("/<wbr>").join(re.split(r"(?<=[^/])/(?=[^/])", text))


@cache
def environment() -> Environment:
    """The templates of this package: text is escaped, an undefined name is an error."""
    environment = Environment(
        loader=PackageLoader("metrics", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(link=link, unbroken=unbroken, soft_breaks=soft_breaks)
    return environment
