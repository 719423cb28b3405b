"""Print the table of a results folder: samplers down, numbers of steps across."""

from __future__ import annotations

import argparse

from bench.commands.common import add_json, add_results, print_json, read_records
from bench.report.groups import group_records
from bench.report.tables import FORMATS
from bench.store import frame


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_results(parser)
    parser.add_argument("--model", action="append", default=[], help="only this model; repeatable")
    parser.add_argument("--metric", help="score to show [each record's first]")
    parser.add_argument("--format", choices=FORMATS, default="text", help="[text]")
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the tables."""
    records, whole = read_records(options.results, options.model)
    if options.json:
        rows = frame(records)
        print_json(rows.astype(object).where(rows.notna(), None).to_dict(orient="records"))
    else:
        print(
            "\n".join(FORMATS[options.format](group) for group in group_records(records, options.metric)),
            end="",
        )
    return 0 if whole else 1
