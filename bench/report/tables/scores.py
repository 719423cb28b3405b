"""The table: samplers down, numbers of steps across, each score with its standard error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.records.record import FLOOR, DrawingInfo, Outcome
from bench.report.tables.sheets import Mark, Sheet
from bench.report.tables.table import Cell, Table, calls, is_split_off, short_spacing

FLAGS = {
    "rank-deficient": "too few samples for the dimension: bias is not corrected, plain values are compared",
    "few-samples": "few samples for the dimension: bias-corrected values are too low",
    "singular-reference": "the reference's covariance has no full rank",
    "imported-reference": "scored against statistics of others, whose weights and resize are not known",
    "other-weights": "a feature network with weights other than the published ones",
    "lossy-reference": "reference images from JPEG files, whose artefacts samples are measured by too",
    "incomplete": "samples are missing",
    "saturated": "more than 5% of the values lay far outside [-1, 1] and were cut off",
    "range": "mean or spread of the images is far from the reference's: look at the pictures first",
    "no-error": "too few samples for a standard error",
    "fewer-references": "fewer reference images than samples",
    "copies-training-images": "samples are nearer to training images than real images are",
}
"""What the flags of built-in scores mean, in a line below the table."""

ERRORS = "± one standard error"

_FRAME = 3
"""What a column of a table on a console takes beside its text: a line, and a space on both sides."""


def score_sheet(table: Table) -> Sheet:
    """Return a table of scores, the best of each column marked, with the flags of its cells below."""
    digits, most = _digits(table), max(cell.record.trial.n for cell in table.cells.values())

    def budget(column: int) -> int | None:
        return column if table.by == "calls" else None

    marks: dict[tuple[int, int], Mark] = {}
    for across, column in enumerate(table.columns, start=1):
        best, ties = table.leaders(column)
        if table.unjudged(column):
            marks |= {(down, across): "unjudged" for down in range(len(table.rows))}
        marks |= {
            (down, across): "best" if row == best else "tie"
            for down, row in enumerate(table.rows)
            if row == best or row in ties
        }
    rows = [
        [
            row,
            *(
                _text(table.cells.get((row, column)), digits, most, budget(column))
                for column in table.columns
            ),
        ]
        for row in table.rows
    ]
    if table.floor is not None:
        floor = f"{table.floor.value:.{digits}f} ± {table.floor.se:.{digits}f}"
        rows.append([f"{FLOOR} (n={table.floor.n:,})", *[floor] * len(table.columns)])
    return Sheet(
        title=table.title,
        columns=["sampler", *map(table.head, table.columns)],
        rows=rows,
        frame=pd.DataFrame(_lines(table)).astype({"steps": "Int64"}),
        note="\n".join(
            [
                ERRORS,
                *left_out_notes(table),
                *call_notes(table),
                *step_notes(table),
                *tuning_notes(table),
                *mode_notes(table),
                *floor_note(table),
                *clip_notes(table),
                *unjudged_notes(table),
                *flag_notes(table),
                *stop_notes(table),
            ]
        ),
        text=frozenset({"sampler"}),
        marks=marks,
    )


def show(table: Table, console: Console) -> None:
    """Print the table; on a terminal the best of each column is bold and its ties are green.

    Without colours, as ``NO_COLOR`` asks for, signs stand in their place. Columns for which there is no room
    follow below, behind the samplers again.
    """
    sheet, live = score_sheet(table), console.is_terminal and not console.no_color
    styles = {"best": "bold green", "tie": "green", "unjudged": "bright_black"}
    signs = {"best": "*", "tie": "~"}
    heads = [name if live else f"{name} " for name in sheet.columns[1:]]
    labels = [Text(first) for first, *_ in sheet.rows]
    columns: list[list[Text]] = [[] for _ in heads]
    for down, (_, *rest) in enumerate(sheet.rows):
        for across, cell in enumerate(rest):
            mark = sheet.marks.get((down, across + 1), "")
            text = Text(cell, styles.get(mark, "")) if live else Text(cell + signs.get(mark, " "))
            columns[across].append(text)
    console.print(Text(sheet.title, "bold"))
    first, *widths = map(_width, (sheet.columns[0], *heads), (labels, *columns))
    for part in _that_fit(widths, console.width - first - _FRAME - 1):
        shown = RichTable()
        shown.add_column(sheet.columns[0], overflow="fold")
        for across in part:
            shown.add_column(heads[across], justify="right", no_wrap=True)
        for label, *cells in zip(labels, *(columns[across] for across in part), strict=True):
            shown.add_row(label, *cells)
        console.print(shown)
    notes = sheet.paragraphs("bold:", "green:") if live else sheet.paragraphs("*", "~")
    console.print(*map(Text, notes), sep="\n")


def _width(head: str, cells: Iterable[Text]) -> int:
    return max([cell_len(head), *(cell.cell_len for cell in cells)])


def _that_fit(widths: Sequence[int], room: int) -> list[list[int]]:
    """Return the places of columns in groups that a room has space for, each of one at least."""
    parts: list[list[int]] = [[]]
    left = room
    for place, width in enumerate(widths):
        left -= width + _FRAME
        if left < 0 and parts[-1]:
            parts.append([])
            left = room - width - _FRAME
        parts[-1].append(place)
    return parts


def step_notes(table: Table) -> list[str]:
    """Return a line for each time grid that has other numbers of steps than were asked for."""
    notes = []
    for spacing in table.spacings:
        records = [c.record for (row, _), c in table.cells.items() if table.known[row].spacing == spacing]
        taken = {record.trial.steps: record.grid.steps for record in records}
        others = [f"{taken[s]} steps for S={s}" for s in sorted(taken) if taken[s] not in (None, s)]
        notes += [f"spacing {short_spacing(spacing)} takes {', '.join(others)}"] if others else []
    return notes


def left_out_notes(table: Table) -> list[str]:
    """Return the line that says how many rows are not shown: the best of those that are may not be it."""
    rows = f"{table.left_out} further row{'s' if table.left_out > 1 else ''}"
    return [f"{rows} of these results not shown; marks are among those shown"] if table.left_out else []


def call_notes(table: Table) -> list[str]:
    """Return the line that says what a column of network calls holds; none where S heads the columns."""
    if table.by == "steps":
        return []
    return [
        "a column allows so many network calls; where a row cannot spend them all, its own stand in brackets"
    ]


def tuning_notes(table: Table) -> list[str]:
    """Return the line that names the rows with learned numbers, and the network calls that learning took."""
    spent: dict[str, int] = {}
    for (row, _), cell in table.cells.items():
        if cell.record.grid.tuning_calls:
            spent[row] = cell.record.grid.tuning_calls
    told = [f"{row} {spent[row]:,}" for row in table.rows if row in spent]
    return [f"network calls of tuning, before the run: {', '.join(told)}"] if told else []


def unjudged_notes(table: Table) -> list[str]:
    """Return the line that says which columns bear no verdict, and why."""
    scored = [column for column in table.columns if table.scores(column)]
    reasons = {column: table.unjudged(column) for column in scored}
    told = []
    for why in dict.fromkeys(filter(None, reasons.values())):
        heads = [table.head(column) for column in scored if reasons[column] == why]
        where = f" at {', '.join(heads)}" if len(heads) < len(scored) else ""
        told.append(f"not judged{where}: every score is {why}")
    return told


def clip_notes(table: Table) -> list[str]:
    """Return the line that says that rows differ in how they clip x_0 too; none where they do not."""
    clips = table.clips
    if len(set(clips.values())) < 2:
        return []
    told = ", ".join(f"clip {clip}" for clip in dict.fromkeys(clips.values()) if clip != "none")
    return [
        f"{told}: rows so labelled clip the predicted x_0, the others do not; part of their contrast is that"
    ]


def mode_notes(table: Table) -> list[str]:
    """Return what is changed by how the network was run, and where memory did not hold a batch."""
    told: dict[str, None] = {}
    cells = [cell.record for cell in table.cells.values() if cell.record.drawing is not None]
    drawn = [record.drawing for record in cells if record.drawing is not None]
    answers = [one.answers for one in drawn if one.answers is not None]
    images = [one.images for one in drawn if one.images is not None]
    if images:
        how = f"network run in mode {table.trial.mode}, {table.trial.precision}"
        told[
            f"{how}: its answers differ from those of eager float32 by at most {max(answers):.2g} of the"
            f" greatest value, images by {max(images):.2g} of 256 levels on average in the worst row"
        ] = None
    batches = sorted({one.batch for one in drawn if one.batch is not None})
    if batches:
        told[f"memory held {', '.join(map(str, batches))} samples at a time in {_counted(drawn)}"] = None
    return [*told]


def _counted(drawn: list[DrawingInfo]) -> str:
    count = sum(one.batch is not None for one in drawn)
    return f"{count} cell{'s' if count != 1 else ''}"


def floor_note(table: Table) -> list[str]:
    """Return the line that says where real images are from, where nobody named them."""
    split = table.floor_record is not None and is_split_off(table.floor_record)
    return [f"{FLOOR}: a part of the reference, scored against the rest of it"] if split else []


ENDED: Mapping[Outcome, str] = {
    "beaten": "dropped at n={n}: beaten by {by}",
    "best": "ended at n={n}: all others of the column are beaten",
    "tied": "ended at n={n}: tied with {by}",
    "precise": "ended at n={n}: the standard error is small enough",
    "most": "ended at n={n}, the most that was allowed",
    "time": "ended at n={n}: the time was spent",
    "continued": "under way at n={n}",
}
"""How drawing in rounds ended for a trial, by its outcome."""


def stop_notes(table: Table) -> list[str]:
    """Return what was asked of a sweep in rounds, and a line for each way in which its trials ended."""
    stops: dict[str, list[str]] = {}
    rules: dict[str, None] = {}
    for column in table.columns:
        for row in table.rows:
            cell = table.cells.get((row, column))
            stopping = cell.record.stopping if cell is not None else None
            if cell is None or stopping is None:
                continue
            claims = f"; at {1 - stopping.level:.0%} nothing said below of a column is false"
            rules[f"drawn in rounds, {stopping.rule}{claims if stopping.level else ''}"] = None
            if stopping.outcome in ENDED:
                told = ENDED[stopping.outcome].format(n=f"{cell.record.trial.n:,}", by=stopping.by)
                stops.setdefault(f"{table.head(column)}: {told}", []).append(row)
    if len({cell.record.trial.n for cell in table.cells.values()}) > 1:
        rules["cells of different n are compared on the images that both have, not by the numbers shown"] = (
            None
        )
    return [*rules, *(f"{told}: {', '.join(rows)}" for told, rows in stops.items())]


def flag_notes(table: Table) -> list[str]:
    """Return a line for every flag that scores of the table carry: in how many cells, and what it means."""
    scores = [cell.score for cell in table.cells.values() if cell.score is not None]
    counts = Counter(flag for score in scores for flag in score.flags)
    return [
        f"{flag}, {count} of {len(scores)} cells: {FLAGS[flag]}"
        if flag in FLAGS
        else f"{flag}, {count} of {len(scores)} cells"
        for flag, count in counts.items()
    ]


def _lines(table: Table) -> Iterator[dict[str, object]]:
    """Yield one line a cell with unrounded numbers, and one of real images."""
    for row in table.rows:
        for column in table.columns:
            cell = table.cells.get((row, column))
            if cell is not None:
                yield _line(table, row, column, cell)
    if table.floor is not None and table.floor_record is not None:
        yield _line(table, FLOOR, None, Cell(table.floor_record, table.floor))


def _line(table: Table, row: str, column: int | None, cell: Cell) -> dict[str, object]:
    score, record = cell.score, cell.record
    return {
        "model": record.trial.model,
        "sampler": row,
        "spacing": record.trial.spacing,
        "steps": record.trial.steps or None,
        **({"column": column, "calls": calls(cell)} if table.by == "calls" else {}),
        "metric": table.metric,
        "score": score.value if score else None,
        "score_se": score.se if score else None,
        "score_debiased": score.debiased if score else None,
        "n": record.trial.n,
        "status": record.status,
        "key": record.key,
    }


def _text(cell: Cell | None, digits: int, most: int, budget: int | None = None) -> str:
    if cell is None:
        return ""
    if cell.score is None:
        return cell.record.status if cell.record.status != "done" else ""
    aside = [] if budget is None or calls(cell) == budget else [f"{calls(cell):g}"]
    aside += [] if cell.record.trial.n == most else [f"n={cell.record.trial.n:,}"]
    told = f" ({', '.join(aside)})" if aside else ""
    return f"{cell.score.value:.{digits}f} ± {cell.score.se:.{digits}f}{told}"


def _digits(table: Table) -> int:
    """Return how many decimals show the smallest standard error with two figures, from 1 to 6."""
    errors = [c.score.se for c in table.cells.values() if c.score is not None and c.score.se > 0]
    return next((d for d in range(1, 6) if min(errors, default=1) >= 10 ** (1 - d)), 6)
