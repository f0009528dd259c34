"""Extension of griffe: docstrings are written for ``help()``, with roles and tables as Sphinx has them; as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from griffe import Attribute, Docstring, Extension, Function, GriffeLoader, Module, Object

ROLE = re.compile(r":(?:func|class|mod|data|meth|attr):`~?\.?([\w.]+)`")
RULE = re.compile(r"^=+(?:  +=+)+$")


class AsMarkdown(Extension):
    """Rewrites every docstring once, when its object was read."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Roles become links where the name is known, tables those of Markdown, ``::`` a colon."""
        if obj.docstring is None:
            return
        text = ROLE.sub(r'<autoref optional identifier="\1"><code>\1</code></autoref>', obj.docstring.value)
        text = re.sub(r"::$", ":", _tables(text), flags=re.MULTILINE)
        obj.docstring.value = re.sub(
            r"^(?![-\s])(.+)\n- ", r"\1\n\n- ", text, flags=re.MULTILINE
        )  # a list's first line

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs: Any) -> None:
        """``name = to_the_end(iter_name)`` is a function, with the parameters of its twin."""
        from metrics.progress import of_twin

        for module in (pkg, *_modules(pkg)):
            for name, member in list(module.members.items()):
                if isinstance(member, Attribute) and str(member.value).startswith("to_the_end("):
                    twin = module[f"iter_{name}"]
                    step = str(twin.returns).removeprefix("Iterator[").removesuffix("]")
                    work = Function(name, parameters=twin.parameters, returns=step, lineno=member.lineno)
                    work.docstring = Docstring(of_twin(twin.docstring.value), parent=work)
                    module.set_member(name, work)


def _modules(package: Module) -> Iterator[Module]:
    for module in package.modules.values():
        if not module.is_alias:
            yield module
            yield from _modules(module)


def _tables(text: str) -> str:
    lines, out = iter(text.splitlines()), []
    for line in lines:
        if not RULE.match(line.strip()):
            out.append(line)
            continue
        starts = [match.start() for match in re.finditer(r"=+", line)]
        rows: list[list[str]] = []
        for row in lines:
            if RULE.match(row.strip()):
                if rows and len(rows) > 1:
                    break
                continue  # the rule below the heads
            cells = [row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
            if cells[0]:
                rows.append(cells)
            else:  # the line above goes on
                rows[-1] = [f"{above} {below}".strip() for above, below in zip(rows[-1], cells, strict=True)]
        out += ["| " + " | ".join(cells) + " |" for cells in (rows[0], ["---"] * len(starts), *rows[1:])]
    return "\n".join(out)
