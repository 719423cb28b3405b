"""Print the table of a results folder: samplers down, numbers of steps across.

With --preset, the cells of a published table beside ours; with --claims, the orderings that the papers show,
each tested on ours. Results that no published cell can be compared with are compared by shape. With --seeds,
the mean and the standard deviation of every trial that was made with several seeds. With --stability, how
often each row is the best of its column when the groups of samples are drawn again, and whether the winners
survive fewer samples, other scores and the folder's other models. Where the rows differ in what a step costs,
network calls head the columns; --by steps has S, --by calls the latencies too.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

from bench.commands.options import print_json, read_choice, read_records, refuse_unknown_metric
from bench.commands.selection import chosen, failures, say_failures, sorted_rows, sorted_table
from bench.errors import UsageError
from bench.records.frame import frame, plain_rows
from bench.records.record import Record
from bench.report.tables import sheets
from bench.report.tables.artefacts import beside, claim_sheets
from bench.report.tables.budgets import arranged, latency_sheet
from bench.report.tables.latex import latex_table
from bench.report.tables.replicates import replicate_sheet
from bench.report.tables.scores import score_sheet
from bench.report.tables.stability import stability_sheets
from bench.report.tables.table import Table, tables_of


def execute(options: argparse.Namespace) -> int:
    """Print the tables."""
    records, whole = read_records(options.results, options.model)
    refuse_unknown_metric(records, options.metric)
    records = chosen(records, options.filter)
    failed = failures(records, options.fail_if)
    _refuse_ignored(options)
    asked = _sheets(options, records)
    if asked and options.sort is not None:
        raise UsageError("--sort is for the plain tables; leave it out, or --preset, --claims and the like")
    if asked and options.json:
        print_json([row for sheet in asked for row in plain_rows(sheet.frame)])
    elif options.json:
        print_json(sorted_rows(plain_rows(frame(records)), options.sort))
    else:
        shown = asked or [sheet for table in _tables(options, records) for sheet in _shown(options, table)]
        form = partial(latex_of, options) if options.format == "latex" else sheets.FORMATS[options.format]
        print("\n".join(map(form, shown)), end="", flush=True)
    return max(say_failures(failed), 0 if whole else 1)


def _refuse_ignored(options: argparse.Namespace) -> None:
    """Raise UsageError where an option would change nothing of what is printed."""
    latex = {"--caption": options.caption, "--label-id": options.label_id, "--siunitx": options.siunitx}
    for name, given in latex.items():
        if given and (options.format != "latex" or options.json):
            raise UsageError(f"{name} is for LaTeX: give --format latex too")
    choice = {"--rows": options.rows, "--label": options.label}
    choice |= {"--title": options.title, "--no-title": options.no_title}
    for name, given in choice.items():
        if given and options.json:
            raise UsageError(f"{name} is for tables that are read; --json has every row as it is")
        if given and (options.preset or options.claims or options.seeds):
            raise UsageError(f"{name} is for tables of scores; leave out --preset, --claims and --seeds")


def latex_of(options: argparse.Namespace, sheet: sheets.Sheet) -> str:
    """Return a sheet in LaTeX as the options have it."""
    return latex_table(sheet, options.caption, options.label_id, siunitx=options.siunitx)


def _tables(options: argparse.Namespace, records: list[Record]) -> list[Table]:
    """Return the tables with the rows, labels and title that were asked for."""
    tables = [_told(table, options.filter) for table in tables_of(records, options.metric)]
    return [arranged(table, options.by) for table in read_choice(options, tables).of(tables)]


def _told(table: Table, filters: list[str]) -> Table:
    """Return a table whose title names what was left out: marks are of the rows that are shown."""
    return replace(table, title=f"{table.title}, where {' and '.join(filters)}") if filters else table


def _shown(options: argparse.Namespace, table: Table) -> list[sheets.Sheet]:
    """Return the sheet of a table; with the latencies where it was asked for by calls."""
    ordered = sorted_table(table, options.sort)
    return [score_sheet(ordered), *([latency_sheet(ordered)] if options.by == "calls" else [])]


def _sheets(options: argparse.Namespace, records: list[Record]) -> list[sheets.Sheet]:
    """Return what was asked for beside the plain tables."""
    found = beside(options.preset, records, options.metric) if options.preset else []
    if options.claims and len(found) < 2:
        found += claim_sheets(records, options.metric)
    if options.seeds:
        found.append(replicate_sheet(records, options.metric))
    if options.stability:
        stability = [
            sheet for table in _tables(options, records) for sheet in stability_sheets(records, table)
        ]
        if not stability:
            raise UsageError("no column has two scores with jackknife groups, and nothing else can be ranked")
        found += stability
    return found
