"""How training draws its time steps, and the weights that keep the loss unbiased."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.training.config import TimestepSampling

_HISTORY = 10  # losses remembered for each t
_UNIFORM_SHARE = 0.001  # of the draws, so that no t is forgotten


class UniformTimesteps:
    """p(t) = 1/T."""

    def __init__(self, T: int) -> None:
        self.T = T

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return t, int64 (count,), and the weights 1 / (T p(t)), float32 (count,)."""
        return torch.randint(self.T, (count,), generator=generator), torch.ones(count)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Take note of the losses (B,) at t (B,)."""

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned."""


class LossSecondMomentTimesteps(UniformTimesteps):
    """p(t) proportional to sqrt(E[L_t^2]) over the last 10 losses at t; uniform until every t has 10.

    The weight 1 / (T p(t)) makes E_p[weight L_t] the mean of L_t over uniform t.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 18.
    """

    def __init__(self, T: int) -> None:
        super().__init__(T)
        self._history = torch.zeros(T, _HISTORY, dtype=torch.float64)
        self._seen = torch.zeros(T, dtype=torch.int64)

    def probabilities(self) -> Tensor:
        """Return p(t), float64 (T,)."""
        uniform = torch.full((self.T,), 1 / self.T, dtype=torch.float64)
        if bool((self._seen < _HISTORY).any()):
            return uniform
        p = self._history.square().mean(1).sqrt()
        total = p.sum()
        return uniform if total == 0 else (1 - _UNIFORM_SHARE) * p / total + _UNIFORM_SHARE * uniform

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return t, int64 (count,), and the weights 1 / (T p(t)), float32 (count,)."""
        p = self.probabilities()
        t = torch.multinomial(p, count, replacement=True, generator=generator)
        return t, (1 / (self.T * p[t])).float()

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Take note of the losses (B,) at t (B,), in their order."""
        for step, loss in zip(t.tolist(), losses.double().tolist(), strict=True):
            self._history[step, int(self._seen[step]) % _HISTORY] = loss
            self._seen[step] += 1

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold."""
        return {"history": self._history, "seen": self._seen}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned."""
        self._history, self._seen = state["history"].clone(), state["seen"].clone()


def make_timesteps(kind: TimestepSampling, T: int) -> UniformTimesteps:
    """Return the sampler of time steps called ``kind``."""
    return UniformTimesteps(T) if kind == "uniform" else LossSecondMomentTimesteps(T)
