"""Draw the plots and the picture grid of a results folder."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.commands.options import read_choice, read_records, refuse_unknown_metric, title_of, warn
from bench.files.atomic import as_asked
from bench.records.record import Record
from bench.records.store import Store
from bench.report.tables.choice import parse_labels
from bench.report.tables.table import Table, tables_of

if TYPE_CHECKING:  # matplotlib takes a second
    from bench.drawing.look import Look

FORMATS = ("png", "svg", "pdf")
THEMES = ("light", "dark")


def execute(options: argparse.Namespace) -> int:
    """Draw everything and print the paths."""
    records, whole = read_records(options.results, options.model)
    refuse_unknown_metric(records, options.metric)
    tables = tables_of(records, options.metric)
    choice = replace(read_choice(options, tables), title=None)  # plots say what they show above it
    tables = choice.of(tables)
    look = _look(options, tables)
    store = Store(options.results)
    with as_asked(options.out) if options.out is not None else nullcontext():
        for path in draw(tables, store, options.out, options.format, options.theme, look):
            print(path)
    if options.out is None:
        everything = store.read()[0]
        keep_names(store, everything, tables_of(everything))
    return 0 if whole else 1


def _look(options: argparse.Namespace, tables: Iterable[Table]) -> Look:
    """Return the look that was asked for."""
    from bench.drawing.look import Look, read_style, refuse_formula

    for text in options.label:
        refuse_formula("--label", text)
    refuse_formula("--title", options.title or "")
    style = read_style(options.style) if options.style else {}
    return Look(style, parse_labels(options.colour, tables), options.width, title_of(options))


def draw(
    tables: Iterable[Table],
    store: Store,
    out: Path | None = None,
    suffix: str = "png",
    theme: str = "light",
    look: Look | None = None,
) -> Iterator[Path]:
    """Draw the plots and pictures of some tables and yield the paths; ``-dark`` ends those on dark paper."""
    from bench.report.plots.gallery import (
        draw_files,  # matplotlib takes a second that other verbs need not wait
    )
    from bench.report.plots.training import trainings

    tables = list(tables)
    yield from draw_files(tables, store, out or store.folder / "plots", suffix, theme, look)
    for training in trainings(store, (table.trial.model for table in tables)):
        if training.damage:
            warn(training.damage)


def keep_names(store: Store, records: Sequence[Record], tables: Iterable[Table]) -> None:
    """Remove tables and plots of a folder's records that have another name now; see `drop_old_names`."""
    from bench.report.outdated import drop_old_names  # brings matplotlib, as above

    drop_old_names(store.folder, records, tables)
