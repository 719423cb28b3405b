"""The cores that this process may use, and how its threads wait: settled before torch is imported."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path, PurePosixPath

SPINS = "2000"
"""Turns that a thread waits awake at the end of a parallel loop before it sleeps: some microseconds.

GNU's OpenMP turns 300,000 times. Where another process holds a core, every loop then waits milliseconds for a
thread that has none, and keeps the other process from its core meanwhile.
"""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""The variables that libraries take their number of threads from, when they are loaded."""


def settle(threads: int | None = None, environment: MutableMapping[str, str] = os.environ) -> None:
    """Say in the environment how many threads libraries start, and that those which wait sleep soon.

    What the user has set himself stays, unless ``threads`` is given. Libraries read it when they are loaded.

    Args:
        threads: the number asked for; where None, that of the cores this process may use.
        environment: the variables.
    """
    for name in THREADS:
        if threads is not None or (name not in environment and available_cores() < (os.cpu_count() or 1)):
            environment[name] = str(threads or available_cores())
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(environment):
        environment["GOMP_SPINCOUNT"] = SPINS
    if threads is not None:
        import torch  # whose own default is no more than there are cores

        torch.set_num_threads(threads)


def available_cores(root: Path = Path("/")) -> int:
    """Return the number of cores that this process may use: those it is bound to, or its group's share.

    Args:
        root: where the file system begins.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([bound, *(max(1, math.ceil(share)) for share in _shares(root))])


def _shares(root: Path) -> Iterator[float]:
    """Yield the cores that every control group around this process is given, where it has a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        inside = PurePosixPath(path.lstrip("/"))
        if not controllers:
            folder = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            folder = root / "sys/fs/cgroup/cpu"
        else:
            continue
        for group in (inside, *inside.parents):
            share = _share(folder / group)
            if share is not None:
                yield share


def _share(group: Path) -> float | None:
    """Return quota / period of a control group, of either version; None where it has no limit."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = (
                (group / f"cpu.cfs_{what}_us").read_text().strip() for what in ("quota", "period")
            )
        return float(quota) / float(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError):
        return None
