"""Evaluate the variational bound on the likelihood of images, in bits per dimension, with its terms apart.

    sampler-bench nll                                       every variance of the default model, all T steps
    sampler-bench nll --steps 10,25,50,100 --variance fixedsmall,fixedlarge

The bound is that of Ho et al. 2020, eq. 5: a prior term, a Kullback-Leibler term for each step, and the
discretised Gaussian decoder. What is done already is not done again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.progress import TaskProgressColumn
from rich.table import Table as RichTable

from bench.commands.options import (
    console,
    load_plugins,
    parse_devices,
    parse_spacing,
    parse_steps,
    print_json,
    say_skipped,
)
from bench.commands.progress import Bar, say_plan
from bench.commands.together import at_work
from bench.commands.verbosity import say
from bench.diffusion.bound import ReverseVariance
from bench.errors import UnknownNameError, UsageError, one_line
from bench.nll.parts import METRICS, read_terms
from bench.nll.request import VARIANCES, BoundRequest
from bench.nll.runner import BoundCell, BoundRunner
from bench.records.frame import frame, plain_rows
from bench.records.ledger import Plan
from bench.records.record import Record
from bench.records.store import Store
from bench.report.tables.artefacts import score_files, write_files
from bench.report.tables.scores import show
from bench.report.tables.table import tables_of


def execute(options: argparse.Namespace) -> int:
    """Evaluate the bounds."""
    load_plugins(options.plugin)
    devices = parse_devices(options.device)
    if len(devices) > 1:
        raise UsageError(f"nll works on one device, got {', '.join(devices)}; give --device {devices[0]}")
    request = BoundRequest(
        model=options.model,
        data=options.data,
        variances=_variances(options.variance),
        steps=parse_steps(options.steps) if options.steps is not None else (),
        spacing=parse_spacing(options.spacing),
        n=options.n,
        seed=options.seed,
        clip=options.clip,
        batch=options.batch,
        precision=options.precision,
        device=devices[0],
    )
    store, started = Store(options.results), time.perf_counter()
    store.prepare()
    with at_work(store), _Display(quiet=options.json) as display:
        records = BoundRunner(request, store).run(display)
    if options.json:
        print_json([_row(record, store) for record in records])
    else:
        _print(records, store, time.perf_counter() - started)
    failed = [record for record in records if record.status == "failed"]
    for record in failed:
        print(one_line(f"failed: {record.title}, {record.stage}: {record.message}"), file=sys.stderr)
    return 1 if failed else 0


def _variances(text: str | None) -> tuple[ReverseVariance, ...]:
    """Return the variances in ``fixedsmall,learned``, in the table's order, each once.

    Raises:
        UnknownNameError: if there is no such variance.
    """
    names = [name.strip() for name in text.split(",")] if text else []
    for name in names:
        if name not in VARIANCES:
            raise UnknownNameError("variance", name, VARIANCES)
    return tuple(name for name in VARIANCES if name in names)


def _print(records: Sequence[Record], store: Store, seconds: float) -> None:
    """Print the table and the parts of each bound, and write the tables of the folder's bounds."""
    terminal, paths = console(), []
    for table in tables_of(records):
        show(table, terminal)
    for table in tables_of(store.read()[0]):
        if table.metric != METRICS[0]:
            continue
        paths += write_files(store.folder, score_files(table))
    done = [record for record in records if record.status == "done"]
    if done:
        terminal.print(_parts(done))
    say_skipped(records)
    print(f"{len(records)} records in {store.records}, the terms of their steps beside them, {seconds:.0f} s")
    for path in paths:
        print(f"  {path}")


def _parts(records: Sequence[Record]) -> RichTable:
    shown = RichTable(title="bits per dimension, ± one standard error over images", title_justify="left")
    for name in ("variance", "S", "prior", "KL terms", "decoder", "sum"):
        shown.add_column(name, justify="left" if name == "variance" else "right")
    for record in records:
        total, *parts = (record.scores[name] for name in METRICS)
        cells = [f"{score.value:.5g} ± {score.se:.2g}" for score in (*parts, total)]
        shown.add_row(record.sampler.label, str(record.trial.steps), *cells)
    return shown


def _row(record: Record, store: Store) -> dict[str, Any]:
    """Return a record's row of `load_results` with the terms of its steps under ``terms``."""
    terms = read_terms(store, record) if record.status == "done" else None
    (row,) = plain_rows(frame([record]))
    return {**row, "terms": None if terms is None else plain_rows(terms)}


class _Display(Bar):
    """Progress of the network calls: a bar on a terminal, a line a trial elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(TaskProgressColumn(), quiet=quiet)

    def planned(self, plan: Plan[BoundCell], calls: int) -> None:
        """Say what was found and set the bar up."""
        self._bar = self._progress.add_task("evaluating", total=calls or 1)
        if self._quiet:
            return
        say_plan(plan)
        if calls:
            say(f"{calls:,} network calls to make")

    def called(self, t: int) -> None:
        """Move the bar."""
        self._progress.update(self._bar, advance=1, description=f"t={t}")

    def ended(self, record: Record) -> None:
        """Tell the bound."""
        if record.status != "done":
            return
        score = record.scores[METRICS[0]]
        where = f"{record.sampler.label} S={record.trial.steps}"
        self.tell(f"{where}: {score.value:.5g} ± {score.se:.2g} bits per dimension")
