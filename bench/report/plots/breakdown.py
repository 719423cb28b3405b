"""Where the time of a trial goes, and how far its score hangs on each part of the samples."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bench.drawing.style import LIGHT, Theme, looks, plotting
from bench.report.tables.table import Cell, Table, cost_of

PARTS = ("network", "sampler and noise", "scoring")


HATCHES = ("", "////", "....")


def time_breakdown(table: Table, theme: Theme = LIGHT) -> Figure | None:
    """Return microseconds an image and step, by sampler and S, of network, sampler with noise, and scoring.

    None where no trial says what it cost.
    """
    rows = [row for row in table.rows if table.series(row)]
    columns = [step for step in table.columns if any((row, step) in table.cells for row in rows)]
    if not rows or not columns:
        return None
    with plotting(theme):
        figure, panels = _panels(rows, columns)
        for axes, step in zip(panels, columns, strict=True):
            axes.grid(visible=False, axis="y")
            for place, row in enumerate(rows):
                cell = table.cells.get((row, step))
                if cell is None or cell.score is None:
                    continue
                left = 0.0
                for part, (colour, hatch) in enumerate(zip(theme.series[:3], HATCHES, strict=True)):
                    width = _microseconds(cell)[part]
                    axes.barh(
                        place, width, 0.7, left, color=colour, hatch=hatch, edgecolor=theme.paper, lw=0,
                    )  # fmt: skip
                    left += width
            axes.set_title(f"S={step}", fontsize=9)
        panels[0].set_yticks(range(len(rows)), rows)
        panels[0].invert_yaxis()
        _finish(figure, table, "Where the time goes: microseconds an image and step")
        known = [
            Patch(facecolor=colour, hatch=hatch, edgecolor=theme.paper, lw=0, label=part)
            for colour, hatch, part in zip(theme.series[:3], HATCHES, PARTS, strict=True)
        ]
        figure.legend(handles=known, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def jackknife_stability(table: Table, theme: Theme = LIGHT) -> Figure | None:
    """Return, for every cell, the score without each jackknife group in per cent of the score.

    A point far from the others is a part of the samples that the score hangs on. None where no score has
    groups.
    """
    rows = [row for row in table.rows if any(_left(cell) for _, cell in table.series(row))]
    columns = [s for s in table.columns if any(_left(table.cells.get((row, s))) for row in rows)]
    if not rows or not columns:
        return None
    with plotting(theme):
        figure, panels = _panels(rows, columns)
        for axes, step in zip(panels, columns, strict=True):
            axes.grid(visible=False, axis="y")
            axes.axvline(0, color=theme.muted, lw=0.8, zorder=0)
            for place, (row, (colour, _)) in enumerate(looks(rows, theme).items()):
                points = _left(table.cells.get((row, step)))
                spread = [0.5 * ((k * 7 % len(points)) / len(points) - 0.5) for k in range(len(points))]
                axes.scatter(points, [place + y for y in spread], s=9, color=colour, alpha=0.8, lw=0)
            axes.set_title(f"S={step}", fontsize=9)
        panels[0].set_yticks(range(len(rows)), rows)
        panels[0].invert_yaxis()
        groups = max(len(cell.score.leave_one_out) for cell in table.cells.values() if cell.score is not None)
        title = f"Jackknife stability: change of the score, in %, without each of {groups} groups of samples"
        _finish(figure, table, title)
    return figure


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


def _panels(rows: list[str], columns: list[int]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(1.8 + 1.35 * len(columns), 1.7 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(columns), sharex=True, sharey=True, squeeze=False)
    for panel in axes[0]:
        panel.xaxis.set_major_locator(MaxNLocator(3))
        panel.tick_params(axis="y", length=0)
    return figure, list(axes[0])


def _finish(figure: Figure, table: Table, title: str) -> None:
    figure.suptitle(f"{title}\n{table.title}", fontsize=10, x=0.01, ha="left")
