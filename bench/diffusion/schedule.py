"""Noise schedules of the forward process q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_BETA = 0.999  # Nichol & Dhariwal 2021, section 3.2: no singularity at the end of the process


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The variances beta_t, t = 0 .. T-1, of a discrete diffusion, with everything derived from them.

    The tables are float64: a float32 cumulative product is wrong by up to 1.7e-4 relative in
    1 - alpha_bar.

    Attributes:
        name: how the schedule was made, e.g. ``linear(T=1000, start=0.0001, end=0.02)``.
        betas: float64, shape (T,), each in (0, 1).
        alphas_cumprod: alpha_bar_t = prod_{s <= t} (1 - beta_s); float64, shape (T,).

    Source: Ho et al. 2020, arXiv:2006.11239, section 2.
    """

    name: str
    betas: Tensor
    alphas_cumprod: Tensor

    @property
    def T(self) -> int:  # the papers' name
        """Number of time steps."""
        return len(self.betas)

    def __len__(self) -> int:
        return len(self.betas)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoiseSchedule) and torch.equal(self.betas, other.betas)

    def __hash__(self) -> int:
        return hash(self.betas.numpy().tobytes())

    @classmethod
    def linear(cls, T: int = 1000, start: float = 1e-4, end: float = 0.02) -> NoiseSchedule:
        """Return beta_t linear in t from ``start`` to ``end``, both included.

        Source: Ho et al. 2020, section 4 (T=1000, 1e-4 to 0.02: CIFAR-10, CelebA, LSUN).

        Raises:
            ValueError: if T < 1 or an end lies outside (0, 1).
        """
        _check_steps(T)
        betas = torch.linspace(start, end, T, dtype=torch.float64)
        return _from_betas(f"linear(T={T}, start={start:g}, end={end:g})", betas)

    @classmethod
    def cosine(cls, T: int = 1000) -> NoiseSchedule:
        """Return beta_t = min(1 - f((t+1)/T) / f(t/T), 0.999), f(u) = cos^2((u + .008)/1.008 pi/2).

        Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17.

        Raises:
            ValueError: if T < 1.
        """
        _check_steps(T)

        def f(u: float) -> float:
            return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

        betas = [min(1 - f((t + 1) / T) / f(t / T), MAX_BETA) for t in range(T)]
        return _from_betas(f"cosine(T={T})", torch.tensor(betas, dtype=torch.float64))

    @classmethod
    def from_betas(cls, betas: Tensor | Sequence[float]) -> NoiseSchedule:
        """Return the schedule with the given beta_t, t = 0 .. T-1.

        Raises:
            ValueError: if betas is empty, not one-dimensional or has a value outside (0, 1).
        """
        table = torch.as_tensor(betas, dtype=torch.float64).detach().cpu().clone()
        return _from_betas(f"betas(T={table.numel()})", table)

    def alpha_bar(self, t: int) -> float:
        """Return alpha_bar_t as a Python float, with alpha_bar_{-1} = 1.

        Raises:
            IndexError: if t is outside -1 .. T-1.
        """
        if t == -1:
            return 1.0
        if not 0 <= t < self.T:
            raise IndexError(f"time step {t} is outside 0 .. {self.T - 1} of {self.name}")
        return float(self.alphas_cumprod[t])


def _check_steps(T: int) -> None:
    if T < 1:
        raise ValueError(f"a schedule needs at least one time step, got T={T}")


def _from_betas(name: str, betas: Tensor) -> NoiseSchedule:
    if betas.ndim != 1 or betas.numel() == 0:
        raise ValueError(
            f"betas must be a non-empty one-dimensional sequence, got shape {tuple(betas.shape)}"
        )
    if not bool(((betas > 0) & (betas < 1)).all()):
        raise ValueError(f"every beta must lie in (0, 1), got values from {betas.min():g} to {betas.max():g}")
    return NoiseSchedule(name, betas, torch.cumprod(1 - betas, dim=0))
