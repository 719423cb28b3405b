"""Plots over guidance scales: a score against w, and two scores against each other along w."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from bench.drawing.style import LIGHT, Theme, legend_beside, looks, plotting
from bench.records.record import Record
from bench.records.store import file_slug
from bench.records.trial import split_option
from bench.report.plots.axes import score_axis
from bench.report.tables.table import Table
from bench.stats.score import Score

SECOND = ("recall", "inception_score", "coverage")
"""Scores that a distance is drawn against, by the beginning of their names: what guidance costs or gains."""


@dataclass(frozen=True)
class Scales:
    """Tables that differ in nothing but the guidance scale.

    Attributes:
        tables: the tables by scale, ascending.
        model: what ``--model`` was given, without the scale.
    """

    tables: dict[float, Table]
    model: str

    @property
    def first(self) -> Table:
        """The table of the smallest scale."""
        return next(iter(self.tables.values()))

    @property
    def slug(self) -> str:
        """Part of the names of the plots' files."""
        return file_slug(f"{self.model}-{self.first.metric}-guidance")

    def curves(self) -> Iterator[tuple[str, list[tuple[float, Record, Score]]]]:
        """Yield (label, [(w, record, score)]) of every sampler and number of steps with several scales."""
        for row in self.first.rows:
            for steps in self.first.columns:
                found = []
                for scale, table in self.tables.items():
                    cell = table.cells.get((row, steps))
                    if cell is not None and cell.score is not None:
                        found.append((scale, cell.record, cell.score))
                if len(found) > 1:
                    yield f"{row}, S={steps}", found


def scales_of(tables: Iterable[Table]) -> list[Scales]:
    """Return the tables of several guidance scales, all else equal, together."""
    found: dict[tuple[object, ...], dict[float, Table]] = {}
    for table in tables:
        model, scale = split_option(table.trial.model, "guidance")
        if scale is None:
            continue
        trial = table.trial
        key = (model, table.metric, trial.spacing, trial.n, trial.seed, trial.precision, trial.reference)
        found.setdefault(key, {})[float(scale)] = table
    several = {key: by_scale for key, by_scale in found.items() if len(by_scale) > 1}
    return [Scales(dict(sorted(by_scale.items())), str(key[0])) for key, by_scale in several.items()]


def score_against_guidance(scales: Scales, theme: Theme = LIGHT) -> Figure | None:
    """Return the score against w with one standard error, one curve a sampler and number of steps."""
    curves = dict(scales.curves())
    if not curves:
        return None
    known = looks(list(curves), theme)
    with plotting(theme):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        for label, points in curves.items():
            colour, marker = known[label]
            weights = [scale for scale, _, _ in points]
            values = [score.value for _, _, score in points]
            errors = [score.se for _, _, score in points]
            axes.errorbar(weights, values, errors, color=colour, marker=marker, capsize=2, label=label)
        score_axis(axes, scales.first)
        axes.set_xlabel("guidance scale w (1: none)")
        _title(figure, scales, f"{scales.first.metric} against guidance")
        legend_beside(axes)
    return figure


def score_against_another(scales: Scales, theme: Theme = LIGHT) -> Figure | None:
    """Return the table's score against recall or Inception Score, w along each curve; None without one."""
    first = next((r for _, points in scales.curves() for _, r, _ in points), None)
    other = _second(first.scores if first is not None else ())
    if other is None:
        return None
    curves = {
        label: [
            (scale, record.scores[other], score) for scale, record, score in points if other in record.scores
        ]
        for label, points in scales.curves()
    }
    known = looks(list(curves), theme)
    with plotting(theme):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        for label, points in curves.items():
            colour, marker = known[label]
            across, up = ([score.value for score in part] for part in list(zip(*points, strict=True))[1:])
            axes.plot(across, up, color=colour, marker=marker, label=label)
            for (scale, _, _), x, y in zip(points, across, up, strict=True):
                axes.annotate(
                    f"{scale:g}", (x, y), (4, 4), textcoords="offset points", fontsize=7, color=theme.muted
                )
        score_axis(axes, scales.first)
        axes.set_xlabel(f"{other} (higher is better)")
        _title(figure, scales, f"{scales.first.metric} against {other}, w beside each point")
        legend_beside(axes)
    return figure


def _second(names: Iterable[str]) -> str | None:
    listed: Sequence[str] = list(names)
    return next((name for start in SECOND for name in listed if name.startswith(start)), None)


def _title(figure: Figure, scales: Scales, title: str) -> None:
    facts = scales.first.title.partition(",")[2].strip()
    figure.suptitle(f"{title}\n{scales.model}: {facts}", fontsize=10, x=0.01, ha="left")
