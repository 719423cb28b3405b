"""Draw the plots and the picture grid of a results folder."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.commands.options import read_records, refuse_unknown_metric, warn
from bench.records.store import Store
from bench.report.tables.table import Table, tables_of

FORMATS = ("png", "svg", "pdf")
THEMES = ("light", "dark")


def execute(options: argparse.Namespace) -> int:
    """Draw everything and print the paths."""
    records, whole = read_records(options.results, options.model)
    refuse_unknown_metric(records, options.metric)
    tables = tables_of(records, options.metric)
    for path in draw(tables, Store(options.results), options.out, options.format, options.theme):
        print(path)
    return 0 if whole else 1


def draw(
    tables: Iterable[Table],
    store: Store,
    out: Path | None = None,
    suffix: str = "png",
    theme: str = "light",
) -> Iterator[Path]:
    """Draw the plots and pictures of some tables and yield the paths; ``-dark`` ends those on dark paper."""
    from bench.report.plots.gallery import (
        draw_files,  # matplotlib takes a second that other verbs need not wait
    )
    from bench.report.plots.training import trainings

    tables = list(tables)
    yield from draw_files(tables, store, out or store.folder / "plots", suffix, theme)
    for training in trainings(store, (table.trial.model for table in tables)):
        if training.damage:
            warn(training.damage)
