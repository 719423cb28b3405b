"""What an executor is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from bench.records.trial import BlockResult, Failure, Task, WorkerSetup

Outcome = BlockResult | Failure


class Executor(Protocol):
    """Runs tasks somewhere and hands back their outcomes as they come.

    Attributes:
        name: what ``--executor`` takes.
    """

    @property
    def name(self) -> str:
        """What ``--executor`` takes."""

    def run(
        self,
        tasks: Sequence[Task],
        setup: WorkerSetup,
        devices: Sequence[str],
        wanted: Callable[[Task], bool],
    ) -> Iterator[tuple[Task, Outcome]]:
        """Run every task that is still wanted when its turn comes.

        Args:
            tasks: blocks in the order they should be drawn.
            setup: makes a `bench.sweep.worker.Worker` in any process: ``Worker.make(setup, device)``.
            devices: torch devices to use, one worker each.
            wanted: False once the task's trial has failed.

        Yields:
            (task, outcome) in any order.

        Raises:
            BenchError: if no worker can be made.
        """
