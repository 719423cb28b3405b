"""Noise schedules of the forward process q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I).

A discrete schedule is a table of T variances; a continuous one is a function of a real time. Both give
alpha_bar at any real time and the time of any alpha_bar, so that samplers and grids need not ask which it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

MAX_BETA = 0.999  # Nichol & Dhariwal 2021, section 3.2: no singularity at the end of the process


@runtime_checkable
class Schedule(Protocol):
    """How much of x_0 is left at a time: what samplers, grids and wrappers need to know of any schedule.

    Attributes:
        name: how the schedule was made.
        continuous: whether its times are real numbers; else they are 0 .. T-1.
        clean: the time of x_0 itself, where alpha_bar = 1: -1 or 0.
        first: the least noisy time that a network is called at.
        last: the noisiest one.
    """

    @property
    def name(self) -> str:
        """Say how it was made."""

    @property
    def continuous(self) -> bool:
        """Say whether times are real."""

    @property
    def clean(self) -> float:
        """Give the time of x_0."""

    @property
    def first(self) -> float:
        """Give the least noisy time."""

    @property
    def last(self) -> float:
        """Give the noisiest time."""

    def alpha_bar(self, t: float) -> float:
        """Return alpha_bar at a real time."""

    def alpha_bars(self, t: Tensor) -> Tensor:
        """Return alpha_bar at times (B,), float64 on their device."""

    def time(self, alpha_bar: float) -> float:
        """Return the real time of an alpha_bar."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The variances beta_t, t = 0 .. T-1, of a discrete diffusion, with everything derived from them.

    The tables are float64: a float32 cumulative product is wrong by up to 1.7e-4 relative in
    1 - alpha_bar.

    Attributes:
        name: how the schedule was made, e.g. ``linear(T=1000, start=0.0001, end=0.02)``.
        betas: float64, shape (T,), each in (0, 1); the last may be 1: then alpha_bar_{T-1} = 0.
        alphas_cumprod: alpha_bar_t = prod_{s <= t} (1 - beta_s); float64, shape (T,).

    Source: Ho et al. 2020, arXiv:2006.11239, section 2.
    """

    name: str
    betas: Tensor
    alphas_cumprod: Tensor

    continuous: ClassVar[bool] = False
    clean: ClassVar[float] = -1
    first: ClassVar[float] = 0

    @property
    def last(self) -> float:
        """The noisiest time step, T-1."""
        return self.T - 1

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
            ValueError: if betas is empty, not one-dimensional or has a value outside (0, 1), the last one
                outside (0, 1].
        """
        table = torch.as_tensor(betas, dtype=torch.float64).detach().cpu().clone()
        return _from_betas(f"betas(T={table.numel()})", table)

    @cached_property
    def _logs(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """log alpha_bar at t = -1, 0, .. T-1; -infinity where alpha_bar is 0."""
        table = self.alphas_cumprod.numpy()
        with np.errstate(divide="ignore"):
            return np.concatenate([[0.0], np.log(table)])

    def alpha_bar(self, t: float) -> float:
        """Return alpha_bar_t as a Python float, with alpha_bar_{-1} = 1.

        Between two time steps log alpha_bar is linear in t, as in Lu et al. 2022, arXiv:2206.00927, app. D.3;
        beside one whose alpha_bar is 0, alpha_bar is.

        Raises:
            IndexError: if t is outside -1 .. T-1.
        """
        if not -1 <= t <= self.T - 1:
            raise IndexError(f"time step {t} is outside 0 .. {self.T - 1} of {self.name}")
        below = math.floor(t)
        if below == t:
            return 1.0 if t == -1 else float(self.alphas_cumprod[int(t)])
        part, (low, high) = t - below, self._logs[below + 1 : below + 3]
        if math.isinf(high):
            return float((1 - part) * math.exp(low))
        return math.exp((1 - part) * low + part * high)

    def alpha_bars(self, t: Tensor) -> Tensor:
        """Return alpha_bar at times t (B,), float64 on their device: `alpha_bar`, row by row.

        Raises:
            IndexError: if an integer time step is outside the table; a real one counts as the nearest end.
        """
        table = self.alphas_cumprod.to(t.device)
        if not t.is_floating_point():
            return table[t]
        t = t.double().clamp(-1, self.T - 1)
        below = t.floor()
        place, part = below.long(), t - below
        whole = torch.cat([table.new_ones(1), table])
        low, high = whole[place + 1], whole[(place + 2).clamp(max=self.T)]
        between = torch.exp((1 - part) * low.log() + part * high.log())
        between = torch.where(high == 0, (1 - part) * low, between)
        return torch.where(part == 0, low, between)

    def time(self, alpha_bar: float) -> float:
        """Return the real time t of -1 .. T-1 whose alpha_bar_t is given; the inverse of `alpha_bar`.

        Raises:
            ValueError: if alpha_bar is above 1, or below that of the last time step.
        """
        lowest = float(self.alphas_cumprod[-1])
        if not lowest <= alpha_bar <= 1:
            raise ValueError(
                f"alpha_bar {alpha_bar:.6g} lies outside {lowest:.6g} .. 1 of {self.name}: no time step is as"
                " noisy"
            )
        whole = np.concatenate([[1.0], self.alphas_cumprod.numpy()])
        place = int(np.searchsorted(-whole, -alpha_bar, side="left"))  # the first as noisy or noisier
        if whole[place] == alpha_bar:
            return float(place - 1)
        if whole[place] == 0:
            return place - 2 + float(1 - alpha_bar / whole[place - 1])
        low, high = math.log(whole[place - 1]), math.log(whole[place])
        return place - 2 + (math.log(alpha_bar) - low) / (high - low)


@dataclass(frozen=True)
class ContinuousSchedule:
    """A schedule whose times are real: alpha_bar is a function of t.

    Made by `edm`, `ve`, `vp` or `flow`; the name holds every parameter: equal names are equal schedules.

    Attributes:
        name: how it was made, as in ``edm(sigma_min=0.002, sigma_max=80)``.
        first: the least noisy time that a network is called at.
        last: the noisiest one.
        to_alpha_bar: times (B,) -> alpha_bar (B,), float64.
        to_time: alpha_bar -> time.
        from_unit: u in (0, 1] -> time: what ``uniform`` grids divide into equal parts.
    """

    name: str
    first: float
    last: float
    to_alpha_bar: Callable[[Tensor], Tensor]
    to_time: Callable[[float], float]
    from_unit: Callable[[float], float]

    continuous: ClassVar[bool] = True
    clean: ClassVar[float] = 0.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ContinuousSchedule) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    @classmethod
    def edm(cls, sigma_min: float = 0.002, sigma_max: float = 80.0) -> ContinuousSchedule:
        """Return the schedule whose time is sigma: x_0 + sigma eps, alpha_bar = 1 / (1 + sigma^2).

        Source: Karras et al. 2022, arXiv:2206.00364, table 1.

        Raises:
            ValueError: if not 0 < sigma_min < sigma_max.
        """
        _check_ends(sigma_min, sigma_max)
        return cls(
            f"edm(sigma_min={sigma_min:g}, sigma_max={sigma_max:g})",
            sigma_min,
            sigma_max,
            lambda t: 1 / (1 + t.double().square()),
            lambda abar: math.sqrt((1 - abar) / abar),
            lambda u: u * sigma_max,
        )

    @classmethod
    def ve(cls, sigma_min: float = 0.01, sigma_max: float = 50.0) -> ContinuousSchedule:
        """Return the variance-exploding SDE: sigma = sigma_min (sigma_max / sigma_min)^t, t in (0, 1].

        Source: Song et al. 2021, arXiv:2011.13456, app. C.

        Raises:
            ValueError: if not 0 < sigma_min < sigma_max.
        """
        _check_ends(sigma_min, sigma_max)
        rise = math.log(sigma_max / sigma_min)

        def to_alpha_bar(t: Tensor) -> Tensor:
            t = t.double()
            alpha_bar = 1 / (1 + (sigma_min * (t * rise).exp()).square())
            return torch.where(t == 0, torch.ones_like(alpha_bar), alpha_bar)

        return cls(
            f"ve(sigma_min={sigma_min:g}, sigma_max={sigma_max:g})",
            1e-5,
            1.0,
            to_alpha_bar,
            lambda abar: math.log(math.sqrt((1 - abar) / abar) / sigma_min) / rise if abar < 1 else 0.0,
            lambda u: u,
        )

    @classmethod
    def vp(cls, beta_min: float = 0.1, beta_max: float = 20.0) -> ContinuousSchedule:
        """Return the variance-preserving SDE with linear beta, t in (0, 1]:

            log alpha_bar = -(beta_max - beta_min) t^2 / 2 - beta_min t

        Source: Song et al. 2021, arXiv:2011.13456, eq. 33.

        Raises:
            ValueError: if not 0 < beta_min < beta_max.
        """
        _check_ends(beta_min, beta_max)
        slope = beta_max - beta_min

        def to_time(alpha_bar: float) -> float:
            rest = -math.log(alpha_bar)
            return 2 * rest / (beta_min + math.sqrt(beta_min**2 + 2 * slope * rest))

        return cls(
            f"vp(beta_min={beta_min:g}, beta_max={beta_max:g})",
            1e-5,
            1.0,
            lambda t: (-slope * t.double().square() / 2 - beta_min * t.double()).exp(),
            to_time,
            lambda u: u,
        )

    @classmethod
    def vp_between(
        cls, sigma_min: float = 0.002, sigma_max: float = 80.0, first: float = 1e-3
    ) -> ContinuousSchedule:
        """Return the linear beta that has one level of noise at its first time and another at t = 1:

            log(1 + sigma^2) = slope t^2 / 2 + beta_min t    sigma(first) = sigma_min    sigma(1) = sigma_max

        It lends a model whose own time is another, as sigma is EDM's, the time of a variance-preserving
        diffusion. For EDM's levels beta_min is below 0 by 0.005: sigma is 0 at t = 0.0005 already.

        Args:
            sigma_min: the least level.
            sigma_max: the greatest.
            first: the time of the least.

        Source: Karras et al. 2022, arXiv:2206.00364, app. C.1.

        Raises:
            ValueError: if not 0 < sigma_min < sigma_max.
        """
        _check_ends(sigma_min, sigma_max)
        low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        slope = 2 * (high - low / first) / (1 - first)
        beta_min = high - slope / 2

        def to_time(alpha_bar: float) -> float:
            root = math.sqrt(beta_min**2 - 2 * slope * math.log(alpha_bar))
            return (root - beta_min) / slope

        return cls(
            f"vp(sigma_min={sigma_min:g}, sigma_max={sigma_max:g}, first={first:g})",
            first,
            1.0,
            lambda t: (-slope * t.double().square() / 2 - beta_min * t.double()).exp(),
            to_time,
            lambda u: u,
        )

    @classmethod
    def flow(cls, shift: float = 1.0) -> ContinuousSchedule:
        """Return rectified flow's schedule: time s in (0, 1], (1 - s) x_0 + s eps scaled to unit variance:

            alpha_bar = (1 - s)^2 / ((1 - s)^2 + s^2)

        Args:
            shift: k: equal parts u of (0, 1] stand for s = k u / (1 + (k - 1) u) in ``uniform`` grids.

        Source: Liu et al. 2023, arXiv:2209.03003; the shift is that of Esser et al. 2024, arXiv:2403.03206,
        eq. 23.

        Raises:
            ValueError: if shift is not positive.
        """
        if not shift > 0:
            raise ValueError(f"shift must be positive, got {shift:g}")

        def to_alpha_bar(t: Tensor) -> Tensor:
            s = t.double()
            return (1 - s).square() / ((1 - s).square() + s.square())

        def to_time(alpha_bar: float) -> float:
            a, s = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
            return s / (a + s)

        return cls(
            f"flow(shift={shift:g})",
            1e-5,
            1.0,
            to_alpha_bar,
            to_time,
            lambda u: shift * u / (1 + (shift - 1) * u),
        )

    def alpha_bar(self, t: float) -> float:
        """Return alpha_bar at a time from 0, which is x_0 itself, to the last.

        Raises:
            IndexError: if t lies outside.
        """
        if not 0 <= t <= self.last:
            raise IndexError(f"time {t:g} is outside 0 .. {self.last:g} of {self.name}")
        return 1.0 if t == 0 else float(self.to_alpha_bar(torch.tensor(t, dtype=torch.float64)))

    def alpha_bars(self, t: Tensor) -> Tensor:
        """Return alpha_bar at times (B,), float64 on their device."""
        return self.to_alpha_bar(t)

    def time(self, alpha_bar: float) -> float:
        """Return the time of an alpha_bar.

        Raises:
            ValueError: if alpha_bar is above 1, or below that of the last time.
        """
        lowest = self.alpha_bar(self.last)
        if not lowest <= alpha_bar <= 1:
            raise ValueError(f"alpha_bar {alpha_bar:.6g} lies outside {lowest:.6g} .. 1 of {self.name}")
        return self.to_time(alpha_bar)


