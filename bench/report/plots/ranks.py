"""How sure the ranks of a table are: every row's rank with its interval, a panel a column."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.drawing.style import LIGHT, Theme, figure_of, subplots
from bench.report.tables.budgets import arranged
from bench.report.tables.stability import Column, ranked
from bench.report.tables.table import Table

MOST = 40
"""Rows beyond which a label has no room."""


def rank_plot(table: Table, theme: Theme = LIGHT, axes: Axes | None = None) -> Figure | None:
    """Return rank intervals of every row, a panel for each column, in colour where they hold rank 1.

    None where no column has two rows to rank, or rows are too many to be told apart.
    """
    shown = arranged(table)
    found = {column: one for column in shown.columns if (one := ranked(shown, column)) is not None}
    rows = [row for row in shown.rows if any(row in one.rows for one in found.values())]
    if not found or len(rows) > MOST:
        return None
    labels = 0.075 * max(map(len, rows))
    size = (1.0 + labels + 1.75 * len(found), 1.5 + 0.24 * len(rows))
    told = "rank and its 95% interval; in colour where it may be 1, the best"
    with subplots(len(found), size, theme, axes, sharey=True) as parts:
        for here, (column, one) in zip(parts, found.items(), strict=True):
            _draw(here, one, rows, theme)
            here.set_title(shown.head(column))
        parts[0].set_yticks(range(len(rows)), rows)
        parts[0].invert_yaxis()
        figure = figure_of(parts[0])
        if axes is None:
            figure.supxlabel(told)
            figure.suptitle(f"How sure the ranks are\n{table.title}", x=0.01, ha="left")
        else:
            axes.set_xlabel(told)
    return figure


def _draw(axes: Axes, column: Column, rows: list[str], theme: Theme) -> None:
    ranks = column.ranks
    for place, row in enumerate(rows):
        rank = ranks.get(row)
        if rank is None:
            continue
        colour = theme.series[0] if rank.low == 1 else theme.muted
        axes.plot([rank.low, rank.high], [place, place], color=colour, lw=2, solid_capstyle="round")
        axes.plot([rank.place], [place], ls="none", marker="o", color=colour, ms=5)
    axes.set_xlim(0.3, len(ranks) + 0.7)
    axes.set_xticks(sorted({1, (len(ranks) + 1) // 2, len(ranks)}))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
