"""The executor ``processes``: one machine, one process a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from bench.hooks import hookimpl
from bench.plugins.executor import Executor, Outcome
from bench.records.trial import Task, WorkerSetup
from bench.sweep.executors.child import Child, wait_for


class Processes:
    """Keeps every device busy with a process of its own; on one device, a process apart from this one.

    Blocks are a function of their indices, so the scores are those of one process. On a CPU give
    ``--device cpu,cpu`` for two processes that share the cores. A process that dies or hangs costs the trial
    whose block it drew; another takes its place.
    """

    name = "processes"

    def run(
        self,
        tasks: Sequence[Task],
        setup: WorkerSetup,
        devices: Sequence[str],
        wanted: Callable[[Task], bool],
    ) -> Iterator[tuple[Task, Outcome]]:
        """Run the tasks, each on the first device that is free; see `bench.plugins.executor.Executor.run`."""
        threads = max(1, torch.get_num_threads() // len(devices))
        children, queue = [Child(setup, device, threads) for device in devices], iter(tasks)

        def hand_out(child: Child) -> None:
            child.give(next((task for task in queue if wanted(task)), None))

        try:
            for child in children:
                hand_out(child)
            while busy := [child for child in children if child.task is not None]:
                wait_for(busy)
                for child in busy:
                    task, outcome = child.task, child.look()
                    if task is not None and outcome is not None:
                        yield task, outcome
                        hand_out(child)
        finally:
            for child in children:
                child.end()


@hookimpl
def bench_executors() -> Sequence[Executor]:
    """Register it."""
    return [Processes()]
