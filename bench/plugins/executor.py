"""What an executor is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

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


@runtime_checkable
class Configurable(Protocol):
    """An executor that the command line gives options, as in ``ray:gpus_per_worker=0.5``.

    Attributes:
        elsewhere: whether it draws on other machines, so that ``--device`` names what these have.
    """

    @property
    def elsewhere(self) -> bool:
        """Whether it draws on other machines."""

    def with_options(self, options: Mapping[str, str]) -> Executor:
        """Return the executor with options as text, ready to run.

        Raises:
            UsageError: if an option is unknown or cannot be, or what the executor needs is not installed.
            BenchError: if what an option names does not answer.
        """
