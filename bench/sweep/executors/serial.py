"""The executor ``serial``: one device, this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bench.hooks import hookimpl
from bench.plugins.executor import Executor, Outcome
from bench.records.trial import Task, WorkerSetup
from bench.sweep.worker import worker


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
        """Run the tasks in order; see `bench.plugins.executor.Executor.run`."""
        draw = worker(setup, devices[0])
        for task in tasks:
            if wanted(task):
                yield task, draw(task)


@hookimpl
def bench_executors() -> Sequence[Executor]:
    """Register it."""
    return [Serial()]
