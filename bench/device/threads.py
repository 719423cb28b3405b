"""Threads of this process: work done side by side, and linear algebra in one of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ContextDecorator
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

Piece = TypeVar("Piece")
Answer = TypeVar("Answer")


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
    return list(_pool(threads).map(work, pieces))


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
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "bench")


if hasattr(os, "register_at_fork"):  # not on Windows, where there is none
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
