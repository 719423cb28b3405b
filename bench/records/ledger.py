"""The ledger: which of the cells asked for have their record, which records are stale, and what is to do.

A sweep draws the cells that are left, the bound evaluates them, and a table's floor measures one; what is
planned, reused, stale, pending, resumed and finished is told here, once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from bench.errors import UsageError
from bench.records.blocks import drop_folder
from bench.records.provenance import environment, short_hash
from bench.records.record import GridInfo, Kind, ModelInfo, Record, RowInfo, Stale, stale_fields
from bench.records.store import Store, Unreadable
from bench.records.trial import Failure, Trial


@dataclass(frozen=True)
class Cell:
    """A trial that is asked for, with all that its record says before it has run.

    Attributes:
        kind: what is measured.
        trial: what defines it.
        row: what stands in its row.
        model: the model's schedule and weights.
        grid: the steps that it takes.
        provenance: what would make its record stale if it changed, by name.
        device: torch device that it runs on.
    """

    kind: Kind
    trial: Trial
    row: RowInfo
    model: ModelInfo
    grid: GridInfo
    provenance: Mapping[str, str]
    device: str

    @property
    def key(self) -> str:
        """The trial's key, 16 hex digits."""
        return self.trial.key

    @property
    def title(self) -> str:
        """Its row and column, for people."""
        return f"{self.row.label} at S={self.trial.steps}"

    @property
    def state(self) -> str:
        """Hash of what decides the cell's blocks, 12 hex digits: all of the provenance but how they score."""
        scoring = ("reference of ", "held-out images of ", "code of metric ")
        return short_hash({k: value for k, value in self.provenance.items() if not k.startswith(scoring)})

    def record(self, failure: Failure | None = None) -> Record:
        """Return the cell's record as of now, without scores: to be completed, or with why it has none."""
        head = Record(
            kind=self.kind,
            trial=self.trial,
            status="done",
            sampler=self.row,
            model=self.model,
            grid=self.grid,
            provenance=self.provenance,
            environment=environment(self.device),
        )
        return head if failure is None else head.failed(failure)


CellType = TypeVar("CellType", bound=Cell)


@dataclass(frozen=True)
class Entry(Generic[CellType]):
    """A cell with what the folder holds of it.

    Attributes:
        cell: what is asked for.
        record: its record, None where there is none or one of a failure, which is tried again.
        changed: what has changed since the record was made.
        missing: what the record should hold and does not, in words.
    """

    cell: CellType
    record: Record | None = None
    changed: Sequence[str] = ()
    missing: str = ""

    @property
    def answered(self) -> bool:
        """Whether the record is there and stands."""
        return self.record is not None and not self.changed and not self.missing


@dataclass(frozen=True)
class Plan(Generic[CellType]):
    """What a table comes to, given what is there.

    Attributes:
        entries: every cell, in order, each once.
        unreadable: record files that are damaged.
    """

    entries: Sequence[Entry[CellType]] = field(default_factory=list)
    unreadable: Sequence[Unreadable] = ()

    @property
    def pending(self) -> list[CellType]:
        """The cells to compute, in order."""
        return [entry.cell for entry in self.entries if not entry.answered]

    @property
    def reused(self) -> dict[str, Record]:
        """The records that answer their cell, by key."""
        return {e.cell.key: e.record for e in self.entries if e.record is not None and e.answered}

    @property
    def stale(self) -> list[Stale]:
        """The records that no longer answer their cell."""
        return [Stale(e.record, e.changed) for e in self.entries if e.record is not None and e.changed]

    @property
    def incomplete(self) -> list[Stale]:
        """The records that stand but lack something that is to be kept."""
        found = (e for e in self.entries if e.missing and not e.changed)
        return [Stale(e.record, [e.missing]) for e in found if e.record is not None]

    def answers(self, made: Iterable[Record]) -> list[Record]:
        """Return the record of every cell, in the plan's order, given those that were made."""
        records = self.reused | {record.key: record for record in made}
        return [records[entry.cell.key] for entry in self.entries]


def plan(
    store: Store, cells: Iterable[CellType], missing: Callable[[Record], str] = lambda record: ""
) -> Plan[CellType]:
    """Return what is to be done for some cells, given the records of a folder.

    Args:
        store: the folder.
        cells: what is asked for; one that comes twice counts once.
        missing: names what a record that stands should hold and does not; empty where it lacks nothing.
    """
    records, unreadable = store.read()
    known = {record.key: record for record in records if record.status != "failed"}
    entries: dict[str, Entry[CellType]] = {}
    for cell in cells:
        if cell.key in entries:
            continue
        record = known.get(cell.key)
        if record is None:
            entries[cell.key] = Entry(cell)
        else:
            changed = stale_fields(record, cell.provenance)
            entries[cell.key] = Entry(cell, record, changed, "" if changed else missing(record))
    return Plan(list(entries.values()), unreadable)


def drop_answered(store: Store, plan: Plan[CellType]) -> None:
    """Forget blocks whose record stands: a kill between the two leaves them, and they count as under way."""
    for entry in plan.entries:
        if entry.answered and (folder := block_folder(store, entry.cell)).exists():
            drop_folder(folder)


def block_folder(store: Store, cell: Cell) -> Path:
    """Return where the blocks of a cell lie while it is under way."""
    return store.blocks / f"{cell.key}-{cell.state}"


MOST_SAMPLES = 100_000_000
"""Samples of a trial: every block keeps a mark for each, and papers take 50,000."""

MOST_STEPS = 100_000
"""Steps of a trial: a grid is a list of them, and no published schedule has a twentieth."""


MOST_SEED = 2**63 - 1
"""Greatest seed: draws from an exact model's law take the other half of the keys of the noise."""


def check_numbers(*, n: int | None, batch: int | None, seed: int, steps: Sequence[int], what: str) -> None:
    """Raise UsageError if a number that a table is asked for is out of its range.

    Args:
        n: images a cell, None for all there are.
        batch: images at a time, None for the model's own choice.
        seed: the seed of the noise.
        steps: numbers of steps.
        what: the images are called: samples, images.
    """
    if n is not None and n < 2:
        raise UsageError(f"--n must be at least 2 {what}, got {n}")
    if n is not None and n > MOST_SAMPLES:
        raise UsageError(f"--n must be at most {MOST_SAMPLES:,} {what}, got {n:,}")
    if batch is not None and batch < 1:
        raise UsageError(f"--batch must be at least 1, got {batch}")
    if seed < 0:
        raise UsageError(f"--seed must not be negative, got {seed}")
    if seed > MOST_SEED:
        raise UsageError(f"--seed must be at most 2^63 - 1, half of what a noise key holds, got {seed}")
    if min(steps, default=1) < 1:
        listed = ", ".join(map(str, steps))
        raise UsageError(f"every number of steps must be at least 1, got {listed}")
    if max(steps, default=1) > MOST_STEPS:
        raise UsageError(f"every number of steps must be at most {MOST_STEPS:,}, got {max(steps):,}")
