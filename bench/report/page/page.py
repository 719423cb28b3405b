"""What the report shows, gathered from records: plain values for a template, nothing of its looks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bench.drawing.style import PAGE
from bench.published.presets import PRESETS, get_preset
from bench.published.values import SOURCES
from bench.records.record import Record
from bench.records.store import Store
from bench.report.page.details import Strip, environment_of, film_of, safe, strip_of, trial_view
from bench.report.plots.gallery import draw_all, published_for
from bench.report.plots.guidance import scales_of
from bench.report.plots.svg import inline_svg
from bench.report.plots.training import TITLE, models_of, trainings
from bench.report.tables.budgets import arranged
from bench.report.tables.comparison import compare_published
from bench.report.tables.findings import claims_sheet, find_claims
from bench.report.tables.scores import (
    call_notes,
    clip_notes,
    flag_notes,
    floor_note,
    step_notes,
    tuning_notes,
    unjudged_notes,
)
from bench.report.tables.sheets import Sheet
from bench.report.tables.stability import stability_sheets
from bench.report.tables.summary import best_of_columns, listed, plus_minus, sentences, short
from bench.report.tables.table import Cell, Table, calls, row_order, tables_of

TILE, LARGE = 48, 84
"""Least sides in pixels of a picture in a strip and of one in the matrix."""


POINTS = ("steps", "time", "calls")
"""Plots whose markers are the cells of the table, in its order."""


TITLED = (*POINTS, "heat", "limit")
"""Plots whose axes bear the title of the whole."""


def page(store: Store, records: Sequence[Record], presets: Sequence[str] = ()) -> dict[str, Any]:
    """Return everything that the report's template shows.

    Args:
        store: has the pictures.
        records: what it is about.
        presets: published tables to be set beside ours even where no cell can be compared.
    """
    tables = tables_of(records)
    shown = [_section(store, table, place, records) for place, table in enumerate(tables)]
    trials = [trial_view(store, record) for record in sorted(records, key=_order) if not record.continued]
    return {
        "title": _title(records),
        "subtitle": _subtitle(trials, records),
        "several": {
            "models": len({record.trial.model for record in records}) > 1,
            "metrics": len({trial["metric"] for trial in trials}) > 1,
            "spacings": len({trial["spacing"] for trial in trials}) > 1,
        },
        "groups": shown,
        "trials": trials,
        "statuses": Counter(trial["status"] for trial in trials),
        "columns": sorted({trial["steps"] for trial in trials}),
        "strips": [*(t["strip"] for t in trials if t["strip"]), *_filmed(shown)],
        "guidance": list(_guidance(tables)),
        "trainings": list(_trainings(store, records)),
        "published": _published(records, presets),
        "failures": [trial for trial in trials if trial["status"] != "done"],
        "environment": environment_of(records),
        "citations": _citations(records, tables, presets),
        "presets": list(presets),
    }


def _title(records: Sequence[Record]) -> str:
    models = list(dict.fromkeys(record.trial.model for record in records))
    short = [Path(model).name if "/" in model else model for model in models]
    return ", ".join(
        name if short.count(name) == 1 else model for name, model in zip(short, models, strict=True)
    )


def _subtitle(trials: Sequence[Mapping[str, Any]], records: Sequence[Record]) -> str:
    counts = Counter(trial["status"] for trial in trials)
    done = ", ".join(f"{counts[s]} {s}" for s in ("done", "failed", "skipped") if counts[s])
    days = sorted(record.environment.finished[:10] for record in records)
    machines = sorted({record.environment.device_name for record in records})
    when = f", finished {days[-1]}" if days[-1] else ""
    where = f", on {listed([name for name in machines if name])}" if any(machines) else ""
    return f"{len(trials)} records: {done}{when}{where}"


def _order(record: Record) -> tuple[object, ...]:
    trial = record.trial
    real = record.kind == "real"
    rest = () if real else row_order(record)
    return (str(trial.model), str(trial.metrics), real, int(trial.steps), *rest, record.key)


def _section(store: Store, table: Table, place: int, records: Sequence[Record]) -> dict[str, Any]:
    findings = find_claims(table)
    tested = [finding for finding in findings if finding.verdict != "not tested"]
    shown = arranged(table)
    best = best_of_columns(shown)
    leaders = {one.column: (one.row, *one.ties) for one in best}
    return {
        "id": f"g{place}",
        "name": f"{table.trial.model}: {table.metric}",
        "title": table.title,
        "metric": table.metric,
        "sentences": sentences(table, findings),
        "best": [
            {
                "head": one.head,
                "row": one.row,
                "score": plus_minus(one.score),
                "ties": one.ties,
                "milliseconds": short(one.milliseconds),
            }
            for one in best
        ],
        "rows": [
            {"label": row, "cells": [_cell(shown, row, c, leaders.get(c, ())) for c in shown.columns]}
            for row in shown.rows
        ],
        "heads": [shown.head(column) for column in shown.columns],
        "by": "steps" if shown.by == "steps" else "network calls",
        "flags": [
            *call_notes(shown),
            *step_notes(shown),
            *tuning_notes(table),
            *floor_note(table),
            *clip_notes(shown),
            *unjudged_notes(shown),
            *flag_notes(table),
        ],
        "floor": None
        if table.floor is None
        else {"score": plus_minus(table.floor), "n": table.floor.n, "key": _floor_key(table)},
        "plots": list(_plots(store, table, place)),
        "matrix": _matrix(store, table),
        "films": _films(store, table),
        "claims": _sheet(claims_sheet(table, findings)) if tested else None,
        "stability": [_sheet(sheet) for sheet in stability_sheets(records, shown)],
    }


def _floor_key(table: Table) -> str:
    return safe(table.floor_record.key) if table.floor_record else ""


def _cell(table: Table, row: str, column: int, leaders: Sequence[str]) -> dict[str, Any] | None:
    cell = table.cells.get((row, column))
    if cell is None:
        return None
    text = plus_minus(cell.score) if cell.score else cell.record.status
    if cell.score and table.by == "calls" and calls(cell) != column:
        text += f" ({calls(cell):g})"
    mark = "best" if leaders[:1] == (row,) else "tie" if row in leaders else ""
    mark = mark or ("unjudged" if table.unjudged(column) else "")
    return {"key": safe(cell.record.key), "text": text, "mark": mark, "status": cell.record.status}


def _plots(store: Store, table: Table, place: int) -> Iterable[dict[str, Any]]:
    for plot, figure in draw_all(table, store, PAGE):
        told = _points(table) if plot.name in POINTS else {}
        for axes in figure.axes if plot.name in TITLED else ():  # the caption says it
            axes.set_title("", loc="left")
        figure.suptitle("")
        if plot.name in (*POINTS, "limit"):
            wide = len(table.spacings)
            figure.set_size_inches(6.4 if wide == 1 else 2.8 * wide + 2.0, 4.0 if wide == 1 else 4.6)
        elif plot.name == "heat":
            figure.set_size_inches(6.6, 0.9 + 0.45 * len(table.rows))
        title = f"{plot.title}: {table.title}"
        svg = inline_svg(figure, f"g{place}-{plot.name}", title, told)
        yield {
            "name": plot.name,
            "title": plot.title,
            "caption": plot.caption,
            "svg": Markup(svg),
        }


def _guidance(tables: Iterable[Table]) -> Iterable[dict[str, Any]]:
    """Return the plots over guidance scales, by model and score."""
    for place, scales in enumerate(scales_of(tables)):
        plots = []
        for plot, figure in scales.figures(PAGE):
            figure.suptitle("")  # the caption says it
            name = f"guidance-{place}{plot.name}"
            svg = inline_svg(figure, name, f"{plot.title}: {scales.model}", {})
            plots.append({"title": plot.title, "caption": plot.caption, "svg": Markup(svg)})
        if plots:
            yield {"title": scales.title, "plots": plots}


def _trainings(store: Store, records: Sequence[Record]) -> Iterable[dict[str, Any]]:
    for place, training in enumerate(trainings(store, models_of(records))):
        shown = {"model": training.model, "title": TITLE, "damage": training.damage}
        if not training.damage:
            figure = training.figure(PAGE)
            figure.suptitle("")  # the caption says it
            svg = inline_svg(figure, f"training-{place}", f"{TITLE}: {training.model}", {})
            shown |= {"caption": training.caption, "svg": Markup(svg)}
        yield shown


def _points(table: Table) -> Mapping[str, list[str]]:
    return {
        f"row-{place}": [f"{row}, S={steps}: {_told(cell)}" for steps, cell in table.series(row)]
        for place, row in enumerate(table.rows)
    }


def _told(cell: Cell) -> str:
    return plus_minus(cell.score) if cell.score else ""


def _matrix(store: Store, table: Table) -> dict[str, Any] | None:
    """Return the strips of a table by sampler and S: the same initial noise at the same index."""
    rows, side, count = [], 0, 0
    for row in table.rows:
        cells: list[dict[str, Any] | None] = []
        for steps in table.columns:
            cell = table.cells.get((row, steps))
            strip = strip_of(store, cell.record) if cell else None
            if cell is None or strip is None:
                cells.append(None)
                continue
            side, count = strip.side, max(count, strip.count)
            cells.append({"name": strip.name, "count": strip.count, "steps": steps})
        if any(cells):
            rows.append({"label": row, "cells": cells})
    if not count:
        return None
    real = strip_of(store, table.floor_record) if table.floor_record else None
    return {
        "rows": rows,
        "columns": list(table.columns),
        "count": count,
        "seed": table.trial.seed,
        "side": side,
        "tile": side * math.ceil(TILE / side),
        "large": side * math.ceil(LARGE / side),
        "real": None if real is None else {"name": real.name, "count": real.count},
    }


def _films(store: Store, table: Table) -> dict[str, Any] | None:
    """Return the films of a table by S, and that of an image on its way to noise."""
    by_steps, side = [], 0
    for steps in table.columns:
        rows = []
        for row in table.rows:
            film = _film(store, table.cells.get((row, steps)))
            if film is not None:
                rows.append({"label": row, "film": film})
                side = film.side
        if rows:
            by_steps.append({"steps": steps, "rows": rows})
    if not by_steps:
        return None
    forward = film_of(store, table.floor_record) if table.floor_record else None
    return {"by_steps": by_steps, "forward": forward, "tile": side * math.ceil(TILE / side)}


def _film(store: Store, cell: Cell | None) -> Strip | None:
    return film_of(store, cell.record) if cell is not None else None


def _filmed(tables: Iterable[Mapping[str, Any]]) -> list[Strip]:
    """Return every film that some tables show, once."""
    films: dict[str, Strip] = {}
    for shown in (table["films"] for table in tables if table["films"]):
        strips = [row["film"] for part in shown["by_steps"] for row in part["rows"]]
        films |= {strip.name: strip for strip in (shown["forward"], *strips) if strip is not None}
    return list(films.values())


def _sheet(sheet: Sheet) -> dict[str, Any]:
    return {
        "title": sheet.title,
        "columns": [
            {"name": n, "text": left} for n, left in zip(sheet.columns, sheet.flush_left, strict=True)
        ],
        "rows": sheet.rows,
        "note": sheet.note,
    }


def _published(records: Sequence[Record], presets: Iterable[str]) -> list[dict[str, Any]]:
    """Return the published tables that were asked for, and those that some cell can be compared with."""
    asked = list(presets)
    found = []
    for name in PRESETS:
        table = compare_published(get_preset(name), records)
        if name in asked or table.comparable:
            found.append(_sheet(table.sheet()))
    return found


def _citations(
    records: Sequence[Record], tables: Sequence[Table], presets: Iterable[str]
) -> list[dict[str, str]]:
    """Return what to cite: the samplers' sources, and those of published figures that are shown."""
    used: dict[str, list[str]] = {}
    for record in records:
        if record.sampler.source:
            labels = used.setdefault(record.sampler.source, [])
            label = record.sampler.label
            labels += [label] if label not in labels else []
    shown = {figure.source for table in tables for figure in published_for(table)}
    shown |= {get_preset(name).source for name in presets}
    for source in sorted(shown):
        used.setdefault(str(SOURCES[source]), []).append("published figures")
    return [{"source": source, "for": ", ".join(sorted(labels))} for source, labels in sorted(used.items())]
