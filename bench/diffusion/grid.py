"""Grids: which time steps a sampler visits, as a sub-sequence tau of 0 .. T-1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.catalog import Catalog, load_plugins
from bench.diffusion.schedule import NoiseSchedule
from bench.errors import UsageError

Spacing = Callable[[int, int], list[int]]
"""A rule (T, S) -> time steps in ascending order."""


@dataclass(frozen=True)
class Step:
    """One step of a trajectory: from x at time t to x at the next, less noisy time.

    Attributes:
        index: 0 for the first step taken (the noisiest), then 1, 2, ...
        t: the original time step, 0 .. T-1: what the network is told.
        alpha_bar: alpha_bar_t.
        alpha_bar_next: alpha_bar at the next time step taken; 1.0 after the last.
        t_next: the next time step taken; -1 after the last.
        last: whether this step ends at x_0.
    """

    index: int
    t: int
    alpha_bar: float
    alpha_bar_next: float
    t_next: int
    last: bool

    def times(self, x: Tensor) -> Tensor:
        """Return t as the int64 tensor (B,) that a network takes beside x (B, C, H, W)."""
        return torch.full((len(x),), self.t, dtype=torch.int64, device=x.device)


@dataclass(frozen=True)
class Grid:
    """An ordered walk through time steps; iterating yields `Step` in the order of sampling.

    Attributes:
        schedule: the schedule that gives alpha_bar.
        timesteps: the time steps in the order of sampling (descending), repeats kept.
        spacing: the name of the rule that made it, ``"explicit"`` for a given list.
        requested: the number of steps asked for; ``len(grid)`` is the number taken.
    """

    schedule: NoiseSchedule
    timesteps: tuple[int, ...]
    spacing: str
    requested: int

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def distinct_levels(self) -> int:
        """Number of different noise levels visited: a repeated step costs a call and changes nothing."""
        return len(set(self.timesteps))

    def __iter__(self) -> Iterator[Step]:
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, index: int) -> Step:
        if not 0 <= index < len(self):
            raise IndexError(f"step {index} is outside 0 .. {len(self) - 1}")
        last = index == len(self) - 1
        t, t_next = self.timesteps[index], -1 if last else self.timesteps[index + 1]
        alpha_bar = self.schedule.alpha_bar
        return Step(index, t, alpha_bar(t), alpha_bar(t_next), t_next, last)


def uniform(T: int, S: int) -> list[int]:
    """Return range(0, T, T // S): more than S steps where S does not divide T (30 of 1000 gives 31).

    Source: Song et al. 2021, arXiv:2010.02502, appendix D.2, and its published code.
    """
    return list(range(0, T, T // S))


def quadratic(T: int, S: int) -> list[int]:
    """Return int(linspace(0, sqrt(0.8 T), S)^2): dense near t=0, repeats at large S.

    Source: Song et al. 2021, appendix D.2; the 0.8 is in the published code only.
    """
    return [int(u * u) for u in _linspace(0, math.sqrt(0.8 * T), S)]


def openai(T: int, S: int) -> list[int]:
    """Return round(k (T-1)/(S-1)), k = 0 .. S-1: both ends included.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, section 4.
    """
    if S == 1:
        return [0]
    stride, at, steps = (T - 1) / (S - 1), 0.0, []
    for _ in range(S):  # a running sum, as in the published tables: a product rounds some ties the other way
        steps.append(round(at))
        at += stride
    return steps


def openai_ddim(T: int, S: int) -> list[int]:
    """Return range(0, T, stride) with the first integer stride that gives exactly S steps.

    Source: the ``ddimN`` sections of Nichol & Dhariwal 2021's published code.

    Raises:
        UsageError: where no integer stride gives S steps (T=1000: 300, 400).
    """
    for stride in range(1, T + 1):
        if len(range(0, T, stride)) == S:
            return list(range(0, T, stride))
    raise UsageError(f"no integer stride visits exactly {S} of {T} time steps; use spacing 'openai'")


def linspace(T: int, S: int) -> list[int]:
    """Return round(linspace(0, T-1, S))."""
    return [round(u) for u in _linspace(0, T - 1, S)]


def trailing(T: int, S: int) -> list[int]:
    """Return round(arange(T, 0, -T/S)) - 1: the last step is T-1, the first about T/S - 1.

    Source: Lin et al. 2023, arXiv:2305.08891, table 2.
    """
    return sorted(round(T - k * T / S) - 1 for k in range(S))


def every(T: int, S: int) -> list[int]:
    """Return all T time steps.

    Raises:
        UsageError: if S is not T.
    """
    if S != T:
        raise UsageError(f"spacing 'all' takes all {T} time steps; ask for {T} steps, not {S}")
    return list(range(T))


RULES: dict[str, Spacing] = {
    "uniform": uniform,
    "quadratic": quadratic,
    "openai": openai,
    "openai-ddim": openai_ddim,
    "linspace": linspace,
    "trailing": trailing,
    "all": every,
}
"""The built-in rules."""

SPACINGS: Catalog[Spacing] = Catalog("spacing", fill=load_plugins)
"""Every rule: the built-in ones, and those that plugins add through the hook ``bench_spacings``."""


def make_grid(
    schedule: NoiseSchedule, steps: int | None = None, spacing: str | Sequence[int] = "uniform"
) -> Grid:
    """Return the grid of ``steps`` time steps of ``schedule`` that the rule ``spacing`` chooses.

    Args:
        schedule: the model's schedule.
        steps: S, the number of steps; may be left out with ``"all"`` or an explicit list.
        spacing: the name of a rule (``uniform``, ``quadratic``, ``openai``, ``openai-ddim``, ``linspace``,
            ``trailing``, ``all`` or a plugin's), or the time steps themselves in any order.

    Raises:
        UsageError: if steps is not in 1 .. T, the rule is unknown, or a listed time step is outside 0 .. T-1.
    """
    T = schedule.T
    if not isinstance(spacing, str):
        chosen, name = sorted(int(t) for t in spacing), "explicit"
        if steps is not None and steps != len(chosen):
            raise UsageError(
                f"{len(chosen)} time steps were listed but {steps} steps asked for; leave one out"
            )
        steps = len(chosen)
    else:
        name = spacing
        if steps is None:
            if spacing != "all":
                raise UsageError(f"spacing {spacing!r} needs a number of steps")
            steps = T
        if not 1 <= steps <= T:
            raise UsageError(f"the number of steps must be from 1 to T={T}, got {steps}")
        chosen = get_spacing(spacing)(T, steps)
    if not chosen:
        raise UsageError("a grid needs at least one time step")
    if chosen[0] < 0 or chosen[-1] >= T:
        raise UsageError(f"time steps must lie in 0 .. {T - 1}, got {chosen[0]} .. {chosen[-1]}")
    return Grid(schedule, tuple(reversed(chosen)), name, steps)


def get_spacing(name: str) -> Spacing:
    """Return the rule called ``name``.

    Raises:
        UnknownNameError: (a ValueError) with the nearest known names.
    """
    return SPACINGS.get(name)


def _linspace(start: float, stop: float, n: int) -> list[float]:
    """Return n floats from start to stop, rounded as numpy.linspace rounds them."""
    step = (stop - start) / (n - 1) if n > 1 else 0.0
    return [k * step + start for k in range(n - 1)] + [stop if n > 1 else start]
