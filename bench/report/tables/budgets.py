"""The same table by network calls: what each row gets for a budget, whatever a step of its rule costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from bench.report.tables.sheets import Sheet
from bench.report.tables.table import By, Cell, Table, calls, cost_of

NEARLY = 0.8
"""The part of a budget that must be spent to be compared with those who spend it all."""


def arranged(table: Table, by: By | None = None) -> Table:
    """Return a table with S or network calls at the head of its columns.

    Args:
        table: one whose columns are numbers of steps.
        by: which; None: network calls where the rows differ in what S steps cost, else S.
    """
    chosen = by or ("calls" if differ_in_calls(table) else "steps")
    return by_calls(table) if chosen == "calls" else table


def differ_in_calls(table: Table) -> bool:
    """Return whether some rows take more network calls than others for the same S."""
    extra: dict[int, set[float]] = {}
    for (_, steps), cell in _drawn(table):
        extra.setdefault(steps, set()).add(calls(cell) - _steps(cell))
    return any(len(found) > 1 for found in extra.values())


def by_calls(table: Table) -> Table:
    """Return a table whose columns are budgets of network calls.

    The budgets are the S of rows that take one call a step; where there are none, every number of calls that
    occurs. A column holds of each row the cell with the most calls that it allows, if these are `NEARLY` as
    many: Heun's S=5, of 9 calls, stands under 10 beside DDIM's S=10. Other cells get columns of their own.
    """
    drawn = list(_drawn(table))
    plain = {steps for (_, steps), cell in drawn if calls(cell) == _steps(cell)}
    budgets = sorted(plain or {_whole(calls(cell)) for _, cell in drawn})
    cells: dict[tuple[str, int], Cell] = {}
    for (row, steps), cell in sorted(table.cells.items(), key=lambda item: calls(item[1])):
        # A grid of 31 steps for S = 30 is one call a step too; a cell without calls failed, and is shown.
        own = not calls(cell) or calls(cell) == _steps(cell)
        cells[row, steps if own else _budget(calls(cell), budgets)] = cell
    return replace(table, columns=sorted({column for _, column in cells}), cells=cells, by="calls")


def latency_sheet(table: Table) -> Sheet:
    """Return how long sampling takes in units of one bare network call, as a table.

    A cell's unit is the mean call of its own trial: one that was drawn while the machine had other work is
    not shown as slower, and a sampler whose arithmetic were free would show its number of calls.
    """
    drawn = [(place, cell) for place, cell in _drawn(table) if cost_of(cell).model_seconds]
    units = [1000 * cost_of(cell).model_seconds / (cell.record.trial.n * calls(cell)) for _, cell in drawn]
    times = {
        place: calls(cell) * cost_of(cell).sampling_seconds / cost_of(cell).model_seconds
        for place, cell in drawn
    }
    shown = [
        [row, *(f"{times[row, c]:.1f}" if (row, c) in times else "" for c in table.columns)]
        for row in table.rows
    ]
    lines = [
        {
            "sampler": row,
            table.by: column,
            "calls_spent": calls(table.cells[row, column]),
            "latency_in_calls": value,
        }
        for (row, column), value in times.items()
    ]
    return Sheet(
        title=f"Latency in network calls: {table.title}",
        columns=["sampler", *map(table.head, table.columns)],
        rows=shown,
        frame=pd.DataFrame(lines),
        note=f"in network calls of each cell's own trial{_told(units)}",
        text=frozenset({"sampler"}),
    )


def _told(units: Sequence[float]) -> str:
    """Return how long one call takes in the cells, from the least to the most; empty where nobody knows."""
    if not units:
        return ""
    least, most = f"{min(units):.3g}", f"{max(units):.3g}"
    return f", {least if least == most else f'{least} to {most}'} ms an image"


def _drawn(table: Table) -> Iterable[tuple[tuple[str, int], Cell]]:
    """Yield the cells whose calls were counted."""
    return ((place, cell) for place, cell in table.cells.items() if calls(cell))


def _steps(cell: Cell) -> float:
    return cell.record.grid.steps or cell.record.trial.steps


def _whole(count: float) -> int:
    return -int(-count // 1)


def _budget(count: float, budgets: Iterable[int]) -> int:
    return next((one for one in budgets if NEARLY * one <= count <= one), _whole(count))
