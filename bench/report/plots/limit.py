"""How fast a sampler comes to its own limit: the error of the solver, apart from the model's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure

from bench.drawing.style import LIGHT, Theme, legend_beside, looks, plain_numbers, plain_ticks, plotting
from bench.records.store import Store
from bench.report.plots.axes import headline
from bench.report.tables.table import Table


def distances(table: Table, store: Store) -> Mapping[str, list[tuple[int, float, float]]]:
    """Return, by sampler, (S, distance, its standard error) to what it draws with the most steps.

    The distance is the root mean square over the pixels of two images that began as the same noise, in
    levels of 255, averaged over the images that records keep.
    """
    found = {}
    for row in table.rows:
        images = {}
        for steps in table.columns:
            cell = table.cells.get((row, steps))
            pictures = store.previews(cell.record) if cell is not None else None
            if pictures is not None and len(pictures) > 1:
                images[steps] = pictures.double()
        if len(images) < 3 or max(images) != table.columns[-1]:
            continue
        limit = images.pop(table.columns[-1])
        points = []
        for steps, drawn in images.items():
            kept = min(len(drawn), len(limit))
            each = (drawn[:kept] - limit[:kept]).square().flatten(1).mean(1).sqrt()
            error = float(each.std() / torch.tensor(float(kept)).sqrt())
            points.append((steps, float(each.mean()), error))
        found[row] = points
    return found


def distance_to_limit(table: Table, store: Store, theme: Theme = LIGHT) -> Figure | None:
    """Return the distance to the images of the most steps against S, both logarithmic.

    For a deterministic sampler it falls with its order, 1/S or faster: what is left in the score then is
    the model's. A sampler that adds noise takes another path at every S. None for fewer than three S with
    pictures.
    """
    found = distances(table, store)
    rows = {row: points for row, points in found.items() if min(distance for _, distance, _ in points) > 0}
    if not rows:
        return None
    known = looks(table.rows, theme)
    with plotting(theme):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        for row, points in rows.items():
            colour, marker = known[row]
            steps, values, errors = zip(*points, strict=True)
            drawn = axes.errorbar(steps, values, errors, color=colour, marker=marker, capsize=2, label=row)
            drawn.lines[0].set_gid(f"row-{list(table.rows).index(row)}")
        first = next(iter(rows.values()))
        (begin, top, _), end = first[0], first[-1][0]
        axes.plot([begin, end], [top, top * begin / end], color=theme.muted, lw=1, ls=":", label="1/S")
        plain_ticks(axes, list(table.columns[:-1]))
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        axes.set_xlabel("number of steps S")
        axes.set_ylabel(f"distance to S={table.columns[-1]}, of 255 levels")
        headline(axes, table, "Distance to the sampler's own limit, the same noise")
        legend_beside(axes)
    return figure
