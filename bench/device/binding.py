"""A core for each of the threads that share torch's loops."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch
from threadpoolctl import ThreadpoolController

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@contextmanager
def a_core_each(device: torch.device) -> Iterator[None]:
    """Keep each of torch's threads on a core of its own within, where they are as many as the cores.

    A loop ends with the last of its threads, and those that sleep between two loops are often woken on one
    core, the other idle: a matrix product then ran at 58 GFLOP/s, and at 125 else. With fewer threads than
    cores nothing is bound: another process might bind its own to the same ones. Nor is anything where torch
    runs its loops by another library than GNU's OpenMP.

    Args:
        device: where the work is done; nothing is bound if it is not the CPU.
    """
    told = device.type == "cpu" and hasattr(os, "sched_getaffinity")
    cores, openmp = (sorted(os.sched_getaffinity(0)), _openmp()) if told else ([], None)
    if openmp is None or not 1 < torch.get_num_threads() == len(cores):
        yield
        return
    before = _threads()
    mine = _core_of_this_thread(cores)
    places = cores[mine:] + cores[:mine]
    try:
        _in_each(openmp, len(cores), lambda number: _bind(places[number : number + 1]))
        yield
    finally:
        _in_each(openmp, len(cores), lambda number: _bind(cores))
        for thread in _threads() - before:  # one that was started here may use the core of its maker alone
            _bind(cores, thread)


def _threads() -> set[int]:
    return {one.native_id for one in threading.enumerate() if one.native_id is not None}


def _core_of_this_thread(cores: Sequence[int]) -> int:
    """Return the place among some cores of the one it runs on, where the system has room for it; else 0.

    Most of the work that is not shared is this thread's: those of two processes must not choose one core.
    """
    try:
        return cores.index(ctypes.CDLL(None).sched_getcpu())
    except (AttributeError, ValueError):  # another C library; a core that is not allowed any more
        return 0


def _bind(cores: Sequence[int], thread: int = 0) -> None:
    """Bind a thread, else the one that asks, to some cores."""
    with suppress(OSError):  # the thread has ended meanwhile, or the system has taken a core away
        os.sched_setaffinity(thread, cores)


def _in_each(openmp: ctypes.CDLL, threads: int, work: Callable[[int], None]) -> None:
    """Have this thread and those that share torch's loops with it do something, each told its number."""
    openmp.GOMP_parallel(_BODY(lambda nothing: work(openmp.omp_get_thread_num())), None, threads, 0)


@cache
def _openmp() -> ctypes.CDLL | None:
    """Return the library that torch runs its loops by, if it is GNU's."""
    home = Path(torch.__file__).parent
    for one in ThreadpoolController().lib_controllers:
        path = Path(one.filepath)
        if one.prefix == "libgomp" and (home in path.parents or home.with_name("torch.libs") in path.parents):
            return ctypes.CDLL(one.filepath)
    return None
