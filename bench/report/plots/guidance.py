"""Plots over guidance scales: every score against w, and two scores against each other along w."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from bench.drawing.style import LIGHT, Theme, looks, plain_numbers, plotting
from bench.records.record import Record
from bench.records.store import file_slug
from bench.records.trial import split_option
from bench.report.tables.table import SAME, Table, direction_of
from bench.stats.score import Score

SECOND = ("recall", "inception_score", "coverage")
"""Scores that a distance is drawn against, by the beginning of their names: what guidance costs or gains."""

WIDE = 5.0
"""Ratio of the greatest to the least value from which on an axis is logarithmic."""

CUT = frozenset({"saturated", "range"})
"""Flags of images in a wrong range: their points are open."""

REAL, OPEN = "real images", "open: saturated, or out of range"
"""What the legend says last."""

GAINS, TRADE = "What guidance gains and what it costs", "Fidelity against diversity"


@dataclass(frozen=True)
class GuidancePlot:
    """One kind of plot over guidance scales.

    Attributes:
        name: end of the file's name.
        title: for people.
        caption: what is to be seen.
        draw: (scales, theme) -> the figure, None where there is nothing to draw.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Scales, Theme], Figure | None]


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

    @property
    def title(self) -> str:
        """What the tables have in common, in words."""
        return f"{self.model}: {self.first.title.partition(',')[2].strip()}"

    @property
    def names(self) -> list[str]:
        """The scores there are at several scales, the table's first."""
        found = dict.fromkeys((self.first.metric, *self.first.trial.metrics), 0)
        for points in dict(self.curves()).values():
            for name in found:
                found[name] = max(found[name], len(_of(points, name)))
        return [name for name, count in found.items() if count > 1]

    @property
    def real(self) -> Mapping[str, Score]:
        """The scores of real images, by name; none where there are no such images."""
        return {} if self.first.floor_record is None else self.first.floor_record.scores

    def figures(self, theme: Theme = LIGHT) -> Iterator[tuple[GuidancePlot, Figure]]:
        """Draw every plot that there are the numbers for."""
        for plot in GUIDANCE_PLOTS:
            figure = plot.draw(self, theme)
            if figure is not None:
                yield plot, figure

    def curves(self) -> Iterator[tuple[str, list[tuple[float, Record]]]]:
        """Yield (label, [(w, record)]) of every sampler and number of steps with several scales."""
        for row in self.first.rows:
            for steps in self.first.columns:
                found = []
                for scale, table in self.tables.items():
                    cell = table.cells.get((row, steps))
                    if cell is not None and cell.score is not None:
                        found.append((scale, cell.record))
                if len(found) > 1:
                    yield f"{row}, S={steps}", found


def scales_of(tables: Iterable[Table]) -> list[Scales]:
    """Return the tables of several guidance scales, all else equal, together."""
    found: dict[tuple[object, ...], dict[float, Table]] = {}
    for table in tables:
        model, scale = split_option(table.trial.model, "guidance")
        if scale is None:
            continue
        same = (getattr(table.trial, name) for name in SAME if name != "model")
        key = (model, table.metric, *same, *astuple(table.measure))
        found.setdefault(key, {})[float(scale)] = table
    several = {key: by_scale for key, by_scale in found.items() if len(by_scale) > 1}
    return [Scales(dict(sorted(by_scale.items())), str(key[0])) for key, by_scale in several.items()]


