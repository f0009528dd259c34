"""Text from strangers, such as file names, on its way to a terminal or a log: shown, never obeyed."""

from __future__ import annotations

import re

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_COMMAND = re.compile(r"##(?=\w*\[)|^\s*::")  # of a CI runner: ##[error], ##vso[, ##teamcity[; or :: first on a line


def escaped(text: str) -> str:
    r"""One line in which control characters, changes of writing direction and a CI runner's commands are spelt out.

    A newline becomes ``\n``, an escape character ``\x1b``, and of a command the first colon or second hash its number.

    Returns:
        The line; of harmless text the text itself.
    """
    text = CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
    return _COMMAND.sub(lambda found: "#\\x23" if found[0] == "##" else found[0][:-2] + "\\x3a:", text)
