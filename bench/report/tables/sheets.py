"""A sheet: a titled table of text, in every format, beside the unrounded numbers it was written from."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

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


Mark = Literal["best", "tie", "unjudged"]
"""What a cell of a column of scores is: the best, one that cannot be told from it, one without verdict."""

BEST = "best of its column"
TIED = "cannot be told from it (paired, 95%)"


@dataclass(frozen=True, repr=False)
class Sheet:
    """A table to be shown: text where it is printed, HTML in a notebook.

    Attributes:
        title: what it is.
        columns: their names; those whose name is in ``text`` are flush left.
        rows: the text of every cell.
        frame: one row each, with unrounded numbers, for CSV and further work.
        note: what a reader must know, below the table, one paragraph a line.
        text: names of the columns of words.
        marks: the marks of cells that stand out, by (row, column).
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    frame: pd.DataFrame
    note: str = ""
    text: frozenset[str] = frozenset()
    marks: Mapping[tuple[int, int], Mark] = field(default_factory=dict)

    def __repr__(self) -> str:
        return plain(self)

    def _repr_html_(self) -> str:
        return html_table(self)

    @property
    def flush_left(self) -> list[bool]:
        """Whether each column is of words."""
        return [name in self.text for name in self.columns]

    @property
    def judged(self) -> bool:
        """Whether a cell is marked as the best of its column."""
        return "best" in self.marks.values()

    def paragraphs(self, best: str, tie: str) -> list[str]:
        """Return the note's paragraphs, the first with what the marks mean, called by these names."""
        first, *rest = self.note.split("\n")
        legend = f"{best} {BEST}, {tie} {TIED}" if self.judged else ""
        return list(filter(None, ["; ".join(filter(None, [first, legend])), *rest]))

    def marked(
        self, best: str = "%s*", tie: str = "%s~", other: str = "%s", unjudged: str = ""
    ) -> list[list[str]]:
        """Return the rows with a form around each cell: the best, its ties, those not judged, the others."""
        forms = {"best": best, "tie": tie, "unjudged": unjudged or other}
        return [
            [
                forms.get(self.marks.get((down, across), ""), other if across else "%s") % cell
                for across, cell in enumerate(row)
            ]
            for down, row in enumerate(self.rows)
        ]


def plain(sheet: Sheet) -> str:
    """Return aligned text."""
    other = "%s " if sheet.judged else "%s"  # so that numbers stand below each other
    grid = [[name if i == 0 else other % name for i, name in enumerate(sheet.columns)]]
    grid += sheet.marked(other=other)
    widths = [max(len(row[i]) for row in grid) for i in range(len(sheet.columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, sheet.flush_left, strict=True)
        ).rstrip()
        for row in grid
    ]
    rule = "-" * max(map(len, lines))
    width = max(len(rule), 100)
    notes = [line for paragraph in sheet.paragraphs("*", "~") for line in textwrap.wrap(paragraph, width)]
    title = [sheet.title] if sheet.title else []
    return "\n".join([*title, rule, lines[0], rule, *lines[1:], rule, *notes]) + "\n"


def markdown(sheet: Sheet) -> str:
    """Return a GitHub Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    aligned = [":---" if left else "---:" for left in sheet.flush_left]
    title = [f"**{sheet.title}**", ""] if sheet.title else []
    lines = [*title, line(sheet.columns), line(aligned)]
    lines += map(line, sheet.marked(best="**%s**"))
    notes = [line for paragraph in sheet.paragraphs("bold:", "~") for line in ("", paragraph)]
    return "\n".join([*lines, *notes]) + "\n"


def latex(sheet: Sheet) -> str:
    """Return a LaTeX ``tabular`` that needs the package booktabs, and xcolor where scores are not judged."""
    escaped = replace(sheet, rows=[list(map(latex_escaped, row)) for row in sheet.rows])

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    form = "".join("l" if left else "r" for left in sheet.flush_left)
    head = line(list(map(latex_escaped, sheet.columns)))
    lines = [f"\\begin{{tabular}}{{{form}}}", r"\toprule", head, r"\midrule"]
    grey = r"\textcolor{gray}{%s}"
    lines += map(line, escaped.marked(best=r"\textbf{%s}", tie=r"\underline{%s}", unjudged=grey))
    comments = [f"% {text}" for text in latex_notes(sheet, "underlined:")]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *comments]) + "\n"


def latex_notes(sheet: Sheet, tie: str) -> list[str]:
    """Return what stands below a LaTeX table as comments, ties called by a name."""
    return list(filter(None, (sheet.title, *sheet.paragraphs("bold:", tie))))


def comma_separated(sheet: Sheet) -> str:
    """Return the unrounded numbers, one line a row."""
    return sheet.frame.to_csv(index=False, lineterminator="\n")


def html_table(sheet: Sheet) -> str:
    """Return an HTML ``table`` element, its notes in paragraphs below."""
    head = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in sheet.columns)
    caption = f"<caption>{html.escape(sheet.title)}</caption>" if sheet.title else ""
    lines = [
        f"<table>{caption}",
        f"<thead><tr>{head}</tr></thead><tbody>",
    ]
    for first, *rest in sheet.marked():
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
        lines.append(f"<tr><th scope=row>{html.escape(first)}</th>{cells}</tr>")
    notes = [f"<p>{html.escape(paragraph)}</p>" for paragraph in sheet.paragraphs("*", "~")]
    return "\n".join([*lines, "</tbody></table>", *notes]) + "\n"


def latex_escaped(text: str) -> str:
    """Return text with every character that LaTeX would read as a command written out.

    A formula between two ``$`` stays what it is: only a label that a user gave holds one.
    """
    signs = "|".join(map(re.escape, _LATEX))
    parts = re.split(r"(\$[^$]+\$)", text)
    return "".join(
        part if place % 2 else re.sub(signs, lambda found: _LATEX[found[0]], part)
        for place, part in enumerate(parts)
    )


FORMATS: Mapping[str, Callable[[Sheet], str]] = {
    "text": plain,
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
    "html": html_table,
}
