"""The exponential moving average of weights that samples are drawn with."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class MovingAverage:
    """Keeps e <- d e + (1 - d) w of a module's parameters w; buffers are copied.

    Attributes:
        module: a copy of the network that holds the average.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._averages: list[Tensor] = list(self.module.parameters())
        self._weights: list[Tensor] = list(module.parameters())
        self._buffers = list(zip(self.module.buffers(), module.buffers(), strict=True))

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average a share 1 - ``decay`` towards the present weights."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        for average, present in self._buffers:
            average.copy_(present)
