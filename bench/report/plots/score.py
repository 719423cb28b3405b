"""Score against steps, and score against what it costs, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.drawing.style import LIGHT, Theme, plain_numbers, plain_ticks
from bench.published.values import PublishedValue
from bench.report.plots.axes import score_axis
from bench.report.plots.panels import Panel, panels
from bench.report.tables.table import Cell, Table, calls, higher_is_better, milliseconds, target


def score_against_steps(
    table: Table,
    theme: Theme = LIGHT,
    published: Sequence[PublishedValue] = (),
    axes: Axes | None = None,
) -> Figure:
    """Return score against S, both logarithmic, with one standard error and the floor of real images.

    Args:
        table: the table.
        theme: colours.
        published: figures of the same model and score, drawn as open markers in their row's colour; of
            several time grids on the one that the source names.
        axes: where to draw; a figure of its own where None.
    """
    several = len(table.spacings) > 1
    with panels(table, "Score against steps", theme, axes) as plot:
        for panel in plot.parts:
            here, part = panel.axes, panel.table
            _draw_rows(panel, lambda steps, _: steps, shifted=True)
            of_grid = [f for f in published if not several or f.spacing in ("", part.spacings[0])]
            if _draw_published(here, part, panel.looks, of_grid):
                (open_one,) = here.plot([], [], ls="none", marker="o", mfc="none", mec=theme.muted)
                open_one.set_label("published (open)")
            _floor(here, part, theme)
            plain_ticks(here, part.columns)
            score_axis(here, part)
            here.set_xlabel("number of steps S")
    return plot.figure


def score_against_time(table: Table, theme: Theme = LIGHT, axes: Axes | None = None) -> Figure:
    """Return score against sampling time per image, with the samplers no other beats joined by a line."""
    return _against_cost(
        table, theme, axes, milliseconds, "Score against time", "sampling time, milliseconds an image"
    )


def score_against_calls(table: Table, theme: Theme = LIGHT, axes: Axes | None = None) -> Figure:
    """Return score against counted network calls, with the samplers no other beats joined by a line."""
    return _against_cost(
        table, theme, axes, calls, "Score against network calls", "network calls an image, counted"
    )


def _against_cost(
    table: Table, theme: Theme, axes: Axes | None, cost: Callable[[Cell], float], title: str, label: str
) -> Figure:
    every = [cell for cell in table.cells.values() if cell.score is not None and cost(cell)]
    with panels(table, title, theme, axes) as plot:
        front = pareto_front(
            [(cost(cell), cell.score.value) for cell in every if cell.score is not None],
            higher_is_better=higher_is_better(table),
            target=target(table),
        )
        for panel in plot.parts:
            here, part = panel.axes, panel.table
            _draw_rows(panel, lambda _, cell: cost(cell), shifted=False)
            if front:
                joined = list(zip(*front, strict=True))
                here.plot(*joined, color=theme.muted, lw=1, ls="--", zorder=0, label="Pareto front")
            _floor(here, part, theme)
            here.set_xscale("log")
            plain_numbers(here.xaxis)
            score_axis(here, part)
            here.set_xlabel(label)
    return plot.figure


def _draw_rows(panel: Panel, at: Callable[[int, Cell], float], *, shifted: bool) -> None:
    """Draw every row of a panel with its errors, x by (S, cell), its points joined in the order of S."""
    rows = panel.table.rows
    for place, row in enumerate(rows):
        points = panel.table.series(row)
        if not points:
            continue
        shift, (colour, marker) = _aside(place, len(rows)) if shifted else 1.0, panel.looks[row]
        values, errors = _values(cell for _, cell in points)
        drawn = panel.axes.errorbar(
            [shift * at(steps, cell) for steps, cell in points],
            values,
            errors,
            label=row,
            linestyle="-",
            color=colour,
            marker=marker,
            capsize=2,
        )
        drawn.lines[0].set_gid(panel.ids[row])


def pareto_front(
    points: Iterable[tuple[float, float]], *, higher_is_better: bool, target: float | None = None
) -> list[tuple[float, float]]:
    """Return the (cost, score) points that no cheaper or equally cheap point beats, by ascending cost."""

    def loss(score: float) -> float:
        return abs(score - target) if target is not None else -score if higher_is_better else score

    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], loss(point[1]))):
        if not front or loss(score) < loss(front[-1][1]):
            front.append((cost, score))
    return front


def _aside(place: int, rows: int) -> float:
    """Return the factor that sets a row's points a little aside, so that equal scores are both seen."""
    return math.exp(0.012 * (place - (rows - 1) / 2))


def _draw_published(
    axes: Axes, table: Table, known: dict[str, tuple[str, str]], published: Sequence[PublishedValue]
) -> bool:
    """Draw the published values whose row is there, and return whether there were any."""
    rows = {row: table.row_info(row) for row in table.rows}
    drawn = False
    for figure in published:
        fitting = (row for row, info in rows.items() if figure.is_of(info.name, info.parameters))
        row = next(fitting, None)
        if row is None or figure.steps is None:
            continue
        drawn = True
        colour, marker = known[row]
        shift = _aside(table.rows.index(row), len(table.rows))
        axes.plot(
            [figure.steps * shift],
            [figure.value],
            ls="none",
            marker=marker,
            ms=10,
            mfc="none",
            mec=colour,
            mew=1.1,
        )
    return drawn


def _values(cells: Iterable[Cell]) -> tuple[list[float], list[float]]:
    scores = [cell.score for cell in cells if cell.score is not None]
    return [score.value for score in scores], [score.se for score in scores]


def _floor(axes: Axes, table: Table, theme: Theme) -> None:
    if table.floor is not None:
        value, error = table.floor.value, table.floor.se
        axes.axhspan(value - error, value + error, color=theme.band, alpha=0.5, lw=0)
        axes.axhline(value, color=theme.muted, lw=1, label="real images")
