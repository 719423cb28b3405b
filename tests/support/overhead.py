"""What a block costs beside its images: to hand it out and take it in, by executor, and to keep it.

Blocks of two images in one step are drawn by one worker, which does next to nothing. The time from one answer
to the next is what a block takes; what it takes more than in this process is the executor's own. It is the
median of many, so that the start of the worker and what else the machine does count little.
"""

import itertools
import os
import pickle
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.files.claims import claim
from bench.plugins.loading import registry
from bench.plugins.lookup import get_executor
from bench.records.blocks import write_block
from bench.records.trial import Task, Trial, WorkerSetup

WIDE = """
import math
from bench import hookimpl
from bench.metrics import FrechetMetric, fingerprint


class Wide:
    '''Pixels repeated until there are 2048 features, as many as the FID has.'''

    name, dim = "wide", 2048

    def __init__(self, shape):
        self.shape, self.fingerprint = shape, fingerprint("wide", shape=shape)

    def __call__(self, images):
        return images.flatten(1).float().repeat(1, 2048 // math.prod(self.shape)) / 255

    def to(self, device):
        return self


def wide(name, shape):
    return Wide(shape)


@hookimpl
def bench_metrics():
    return [FrechetMetric("fd_wide", space=f"{__name__}:wide")]
"""
METRICS = {"fd_pixels": 60, "fd_wide": 20}
"""Scores of 64 and of 2048 features, and the blocks that are drawn for each."""
EXECUTORS = ("serial", "processes", "ray:address=local")
KEPT = 8
"""Answers that are kept in memory and on disk: one of 2048 features takes 17 MB."""


class Overhead(NamedTuple):
    """Median seconds of a block: in this process, more than that by executor, and to keep it; its size."""

    own: float
    more: dict
    kept: float
    size: int


def tasks_of(metric, count):
    """Blocks of two images."""
    n = 2 * count
    trial = Trial("exact-gaussian", "ddim", "uniform", 1, n, 0, 2, "float32", "cpu", (metric,))
    return [Task(trial, block) for block in trial.blocks]


def run(executor, setup, tasks):
    """Return the first outcomes and the median seconds from one to the next."""
    outcomes, times = [], []
    for _, outcome in get_executor(executor).run(tasks, setup, ("cpu",), lambda task: True):
        times.append(time.perf_counter())
        outcomes += [outcome] if len(outcomes) < KEPT else []
    return outcomes, statistics.median(b - a for a, b in itertools.pairwise(times))


def keep(outcomes, folder):
    """Return the median seconds that it takes to claim a block, to write it, and to let it go."""
    seconds = []
    for outcome in outcomes:
        began = time.perf_counter()
        mine = claim(folder / f"{outcome.block.start}.lock")
        write_block(folder, outcome.block, outcome.to_arrays(), outcome.cost)
        mine.release()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def measured(metric, folder):
    """Measure one score's blocks."""
    plugin = folder / "wide.py"
    plugin.write_text(WIDE)
    registry().load_file(plugin)
    setup = WorkerSetup("exact-gaussian", None, (metric,), plugins=(plugin,))
    tasks = tasks_of(metric, METRICS[metric])
    found = {executor: run(executor, setup, tasks) for executor in EXECUTORS}
    outcomes, own = found["serial"]
    more = {executor: seconds - own for executor, (_, seconds) in found.items() if executor != "serial"}
    return Overhead(own, more, keep(outcomes, folder / metric), len(pickle.dumps(outcomes[0])))


def table():
    """What was measured, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        pixels, wide = (measured(metric, Path(folder)) for metric in METRICS)
    rows = [
        ("the answer of a block", *(f"{one.size / 1e6:.2g} MB" for one in (pixels, wide))),
        ("claim it and keep it, any executor", *(f"{one.kept * 1e3:.2g} ms" for one in (pixels, wide))),
        *(
            (
                f"hand it out and take it in: `{name.partition(':')[0]}`",
                *(f"{o.more[name] * 1e3:.2g} ms" for o in (pixels, wide)),
            )
            for name in EXECUTORS[1:]
        ),
    ]
    lines = [f"| {what} | {first} | {second} |" for what, first, second in rows]
    return (
        "| what | 64 features | 2048 features, as of the FID |\n|---|--:|--:|\n"
        + "\n".join(lines)
        + f"\n\nOne worker on a machine of {os.cpu_count()} cores ({platform.machine()}).\n"
    )


if __name__ == "__main__":
    print(table(), end="")
