"""Every plot of a table, by name: what ``plot`` draws and the report shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.drawing.figures import save
from bench.drawing.look import Look
from bench.drawing.pictures import save_picture
from bench.drawing.style import LIGHT, THEMES, Theme
from bench.published.presets import PRESETS
from bench.published.values import PublishedValue
from bench.records.store import Store
from bench.report.plots import pictures
from bench.report.plots import score as plots
from bench.report.plots.breakdown import jackknife_stability, time_breakdown
from bench.report.plots.guidance import scales_of
from bench.report.plots.heatmap import heat_map
from bench.report.plots.limit import distance_to_limit
from bench.report.plots.ranks import rank_plot
from bench.report.plots.scatter import scatter_plot
from bench.report.plots.training import trainings
from bench.report.tables.table import Table


class Drawing(Protocol):
    """Draws a plot of a table."""

    def __call__(
        self, table: Table, store: Store, theme: Theme, axes: Axes | None = None, /
    ) -> Figure | None:
        """Return the figure, None where there is nothing to draw.

        Args:
            table: the table.
            store: has the pictures.
            theme: colours.
            axes: where to draw; a figure of its own where None.
        """


@dataclass(frozen=True)
class Plot:
    """One kind of plot.

    Attributes:
        name: part of the file's.
        title: for people.
        caption: what is to be seen, in a sentence or two.
        draw: draws it.
    """

    name: str
    title: str
    caption: str
    draw: Drawing


def published_for(table: Table) -> tuple[PublishedValue, ...]:
    """Return the published figures of a table's own model and score: those of its presets."""
    found: list[PublishedValue] = []
    for preset in PRESETS.values():
        if preset.is_model(table.trial.model) and preset.metrics[0] == table.metric:
            found += preset.values()
    return tuple(found)


def _of_table(draw: Callable[[Table, Theme, Axes | None], Figure | None]) -> Drawing:
    """Return the drawing of a table that needs no pictures."""

    def drawn(table: Table, store: Store, theme: Theme, axes: Axes | None = None, /) -> Figure | None:
        return draw(table, theme, axes)

    return drawn


PLOTS: Mapping[str, Plot] = {
    plot.name: plot
    for plot in (
        Plot(
            "steps",
            "Score against steps",
            "What more steps bring. Bars are one standard error; the grey line is what as many real images"
            " score; open markers, where there are any, are published values.",
            lambda table, store, theme, axes=None: plots.score_against_steps(
                table, theme, published_for(table), axes
            ),
        ),
        Plot(
            "scatter",
            "Samples as points",
            "The first samples of every cell; behind them, in grey, real ones. The same index starts from the"
            " same noise in every panel.",
            scatter_plot,
        ),
        Plot(
            "time",
            "Score against time",
            "What time buys: the dashed line joins the points that no faster one beats.",
            _of_table(plots.score_against_time),
        ),
        Plot(
            "calls",
            "Score against network calls",
            "The same by counted network calls, which do not depend on the machine.",
            _of_table(plots.score_against_calls),
        ),
        Plot(
            "heat",
            "Score by sampler and steps",
            "The table as colours.",
            _of_table(heat_map),
        ),
        Plot(
            "ranks",
            "How sure the ranks are",
            "The rank of every row in its column, and its 95% interval when the groups of samples are drawn"
            " again; in colour where that holds the first place.",
            _of_table(rank_plot),
        ),
        Plot(
            "limit",
            "Distance to the sampler's own limit",
            "How far its images are from those it draws with the most steps from the same noise. For a"
            " deterministic sampler this is the solver's error, and falls; what is left of the score then is"
            " the model's. A sampler that adds noise takes another path at every S.",
            distance_to_limit,
        ),
        Plot(
            "seconds",
            "Where the time goes",
            "Microseconds an image and step; scoring is done once an image, so its part falls with S.",
            _of_table(time_breakdown),
        ),
        Plot(
            "jackknife",
            "Jackknife stability",
            "Change of the score, in %, without each group of samples. A point far from the others is a part"
            " of the samples that the score hangs on. A distance grows a little whichever are left out.",
            _of_table(jackknife_stability),
        ),
    )
}


def draw_all(table: Table, store: Store, theme: Theme = LIGHT) -> Iterator[tuple[Plot, Figure]]:
    """Draw every plot that a table has the numbers for."""
    if any(cell.score is not None for cell in table.cells.values()):
        for plot in PLOTS.values():
            figure = plot.draw(table, store, theme)
            if figure is not None:
                yield plot, figure


def draw_files(
    tables: Iterable[Table],
    store: Store,
    folder: Path,
    suffix: str = "png",
    theme: str = "light",
    look: Look | None = None,
) -> Iterator[Path]:
    """Draw some tables' plots and sheets of pictures, and their models' training; yield the paths.

    Args:
        tables: the tables.
        store: has the pictures and the tables of training; one that is damaged is left out.
        folder: where to.
        suffix: ``png``, ``svg`` or ``pdf``; of the plots; sheets of pictures are PNG always.
        theme: ``light``, or ``dark``, which ends the plots' names.
        look: style, colours, width and title of the plots; the project's where None.
    """
    look = look or Look()
    colours = look.on(THEMES[theme])

    def kept(figure: Figure, name: str) -> Path:
        return save(look.finish(figure), folder / f"{name}{mark}.{suffix}", colours)

    mark = "-dark" if theme == "dark" else ""
    tables = list(tables)
    for table in tables:
        for plot, figure in draw_all(table, store, colours):
            yield kept(figure, f"{table.slug}-{plot.name}")
        for name, sheet in (("pictures", pictures.picture_grid), ("films", pictures.film_strips)):
            picture = sheet(table, store)
            if picture is not None:
                yield save_picture(picture, folder / f"{table.slug}-{name}.png")
    for scales in scales_of(tables):
        for kind, figure in scales.figures(colours):
            yield kept(figure, f"{scales.slug}{kind.name}")
    for training in trainings(store, (table.trial.model for table in tables)):
        if not training.damage:
            yield kept(training.figure(colours), training.slug)
