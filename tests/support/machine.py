"""What measures on a GPU share: a part that goes on where it was stopped, commands that end in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.files.atomic import write_atomically

ROOT = Path(__file__).parents[2]
LEASH = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
"""Has what is started killed with who started it (PR_SET_PDEATHSIG): two trainers must not share a folder."""

GRACE = 20.0
"""Seconds that an interrupted command has to end."""


class Unfinished(Exception):
    """A part that is not whole, and why."""


class Findings:
    """What a part has found: kept at every number, so that the part goes on after a stop at any moment.

    Args:
        path: its file; what is there already is not measured again.
        seconds: time that the part may take from now on.
        tell: told a line for everything that is found.
    """

    def __init__(self, path: Path, seconds: float, tell: Callable[[str], None] = print) -> None:
        self.path, self._tell = path, tell
        self._began, self._seconds, self._longest = time.perf_counter(), seconds, 0.0
        kept = json.loads(path.read_text()) if path.exists() else {}
        self._spent = kept.get("seconds", 0.0)
        self.found: dict[str, Any] = kept.get("found", {})
        self.whole: bool = kept.get("whole", False)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._seconds - (time.perf_counter() - self._began)

    def get(self, name: str, measure: Callable[[], Any], about: float = 0.0) -> Any:
        """Return what was found under a name; measure it where it never was.

        Args:
            name: what is measured.
            measure: measures it, as what JSON can hold.
            about: seconds that it may take, where the longest so far says too little.

        Raises:
            Unfinished: if there is too little time left.
        """
        if name not in self.found:
            if self.left < max(about, self._longest):
                raise Unfinished(f"no time was left for: {name}")
            began = time.perf_counter()
            value = measure()
            self._longest = max(self._longest, time.perf_counter() - began)
            self.found[name] = value
            self.write()
            self._tell(f"{name}: {shown(value)}")
        return self.found[name]

    def write(self, **more: Any) -> None:
        """Keep what was found."""
        spent = self._spent + time.perf_counter() - self._began
        kept = {"whole": self.whole, "seconds": spent, **more, "found": self.found}
        write_atomically(self.path, (json.dumps(kept, indent=1) + "\n").encode())


def shown(value: object) -> str:
    """Return a value as it is printed."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(one)}" for key, one in value.items() if one not in ("", None))
    if isinstance(value, list):
        return "; ".join(map(shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def command(*arguments: str, seconds: float, **environment: str) -> str:
    """Run Python from the root of the project and return what it printed.

    Args:
        arguments: Python's.
        seconds: after which it is interrupted, and killed a little later.
        environment: variables that it gets.

    Raises:
        Unfinished: if it was interrupted.
        RuntimeError: if it failed, with the end of what it printed.
    """
    leash = [sys.executable, "-c", LEASH] if sys.platform == "linux" else []
    process = subprocess.Popen(
        [*leash, sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=max(0.1, seconds - GRACE))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        raise Unfinished("its time was spent") from None
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}:\n{said[-3000:]}")
    return said


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def wall_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of something on the clock at the wall, the device waited for."""
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def covered(intervals: list[tuple[float, float]]) -> float:
    """Return how much of a line some intervals cover together, each (begin, end)."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def utilisation(work: Callable[[], object], device: torch.device, turns: int = 3) -> float:
    """Return the share of the wall time of something in which the device computes.

    On a GPU: time in which at least one kernel or copy runs, as torch's profiler sees it, over the median
    wall time without the profiler, which makes the host slower but hardly a kernel. Elsewhere: time that the
    processor gives to this process, over wall time and number of threads.

    Raises:
        RuntimeError: if the profiler sees nothing of the GPU.
    """
    wall_seconds(work, device)
    if device.type != "cuda":
        given = time.process_time()
        wall = wall_seconds(work, device)
        return (time.process_time() - given) / (wall * torch.get_num_threads())
    wall = sorted(wall_seconds(work, device) for _ in range(turns))[turns // 2]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        wall_seconds(work, device)
    on_gpu = [one for one in seen.events() or [] if one.device_type == torch.autograd.DeviceType.CUDA]
    if not on_gpu:
        raise RuntimeError("torch's profiler saw no kernel: CUPTI is not to be had on this machine")
    return covered([(one.time_range.start, one.time_range.end) for one in on_gpu]) / 1e6 / wall
