"""Where the time of a trial goes, and how far its score hangs on each part of the samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bench.drawing.style import LIGHT, Theme, figure_of, looks, subplots
from bench.report.tables.table import Cell, Table, cost_of

PARTS = ("network", "sampler and noise", "scoring")


HATCHES = ("", "////", "....")


def time_breakdown(table: Table, theme: Theme = LIGHT, axes: Axes | None = None) -> Figure | None:
    """Return microseconds an image and step, by sampler and S, of network, sampler with noise, and scoring.

    None where no trial says what it cost.
    """
    rows = [row for row in table.rows if table.series(row)]
    columns = [step for step in table.columns if any((row, step) in table.cells for row in rows)]
    if not rows or not columns:
        return None
    with _panels(rows, columns, theme, axes) as panels:
        for here, step in zip(panels, columns, strict=True):
            here.grid(visible=False, axis="y")
            for place, row in enumerate(rows):
                cell = table.cells.get((row, step))
                if cell is None or cell.score is None:
                    continue
                left = 0.0
                for part, (colour, hatch) in enumerate(zip(theme.series[:3], HATCHES, strict=True)):
                    width = _microseconds(cell)[part]
                    here.barh(
                        place, width, 0.7, left, color=colour, hatch=hatch, edgecolor=theme.paper, lw=0,
                    )  # fmt: skip
                    left += width
            here.set_title(f"S={step}", fontsize=9)
        panels[0].set_yticks(range(len(rows)), rows)
        panels[0].invert_yaxis()
        figure = figure_of(panels[0])
        if axes is None:
            _finish(figure, table, "Where the time goes: microseconds an image and step")
        known = [
            Patch(facecolor=colour, hatch=hatch, edgecolor=theme.paper, lw=0, label=part)
            for colour, hatch, part in zip(theme.series[:3], HATCHES, PARTS, strict=True)
        ]
        if axes is None:
            figure.legend(handles=known, loc="outside lower center", ncols=3)
        else:
            axes.legend(handles=known)
            axes.set_xlabel("microseconds an image and step")
    return figure


def jackknife_stability(table: Table, theme: Theme = LIGHT, axes: Axes | None = None) -> Figure | None:
    """Return, for every cell, the score without each jackknife group in per cent of the score.

    A point far from the others is a part of the samples that the score hangs on. None where no score has
    groups.
    """
    rows = [row for row in table.rows if any(_left(cell) for _, cell in table.series(row))]
    columns = [s for s in table.columns if any(_left(table.cells.get((row, s))) for row in rows)]
    if not rows or not columns:
        return None
    with _panels(rows, columns, theme, axes) as panels:
        for here, step in zip(panels, columns, strict=True):
            here.grid(visible=False, axis="y")
            here.axvline(0, color=theme.muted, lw=0.8, zorder=0)
            for place, (row, (colour, _)) in enumerate(looks(rows, theme).items()):
                points = _left(table.cells.get((row, step)))
                spread = [0.5 * ((k * 7 % len(points)) / len(points) - 0.5) for k in range(len(points))]
                here.scatter(points, [place + y for y in spread], s=9, color=colour, alpha=0.8, lw=0)
            here.set_title(f"S={step}", fontsize=9)
        panels[0].set_yticks(range(len(rows)), rows)
        panels[0].invert_yaxis()
        groups = max(len(cell.score.leave_one_out) for cell in table.cells.values() if cell.score is not None)
        change = "change of the score, in %"
        title = f"Jackknife stability: {change}, without each of {groups} groups of samples"
        if axes is None:
            _finish(figure_of(panels[0]), table, title)
        else:
            axes.set_xlabel(change)
    return figure_of(panels[0])


def _left(cell: Cell | None) -> list[float]:
    """Return the leave-one-out values in per cent of the score, less the score itself."""
    if cell is None or cell.score is None or not cell.score.value:
        return []
    value = cell.score.value
    return [100 * (left - value) / abs(value) for left in cell.score.leave_one_out if math.isfinite(left)]


def _microseconds(cell: Cell) -> tuple[float, float, float]:
    """Return the parts of the time of one image and step."""
    cost, trial = cost_of(cell), cell.record.trial
    share = 1e6 / (trial.n * trial.steps)
    network, sampling = cost.model_seconds * share, cost.sampling_seconds * share
    return network, max(0.0, sampling - network), cost.scoring_seconds * share


@contextmanager
def _panels(
    rows: Sequence[str], columns: Sequence[int], theme: Theme, axes: Axes | None
) -> Iterator[list[Axes]]:
    """Give a panel for each column, with a place for each row."""
    size = (1.8 + 1.35 * len(columns), 1.7 + 0.3 * len(rows))
    with subplots(len(columns), size, theme, axes, sharex=True, sharey=True) as panels:
        for panel in panels:
            panel.xaxis.set_major_locator(MaxNLocator(3))
            panel.tick_params(axis="y", length=0)
        yield panels


def _finish(figure: Figure, table: Table, title: str) -> None:
    figure.suptitle(f"{title}\n{table.title}", x=0.01, ha="left")
