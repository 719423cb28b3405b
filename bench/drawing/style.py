"""How every plot looks, on light and on dark paper: colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.errors import UsageError


@dataclass(frozen=True)
class Theme:
    """Colours of a plot.

    Attributes:
        name: ``light``, ``dark``, or ``page`` for a drawing whose colours the page around it decides.
        paper: background.
        ink: text and axes.
        muted: lines that are not data.
        grid: grid lines.
        band: filled regions.
        series: one a sampler. Any two differ by at least 23 in CIE76 for every kind of colour blindness
            (Machado et al. 2009), and each has a contrast of at least 3 to 1 with the paper.
        colours: colours of rows by their label, before those of ``series``.
        rc: settings of matplotlib that go before the project's.
    """

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    band: str
    series: tuple[str, ...]
    colours: Mapping[str, str] = field(default_factory=dict)
    rc: Mapping[str, Any] = field(default_factory=dict)


LIGHT = Theme(
    "light",
    paper="#FFFFFF",
    ink="#1A1B1E",
    muted="#6E7178",
    grid="#E3E4E8",
    band="#D9DADF",
    series=("#08438E", "#476DFE", "#159146", "#C28900", "#B12305", "#E760C1", "#111111", "#787B76"),
)


DARK = Theme(
    "dark",
    paper="#16181D",
    ink="#ECEDEF",
    muted="#9A9DA6",
    grid="#2C2F37",
    band="#3A3D46",
    series=("#3C7DD8", "#A7E0FF", "#20C773", "#FDC652", "#D86538", "#F886BB", "#EDFCF1", "#7D6A74"),
)


PAGE = Theme(
    "page",
    paper="none",
    ink="#fe0001",
    muted="#fe0002",
    grid="#fe0003",
    band="#fe0004",
    series=tuple(f"#fe001{place}" for place in range(8)),
)
"""Stands for colours that are put in later: none of these is seen."""


THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


_STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "figure.titlesize": 10,
    "figure.labelsize": 10,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "svg.hashsalt": "sampler-bench",  # equal figures give equal files
}


@contextmanager
def plotting(theme: Theme = LIGHT) -> Iterator[None]:
    """Draw in the project's style, with a theme's colours and its own settings."""
    colours: dict[Any, Any] = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor"), theme.ink),
        **dict.fromkeys(("xtick.color", "ytick.color"), theme.ink),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), theme.paper),
        "grid.color": theme.grid,
    }
    own: Mapping[Any, Any] = theme.rc
    with mpl.rc_context({**_STYLE, **colours, **own}):
        yield


def figure_of(axes: Axes) -> Figure:
    """Return the figure that axes are in."""
    return cast(Figure, axes.get_figure())


@contextmanager
def subplots(
    count: int,
    size: tuple[float, float],
    theme: Theme,
    axes: Axes | None = None,
    *,
    sharex: bool = False,
    sharey: bool = False,
) -> Iterator[list[Axes]]:
    """Give panels beside each other, in a figure of their own or, where one is asked for, in given axes.

    Args:
        count: number of panels.
        size: width and height of the figure in inches.
        theme: colours of the figure; in given axes the settings in force hold.
        axes: where to draw; a figure of its own where None.
        sharex: whether panels have one x axis.
        sharey: whether they have one y axis.

    Raises:
        UsageError: if several panels were to be drawn in the given axes.
    """
    if axes is None:
        with plotting(theme):
            figure = Figure(figsize=size, layout="constrained")
            yield list(figure.subplots(1, count, sharex=sharex, sharey=sharey, squeeze=False)[0])
    elif count == 1:
        yield [axes]
    else:
        raise UsageError(f"this plot has a panel for each of {count} columns: with axes give column=")


def looks(rows: Sequence[str], theme: Theme = LIGHT) -> dict[str, tuple[str, str]]:
    """Return (colour, marker) of every row, in the order of the table: no two alike among 64.

    After eight rows the colours begin again, each with the next marker.
    """
    count = len(theme.series)
    return {
        row: (theme.colours.get(row, theme.series[i % count]), MARKERS[(i + i // count) % len(MARKERS)])
        for i, row in enumerate(rows)
    }


def plain_ticks(axes: Axes, values: Sequence[int]) -> None:
    """Label a logarithmic x axis with the numbers of steps themselves."""
    axes.set_xscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())


def plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 times the powers of ten, without exponents."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_beside(axes: Axes) -> None:
    """Put the legend right of the axes, where it covers nothing."""
    named = list(zip(*axes.get_legend_handles_labels(), strict=True))
    named.sort(key=lambda item: not isinstance(item[0], ErrorbarContainer))  # samplers first
    handles, labels = zip(*named, strict=True)
    axes.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5))
