"""The executor ``serial``: one device, this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bench.executors.base import Executor, Outcome
from bench.plugins import hookimpl
from bench.trial import Task, WorkerSetup, worker


class Serial:
    """Draws one block after the other on the first device."""

    name = "serial"

    def run(
        self,
        tasks: Sequence[Task],
        setup: WorkerSetup,
        devices: Sequence[str],
        wanted: Callable[[Task], bool],
    ) -> Iterator[tuple[Task, Outcome]]:
        """Run the tasks in order; see `bench.executors.base.Executor.run`."""
        draw = worker(setup, devices[0])
        for task in tasks:
            if wanted(task):
                yield task, draw(task)


@hookimpl
def bench_executors() -> Sequence[Executor]:
    """Register it."""
    return [Serial()]
