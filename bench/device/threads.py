"""Threads of this process: work that lets go of Python's lock, done side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Piece = TypeVar("Piece")


def in_threads(work: Callable[[Piece], object], pieces: Sequence[Piece]) -> None:
    """Do some work on every piece, in as many threads as torch is allowed.

    Args:
        work: lets go of Python's lock for most of its time, as NumPy's ufuncs and generators do.
        pieces: what it is done on, in any order.
    """
    threads = min(torch.get_num_threads(), len(pieces))
    if threads < 2:
        for piece in pieces:
            work(piece)
        return
    for _ in _pool(threads).map(work, pieces):
        pass


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "bench")


if hasattr(os, "register_at_fork"):  # not on Windows, where there is none
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
