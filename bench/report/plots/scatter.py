"""Samples that are points: a panel a cell, the points of real data behind."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from bench.data.images import from_uint8
from bench.drawing.style import LIGHT, Theme, plotting
from bench.errors import UsageError
from bench.records.record import FLOOR
from bench.records.store import Store
from bench.records.trial import is_points
from bench.report.tables.table import Table

SHOWN = 500
"""Points of a panel: more of them cover each other."""

ACROSS = 4
"""Panels beside each other where all are of one row or of one column."""


def scatter_plot(table: Table, store: Store, theme: Theme = LIGHT, axes: Axes | None = None) -> Figure | None:
    """Return the first samples of every cell as points in the plane of their first two coordinates.

    Samplers lie below each other, numbers of steps beside each other. Along a row and down a column the same
    index starts from the same noise. None where images are not single pixels of two channels or more.
    """
    points = {
        place: kept
        for place, cell in table.cells.items()
        if (kept := store.previews(cell.record)) is not None and is_points(kept.shape[1:])
    }
    if not points:
        return None
    if axes is not None:
        raise UsageError("samples as points take a panel for each cell, and not the axes that are given")
    rows = [row for row in table.rows if any(row == place[0] for place in points)]
    columns = [steps for steps in table.columns if any(steps == place[1] for place in points)]
    places = [(row, steps) for row in rows for steps in columns]
    across = len(columns) if len(rows) > 1 and len(columns) > 1 else min(ACROSS, len(places))
    down = math.ceil(len(places) / across)
    real = store.previews(table.floor_record) if table.floor_record is not None else None
    with plotting(theme):
        figure = Figure(figsize=(0.8 + 1.9 * across, 1.1 + 2.0 * down), layout="constrained")
        panels = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
        for here, place in zip(panels, places, strict=False):
            if real is not None:
                _draw(here, real, theme.muted, f"{FLOOR}, {min(SHOWN, len(real))} of them")
            if place in points:
                _draw(here, points[place], theme.series[0], f"samples, the first {min(SHOWN, table.trial.n)}")
            here.set_title(f"{place[0]}, S={place[1]}", fontsize=8)
            here.set_aspect("equal", adjustable="box")
        for left in panels[len(places) :]:
            left.remove()
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2, markerscale=3)
        figure.suptitle(f"Samples as points{_planes(points)}\n{table.title}", x=0.01, ha="left")
    return figure


def _draw(axes: Axes, images: Tensor, colour: str, label: str) -> None:
    """Draw uint8 points (k, C, 1, 1) in [-1, 1]."""
    x, y = from_uint8(images[:SHOWN, :2].flatten(1)).T.tolist()
    axes.plot(x, y, ls="none", marker="o", ms=1.8, mew=0, color=colour, alpha=0.7, label=label)


def _planes(points: dict[tuple[str, int], Tensor]) -> str:
    """Return which coordinates are drawn, where there are more than two."""
    count = next(iter(points.values())).shape[1]
    return "" if count == 2 else f", the first two of {count} coordinates"
