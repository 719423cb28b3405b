"""BibTeX of the papers that samplers, time grids and scores name as their sources."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("bibliography.bib")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


@cache
def entries() -> Mapping[str, str]:
    """Return the entries by what sources name: the arXiv number, or author and year as Hairer1993."""
    found = {}
    for entry in _FILE.read_text(encoding="utf-8").split("\n\n"):
        key = entry.partition("{")[2].partition(",")[0]
        number = re.search(r"eprint = \{(.+?)\}", entry)
        found[number[1] if number else key] = entry.strip()
    return found


def cited(sources: Iterable[str]) -> list[str]:
    """Return the entries of the papers that some texts name, each once, in order.

    A number that is in no entry gets one with the number alone, so that nothing that was used is left out.
    """
    found: dict[str, str] = {}
    books = {key: entry for key, entry in entries().items() if not key[0].isdigit()}
    for source in sources:
        for number in _ARXIV.findall(source):
            bare = f"@misc{{arXiv:{number},\n  eprint = {{{number}}},\n  archiveprefix = {{arXiv}},\n}}"
            found.setdefault(number, entries().get(number, bare))
        for key, entry in books.items():
            author, year = key[:-4], key[-4:]
            if author in source and year in source:
                found.setdefault(key, entry)
    return list(found.values())
