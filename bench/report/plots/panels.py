"""Panels of a plot: one for each time grid of a table, with the same samplers in the same colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.drawing.style import LIGHT, Theme, figure_of, legend_beside, looks, plotting
from bench.report.plots.axes import headline
from bench.report.tables.table import Table, short_spacing

SIZE = (7.2, 4.4)
"""Width and height of one panel with its legend, in inches."""

WIDTH = 3.9
"""Width of each panel where there are several."""


class Panel(NamedTuple):
    """A part of a plot.

    Attributes:
        axes: where it is drawn.
        table: the rows of one time grid, under the samplers' own labels.
        looks: colour and marker of every row.
        ids: the SVG id of every row, which tells its place in the whole table.
    """

    axes: Axes
    table: Table
    looks: dict[str, tuple[str, str]]
    ids: dict[str, str]


class Panels(NamedTuple):
    """A plot with all its panels.

    Attributes:
        figure: the whole.
        parts: its panels.
    """

    figure: Figure
    parts: list[Panel]


@contextmanager
def panels(table: Table, title: str, theme: Theme = LIGHT, axes: Axes | None = None) -> Iterator[Panels]:
    """Draw a plot in panels that share their axis of scores; name and legend are put on at the end.

    In axes of the user's it is one panel with all rows, without a title, under the settings in force.
    """
    if axes is not None:
        ids = {label: f"row-{place}" for place, label in enumerate(table.rows)}
        yield Panels(figure_of(axes), [Panel(axes, table, looks(table.rows, theme), ids)])
        axes.legend()
        return
    grids = table.on_each_grid()
    samplers = list(dict.fromkeys(row for _, part in grids for row in part.rows))
    known = looks(samplers, theme)
    places = list(table.known.values())
    with plotting(theme):
        size = SIZE if len(grids) == 1 else (WIDTH * len(grids) + 2.2, 0.3 * len(samplers) + 2.0)
        figure = Figure(figsize=(size[0], max(size[1], SIZE[1])), layout="constrained")
        row = figure.subplots(1, len(grids), sharey=True, squeeze=False)[0]
        parts = [
            Panel(
                place, part, known, {label: f"row-{places.index(one)}" for label, one in part.known.items()}
            )
            for place, (_, part) in zip(row, grids, strict=True)
        ]
        yield Panels(figure, parts)
        if len(grids) == 1:
            headline(parts[0].axes, table, title)
        else:
            figure.suptitle(f"{title}\n{table.title}", x=0.01, ha="left")
            for place, (spacing, _) in zip(row, grids, strict=True):
                place.set_title(short_spacing(spacing))
            for place in row[1:]:
                place.set_ylabel("")
        legend_beside(row[-1])
