"""How fast a sampler comes to its own limit: the error of the solver, apart from the model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.drawing.style import LIGHT, Theme, plain_numbers, plain_ticks
from bench.records.store import Store
from bench.report.plots.panels import panels
from bench.report.tables.budgets import differ_in_calls
from bench.report.tables.table import Table, calls


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


def distance_to_limit(
    table: Table, store: Store, theme: Theme = LIGHT, axes: Axes | None = None
) -> Figure | None:
    """Return the distance to the images of the most steps against S, both logarithmic.

    For a deterministic sampler it falls with its order, as 1/S or faster, which dotted lines show: what is
    left in the score then is the model's. A sampler that adds noise takes another path at every S. Where rows
    differ in network calls, these stand for S. None for fewer than three S with pictures.
    """
    found = distances(table, store)
    rows = {row: points for row, points in found.items() if min(distance for _, distance, _ in points) > 0}
    if not rows:
        return None
    by_calls = differ_in_calls(table)
    with panels(table, "Distance to the sampler's own limit, the same noise", theme, axes) as plot:
        for here, part, known, ids in plot.parts:
            whole = {one: label for label, one in table.known.items()}
            shown = {row: rows[whole[one]] for row, one in part.known.items() if whole[one] in rows}
            for row, points in shown.items():
                colour, marker = known[row]
                steps, values, errors = zip(*points, strict=True)
                at = [calls(part.cells[row, s]) if by_calls else s for s in steps]
                drawn = here.errorbar(at, values, errors, color=colour, marker=marker, capsize=2, label=row)
                drawn.lines[0].set_gid(ids[row])
            _slopes(here, list(shown.values()), theme)
            if by_calls:
                here.set_xscale("log")
                plain_numbers(here.xaxis)
            else:
                plain_ticks(here, list(table.columns[:-1]))
            here.set_yscale("log")
            plain_numbers(here.yaxis)
            here.set_xlabel("network calls an image, counted" if by_calls else "number of steps S")
            here.set_ylabel(f"distance to S={table.columns[-1]}, of 255 levels")
    return plot.figure


def _slopes(axes: Axes, rows: Sequence[Sequence[tuple[int, float, float]]], theme: Theme) -> None:
    """Draw how errors of order 1, 2 and 3 fall, from the first row's first point on, within what is shown."""
    if not rows:
        return
    (begin, top, _), end = rows[0][0], max(points[-1][0] for points in rows)
    least = min(distance for points in rows for _, distance, _ in points)
    for order, dots in ((1, ":"), (2, (0, (1, 3))), (3, (0, (1, 5)))):
        if order > 1 and top / (end / begin) ** (order - 1) < least:
            continue  # nothing falls so fast here
        last = min(end, begin * (top / least) ** (1 / order))
        told = "1/S" if order == 1 else f"1/S{'²³'[order - 2]}"
        axes.plot(
            [begin, last], [top, top * (begin / last) ** order], color=theme.muted, lw=1, ls=dots, label=told
        )
