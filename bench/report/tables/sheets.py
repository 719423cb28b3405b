"""A sheet: a titled table of text, in every format, beside the unrounded numbers it was written from."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "≤": r"$\le$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


@dataclass(frozen=True)
class Sheet:
    """A table to be shown.

    Attributes:
        title: what it is.
        columns: their names; those whose name is in ``text`` are flush left.
        rows: the text of every cell.
        frame: one row each, with unrounded numbers, for CSV and further work.
        note: what a reader must know, below the table.
        text: names of the columns of words.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    frame: pd.DataFrame
    note: str = ""
    text: frozenset[str] = frozenset()

    @property
    def flush_left(self) -> list[bool]:
        """Of every column, whether it is of words."""
        return [name in self.text for name in self.columns]


def plain(sheet: Sheet) -> str:
    """Return aligned text."""
    grid = [list(sheet.columns), *map(list, sheet.rows)]
    widths = [max(len(row[i]) for row in grid) for i in range(len(sheet.columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, sheet.flush_left, strict=True)
        ).rstrip()
        for row in grid
    ]
    rule = "-" * max(map(len, lines))
    note = textwrap.wrap(sheet.note, max(len(rule), 100))
    return "\n".join([sheet.title, rule, lines[0], rule, *lines[1:], rule, *note]) + "\n"


def markdown(sheet: Sheet) -> str:
    """Return a GitHub Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    aligned = [":---" if left else "---:" for left in sheet.flush_left]
    lines = [f"**{sheet.title}**", "", line(sheet.columns), line(aligned), *map(line, sheet.rows)]
    return "\n".join([*lines, *(["", sheet.note] if sheet.note else [])]) + "\n"


def latex(sheet: Sheet) -> str:
    """Return a LaTeX ``tabular`` that needs the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(latex_escaped, cells)) + r" \\"

    form = "".join("l" if left else "r" for left in sheet.flush_left)
    lines = [f"\\begin{{tabular}}{{{form}}}", r"\toprule", line(sheet.columns), r"\midrule"]
    lines += [*map(line, sheet.rows), r"\bottomrule", r"\end{tabular}", f"% {sheet.title}"]
    return "\n".join([*lines, *([f"% {sheet.note}"] if sheet.note else [])]) + "\n"


def comma_separated(sheet: Sheet) -> str:
    """Return the unrounded numbers, one line a row."""
    return sheet.frame.to_csv(index=False, lineterminator="\n")


def html_table(sheet: Sheet) -> str:
    """Return an HTML ``table`` element."""
    head = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in sheet.columns)
    lines = [
        f"<table><caption>{html.escape(sheet.title)}</caption>",
        f"<thead><tr>{head}</tr></thead><tbody>",
    ]
    for first, *rest in sheet.rows:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
        lines.append(f"<tr><th scope=row>{html.escape(first)}</th>{cells}</tr>")
    lines.append("</tbody></table>")
    return "\n".join([*lines, *([f"<p>{html.escape(sheet.note)}</p>"] if sheet.note else [])]) + "\n"


def latex_escaped(text: str) -> str:
    """Return text with every character that LaTeX would read as a command written out."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], text)


FORMATS: Mapping[str, Callable[[Sheet], str]] = {
    "text": plain,
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
    "html": html_table,
}
