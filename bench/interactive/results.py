"""What a sweep found, to be looked at: tables, comparisons, plots and pictures of a results folder."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pandas as pd
from matplotlib.axes import Axes
from PIL.Image import Image

from bench.commands.compare import Compared, columns_of, pair
from bench.commands.options import read_records, refuse_unknown_metric
from bench.commands.report import write_report
from bench.diffusion.sampling import Sampler
from bench.drawing.look import Look, current_theme, read_style
from bench.drawing.style import LIGHT
from bench.errors import UnknownNameError, UsageError
from bench.interactive.showing import shown
from bench.records.frame import frame
from bench.records.record import Record
from bench.records.store import Store
from bench.report.tables.budgets import arranged
from bench.report.tables.choice import Choice
from bench.report.tables.latex import latex_table
from bench.report.tables.scores import score_sheet
from bench.report.tables.sheets import Sheet
from bench.report.tables.table import By, Table, tables_of

Trial = str | tuple[str | Sampler, int]
"""A trial: ``ddim:eta=0@10``, a key, or a sampler with its number of steps."""


class Results:
    """The records of a sweep or of a results folder, and what they show.

    In a notebook it shows its tables, best scores starred, and its pictures.

    Args:
        folder: what ``--results`` was given.
        records: those of the folder's that are meant; all of them where None.

    Raises:
        UsageError: if the folder holds no records.
    """

    def __init__(self, folder: str | Path = "results", records: Sequence[Record] | None = None) -> None:
        self.folder = Path(folder)
        self.records: list[Record] = read_records(self.folder)[0] if records is None else list(records)
        self._store = Store(self.folder)

    def __repr__(self) -> str:
        if not self.records:
            return f"no records of {self.folder}"
        return "\n".join(map(repr, self.tables())) + "".join(f"{one}\n" for one in self.failures)

    def _repr_html_(self) -> str:
        if not self.records:
            return f"<p>{html.escape(repr(self))}</p>"
        failures = [f"<p>failed: {html.escape(one)}</p>" for one in self.failures]
        shown = [_embedded(picture) for table in self._tables() if (picture := self._picture(table))]
        return "\n".join([*(sheet._repr_html_() for sheet in self.tables()), *failures, *shown])

    @property
    def failures(self) -> list[str]:
        """A sentence for each trial that failed."""
        return [
            f"{record.title}, {record.stage}: {record.message}"
            for record in self.records
            if record.status == "failed"
        ]

    def frame(self) -> pd.DataFrame:
        """Return one row a trial, with the columns of :func:`bench.load_results`."""
        return frame(self.records)

    def tables(
        self,
        model: str | None = None,
        metric: str | None = None,
        *,
        by: By | None = None,
        rows: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        title: str | None = None,
    ) -> list[Sheet]:
        """Return every table: one for each model and for each way in which trials cannot be compared.

        The arguments are those of `table`.
        """
        choice = Choice(rows, labels or {}, title)
        tables = [arranged(table, by) for table in self._tables(model, metric)]
        return [score_sheet(table) for table in choice.of(tables)]

    def table(
        self,
        model: str | None = None,
        metric: str | None = None,
        *,
        by: By | None = None,
        rows: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        title: str | None = None,
    ) -> Sheet:
        """Return the table: samplers down, numbers of steps across, each score with its standard error.

        ``*`` marks the best of a column and ``~`` what cannot be told from it. It prints as text and shows as
        HTML; ``.frame`` has the unrounded numbers.

        Args:
            model: the model's name, where there are several.
            metric: the score; each record's first where None.
            by: ``steps`` or ``calls`` at the head of the columns; calls where rows differ in them if None.
            rows: which rows, in this order: labels, samplers as ``ddim:eta=0``, or patterns as ``ddim*``.
            labels: other labels by the old ones.
            title: text above the table; none where it is empty.

        Raises:
            UsageError: if there are several tables, or a row is not there.
        """
        return _only(
            self.tables(model, metric, by=by, rows=rows, labels=labels, title=title), "results.tables()"
        )

    def latex(
        self,
        caption: str | None = None,
        label: str | None = None,
        *,
        siunitx: bool = False,
        **chosen: Any,
    ) -> str:
        """Return the table in LaTeX, in a ``table`` of its own where it has a caption or a label.

        Args:
            caption: LaTeX text above it.
            label: its name for references.
            siunitx: whether columns are aligned at their points by the package siunitx.
            chosen: arguments of `table`, such as ``rows`` and ``labels``.
        """
        return latex_table(self.table(**chosen), caption, label, siunitx=siunitx)

    def compare(
        self,
        a: Trial | None = None,
        b: Trial | None = None,
        *,
        column: int | None = None,
        calls: int | None = None,
        metric: str | None = None,
    ) -> Compared:
        """Return whether two trials differ, paired through their common noise; or a column's ranks with ties.

        ``results.compare("ddim:eta=0@10", "ddim:eta=1@10")``, ``results.compare(column=10)``.

        Args:
            a: a trial: SAMPLER@STEPS, a key, or (sampler, steps).
            b: the other one; the difference is b's score less a's.
            column: compare all trials of so many steps with the best of them.
            calls: compare what each row gets for at most so many network calls.
            metric: the score; each record's first where None.

        Raises:
            UsageError: if a trial is not there, or two scores cannot be compared.
        """
        refuse_unknown_metric(self.records, metric)
        if a is not None and b is not None and column is None and calls is None:
            return pair(self.records, [_text_of(a), _text_of(b)], metric, self._store)
        if (a, b) == (None, None) and (column is None) != (calls is None):
            return _only(columns_of(self.records, column, calls, metric, self._store), "one model's results")
        raise UsageError(
            'give two trials, as in compare("ddim:eta=0@10", "ddim:eta=1@10"), or column= or calls='
        )

    def plot(
        self,
        kind: str = "steps",
        ax: Axes | None = None,
        *,
        model: str | None = None,
        metric: str | None = None,
        column: int | None = None,
        rows: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        colours: Mapping[str, str] | None = None,
        width: float | None = None,
        title: str | None = None,
        style: str | Path | None = None,
    ) -> Axes:
        """Draw a plot and return its axes; ``results.plot("steps", ax=ax)`` draws in axes of yours.

        Given axes keep the settings of matplotlib that are in force, colours among them where you changed
        these. Without axes a figure in the project's style is made, which a notebook shows.

        Args:
            kind: ``steps``, ``time``, ``calls``, ``heat``, ``ranks``, ``limit``, ``seconds``, ``jackknife``,
                and ``scatter``, which takes no axes: what the command ``plot`` draws.
            ax: where to draw.
            model: the model's name, where there are several.
            metric: the score; each record's first where None.
            column: only this S: ``ranks``, ``seconds`` and ``jackknife`` have a panel for each.
            rows: which rows, in this order, as `table` takes them.
            labels: other labels of rows by the old ones.
            colours: colours of rows by the labels that are shown.
            width: width of a figure of its own in inches.
            title: text above; none where it is empty.
            style: for a figure of its own an .mplstyle file, or the name of one of matplotlib's styles.

        Raises:
            UsageError: if there is no such plot, nothing to draw, or several tables.
        """
        from bench.report.plots.gallery import PLOTS

        if kind not in PLOTS:
            raise UnknownNameError("plot", kind, PLOTS)
        chosen = Choice(rows, labels or {}).of(self._tables(model, metric))
        table = _only(chosen, "results.tables()")
        if column is not None:
            table = (arranged(table) if kind == "ranks" else table).of_column(column)
        look = Look({} if style is None else read_style(str(style)), colours or {}, width, title)
        theme = look.on(LIGHT if ax is None else current_theme())
        figure = PLOTS[kind].draw(table, self._store, theme, ax)
        if figure is None:
            raise UsageError(f"these results have nothing to draw in the plot {kind!r}")
        if ax is None:
            return shown(look.finish(figure), theme).axes[0]
        if title:
            ax.set_title(title)
        return ax

    def pictures(self, model: str | None = None, metric: str | None = None, *, films: bool = False) -> Image:
        """Return the first samples of every cell as a sheet: along a column all began as the same noise.

        Args:
            model: the model's name, where there are several.
            metric: the score whose table names the rows.
            films: show sample 0 of every cell on its way from noise to image instead.

        Raises:
            UsageError: if no pictures were kept, or there are several tables.
        """
        picture = self._picture(_only(self._tables(model, metric), "model="), films=films)
        if picture is None:
            raise UsageError(f"no pictures of these trials are kept in {self.folder}")
        return picture

    def report(self, path: str | Path | None = None, presets: Sequence[str] = ()) -> Path:
        """Write one HTML page with everything there is to see of these records, and return its path.

        Args:
            path: where to; ``report.html`` in the results folder where None.
            presets: published tables to be set beside ours.

        Raises:
            BenchError: if it cannot be written.
        """
        target = self.folder / "report.html" if path is None else Path(path)
        write_report(target, self._store, self.records, presets)
        return target

    def _tables(self, model: str | None = None, metric: str | None = None) -> list[Table]:
        refuse_unknown_metric(self.records, metric)
        tables = tables_of(self.records, metric)
        found = [table for table in tables if model is None or table.trial.model == model]
        if not found:
            there = ", ".join(dict.fromkeys(table.trial.model for table in tables)) or "none"
            raise UsageError(f"no results of model {model!r}; there are those of {there}")
        return found

    def _picture(self, table: Table, *, films: bool = False) -> Image | None:
        from bench.report.plots.pictures import film_strips, picture_grid

        return film_strips(table, self._store) if films else picture_grid(table, self._store)


def _text_of(trial: Trial) -> str:
    """Return a trial as the command line has it."""
    if isinstance(trial, str):
        return trial
    sampler, steps = trial
    return f"{sampler.spec if isinstance(sampler, Sampler) else sampler}@{steps}"


class _Titled(Protocol):
    @property
    def title(self) -> str: ...


One = TypeVar("One", bound=_Titled)


def _only(found: Sequence[One], others: str) -> One:
    """Return the one thing there is.

    Raises:
        UsageError: if there are several, with their titles.
    """
    if len(found) != 1:
        titles = "; ".join(one.title for one in found)
        raise UsageError(
            f"there are {len(found)} tables, name one by model= or metric=, or take {others}: {titles}"
        )
    return found[0]


def _embedded(picture: Image) -> str:
    """Return a picture as an HTML element that holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="the first samples of every cell" src="data:image/png;base64,{content}">'
