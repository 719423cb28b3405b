"""What ``run`` and ``nll`` show on the way: a bar with the time left on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from bench.commands.options import console, warn
from bench.commands.verbosity import is_quiet, is_verbose, say
from bench.records.ledger import CellType, Plan
from bench.records.record import Record, Stale
from bench.records.running import Run
from bench.records.trial import Trial
from bench.sweep.runner import SampledCell


def say_plan(plan: Plan[CellType]) -> None:
    """Say which records are damaged, stale and why, or without features, and how many answer already."""
    for damage in plan.unreadable:
        warn(damage)
    say_stale(plan.stale)
    for lacking in plan.incomplete:
        what = " and ".join(lacking.fields)
        say(f"{lacking.record.title}: its {what} were not kept; it is computed anew")
    if plan.reused:
        say(f"{len(plan.reused)} of {len(plan.entries)} trials are there already")


def say_stale(records: Iterable[Stale]) -> None:
    """Say which records are out of date, and why."""
    for stale in records:
        what = ", ".join(stale.fields) or f"status {stale.record.status}"
        say(f"stale: {stale.record.title}: {what} changed since; it is computed anew")


class Bar:
    """A bar with the time left on a terminal, nothing elsewhere.

    Args:
        columns: between the bar and the time left.
        quiet: show nothing at all; so it is with ``-q``.
    """

    def __init__(self, *columns: ProgressColumn, quiet: bool) -> None:
        terminal = console()
        self._quiet = quiet or is_quiet()
        self._live = terminal.is_terminal and not self._quiet
        self._waits = False
        shown = (TextColumn("{task.description}", markup=False), BarColumn(), *columns, TimeRemainingColumn())
        self._progress = Progress(*shown, console=terminal, disable=not self._live)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def waiting(self, runs: Sequence[Run]) -> None:
        """Say once which other runs have what is left."""
        if not self._waits and not self._quiet:
            self._waits = True
            for run in runs:
                say(f"what is left is with {run}")

    def tell(self, line: str) -> None:
        """Print a line where there is no bar, and above the bar where ``-v`` was given."""
        if self._live and is_verbose():
            self._progress.console.print(line)
        elif not self._live and not self._quiet:
            say(line)


class Measuring(Bar):
    """Progress of measuring reference images, where that takes more than a moment."""

    MOMENT = 2.0

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(MofNCompleteColumn(), TextColumn("images"), quiet=quiet)
        self._began: float | None = None
        self._said = 0

    def __call__(self, done: int, total: int) -> None:
        """Move the bar, or print a line at every tenth."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        if self._quiet or now - self._began < self.MOMENT:
            return
        if self._live:
            if not self._progress.tasks:
                self._progress.add_task("measuring the reference", total=total)
            self._progress.update(self._progress.tasks[0].id, completed=done)
        elif total and (tenth := 10 * done // total) > self._said:
            self._said = tenth
            say(f"measured {done:,} of {total:,} reference images")


class Display(Bar):
    """Progress of a sweep: a bar on a terminal, a line a trial elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(MofNCompleteColumn(), TextColumn("trials"), quiet=quiet)
        self._done = 0
        self._total = 0
        self._work = 0.0

    def planned(self, plan: Plan[SampledCell]) -> None:
        """Say what was found and set the bar up."""
        if not self._quiet:
            say_plan(plan)
        self._total = len(plan.pending)
        work = sum(cell.trial.steps * cell.trial.n for cell in plan.pending)
        self._bar = self._progress.add_task("sampling", total=work or 1)
        self._progress.advance(self._bar, self._work)

    def advanced(self, trial: Trial, samples: int) -> None:
        """Move the bar by the network's work."""
        self._work += trial.steps * samples
        if self._progress.tasks:
            self._progress.update(self._bar, advance=trial.steps * samples, description=f"S={trial.steps}")

    def ended(self, record: Record) -> None:
        """Tell the trial."""
        self._done += 1
        score = next(iter(record.scores.values()), None)
        told = (
            f"{score.metric} {score.value:.4g} ± {score.se:.2g}"
            if score and record.status == "done"
            else f"{record.status}: {record.message}"
        )
        seconds = record.cost.sampling_seconds if record.cost else 0.0
        where = f"{record.sampler.label} S={record.trial.steps}"
        self.tell(f"[{self._done}/{self._total}] {where}: {told}, {seconds:.1f} s")


@dataclass(frozen=True)
class Shown:
    """What a sweep shows on the way.

    Attributes:
        quiet: whether no progress is shown.
    """

    quiet: bool

    def measuring(self) -> Measuring:
        """Return what shows how far the measuring of reference images is."""
        return Measuring(quiet=self.quiet)

    def display(self) -> Display:
        """Return what shows how far the sweep is."""
        return Display(quiet=self.quiet)

    def say(self, sentence: str) -> None:
        """Tell something that is done other than it was asked for."""
        say(sentence)
