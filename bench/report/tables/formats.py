"""The table: samplers down, numbers of steps across, each score with its standard error."""

from __future__ import annotations

import csv
import html
import io
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.records.record import FLOOR
from bench.report.tables.table import Cell, Group

NOTE = "± one standard error; * best of its column, ~ cannot be told from it (paired, 95%)"


FLAGS = {
    "rank-deficient": "too few samples for the dimension: bias is not corrected, plain values are compared",
    "few-samples": "few samples for the dimension: bias-corrected values are too low",
    "singular-reference": "the reference's covariance has no full rank",
    "imported-reference": "scored against statistics of others, whose weights and resize are not known",
    "other-weights": "a feature network with weights other than the published ones",
    "incomplete": "samples are missing",
    "no-error": "too few samples for a standard error",
    "fewer-references": "fewer reference images than samples",
    "copies-training-images": "samples are nearer to training images than real images are",
}
"""What the flags of built-in scores mean, in a line below the table."""


def plain(group: Group) -> str:
    """Return the table as aligned text."""
    rows = _rows(group, other="%s ")
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            text.ljust(w) if i == 0 else text.rjust(w)
            for i, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([group.title, rule, lines[0], rule, *lines[1:], rule, NOTE, *flag_notes(group)]) + "\n"


def markdown(group: Group) -> str:
    """Return the table as GitHub Markdown."""
    head, *body = _rows(group)
    lines = [f"**{group.title}**", "", _piped(head), _piped(["---", *["---:"] * (len(head) - 1)])]
    lines += [_piped([_escaped(c) for c in row]) for row in body]
    notes = [line for note in flag_notes(group) for line in ("", note)]
    return "\n".join([*lines, "", NOTE.replace("*", "\\*"), *notes]) + "\n"


def latex(group: Group) -> str:
    """Return the table as a LaTeX ``tabular`` that needs the package booktabs."""
    head, *body = _rows(group, best=r"\textbf{%s}", tie=r"\underline{%s}", plus_minus=r"$\pm$")
    lines = [r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}", r"\toprule", _joined(head), r"\midrule"]
    comments = [f"% {line}" for line in (group.title, *flag_notes(group))]
    return "\n".join([*lines, *map(_joined, body), r"\bottomrule", r"\end{tabular}", *comments]) + "\n"


def comma_separated(group: Group) -> str:
    """Return one line a cell: sampler, steps, score and its parts, unrounded."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["model", "sampler", "steps", "metric", "score", "score_se", "score_debiased", "n", "status", "key"]
    )
    for row in group.rows:
        for column in group.columns:
            cell = group.cells.get((row, column))
            if cell is None:
                continue
            score, trial = cell.score, cell.record.trial
            numbers = [score.value, score.se, score.debiased] if score else ["", "", ""]
            tail = [trial.n, cell.record.status, cell.record.key]
            writer.writerow([trial.model, row, column, group.metric, *numbers, *tail])
    if group.floor is not None:
        floor, model = group.floor, next(iter(group.cells.values())).record.trial.model
        writer.writerow(
            [model, FLOOR, "", group.metric, floor.value, floor.se, floor.debiased, floor.n, "done", ""]
        )
    return buffer.getvalue()


def html_table(group: Group) -> str:
    """Return the table as an HTML ``table`` element."""
    head, *body = _rows(group)
    cells = "".join(f"<th scope=col>{html.escape(c)}</th>" for c in head)
    lines = [
        f"<table><caption>{html.escape(group.title)}</caption>",
        f"<thead><tr>{cells}</tr></thead><tbody>",
    ]
    for first, *rest in body:
        data = "".join(f"<td>{html.escape(c)}</td>" for c in rest)
        lines.append(f"<tr><th scope=row>{html.escape(first)}</th>{data}</tr>")
    return "\n".join([*lines, "</tbody></table>"]) + "\n"


FORMATS: dict[str, Callable[[Group], str]] = {
    "text": plain,
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
    "html": html_table,
}


def show(group: Group, console: Console) -> None:
    """Print the table, on a terminal with the best of each column bold and its ties green."""
    live = console.is_terminal
    marks = {"best": "[bold green]%s[/]", "tie": "[green]%s[/]"} if live else {"other": "%s "}
    head, *body = _rows(group, **marks)
    table = Table()
    table.add_column(head[0])
    for name in head[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in body:
        table.add_row(*row, end_section=row is body[-1])
    note = NOTE.replace("* best", "bold: best").replace("~", "green:") if live else NOTE
    notes = map(escape, flag_notes(group))
    console.print(f"[bold]{escape(group.title)}[/]", table, note, *notes, sep="\n")


def flag_notes(group: Group) -> list[str]:
    """Return a line for every flag that scores of the table carry: in how many cells, and what it means."""
    scores = [cell.score for cell in group.cells.values() if cell.score is not None]
    counts = Counter(flag for score in scores for flag in score.flags)
    return [
        f"{flag}, {count} of {len(scores)} cells: {FLAGS[flag]}"
        if flag in FLAGS
        else f"{flag}, {count} of {len(scores)} cells"
        for flag, count in counts.items()
    ]


def _rows(
    group: Group, *, best: str = "%s*", tie: str = "%s~", other: str = "%s", plus_minus: str = "±"
) -> list[list[str]]:
    digits = _digits(group)
    leaders = {column: group.leaders(column) for column in group.columns}

    def text(row: str, column: int) -> str:
        shown = _cell(group.cells.get((row, column)), digits, plus_minus)
        first, ties = leaders[column]
        return (best if row == first else tie if row in ties else other) % shown

    rows = [["sampler", *(other % f"S={column}" for column in group.columns)]]
    rows += [[row, *(text(row, column) for column in group.columns)] for row in group.rows]
    if group.floor is not None:
        floor = f"{group.floor.value:.{digits}f} {plus_minus} {group.floor.se:.{digits}f}"
        rows.append([f"{FLOOR} (n={group.floor.n:,})", *[other % floor] * len(group.columns)])
    return rows


def _cell(cell: Cell | None, digits: int, plus_minus: str) -> str:
    if cell is None:
        return ""
    if cell.score is None:
        return cell.record.status if cell.record.status != "done" else ""
    return f"{cell.score.value:.{digits}f} {plus_minus} {cell.score.se:.{digits}f}"


def _digits(group: Group) -> int:
    """Return how many decimals show the smallest standard error with two figures, from 1 to 6."""
    errors = [c.score.se for c in group.cells.values() if c.score is not None and c.score.se > 0]
    return next((d for d in range(1, 6) if min(errors, default=1) >= 10 ** (1 - d)), 6)


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return f"**{text[:-1]}**" if text.endswith("*") else text


def _joined(cells: Sequence[str]) -> str:
    return " & ".join(cell.replace("_", r"\_").replace("%", r"\%") for cell in cells) + r" \\"
