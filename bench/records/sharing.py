"""What a run takes on of the work in a results folder, where others may be at work too.

A block is claimed before it is drawn, and let go when its file is there; a trial is claimed while it is
scored. So every block is drawn once and every trial scored once, whichever run does it, and all runs end with
all records. What a run holds when it is killed is free at once. Claims save work and decide no result: where
locks do not reach from one machine to the other and two runs draw a block, it is one file with one content.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.files.claims import SUFFIX, Claim, claim, claimed, tidy
from bench.records.ledger import Cell, block_folder
from bench.records.record import Record, stale_fields
from bench.records.store import Store, read_record

LOOK = 0.2
"""Seconds between two looks at what other runs have done, where nothing else is left to do."""

Stamp = tuple[int, int, int]
"""What tells one writing of a file from the next: its number, its time, its length."""


class Share:
    """The share of a run in some cells; what it still holds in the end is let go.

    Args:
        store: the folder.
        cells: what is to be done.
        missing: names what a record that stands should hold and does not, as for `bench.records.ledger.plan`.
    """

    def __init__(
        self, store: Store, cells: Iterable[Cell], missing: Callable[[Record], str] = lambda record: ""
    ) -> None:
        self._store, self._missing = store, missing
        self._held: dict[Path, Claim] = {}
        self._found: dict[str, Record] = {}
        self._records = {cell.key: store.records / f"{cell.record().name}.json" for cell in cells}
        self._seen = {key: stamp for key, path in self._records.items() if (stamp := _failed_before(path))}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        folders = {path.parent for path in self._held}
        while self._held:
            self._held.popitem()[1].release()
        for folder in folders:
            tidy(folder)

    def take(self, cell: Cell, block: range) -> bool:
        """Claim a block of a cell, and return whether this run has it now; what it has already, it has.

        A block that was claimed is to be looked for once more: another run may have drawn it before.
        """
        path = self._claim_of(cell, block)
        if path not in self._held:
            mine = claim(path)
            if mine is None:
                return False
            self._held[path] = mine
        self._store.running.tell(cell.title)
        return True

    def let_go(self, cell: Cell, block: range) -> None:
        """Give a block back: it is there, or its cell has ended."""
        self._held.pop(self._claim_of(cell, block)).release()

    @contextmanager
    def ending(self, cell: Cell) -> Iterator[bool]:
        """Claim the last of a cell's work, its scores: true where it was to be had, until the end of it."""
        folder = block_folder(self._store, cell)
        mine = claim(folder / f"end{SUFFIX}")
        try:
            yield mine is not None
        finally:
            if mine is not None:
                mine.release()

    def ended(self, cell: Cell) -> Record | None:
        """Return the record that another run has given a cell since, None where there is none that stands.

        A failure counts if it was not there before: it would only fail again.
        """
        path = self._records[cell.key]
        stamp = _stamp(path)
        if stamp is None or stamp == self._seen.get(cell.key):
            return self._found.get(cell.key)
        self._seen[cell.key] = stamp
        record = read_record(path)
        if not isinstance(record, Record) or stale_fields(record, cell.provenance) or self._missing(record):
            return None
        tidy(block_folder(self._store, cell))
        self._found[cell.key] = record
        return record

    def wait(self) -> None:
        """Let other runs go on for a moment."""
        time.sleep(LOOK)

    def _claim_of(self, cell: Cell, block: range) -> Path:
        return block_folder(self._store, cell) / f"{block.start:08d}-{block.stop:08d}{SUFFIX}"


@contextmanager
def alone_at(store: Store, cell: Cell) -> Iterator[None]:
    """Hold a cell that is done in one go, once another run that does it has ended."""
    folder = block_folder(store, cell)
    with claimed(folder / f"end{SUFFIX}"):
        yield
    tidy(folder)


def _failed_before(path: Path) -> Stamp | None:
    stamp = _stamp(path)
    record = read_record(path) if stamp else None
    return stamp if isinstance(record, Record) and record.status == "failed" else None


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
