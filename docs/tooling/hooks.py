"""What the site has beside the pages in docs/.

These are the README as its home, the files that pages link to, the options of every verb, and MathJax. A link
that leads out of docs/ works on the repository's pages; here it is turned to a copy of the file below
``repository/``. MathJax is taken from an installed package: neither the build nor a reader needs a network.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import sys
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel

sys.path.insert(0, str(Path(__file__).parent))

import verbs

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Documents of the repository that are pages of the site, with the pages' names."""
LINK = re.compile(r"(\]\()([^)\s#]+)([^)\s]*\))")
VERBS = re.compile("<!-- every verb -->\n.*<!-- end of every verb -->\n", re.S)
MATHJAX = "javascripts/tex-svg.js"
MATHJAX_SHA256 = "2af9375000b5a3669be94d436ae1c61159855283cd18b3ee9817fb71c8f94c84"
"""MathJax 3.2.2: TeX to SVG in one file, fonts inside."""


def page_of(path: str) -> str:
    """Return the place in the site of a file of the repository."""
    return PAGES.get(path) or (
        path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"
    )


def path_of(page: str) -> str:
    """Return the file of the repository that a place in the site shows."""
    for path, name in PAGES.items():
        if page == name:
            return path
    return page.removeprefix("repository/") if page.startswith("repository/") else f"docs/{page}"


def _target(path: str, link: str) -> str | None:
    """Return the file of the repository that a link in another one leads to, None where it is none."""
    if re.match(r"[a-z]+:|/", link):
        return None
    found = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return found if (ROOT / found).is_file() else None


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the pages and files that lie outside of docs/, those that they link to, and MathJax."""
    waiting = [*PAGES, *(path_of(file.src_uri) for file in files.documentation_pages())]
    seen = set(waiting)
    for path in waiting:  # grows as links are found
        text = (ROOT / path).read_text(encoding="utf-8")
        if files.get_file_from_path(page_of(path)) is None:
            files.append(_file(config, path))
        for link in LINK.finditer(text):
            target = _target(path, link[2])
            if target is None or target in seen:
                continue
            seen.add(target)
            if target.endswith(".md"):
                waiting.append(target)
            elif files.get_file_from_path(page_of(target)) is None:
                files.append(_file(config, target))
    files.append(File.generated(config, MATHJAX, content=_mathjax()))
    return files


def _file(config: MkDocsConfig, path: str) -> File:
    kept = InclusionLevel.INCLUDED if path in PAGES else InclusionLevel.NOT_IN_NAV
    return File.generated(config, page_of(path), abs_src_path=str(ROOT / path), inclusion=kept)


def _mathjax() -> bytes:
    found = resources("mathjax").joinpath("static", "mathjax", "es5", "tex-svg.js").read_bytes()
    if hashlib.sha256(found).hexdigest() != MATHJAX_SHA256:
        raise PluginError(
            "MathJax is another one than the site was made with: install django-static-mathjax==3.2.2.1"
        )
    return found


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to where their files are in the site, and put in the options of every verb."""
    here = page.file.src_uri

    def turned(link: re.Match[str]) -> str:
        target = _target(path_of(here), link[2])
        if target is None:
            return link[0]
        return link[1] + posixpath.relpath(page_of(target), posixpath.dirname(here) or ".") + link[3]

    return VERBS.sub(lambda _: verbs.reference(), LINK.sub(turned, markdown))
