"""Where time should be spent: the error of each step of some solvers against the noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bench.drawing.style import LIGHT, Theme, legend_beside, looks, plain_numbers, plotting
from bench.report.tables.decomposition import SteppedRow

Told = Literal["error", "carried"]

PANELS: tuple[tuple[Told, str, str], ...] = (
    ("error", "After the step", "error of the step, in units of $x_0$"),
    ("carried", "At the end of the path", "what the step alone does to $x_0$"),
)


def local_error_plot(title: str, rows: Sequence[SteppedRow], theme: Theme = LIGHT) -> Figure:
    """Return the errors of steps against sigma where each begins, both logarithmic, noise on the left.

    Steps without an error, such as one that is itself the last of the exact path, are left out.
    """
    known = looks([row.sampler for row in rows], theme)
    with plotting(theme):
        figure = Figure(figsize=(10.4, 4.2), layout="constrained")
        panels = figure.subplots(1, len(PANELS), sharex=True, sharey=True)
        for axes, (name, head, label) in zip(panels, PANELS, strict=True):
            for row in rows:
                _draw(axes, row, name, *known[row.sampler])
            _finish(axes, head, label)
        panels[0].invert_xaxis()
        panels[1].tick_params(labelleft=True)
        legend_beside(panels[-1])
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def _draw(axes: Axes, row: SteppedRow, name: Told, colour: str, marker: str) -> None:
    shown = [one for one in row.errors.steps if getattr(one, name) > 0 and math.isfinite(one.sigma)]
    axes.errorbar(
        [one.sigma for one in shown],
        [getattr(one, name) for one in shown],
        [getattr(one, f"{name}_se") for one in shown],
        color=colour,
        marker=marker,
        capsize=2,
        label=row.sampler,
    )


def _finish(axes: Axes, head: str, label: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_numbers(axes.xaxis)
    axes.xaxis.set_major_locator(LogLocator())
    plain_numbers(axes.yaxis)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(r"noise level $\sigma$ where the step begins")
    axes.set_ylabel(label)
    axes.set_title(head)
