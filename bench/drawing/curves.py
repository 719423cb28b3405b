"""The losses of a training run against its steps, from the columns of its table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from bench.drawing.style import LIGHT, Theme, plain_numbers, plotting

Values = npt.NDArray[np.float64]


PANELS = (("simple", "$L_{simple}$"), ("vlb_bits_per_dim", "$L_{vlb}$ (bits per dimension)"))


OBJECTIVE = "loss"


SHORT = 5  # ratio of the ends of a logarithmic axis below which 1, 2, 5 are too few labels


def training_curves(table: Mapping[str, Sequence[float]], name: str, theme: Theme = LIGHT) -> Figure:
    """Return L_simple and, where the table has it, L_vlb against the optimiser steps.

    Pale points are the rows, the line is their `smoothed` course. The objective is drawn beside L_simple
    where it is neither of the two. An axis is logarithmic where all its values are positive.

    Args:
        table: columns ``step`` and ``simple``, and as many of ``vlb_bits_per_dim``, ``loss``, ``images`` and
            ``seconds`` as there are.
        name: the name of what was trained.
        theme: colours.
    """
    shown = [panel for panel in PANELS if np.isfinite(table.get(panel[0], ())).any()]
    with plotting(theme):
        figure = Figure(figsize=(1.0 + 4.2 * len(shown), 3.7), layout="constrained")
        for place, (axes, (column, label)) in enumerate(
            zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True)
        ):
            _draw(axes, table, column, theme.series[place], label)
            if place == 0 and _has_own_objective(table):
                _draw(axes, table, OBJECTIVE, theme.series[2], "objective", dashed=True)
                axes.legend()
            _scale(axes)
            axes.set_xlabel("optimiser steps")
            axes.set_ylabel(label)
        told = f"Training of {name}\n{extent(table)}"
        figure.suptitle(told, x=0.01, ha="left")
    return figure


def extent(table: Mapping[str, Sequence[float]]) -> str:
    """Return how long a run was, as in ``1,000 steps, 64,000 images, 6 minutes``."""
    parts = [f"{table['step'][-1]:,.0f} steps"]
    if "images" in table:
        parts.append(f"{table['images'][-1]:,.0f} images")
    if "seconds" in table:
        parts.append(duration(table["seconds"][-1]))
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it: seconds below 2 minutes, hours from 2 hours on."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def smoothed(values: Sequence[float] | Values) -> Values:
    """Return the course of noisy values: at every row a straight line fitted to the rows around it.

    Weights are tricube over an eighth of the run (Cleveland 1979), a straight course is its own, and the line
    neither lags nor ends on the last row's noise. Logarithms are fitted where all values are positive, as the
    axis is logarithmic then. Rows that are not finite are left out of it and stay so.
    """
    given = np.asarray(values, dtype=np.float64)
    there = np.isfinite(given)
    positive = bool((given[there] > 0).all())
    course = np.log(given, out=np.full_like(given, np.nan), where=there) if positive else given
    half = max(2, math.ceil(len(given) / 16))
    found = np.full_like(given, np.nan)
    for row in map(int, np.flatnonzero(there)):
        near = np.arange(max(0, row - half), min(len(given), row + half + 1))
        near = near[there[near]]
        away = near - row
        weight = (1 - (np.abs(away) / (half + 1)) ** 3) ** 3
        middle, level = np.average(away, weights=weight), np.average(course[near], weights=weight)
        spread = np.average((away - middle) ** 2, weights=weight)
        slope = np.average((away - middle) * course[near], weights=weight) / spread if spread else 0.0
        found[row] = level - slope * middle
    return np.exp(found) if positive else found


def _draw(
    axes: Axes,
    table: Mapping[str, Sequence[float]],
    column: str,
    colour: str,
    label: str,
    *,
    dashed: bool = False,
) -> None:
    steps, values = table["step"], table[column]
    if not dashed:
        (points,) = axes.plot(steps, values, ls="none", marker="o", ms=3, mew=0, color=colour, alpha=0.3)
        points.set_gid(f"rows-{column}")
    (line,) = axes.plot(steps, smoothed(values), ls="--" if dashed else "-", color=colour, label=label)
    line.set_gid(f"course-{column}")


def _has_own_objective(table: Mapping[str, Sequence[float]]) -> bool:
    """Return whether what is minimised differs from both losses by more than a hundredth somewhere."""
    if not np.isfinite(table.get(OBJECTIVE, ())).any():
        return False
    known = [table[column] for column, _ in PANELS if column in table]
    return all(
        not np.allclose(table[OBJECTIVE], column, rtol=0.01, atol=0.0, equal_nan=True) for column in known
    )


def _scale(axes: Axes) -> None:
    """Make y logarithmic where all values are positive; a short axis is labelled at round numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    values = values[np.isfinite(values)]
    if (values > 0).all():
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        if values.max() < SHORT * values.min():
            axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
            axes.yaxis.set_minor_locator(NullLocator())
