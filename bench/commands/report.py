"""Write one HTML page with everything a results folder holds; it needs no network and no other file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.commands.options import read_records, warn
from bench.files.atomic import as_asked, write_text
from bench.published.presets import get_preset
from bench.records.record import Record
from bench.records.store import Store


def execute(options: argparse.Namespace) -> int:
    """Write the page and print its path."""
    from bench.report.plots.training import models_of, trainings

    for name in options.preset:
        get_preset(name)
    records, whole = read_records(options.results, options.model)
    for training in trainings(Store(options.results), models_of(records)):
        if training.damage:
            warn(training.damage)
    path = options.out or options.results / "report.html"
    size = write_report(path, Store(options.results), records, options.preset)
    print(f"{path} ({size / 2**20:.1f} MB, {len(records)} records)")
    return 0 if whole else 1


def write_report(path: Path, store: Store, records: Sequence[Record], presets: Sequence[str] = ()) -> int:
    """Write the page on some records and return its number of letters.

    Raises:
        BenchError: if it cannot be written.
    """
    from bench.report.page.html import report  # matplotlib takes a second that other verbs need not wait

    text = report(store, records, presets)
    with as_asked(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return len(text)