def zero_terminal_snr(schedule: NoiseSchedule) -> NoiseSchedule:
    """Return a schedule whose last alpha_bar is 0, so that x_T is noise and nothing else:

        sqrt(abar_t) -> (sqrt(abar_t) - sqrt(abar_T)) sqrt(abar_0) / (sqrt(abar_0) - sqrt(abar_T))

    A model on it must tell x_0 there, where eps cannot: it predicts v or x_0.

    Source: Lin et al. 2023, arXiv:2305.08891, algorithm 1.
    """
    roots = schedule.alphas_cumprod.sqrt()
    scaled = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
    alpha_bar = scaled.square()
    alphas = torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
    return NoiseSchedule(f"zero-terminal-snr({schedule.name})", 1 - alphas, alpha_bar)


def _check_ends(low: float, high: float) -> None:
    if not 0 < low < high:
        raise ValueError(f"a schedule needs 0 < {low:g} < {high:g}")


def _check_steps(T: int) -> None:
    if T < 1:
        raise ValueError(f"a schedule needs at least one time step, got T={T}")


def _from_betas(name: str, betas: Tensor) -> NoiseSchedule:
    if betas.ndim != 1 or betas.numel() == 0:
        raise ValueError(
            f"betas must be a non-empty one-dimensional sequence, got shape {tuple(betas.shape)}"
        )
    if not bool((betas > 0).all() and (betas[:-1] < 1).all() and betas[-1] <= 1):
        raise ValueError(
            f"every beta must lie in (0, 1), the last in (0, 1], got values from {betas.min():g} to"
            f" {betas.max():g}"
        )
    return NoiseSchedule(name, betas, torch.cumprod(1 - betas, dim=0))
