"""Time read when the device has finished, and peak memory."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds of work on one device, summed over many intervals.

    With CUDA an interval is a pair of events in the stream, read after the work is done, so that timing the
    network does not stall it; elsewhere it is the wall clock, read when the device has finished.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._device = device
        self._seconds = 0.0
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens inside."""
        if not self._cuda:
            self._finish()
            start = time.perf_counter()
            yield
            self._finish()
            self._seconds += time.perf_counter() - start
            return
        with torch.cuda.device(self._device):
            begin, end = _event(), _event()
            begin.record()
            yield
            end.record()
        self._pairs.append((begin, end))

    def _finish(self) -> None:
        if self._device.type != "cpu":  # Apple's and Intel's GPUs too are only given work, not waited for
            getattr(torch, self._device.type).synchronize()

    @property
    def seconds(self) -> float:
        """Seconds counted so far, after waiting for the device."""
        if self._pairs:
            torch.cuda.synchronize(self._device)
            self._seconds += sum(begin.elapsed_time(end) for begin, end in self._pairs) / 1000
            self._pairs.clear()
        return self._seconds


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def peak_memory(device: torch.device) -> int:
    """Return the peak number of bytes used: of the GPU since `reset_peak_memory`, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Start the GPU's peak anew; a process's peak cannot be."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def free_memory(device: torch.device) -> None:
    """Give back what torch keeps of a GPU's memory for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
