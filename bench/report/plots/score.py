"""Score against steps, and score against what it costs, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.drawing.style import LIGHT, Theme, legend_beside, looks, plain_numbers, plain_ticks, plotting
from bench.published.values import PublishedValue
from bench.report.plots.axes import headline, score_axis
from bench.report.tables.table import Cell, Table, calls, higher_is_better, milliseconds, target

SIZE = (7.2, 4.4)


def score_against_steps(
    table: Table, theme: Theme = LIGHT, published: Sequence[PublishedValue] = ()
) -> Figure:
    """Return score against S, both logarithmic, with one standard error and the floor of real images.

    Args:
        table: the table.
        theme: colours.
        published: figures of the same model and score, drawn as open markers in their row's colour.
    """
    with plotting(theme):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        known = looks(table.rows, theme)
        for place, (row, (colour, marker)) in enumerate(known.items()):
            points = table.series(row)
            if not points:
                continue
            shift = _aside(place, len(known))
            values, errors = _values(cell for _, cell in points)
            steps = [step * shift for step, _ in points]
            drawn = axes.errorbar(steps, values, errors, color=colour, marker=marker, capsize=2, label=row)
            drawn.lines[0].set_gid(f"row-{place}")
        if _draw_published(axes, table, known, published):
            axes.plot([], [], ls="none", marker="o", mfc="none", mec=theme.muted, label="published (open)")
        _floor(axes, table, theme)
        plain_ticks(axes, table.columns)
        score_axis(axes, table)
        axes.set_xlabel("number of steps S")
        headline(axes, table, "Score against steps")
        legend_beside(axes)
    return figure


def score_against_time(table: Table, theme: Theme = LIGHT) -> Figure:
    """Return score against sampling time per image, with the samplers no other beats joined by a line."""
    return _against_cost(
        table, theme, milliseconds, "Score against time", "sampling time, milliseconds an image"
    )


def score_against_calls(table: Table, theme: Theme = LIGHT) -> Figure:
    """Return score against counted network calls, with the samplers no other beats joined by a line."""
    return _against_cost(
        table, theme, calls, "Score against network calls", "network calls an image, counted"
    )


def _against_cost(
    table: Table, theme: Theme, cost: Callable[[Cell], float], title: str, label: str
) -> Figure:
    with plotting(theme):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        points: list[tuple[float, float]] = []
        for place, (row, (colour, marker)) in enumerate(looks(table.rows, theme).items()):
            shift = _aside(place, len(table.rows)) if cost is calls else 1.0
            cells = [cell for _, cell in table.series(row)]
            if not cells:
                continue
            costs = [cost(cell) for cell in cells]
            values, errors = _values(cells)
            points += zip(costs, values, strict=True)
            drawn = axes.errorbar(
                [shift * x for x in costs],
                values,
                errors,
                label=row,
                linestyle="none",
                color=colour,
                marker=marker,
                capsize=2,
            )
            drawn.lines[0].set_gid(f"row-{place}")
        front = pareto_front(points, higher_is_better=higher_is_better(table), target=target(table))
        if front:
            axes.plot(
                *zip(*front, strict=True), color=theme.muted, lw=1, ls="--", zorder=0, label="Pareto front"
            )
        _floor(axes, table, theme)
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
        score_axis(axes, table)
        axes.set_xlabel(label)
        headline(axes, table, title)
        legend_beside(axes)
    return figure


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
    rows = {row: table.row_info(row) for row in known}
    drawn = False
    for figure in published:
        fitting = (
            row
            for row, info in rows.items()
            if figure.is_of(info.name, info.parameters) and _same_grid(table, row, figure)
        )
        row = next(fitting, None)
        if row is None or figure.steps is None:
            continue
        drawn = True
        colour, marker = known[row]
        shift = _aside(list(known).index(row), len(known))
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


def _same_grid(table: Table, row: str, figure: PublishedValue) -> bool:
    """Return whether a published value may stand beside a row: of several grids, on the one it names."""
    return len(table.spacings) == 1 or figure.spacing in ("", table.known[row].spacing)


def _values(cells: Iterable[Cell]) -> tuple[list[float], list[float]]:
    scores = [cell.score for cell in cells if cell.score is not None]
    return [score.value for score in scores], [score.se for score in scores]


def _floor(axes: Axes, table: Table, theme: Theme) -> None:
    if table.floor is not None:
        value, error = table.floor.value, table.floor.se
        axes.axhspan(value - error, value + error, color=theme.band, alpha=0.5, lw=0)
        axes.axhline(value, color=theme.muted, lw=1, label="real images")
