"""The place of a process among those that ``torchrun`` started, and the device that goes with it."""

from __future__ import annotations

import os

import torch


def own_rank() -> int:
    """Return the number of this process among those that ``torchrun`` started; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def own_device(asked: str) -> str:
    """Return the device of this process: with ``auto`` or ``cuda``, the GPU of its place on its machine."""
    place = os.environ.get("LOCAL_RANK")
    if place is None or asked not in ("auto", "cuda") or not torch.cuda.is_available():
        return asked
    return f"cuda:{place}"
