"""How many network calls a sampler makes, found by running it on a network that answers zero."""

from __future__ import annotations

import torch

from bench.diffusion.grid import Grid
from bench.diffusion.interfaces import EpsilonModel, Prediction, takes_real_times
from bench.diffusion.sampling import Sampler, trajectory


def count_calls(model: EpsilonModel, sampler: Sampler, grid: Grid) -> int:
    """Return the network calls a sampler makes on a grid, by running it on a network that answers zero.

    Raises:
        NotApplicable: if the sampler cannot run on this model.
    """
    counted = _ZeroModel(model)
    x = torch.zeros((1, *model.shape))
    for _ in trajectory(counted, sampler, grid, x, lambda index, draw=0: torch.zeros_like(x)):
        pass
    return counted.calls


class _ZeroModel:
    def __init__(self, model: EpsilonModel) -> None:
        self.schedule, self.shape, self.variance = model.schedule, model.shape, model.variance
        self.continuous = takes_real_times(model)
        self.calls = 0

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> Prediction:
        self.calls += 1
        zero = torch.zeros_like(x)
        return Prediction(zero, None if self.variance == "fixed" else zero)
