"""The executor ``processes``: one machine, one process a device."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import torch

from bench.errors import BenchError
from bench.hooks import hookimpl
from bench.plugins.executor import Executor, Outcome
from bench.records.trial import Task, WorkerSetup
from bench.sweep.worker import Worker, worker

_worker: Worker  # of this process, made by its pool's initialiser


def _start(setup: WorkerSetup, device: str, threads: int) -> None:
    global _worker
    torch.set_num_threads(threads)
    _worker = worker(setup, device)


def _run(task: Task) -> Outcome:
    return _worker(task)


class Processes:
    """Keeps every device busy with a process of its own.

    Blocks are a function of their indices, so the scores are those of one process. On a CPU give
    ``--device cpu,cpu`` for two processes that share the cores.
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
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        threads = max(1, torch.get_num_threads() // len(devices))
        pools = [
            ProcessPoolExecutor(1, context, initializer=_start, initargs=(setup, device, threads))
            for device in devices
        ]
        queue, running = iter(tasks), dict[Future[Outcome], tuple[ProcessPoolExecutor, Task]]()

        def hand_out(pool: ProcessPoolExecutor) -> None:
            task = next((task for task in queue if wanted(task)), None)
            if task is not None:
                running[pool.submit(_run, task)] = (pool, task)

        try:
            for pool in pools:
                hand_out(pool)
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    pool, task = running.pop(future)
                    yield task, future.result()
                    hand_out(pool)
        except BrokenProcessPool as error:
            raise BenchError("a worker process died; run the same command again to go on") from error
        finally:
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)


@hookimpl
def bench_executors() -> Sequence[Executor]:
    """Register it."""
    return [Processes()]
