"""LaTeX for papers: a ``table`` with caption and label, and columns of numbers that siunitx aligns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.report.tables.sheets import Mark, Sheet, latex, latex_escaped, latex_notes

_NUMBER = re.compile(r"(?P<value>-?\d+(?:\.\d+)?) ± (?P<error>\d+(?:\.\d+)?)(?P<rest>.*)", re.DOTALL)

SETUP = (
    r"\sisetup{uncertainty-mode=separate, text-series-to-math=true, table-align-text-after=false,"
    r" table-align-uncertainty=false}"
)
"""What the preamble needs for the columns of numbers; siunitx 3.

Where it aligns uncertainties, version 3.2 leaves no space before the sign.
"""


def latex_table(
    sheet: Sheet, caption: str | None = None, label: str | None = None, *, siunitx: bool = False
) -> str:
    r"""Return a sheet in LaTeX, in a ``table`` of its own where it has a caption or a label.

    Args:
        sheet: the table.
        caption: LaTeX text above it.
        label: what ``\ref`` takes.
        siunitx: whether numbers stand in ``S`` columns, ``4.75 +- 0.54`` with the points below each other:
            it needs the package siunitx (version 3) and the line `SETUP`, which a comment names.
    """
    tabular = _aligned(sheet) if siunitx else latex(sheet)
    if caption is None and label is None:
        return tabular
    lines = [r"\begin{table}", r"\centering"]
    lines += [f"\\caption{{{caption}}}"] if caption is not None else []
    lines += [f"\\label{{{label}}}"] if label is not None else []
    return "\n".join([*lines, f"{tabular}\\end{{table}}"]) + "\n"


def _aligned(sheet: Sheet) -> str:
    """Return a ``tabular`` whose columns of scores are ``S`` columns."""
    columns = [
        [(row[place], sheet.marks.get((down, place))) for down, row in enumerate(sheet.rows)]
        for place in range(len(sheet.columns))
    ]
    forms = ["l" if left else _form(cells) for cells, left in zip(columns, sheet.flush_left, strict=True)]
    heads = [
        latex_escaped(name) if form == "l" else f"{{{latex_escaped(name)}}}"
        for name, form in zip(sheet.columns, forms, strict=True)
    ]
    body = [
        [
            latex_escaped(cell) if forms[across] == "l" else _cell(cell, sheet.marks.get((down, across)))
            for across, cell in enumerate(row)
        ]
        for down, row in enumerate(sheet.rows)
    ]
    lines = [f"\\begin{{tabular}}{{{' '.join(forms)}}}", r"\toprule", _line(heads), r"\midrule"]
    lines += [*map(_line, body), r"\bottomrule", r"\end{tabular}"]
    comments = [f"needs booktabs, siunitx 3 and {SETUP}", *latex_notes(sheet, r"\textsuperscript{\sim}")]
    return "\n".join([*lines, *(f"% {text}" for text in comments)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _form(cells: Sequence[tuple[str, Mark | None]]) -> str:
    """Return the ``S`` column that holds the numbers of some cells: places before and after the point.

    What stands behind a number hangs over into the next column, unless the longest is given room.
    """
    numbers = [(_NUMBER.fullmatch(cell), mark) for cell, mark in cells]
    found = [(number, mark) for number, mark in numbers if number is not None]
    if not found:
        return "r"
    wholes, decimals, errors = [], [], []
    for number, _ in found:
        whole, _, part = number["value"].lstrip("-").partition(".")
        wholes.append(len(whole))
        decimals.append(len(part))
        errors.append(len(number["error"].replace(".", "").lstrip("0")) or 1)
    sign = "-" if any(number["value"].startswith("-") for number, _ in found) else ""
    longest = max((_remark(number, mark) for number, mark in found), key=len)
    room = f", table-space-text-post={{{longest}}}" if longest else ""
    return f"S[table-format={sign}{max(wholes)}.{max(decimals)}({max(errors)}){room}]"


def _cell(cell: str, mark: Mark | None) -> str:
    """Return a cell of an ``S`` column: a number, or in braces what is none."""
    number = _NUMBER.fullmatch(cell)
    if number is None:
        return f"{{{latex_escaped(cell)}}}" if cell else ""
    before = {"best": r"\bfseries ", "unjudged": r"\color{gray} "}.get(mark or "", "")
    after = _remark(number, mark)
    return f"{before}{number['value']} +- {number['error']}" + (f" {{{after}}}" if after else "")


def _remark(number: re.Match[str], mark: Mark | None) -> str:
    """Return what stands behind a number: the sign of a tie, and how many calls it took."""
    rest = latex_escaped(number["rest"].strip())
    return (r"\textsuperscript{$\sim$}" if mark == "tie" else "") + (rf"\,{rest}" if rest else "")
