"""The blocks of one trial, put together as they come."""

from __future__ import annotations

from collections.abc import Collection

from bench.records.trial import BlockResult, Trial

COMPACT_EVERY = 16
"""Blocks after which a trial's files become one: 2048-d sums are 17 MB a group."""


class Collected:
    """The blocks of one trial, added up in the order of their indices as far as they follow on.

    Args:
        keep: names of the feature spaces whose vectors are kept.

    Attributes:
        trial: whose blocks they are.
        prefix: the sum of the blocks from the first to the first that is missing; None before the first.
    """

    def __init__(self, trial: Trial, keep: Collection[str] = ()) -> None:
        self.trial = trial
        self._keep = keep
        self.prefix: BlockResult | None = None
        self._waiting: dict[int, BlockResult] = {}
        self._since_compaction = 0

    @property
    def reached(self) -> int:
        """Number of samples in the prefix."""
        return self.prefix.block.stop if self.prefix else 0

    @property
    def held(self) -> int:
        """Number of samples that are here."""
        return self.reached + sum(len(result.block) for result in self._waiting.values())

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.reached == self.trial.n

    @property
    def due(self) -> bool:
        """Whether the blocks' files should become one."""
        return self._since_compaction >= COMPACT_EVERY

    def fits(self, result: BlockResult) -> bool:
        """Whether a block of an earlier run is of a trial of this size, with the same kept.

        One that came first may end anywhere: it holds what a trial of fewer samples drew.
        """
        block = result.block
        ends = block.start == 0 or block.stop == self.trial.n or block.stop % self.trial.batch == 0
        return ends and all(
            sums.n == self.trial.n and sums.keep_features == (space in self._keep)
            for space, sums in result.statistics.items()
        )

    def lacks(self, block: range) -> bool:
        """Return whether a block holds samples that are not here, and can be added."""
        follows = block.start >= self.reached and block.start not in self._waiting
        return follows or (block.start == 0 and block.stop > self.reached)

    def add(self, result: BlockResult) -> None:
        """Take in a block that is lacking; one that comes early waits for those before it.

        A longer beginning, as another run has put together, takes the place of what is here of it.
        """
        if result.block.start < self.reached:
            self.prefix = None
            self._waiting = {s: r for s, r in self._waiting.items() if s >= result.block.stop}
        self._waiting[result.block.start] = result
        while (follower := self._waiting.pop(self.reached, None)) is not None:
            self._since_compaction += 1
            if self.prefix is None:
                self.prefix = follower
            else:
                self.prefix.extend(follower)

    def missing(self) -> list[range]:
        """Return the blocks that are not here, in order; one that is here in part begins where that ends."""
        here = [r.block for r in self._waiting.values()]
        left = [range(max(b.start, self.reached), b.stop) for b in self.trial.blocks]
        return [b for b in left if b and b not in here]

    def compact(self) -> BlockResult:
        """Return the prefix, to be kept in the place of its blocks, and count to the next time anew."""
        assert self.prefix is not None  # blocks were added
        self._since_compaction = 0
        return self.prefix
