"""How plots are to look other than the project has them: style, colours, width and title."""

from __future__ import annotations

import io
import logging
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import style
from matplotlib.cbook import is_math_text
from matplotlib.colors import is_color_like, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser

from bench.drawing.style import DARK, LIGHT, Theme, plotting
from bench.errors import UsageError, sentence_of, users_code

MOST_DPI = 600
"""Dots an inch that a style may ask for: with more, a picture may need more memory than there is."""

WHOLE: Mapping[str, Any] = {"savefig.bbox": None}
"""Saves a figure as wide as it was asked for: nothing is cut off at its edges."""

LEAST_WIDTH, MOST_WIDTH = 1.0, 100.0
"""Inches that a plot may be wide."""

LEAST_HEIGHT = 0.8
"""Part of its own height that a figure keeps, however narrow it is: rows need as much for their labels."""

LETTERS = 10
"""Letters of an inch of a line below a figure."""


@dataclass(frozen=True)
class Look:
    """What is asked of the look of plots.

    Attributes:
        style: settings of matplotlib; see `read_style`.
        colours: colours of rows by their labels.
        width: width of a figure in inches, its height about in proportion; its own where None.
        title: text above; none where it is empty, the plot's own where None.

    Raises:
        UsageError: if a colour is none, the title holds a formula that cannot be drawn, or a width cannot be.
    """

    style: Mapping[str, Any] = field(default_factory=dict)
    colours: Mapping[str, str] = field(default_factory=dict)
    width: float | None = None
    title: str | None = None

    def __post_init__(self) -> None:
        for row, colour in self.colours.items():
            if not is_color_like(colour):
                raise UsageError(f"{colour!r} for {row} is no colour; give one as #476DFE or blue")
        refuse_formula("the title", self.title or "")
        if self.width is not None and not LEAST_WIDTH <= self.width <= MOST_WIDTH:
            raise UsageError(f"a plot is {LEAST_WIDTH:g} to {MOST_WIDTH:g} inches wide, got {self.width:g}")

    def on(self, theme: Theme) -> Theme:
        """Return a theme with this look."""
        rc = dict(self.style) if self.width is None else {**self.style, **WHOLE}
        colours = {row: to_hex(colour) for row, colour in self.colours.items()}
        return replace(following(theme, self.style), colours=colours, rc=rc)

    def finish(self, figure: Figure) -> Figure:
        """Give a figure its title and width, and return it."""
        if self.title is not None:
            _retitle(figure, self.title)
        if self.width is not None:
            wide, high = figure.get_size_inches()
            figure.set_size_inches(self.width, high * max(self.width / wide, LEAST_HEIGHT))
            if below := figure.get_supxlabel():
                figure.supxlabel(textwrap.fill(below, int(LETTERS * self.width)))
        return figure


def _retitle(figure: Figure, title: str) -> None:
    """Put a text in the place of what stands above a figure, but for the titles of its panels."""
    if figure.get_suptitle():
        figure.suptitle(title, x=0.01, ha="left")
        return
    for axes in figure.axes:
        axes.set_title("", loc="left")
    figure.axes[0].set_title(title, loc="left")


def refuse_formula(what: str, text: str) -> None:
    """Raise UsageError where a text has a formula between dollar signs that matplotlib cannot draw."""
    if not is_math_text(text):
        return
    try:
        MathTextParser("path").parse(text)
    except ValueError as error:
        reason = str(error).splitlines()[-1].partition("Exception: ")[2].partition("  (at")[0]
        raise UsageError(
            f"{what} {text} has a formula that cannot be drawn ({reason}); mend it, or write \\$ for a dollar"
        ) from None


def read_style(given: str) -> Mapping[str, Any]:
    """Return the settings of a style sheet: a file, or one of matplotlib's by its name.

    Raises:
        UsageError: if there is no such style, or it cannot be read or drawn with.
    """
    if Path(given).is_file():
        with _complaints() as complaints:
            try:
                read: Mapping[Any, Any] = mpl.rc_params_from_file(given, use_default_template=False)
            except (ValueError, OSError) as error:
                raise UsageError(f"style file {given} cannot be read: {error}") from None
        if complaints:
            raise UsageError(f"style file {given} cannot be read: {complaints[0].splitlines()[0]}")
        found = {str(name): value for name, value in read.items() if name != "backend"}
        _try(given, found)
        return found
    library: Mapping[str, Any] = dict(style.library)
    if given not in library:
        known = ", ".join(style.available)
        raise UsageError(f"no style {given!r}; give an .mplstyle file, or one of matplotlib's: {known}")
    return dict(library[given])


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Keep what matplotlib would print of a style sheet: it reads on where a line is none."""
    told: list[str] = []
    logger = logging.getLogger("matplotlib")

    def keep(entry: logging.LogRecord) -> bool:
        told.append(entry.getMessage().strip())
        return False

    logger.addFilter(keep)
    try:
        yield told
    finally:
        logger.removeFilter(keep)


def _try(given: str, rc: Mapping[str, Any]) -> None:
    """Draw a small plot with a style: what cannot be is told before the work, and of the file.

    Raises:
        UsageError: if that fails.
    """
    for name in ("figure.dpi", "savefig.dpi"):
        if name in rc and rc[name] != "figure" and not 1 <= rc[name] <= MOST_DPI:
            raise UsageError(f"style file {given}: {name} must be 1 to {MOST_DPI}, got {rc[name]:g}")
    try:
        with plotting(Look(rc).on(LIGHT)):
            figure = Figure(figsize=(2, 2))
            axes = figure.subplots()
            axes.plot([1, 2], [1, 2], label="x")
            axes.set(title="x", xlabel="x")
            axes.legend()
            figure.savefig(io.BytesIO(), format="png")
    except users_code() as error:
        reason = textwrap.shorten(sentence_of(error), 200, placeholder=" ...")
        raise UsageError(f"no plot can be drawn with style file {given}: {reason}") from None


def current_theme() -> Theme:
    """Return the theme of the settings of matplotlib that are in force, for a plot in axes of the user's.

    Where the user changed no colours, rows have the project's, which colour-blind readers can tell apart.
    """
    now: Mapping[Any, Any] = mpl.rcParams
    usual: Mapping[Any, Any] = mpl.rcParamsDefault
    changed = {name: now[name] for name in FOLLOWED if now[name] != usual[name]}
    dark = sum(to_rgb(now["axes.facecolor"])) < 1.5
    return following(DARK if dark else LIGHT, changed)


FOLLOWED = ("axes.prop_cycle", "text.color", "grid.color", "figure.facecolor")
"""Settings of matplotlib that colours of a theme follow."""


def following(theme: Theme, rc: Mapping[str, Any]) -> Theme:
    """Return a theme with the colours that settings of matplotlib name."""
    cycle = rc.get("axes.prop_cycle")
    series = tuple(map(to_hex, cycle.by_key().get("color", ()))) if cycle is not None else ()

    def colour(name: str, own: str) -> str:
        return to_hex(rc[name]) if name in rc else own

    return replace(
        theme,
        ink=colour("text.color", theme.ink),
        grid=colour("grid.color", theme.grid),
        paper=colour("figure.facecolor", theme.paper),
        series=series or theme.series,
    )
