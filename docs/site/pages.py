"""Hook of MkDocs: pages that lie elsewhere in the repository, pages of the API, and links out of docs/.

README, CONTRIBUTING and the cards are written where people look for them, and are pages of the site too; a link to any
other file of the repository takes that file along. So every page reads the same on the site and in the repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "assets/README.md": "cards/photos.md",
    "assets/tiny-diffusion/README.md": "cards/tiny-diffusion.md",
    "stylize/styles/methods/network.md": "cards/network.md",
}
ROOMS = {
    "stylize": ("patterns", "styles", "diffusion", "writing", "training", "tuning", "engines", "validate", "transform"),
    "metrics": (
        *("image_sets", "extractors", "features", "statistics", "comparison", "budget_gate", "copy_audit"),
        *("report", "torchmetrics", "validate"),
    ),
}
ROOM = """# {0}

::: {0}
    options:
      show_root_heading: false
      show_submodules: true
"""
ALONE = ("index.md", "gallery.md", "results.md", "why.md")  # no neighbours to navigate to
SHIM = re.compile(r"<script src=.https://unpkg.com/iframe-worker/shim.></script>")  # to search pages opened as files
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not below docs/, and every file of the repository that a page links to."""
    for source, place in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
    for package, rooms in ROOMS.items():
        files.append(File.generated(config, f"api/{package}.md", content=_public(package)))
        for room in rooms:
            files.append(File.generated(config, f"api/{package}.{room}.md", content=ROOM.format(f"{package}.{room}")))
    for page in files.documentation_pages():
        for target in LINK.findall(page.content_string):
            linked = _in_repository(page.src_uri, target)
            known = linked in PAGES or linked.startswith("docs/") or files.get_file_from_path(linked)
            if not known and (ROOT / linked).is_file():
                files.append(File.generated(config, linked, abs_src_path=str(ROOT / linked)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the repository become links between files of the site."""
    here = page.file.src_uri
    if here in ALONE:
        page.meta["hide"] = ["navigation"]

    def moved(match: re.Match[str]) -> str:
        place = _on_site(_in_repository(here, match[1]))
        return "](" + os.path.relpath(place, PurePosixPath(here).parent).replace(os.sep, "/")

    return LINK.sub(moved, markdown)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """The site loads nothing from elsewhere; its search then takes a server, such as ``python -m http.server``."""
    return SHIM.sub("", output)


def _in_repository(page: str, target: str) -> str:
    """Where a link of a page of the site leads in the repository."""
    sources = {place: source for source, place in PAGES.items()}
    folder = PurePosixPath(sources.get(page, f"docs/{page}")).parent
    return os.path.normpath(folder / target).replace(os.sep, "/")


def _on_site(path: str) -> str:
    return PAGES.get(path, path.removeprefix("docs/"))


def _public(package: str) -> str:
    """The page of a package's public names, each from its docstring."""
    from importlib import import_module

    module: Any = import_module(package)
    first, _, rest = (module.__doc__ or "").partition("\n\n")
    text = [f"# {package}", first, rest.partition("\n\n")[0]]
    names = sorted(
        (name for name in module.__all__ if not name.startswith("__")),
        key=lambda name: (
            name[0].isupper(),
            name.removeprefix("iter_"),
            name,
        ),  # functions with their twins, then classes
    )
    return "\n\n".join([*text, *(f"::: {package}.{name}" for name in names)])
