"""Licence expressions of SPDX, such as ``CC-BY-4.0 OR MIT``: which are allowed, and what terms they have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from ..errors import InputError
from ..registry import unknown

NOASSERTION = "NOASSERTION"  # what SPDX says where nobody said anything
TERMS = {"NC": "no commercial use", "ND": "no adaptations may be shared", "SA": "results under the same licence"}
_FAMILIARS = ("CC0-1.0", "MIT", "Apache-2.0", "PDDL-1.0", "Unlicense", "ODC-By-1.0", "LicenseRef-PublicDomain")
FAMILIAR = (  # suggested for a name that SPDX does not know
    *(f"CC-{terms}-{version}" for terms in ("BY", "BY-SA", "BY-NC", "BY-ND") for version in ("2.0", "3.0", "4.0")),
    *_FAMILIARS,
)
_DEED = re.compile(r"https?://(?:www\.)?creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)(?:/[\w./-]*)?")
_TERM = re.compile(r"(?<![A-Za-z])(NC|ND|SA)(?![A-Za-z])", re.IGNORECASE)


def canonical(text: str) -> str | None:
    """The expression with the names as SPDX writes them; None where it is no expression of known names."""
    try:
        return canonicalize_license_expression(text.strip())
    except InvalidLicenseExpression:
        return None


def of_deed(url: str) -> str | None:
    """The SPDX name of the licence at an address of Creative Commons; None for any other text."""
    found = _DEED.fullmatch(url.strip().lower())
    if found is None:
        return None
    kind, terms, version = found.groups()
    names = {"zero": f"CC0-{version}", "mark": f"CC-PDM-{version}"}
    return canonical(f"CC-{terms}-{version}" if kind == "licenses" else names.get(terms, "none"))


def names(words: Sequence[str]) -> frozenset[str]:
    """The SPDX names in words of a command line, in any case.

    Returns:
        Names as SPDX writes them.

    Raises:
        InputError: no licence that SPDX knows; near names are suggested.
    """
    found = set()
    for word in words:
        name = canonical(word)
        if name is None:
            raise unknown("licence", word.strip(), FAMILIAR)
        if re.search(r"[()]| (AND|OR) ", name):
            raise InputError(f"licence {word!r}: expected single names, separated by commas, e.g. CC0-1.0,CC-BY-4.0")
        found.add(name)
    return frozenset(found)


def satisfied(text: str, allowed: Collection[str]) -> bool:
    """Whether one who may use ``allowed`` licences may use what is under the expression ``text``.

    OR lets choose, AND asks for both, and an exception (WITH) only adds rights.

    Args:
        text: an SPDX expression.
        allowed: names of licences.

    Returns:
        Whether they may.
    """
    expression = canonical(text)
    if expression is None:
        return False
    tokens = re.findall(r"[()]|[^\s()]+", expression)[::-1]

    def either() -> bool:
        value = both()
        while tokens and tokens[-1] == "OR":
            tokens.pop()
            value |= both()
        return value

    def both() -> bool:
        value = one()
        while tokens and tokens[-1] == "AND":
            tokens.pop()
            value &= one()
        return value

    def one() -> bool:
        name = tokens.pop()
        if name == "(":
            value = either()
            tokens.pop()
            return value
        value = name in allowed
        if tokens and tokens[-1] == "WITH":
            tokens.pop()
            value |= f"{name} WITH {tokens.pop()}" in allowed
        return value

    return either()


def restrictions(text: str) -> Iterator[str]:
    """The terms in ``text`` that restrict what may be done with results: ``NC: no commercial use``."""
    found = {term.upper() for term in _TERM.findall(text)}
    return (f"{term}: {meaning}" for term, meaning in TERMS.items() if term in found)
