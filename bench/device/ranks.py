"""The place of a process among those that ``torchrun`` started, and the device that goes with it."""

from __future__ import annotations

import os

import torch

from bench.errors import UsageError


def own_rank() -> int:
    """Return the number of this process among those that ``torchrun`` started; 0 where it is alone."""
    return _number("RANK", 0)


def count_of_ranks() -> int:
    """Return how many processes ``torchrun`` started; 1 where this one is alone."""
    return _number("WORLD_SIZE", 1)


def _number(variable: str, alone: int) -> int:
    """Return what a variable of ``torchrun`` says, and ``alone`` where it is not set.

    Raises:
        UsageError: if that is no whole number from 0 on.
    """
    given = os.environ.get(variable, str(alone))
    if not (given.isascii() and given.isdigit()):
        raise UsageError(
            f"the variable {variable} must be a whole number, as torchrun sets it, got {given!r}; unset it"
        )
    return int(given)


def own_device(asked: str) -> str:
    """Return the device of this process: with ``auto`` or ``cuda``, the GPU of its place on its machine."""
    place = _number("LOCAL_RANK", 0)
    if "LOCAL_RANK" not in os.environ or asked not in ("auto", "cuda") or not torch.cuda.is_available():
        return asked
    return f"cuda:{place}"
