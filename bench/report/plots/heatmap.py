"""The heat map of a table: samplers by numbers of steps, the score as colour and as a number."""

from __future__ import annotations

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from bench.drawing.style import LIGHT, Theme, figure_of, plain_numbers, subplots
from bench.report.plots.axes import headline
from bench.report.tables.table import Table, direction, higher_is_better, target

COLOURS = "cividis"  # Nunez et al. 2018: seen alike with and without colour blindness


def heat_map(table: Table, theme: Theme = LIGHT, axes: Axes | None = None) -> Figure | None:
    """Return scores by eta (or other sampler) and S; None where the table has fewer than 2 by 2 cells."""
    rows = [row for row in table.rows if table.series(row)]
    if len(rows) < 2 or len(table.columns) < 2:
        return None
    values = np.full((len(rows), len(table.columns)), math.nan)
    for i, row in enumerate(rows):
        for step, cell in table.series(row):
            values[i, table.columns.index(step)] = cell.score.value if cell.score else math.nan
    right = target(table)
    shades = values if right is None else np.abs(values - right)
    positive = bool((shades[np.isfinite(shades)] > 0).all())
    low, high = float(np.nanmin(shades)), float(np.nanmax(shades))
    norm = LogNorm(low, max(high, low * 1.001)) if positive else Normalize(low, max(high, low + 1e-9))
    scheme = colormaps[COLOURS if higher_is_better(table) else f"{COLOURS}_r"]
    labels = 1.6 + 0.08 * max(0, max(map(len, rows)) - 22)
    size = labels + 1.15 * len(table.columns) + 1.4, 1.3 + 0.42 * len(rows)
    with subplots(1, size, theme, axes) as (here,):
        here.grid(visible=False)
        mesh = here.pcolormesh(
            np.ma.masked_invalid(shades), cmap=scheme, norm=norm, edgecolors=theme.grid, linewidth=1
        )
        for i, j in np.ndindex(*values.shape):
            if math.isfinite(values[i, j]):
                text = f"{values[i, j]:#.3g}".rstrip(".")
                colour = _ink(scheme(norm(shades[i, j])))
                here.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=colour, fontsize=9)
        here.invert_yaxis()
        here.set_yticks(np.arange(len(rows)) + 0.5, rows)
        here.set_xticks(np.arange(len(table.columns)) + 0.5, [f"S={step}" for step in table.columns])
        here.tick_params(length=0)
        here.spines[:].set_visible(False)
        told = direction(table) if right is None else f"distance from {right:g}"
        bar = figure_of(here).colorbar(mesh, ax=here, label=f"{table.metric} ({told})")
        bar.outline.set_visible(False)
        if positive:
            plain_numbers(bar.ax.yaxis)
        if axes is None:
            headline(here, table, "Score by sampler and steps")
    return figure_of(here)


def _ink(colour: tuple[float, float, float, float]) -> str:
    """Return black or white, whichever is read better on a colour (WCAG 2 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#FFFFFF"
