"""Threads of this process: a core for each, work done side by side, and linear algebra in one of them."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ContextDecorator, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

Piece = TypeVar("Piece")
Answer = TypeVar("Answer")

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_free = threading.local()


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
    cores, openmp = sorted(os.sched_getaffinity(0)) if told else [], _openmp()
    if openmp is None or not 1 < torch.get_num_threads() == len(cores):
        yield
        return
    _free.cores = cores
    mine = _core_of_this_thread(cores)
    places = cores[mine:] + cores[:mine]
    try:
        _in_each(openmp, len(cores), lambda number: _bind(places[number : number + 1]))
        yield
    finally:
        _in_each(openmp, len(cores), lambda number: _bind(cores))


def _core_of_this_thread(cores: Sequence[int]) -> int:
    """Return the place among some cores of the one it runs on, where the system has room for it; else 0.

    Most of the work that is not shared is this thread's: those of two processes must not choose one core.
    """
    try:
        return cores.index(ctypes.CDLL(None).sched_getcpu())
    except (AttributeError, ValueError):  # another C library; a core that is not allowed any more
        return 0


def _bind(cores: Sequence[int]) -> None:
    """Bind the thread that asks to some cores, where any are named."""
    if cores:
        with suppress(OSError):  # the system has taken a core away meanwhile
            os.sched_setaffinity(0, cores)


def _in_each(openmp: ctypes.CDLL, threads: int, work: Callable[[int], None]) -> None:
    """Have this thread and those that share torch's loops with it do something, each told its number."""
    openmp.GOMP_parallel(_BODY(lambda nothing: work(openmp.omp_get_thread_num())), None, threads, 0)


@cache
def _openmp() -> ctypes.CDLL | None:
    """Return the library that torch runs its loops by, if it is GNU's."""
    home = Path(torch.__file__).parent
    for one in _controller().lib_controllers:
        path = Path(one.filepath)
        if one.prefix == "libgomp" and (home in path.parents or home.with_name("torch.libs") in path.parents):
            return ctypes.CDLL(one.filepath)
    return None


def in_threads(work: Callable[[Piece], Answer], pieces: Sequence[Piece]) -> list[Answer]:
    """Return what some work gives for every piece, done in as many threads as torch is allowed.

    Args:
        work: lets go of Python's lock for most of its time, as NumPy's and SciPy's routines do, and asks for
            no threads here itself.
        pieces: what it is done on, in any order.
    """
    threads = min(torch.get_num_threads(), len(pieces))
    if threads < 2:
        return [work(piece) for piece in pieces]
    return list(_pool(threads, *getattr(_free, "cores", ())).map(work, pieces))


class _OneThread(ContextDecorator):
    """One thread for linear algebra, from the first who asks for it to the last who leaves."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._limit: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._limit is None:
                self._limit = _controller().limit(limits=1, user_api="blas")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._limit is not None:
                self._limit.__exit__(None, None, None)
                self._limit = None


one_blas_thread = _OneThread()
"""Keeps the linear algebra of NumPy and SciPy to one thread, as in ``with one_blas_thread:``.

Several wait for each other awake at every step of a factorisation. On cores that another process is using
too, a distance of 2048 features took 13 seconds with two threads and 0.8 with one, one of 192 took 28 ms and
1.4. Where there are several problems they are done side by side: see `in_threads`.
"""


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def _pool(threads: int, *cores: int) -> ThreadPoolExecutor:
    """Return threads on any of some cores, though the one that starts them may be bound to one."""
    return ThreadPoolExecutor(threads, "bench", initializer=partial(_bind, cores))


if hasattr(os, "register_at_fork"):  # not on Windows, where there is none
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
