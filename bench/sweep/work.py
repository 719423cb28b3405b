"""The work of a sweep: blocks drawn here, or by another run in the same folder, and trials that end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import dropwhile
from typing import Generic

from bench.plugins.executor import Outcome
from bench.records.blocks import merge_blocks, read_blocks, write_block
from bench.records.ledger import CellType, block_folder
from bench.records.record import Record
from bench.records.sharing import Share
from bench.records.store import Store
from bench.records.trial import BlockResult, Failure, Task, Trial
from bench.sweep.collect import Collected


class Work(Generic[CellType]):
    """What is open of some trials.

    Args:
        store: the folder.
        cells: the trials.
        share: this run's share in them.
        keep: names of the feature spaces whose vectors are kept.
        advanced: told how many more samples of a trial are there, whoever drew them.
    """

    def __init__(
        self,
        store: Store,
        cells: Sequence[CellType],
        share: Share,
        keep: Collection[str],
        advanced: Callable[[Trial, int], None],
    ) -> None:
        self._store, self._share, self._advanced = store, share, advanced
        self._cells = {cell.key: cell for cell in cells}
        self._open = {cell.key: Collected(cell.trial, keep) for cell in cells}
        self._found: list[Record] = []
        self._changed: set[str] = set()  # trials that may have become whole
        for key in self._open:
            self._look(key)

    @property
    def open(self) -> bool:
        """Whether a trial has not ended."""
        return bool(self._open or self._found)

    def tasks(self) -> list[Task]:
        """Return the blocks that are left, from the first that this run may draw; none if all are taken."""
        left = [Task(self._cells[key].trial, b) for key, mine in self._open.items() for b in mine.missing()]
        return list(dropwhile(lambda task: not self.wanted(task), interleaved(left)))

    def wanted(self, task: Task) -> bool:
        """Claim a block, and return whether this run is to draw it now."""
        key = task.trial.key
        if key not in self._open or not self._share.take(self._cells[key], task.block):
            return False
        self._look(key)  # now that nobody else draws it: it may be there
        if key in self._open and self._open[key].lacks(task.block) and not self._ended(key):
            return True
        self._share.let_go(self._cells[key], task.block)
        return False

    def cell_of(self, task: Task) -> CellType:
        """Return the cell of a block."""
        return self._cells[task.trial.key]

    def put(self, task: Task, outcome: Outcome, fail: Callable[[CellType, Failure], Record]) -> None:
        """Take in what became of a block.

        Args:
            task: the block.
            outcome: what an executor made of it.
            fail: makes the record of a failure.
        """
        key, cell = task.trial.key, self._cells[task.trial.key]
        if key in self._open and not self._ended(key):  # else it failed while this block was being drawn
            if isinstance(outcome, Failure):
                self._end(key, fail(cell, outcome))
            else:
                self._keep(cell, outcome)
        self._share.let_go(cell, task.block)

    def _keep(self, cell: CellType, outcome: BlockResult) -> None:
        folder, mine = block_folder(self._store, cell), self._open[cell.key]
        write_block(folder, outcome.block, outcome.to_arrays(), outcome.cost)
        self._add(cell, outcome)
        self._look(cell.key)
        if mine.due and not mine.whole:
            prefix = mine.compact()
            merge_blocks(folder, prefix.block, prefix.to_arrays(), prefix.cost)

    def ended(self, finish: Callable[[CellType, BlockResult], Record]) -> Iterator[Record]:
        """Yield the records of the trials that have ended since the last call.

        Args:
            finish: makes the record of a trial that is whole.
        """
        for key in [key for key in self._open if key in self._changed]:
            if not self._ended(key) and self._open[key].whole:
                self._finish(key, finish)
        self._changed.clear()
        while self._found:
            yield self._found.pop(0)

    def wait(self) -> None:
        """Let others go on for a moment and look at what they did; `ended` then asks of every trial."""
        self._share.wait()
        for key in self._open:
            self._look(key)
        self._changed.update(self._open)

    def _finish(self, key: str, finish: Callable[[CellType, BlockResult], Record]) -> None:
        cell, whole = self._cells[key], self._open[key].prefix
        assert whole is not None  # the trial is whole
        with self._share.ending(cell) as mine:
            if mine and not self._ended(key):
                self._end(key, finish(cell, whole))

    def _ended(self, key: str) -> bool:
        """Return whether another run has ended a trial, whose record is then found."""
        record = self._share.ended(self._cells[key])
        if record is not None:
            self._advanced(record.trial, record.trial.n - self._open[key].held)
            self._end(key, record)
        return record is not None

    def _end(self, key: str, record: Record) -> None:
        del self._open[key]
        self._found.append(record)

    def _look(self, key: str) -> None:
        """Take in the blocks of a trial that are kept and are not here."""
        cell, mine = self._cells[key], self._open[key]
        for block, arrays, cost in read_blocks(block_folder(self._store, cell), mine.lacks):
            try:
                result = BlockResult.from_arrays(block, arrays, cost)
            except (KeyError, ValueError):
                continue  # a damaged file is no block
            if mine.fits(result):
                self._add(cell, result)

    def _add(self, cell: CellType, result: BlockResult) -> None:
        mine = self._open[cell.key]
        before = mine.held
        if mine.lacks(result.block):
            mine.add(result)
            self._changed.add(cell.key)
        self._advanced(cell.trial, mine.held - before)


def interleaved(tasks: Sequence[Task]) -> list[Task]:
    """Order blocks so that the trials of one S take turns: the machine's drift then hits all alike."""
    return sorted(tasks, key=lambda task: (task.trial.steps, task.block.start))
