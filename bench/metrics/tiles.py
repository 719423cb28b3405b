"""Pairs of feature vectors, gone through tile by tile: memory is a tile's, whatever the number of pairs.

Features lie in main memory in float32. A tile of them is widened to float64 where it is computed with, on the
device that `computing_on` names: where the feature network ran, if that can do float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

TILE = 2048
"""Rows of a tile: a tile of distances between two of them is 34 MB."""

_CPU = torch.device("cpu")
_DEVICE: ContextVar[torch.device | None] = ContextVar("device of the tiles", default=None)


@contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """Let tiles lie on a device for a while; on the CPU where the device has no float64."""
    token = _DEVICE.set(device if device.type == "cuda" else None)
    try:
        yield
    finally:
        _DEVICE.reset(token)


def tile_device() -> torch.device:
    """Return where tiles lie."""
    return _DEVICE.get() or _CPU


def tiles(rows: slice) -> list[slice]:
    """Return consecutive rows in tiles, in order."""
    return [slice(i, min(i + TILE, rows.stop)) for i in range(rows.start, rows.stop, TILE)]


def tile_of(x: Tensor, rows: slice) -> Tensor:
    """Return some rows of x (n, d) in float64, on the device of the tiles."""
    return x[rows].to(tile_device()).double()


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 of tiles x (B, d) and y (C, d), (B, C), by the expanded square: not below zero."""
    return torch.addmm((x * x).sum(1)[:, None] + (y * y).sum(1), x, y.T, alpha=-2.0).clamp_min_(0.0)
