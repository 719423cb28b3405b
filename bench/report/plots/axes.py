"""Axes of the plots of a table: the score, and the title above."""

from __future__ import annotations

from matplotlib.axes import Axes

from bench.drawing.style import plain_numbers
from bench.report.tables.table import Table, direction


def score_axis(axes: Axes, table: Table) -> None:
    """Name the y axis after the score, and make it logarithmic where every value is positive."""
    scores = [cell.score.value for cell in table.cells.values() if cell.score is not None]
    if scores and min(scores) > 0:
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
    axes.set_ylabel(f"{table.metric} ({direction(table)})")


def headline(axes: Axes, table: Table, title: str) -> None:
    """Put the title over what the table's trials have in common."""
    axes.set_title(f"{title}\n{table.title}", loc="left")
