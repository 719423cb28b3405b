"""Count and time the calls of a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.device.clock import Clock
from bench.diffusion.interfaces import EpsilonModel, Prediction, Variance, takes_real_times
from bench.diffusion.schedule import Schedule


@dataclass
class Meter:
    """A model that counts its calls and times them, and is otherwise the model.

    Attributes:
        model: what is called.
        clock: the network's share of the time.
        precision: dtype of the network's arithmetic, by autocast; its answer has the dtype of x again.
        calls: calls of the network so far, each on a whole batch.
        evaluations: rows sent through the network so far.
    """

    model: EpsilonModel
    clock: Clock
    precision: torch.dtype = torch.float32
    calls: int = 0
    evaluations: int = 0

    @property
    def schedule(self) -> Schedule:
        """The model's."""
        return self.model.schedule

    @property
    def shape(self) -> tuple[int, int, int]:
        """The model's."""
        return self.model.shape

    @property
    def continuous(self) -> bool:
        """Whether the model takes real times."""
        return takes_real_times(self.model)

    @property
    def variance(self) -> Variance:
        """The model's."""
        return self.model.variance

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Call the model, count it and time it."""
        self.calls += 1
        self.evaluations += len(x)
        with self.clock.running():
            if self.precision == torch.float32:
                return self.model(x, t)
            with torch.autocast(x.device.type, self.precision):
                eps, raw, x0 = self.model(x, t)
            raw, x0 = (None if part is None else part.to(x.dtype) for part in (raw, x0))
            return Prediction(eps.to(x.dtype), raw, x0)