def score_against_guidance(scales: Scales, theme: Theme = LIGHT) -> Figure | None:
    """Return every score against w with one standard error, a panel each, one curve a sampler and S."""
    curves, names = dict(scales.curves()), scales.names
    if not names:
        return None
    across = min(2, len(names))
    down = -(-len(names) // across)
    with plotting(theme):
        figure = Figure(figsize=(1.4 + 3.6 * across, 1.2 + 2.7 * down), layout="constrained")
        panels = list(figure.subplots(down, across, sharex=True, squeeze=False).flat)
        for axes, name in zip(panels, names, strict=False):
            for label, (colour, marker) in looks(list(curves), theme).items():
                points = _of(curves[label], name)
                weights = [scale for scale, _ in points]
                values, errors = _values(score for _, score in points)
                axes.errorbar(weights, values, errors, color=colour, marker=marker, capsize=2, label=label)
                cut = [(w, score.value) for w, score in points if CUT & {*score.flags}]
                _open(axes, cut, marker, colour, theme)
            _real(axes, scales.real.get(name), theme)
            _named(axes, "y", name, _all(curves, name))
            _weights(axes, list(scales.tables))
        for axes in panels[len(names) :]:
            axes.remove()
        for axes in panels[max(0, len(names) - across) : len(names)]:
            axes.set_xlabel("guidance scale w (1: none)")
            axes.tick_params(labelbottom=True)
        _finish(figure, scales, GAINS)
    return figure


def score_against_another(scales: Scales, theme: Theme = LIGHT) -> Figure | None:
    """Return scores against each other, w along each curve: the table's against recall or Inception Score.

    Beside it stands precision against recall where both were scored; None where there is nothing to draw.
    """
    pairs, curves = _pairs(scales.names), dict(scales.curves())
    if not pairs:
        return None
    with plotting(theme):
        figure = Figure(figsize=(1.6 + 3.9 * len(pairs), 4.2), layout="constrained")
        for axes, (up, across) in zip(figure.subplots(1, len(pairs), squeeze=False).flat, pairs, strict=True):
            for label, (colour, marker) in looks(list(curves), theme).items():
                points = [
                    (w, r.scores[across], r.scores[up])
                    for w, r in curves[label]
                    if {up, across} <= {*r.scores}
                ]
                x, x_errors = _values(score for _, score, _ in points)
                y, y_errors = _values(score for _, _, score in points)
                look = {"color": colour, "marker": marker, "label": label, "elinewidth": 0.8}
                axes.errorbar(x, y, y_errors, x_errors, **look)
                cut = [(a.value, b.value) for _, a, b in points if CUT & {*a.flags, *b.flags}]
                _open(axes, cut, marker, colour, theme)
                told = list(zip((w for w, _, _ in points), x, y, strict=True))
                for w, *place in told if len(curves) < 3 else told[:: max(1, len(told) - 1)]:  # else the ends
                    look = {"textcoords": "offset points", "fontsize": 8, "color": colour}
                    axes.annotate(f"w={w:g}", place, (5, 5), **look)
            if {up, across} <= {*scales.real}:
                real = scales.real[across].value, scales.real[up].value
                axes.plot(*real, ls="none", marker="*", ms=12, color=theme.muted, label=REAL)
            _named(axes, "x", across, _all(curves, across))
            _named(axes, "y", up, _all(curves, up))
            axes.margins(0.12)
        _finish(figure, scales, f"{TRADE} along the guidance scale w")
    return figure


def _of(points: Iterable[tuple[float, Record]], name: str) -> list[tuple[float, Score]]:
    """Return (w, score) of the points that have a score."""
    return [(w, record.scores[name]) for w, record in points if name in record.scores]


def _all(curves: Mapping[str, Sequence[tuple[float, Record]]], name: str) -> list[Score]:
    """Return a score of every point that has it."""
    return [score for points in curves.values() for _, score in _of(points, name)]


def _values(scores: Iterable[Score]) -> tuple[list[float], list[float]]:
    """Return values and standard errors, 0 where there is none."""
    known = [(score.value, score.se if math.isfinite(score.se) else 0.0) for score in scores]
    return [value for value, _ in known], [error for _, error in known]


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (up, across) of every panel."""
    if not names:
        return []
    others = (name for start in SECOND for name in names[1:] if name.startswith(start))
    found = [(names[0], other) for other in others][:1]
    precisions = [name for name in names if name.startswith("precision")]
    found += [(one, other) for one in precisions if (other := one.replace("precision", "recall", 1)) in names]
    return list(dict.fromkeys(found))


def _open(axes: Axes, places: Sequence[tuple[float, float]], marker: str, colour: str, theme: Theme) -> None:
    """Draw the points of images in a wrong range open."""
    if places:
        axes.plot(*zip(*places, strict=True), ls="none", marker=marker, mfc=theme.paper, mec=colour, zorder=5)
        axes.plot([], [], ls="none", marker="o", mfc=theme.paper, mec=theme.muted, label=OPEN)


def _real(axes: Axes, score: Score | None, theme: Theme) -> None:
    if score is not None:
        error = score.se if math.isfinite(score.se) else 0.0
        axes.axhspan(score.value - error, score.value + error, color=theme.band, alpha=0.5, lw=0)
        axes.axhline(score.value, color=theme.muted, lw=1, label=REAL)


def _named(axes: Axes, which: Literal["x", "y"], name: str, scores: Sequence[Score]) -> None:
    """Name an axis after a score; it is logarithmic where values are far apart, with labels at round ones."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_label_text(f"{name}\n({direction_of(scores[0])})")
    values = [score.value for score in scores]
    if min(values) > 0 and max(values) > WIDE * min(values):
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        plain_numbers(axis)
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def _weights(axes: Axes, scales: Sequence[float]) -> None:
    """Put the scales themselves on the x axis, equal ratios apart where they double and more."""
    if scales[0] > 0 and scales[-1] >= 4 * scales[0]:
        axes.set_xscale("log", base=2)
    axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
    axes.xaxis.set_minor_locator(NullLocator())


def _finish(figure: Figure, scales: Scales, title: str) -> None:
    """Put the title above, and the samplers below what their curves have in common."""
    figure.suptitle(f"{title}\n{scales.title}", x=0.01, ha="left")
    named: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    for last in (REAL, OPEN):
        named |= {last: named.pop(last)} if last in named else {}
    figure.legend(list(named.values()), list(named), loc="outside lower left", ncols=3)


GUIDANCE_PLOTS = (
    GuidancePlot(
        "",
        GAINS,
        "Every score against the guidance scale w; w = 1 is none. As w grows samples show what was asked for"
        " more plainly and resemble each other: label accuracy and precision gain, recall pays. Bars are one"
        " standard error, the grey line is the score of real images; points of images in a wrong range are"
        " open.",
        score_against_guidance,
    ),
    GuidancePlot(
        "-trade",
        TRADE,
        "A curve is a sampler, a point a guidance scale w; the star is what real images score in the place of"
        " samples. A curve that lies further to the good side of both axes gives more of one for the same of"
        " the other.",
        score_against_another,
    ),
)
"""Every plot over guidance scales, as files and in the report."""
