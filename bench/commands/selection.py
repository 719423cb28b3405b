"""``table --filter``, ``--sort``, ``--fail-if``: which trials are shown, in which order, and what fails."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from bench.commands.conditions import Condition, columns_of
from bench.errors import UnknownNameError, UsageError
from bench.records.frame import frame, plain_rows
from bench.records.record import Record
from bench.report.tables.table import Cell, Table
from bench.stats.comparison import estimate


def chosen(records: Sequence[Record], filters: Sequence[str]) -> list[Record]:
    """Return the records of which every filter holds; those of real images stand beside whatever is left.

    Raises:
        UsageError: if a filter is no condition, or no trial is left.
    """
    if not filters:
        return list(records)
    rows = plain_rows(frame(records))
    conditions = [Condition.parse(text, columns_of(rows)) for text in filters]
    left = [
        record
        for record, row in zip(records, rows, strict=True)
        if record.kind == "real" or all(condition.holds(row) for condition in conditions)
    ]
    if all(record.kind == "real" for record in left):
        raise UsageError(f"no trial is left by --filter {' and '.join(map(str, conditions))}")
    return left


def failures(records: Sequence[Record], texts: Sequence[str]) -> list[str]:
    """Return a sentence for every trial of which a condition of ``--fail-if`` holds.

    A trial that failed and so has no number to be compared is among them: a gate that it slipped through
    would be none.
    """
    if not texts:
        return []
    rows = plain_rows(frame(records))
    conditions = [Condition.parse(text, columns_of(rows)) for text in texts]
    found = []
    for record, row in zip(records, rows, strict=True):
        if record.kind == "real":
            continue
        for condition in conditions:
            if condition.holds(row):
                found.append(f"{record.title}: {condition} ({condition.told(row)})")
            elif record.status == "failed" and (lacking := condition.lacking(row)):
                found.append(f"{record.title}: it failed and has no {', '.join(lacking)}")
    return found


def say_failures(sentences: Iterable[str]) -> int:
    """Print what failed and return the exit status that it gives."""
    status = 0
    for sentence in sentences:
        print(f"failed: {sentence}", file=sys.stderr)
        status = 1
    return status


def sorted_rows(rows: Sequence[dict[str, Any]], key: str | None) -> list[dict[str, Any]]:
    """Return rows of `load_results` by a column, what is missing last; a ``-`` before it turns them round."""
    if key is None:
        return list(rows)
    name, down = _direction(key)
    if name not in (known := columns_of(rows)):
        raise UnknownNameError("column", name, known)
    there = [row for row in rows if row.get(name) is not None]
    words = any(isinstance(row[name], str) for row in there)
    there.sort(key=lambda row: str(row[name]) if words else row[name], reverse=down)
    return [*there, *(row for row in rows if row.get(name) is None)]


def sorted_table(table: Table, key: str | None) -> Table:
    """Return a table with its rows in the order of a key.

    Args:
        table: the table.
        key: ``label``; ``score``, the best of the last column first; a column's heading as a number; or a
            column of `load_results`, of the cells of the last column. A ``-`` before it turns them round.

    Raises:
        UsageError: if the table has no such column.
    """
    if key is None:
        return table
    name, down = _direction(key)
    if name in ("label", "sampler"):
        rows = sorted(table.rows, reverse=down)
    else:
        column = int(name) if name.isdigit() else table.columns[-1]
        if column not in table.columns:
            heads = ", ".join(map(str, table.columns))
            raise UsageError(f"--sort {key}: no column of {table.title} is headed {name}; there are {heads}")
        cells = {row: table.cells[row, column] for row in table.rows if (row, column) in table.cells}
        values = _standings(cells) if name == "score" or name.isdigit() else _values(cells, name)
        rows = sorted(values, key=lambda row: values[row], reverse=down)
        rows += [row for row in table.rows if row not in values]
    return replace(table, known={row: table.known[row] for row in rows})


def _direction(key: str) -> tuple[str, bool]:
    """Return (name, whether the greatest comes first) of a key to sort by."""
    return key.removeprefix("-"), key.startswith("-")


def _standings(cells: dict[str, Cell]) -> dict[str, float]:
    """Return what rows are ranked by, the best least, of the rows that have a score."""
    scores = {row: cell.score for row, cell in cells.items() if cell.score is not None}
    found = {row: (-1 if score.higher_is_better else 1) * estimate(score) for row, score in scores.items()}
    return {row: value for row, value in found.items() if not math.isnan(value)}


def _values(cells: dict[str, Cell], name: str) -> dict[str, Any]:
    """Return what a column of `load_results` holds of each row that has it."""
    rows = plain_rows(frame([cell.record for cell in cells.values()]))
    if name not in (known := columns_of(rows)):
        raise UnknownNameError("column", name, known)
    found = dict(zip(cells, (row.get(name) for row in rows), strict=True))
    words = any(isinstance(value, str) for value in found.values())
    return {row: str(value) if words else value for row, value in found.items() if value is not None}
