"""The plots: score against steps, and score against time with its Pareto front."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.report.groups import Cell, Group
from bench.report.style import looks, plain_ticks, plotting


def score_against_steps(group: Group) -> Figure:
    """Return score against S, both logarithmic, with one standard error and the floor of real images."""
    with plotting():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        for row, (colour, marker) in looks(group.rows).items():
            points = group.series(row)
            if not points:
                continue
            steps = [step for step, _ in points]
            values, errors = _values(cell for _, cell in points)
            axes.errorbar(steps, values, errors, color=colour, marker=marker, capsize=2, label=row)
        _floor(axes, group)
        plain_ticks(axes, group.columns)
        _score_axis(axes, group)
        axes.set_xlabel("number of steps S")
        _finish(axes, group, "Score against steps")
    return figure


def score_against_time(group: Group) -> Figure:
    """Return score against sampling time per image, with the samplers no other beats joined by a line."""
    with plotting():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        points: list[tuple[float, float]] = []
        for row, (colour, marker) in looks(group.rows).items():
            cells = [cell for _, cell in group.series(row)]
            if not cells:
                continue
            times = [1000 * cell.record.cost["sampling_seconds"] / cell.record.trial["n"] for cell in cells]
            values, errors = _values(cells)
            points += zip(times, values, strict=True)
            axes.errorbar(
                times, values, errors, label=row, linestyle="none", color=colour, marker=marker, capsize=2
            )
        front = pareto_front(points, higher_is_better=_higher(group))
        if front:
            axes.plot(
                *zip(*front, strict=True), color="#888888", lw=1, ls="--", zorder=0, label="Pareto front"
            )
        _floor(axes, group)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _score_axis(axes, group)
        axes.set_xlabel("sampling time, milliseconds an image")
        _finish(axes, group, "Score against time")
    return figure


def pareto_front(
    points: Iterable[tuple[float, float]], *, higher_is_better: bool
) -> list[tuple[float, float]]:
    """Return the (cost, score) points that no cheaper or equally cheap point beats, by ascending cost."""
    front: list[tuple[float, float]] = []
    sign = -1 if higher_is_better else 1
    for cost, score in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if not front or sign * score < sign * front[-1][1]:
            front.append((cost, score))
    return front


def save(figure: Figure, path: Path) -> Path:
    """Write a figure in the format of the path's ending, without the date, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dateless = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}}
    figure.savefig(path, metadata=dateless.get(path.suffix))
    return path


def _values(cells: Iterable[Cell]) -> tuple[list[float], list[float]]:
    scores = [cell.score for cell in cells if cell.score is not None]
    return [score.value for score in scores], [score.se for score in scores]


def _higher(group: Group) -> bool:
    return any(cell.score is not None and cell.score.higher_is_better for cell in group.cells.values())


def _score_axis(axes: Axes, group: Group) -> None:
    scores = [cell.score.value for cell in group.cells.values() if cell.score is not None]
    if scores and min(scores) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    direction = "higher" if _higher(group) else "lower"
    axes.set_ylabel(f"{group.metric} ({direction} is better)")


def _floor(axes: Axes, group: Group) -> None:
    if group.floor is not None:
        value, error = group.floor.value, group.floor.se
        axes.axhspan(value - error, value + error, color="#BBBBBB", alpha=0.5, lw=0)
        axes.axhline(value, color="#777777", lw=1, label="real images")


def _finish(axes: Axes, group: Group, title: str) -> None:
    axes.set_title(f"{title}\n{group.title}", fontsize=10, loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
