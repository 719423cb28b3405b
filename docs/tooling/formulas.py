"""An extension of griffe, which reads the code for the API pages: formulas of docstrings become LaTeX."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))

import tex

SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$", re.M)
BLOCK = re.compile(r"(?<=\n\n)((?: {4}.*\n?|\n(?= {4}))+)")


def rendered(docstring: str) -> str:
    """Return a docstring with the equations above its sections as LaTeX: blocks, and the first sentence's."""
    found = SECTION.search(docstring)
    head, sections = (docstring[: found.start()], docstring[found.start() :]) if found else (docstring, "")
    first, gap, rest = head.partition("\n\n")
    first = tex.inline(first.replace("\n", " "))
    return first + gap + BLOCK.sub(_block, gap + rest)[len(gap) :] + sections


def _block(found: re.Match[str]) -> str:
    formula = tex.block(found[1])
    return found[1] if formula is None else f"$$\n{formula}\n$$\n"


class Formulas(griffe.Extension):
    """Renders the docstring of every function, class and attribute as it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Replace the docstring."""
        if obj.docstring is not None:
            obj.docstring.value = rendered(obj.docstring.value)
