"""Grids: which times a sampler visits, from the noisiest to x_0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.diffusion.interfaces import EpsilonModel, takes_real_times
from bench.diffusion.schedule import NoiseSchedule, Schedule
from bench.diffusion.spacing import chosen_times, listed_times, split_stop
from bench.errors import UsageError


def times_like(x: Tensor, t: float) -> Tensor:
    """Return a time as the tensor (B,) that a network takes beside x (B, C, H, W).

    It is int64 for a time step and float64 for a time between two or of a continuous schedule.
    """
    return torch.full(
        (len(x),), t, dtype=torch.int64 if isinstance(t, int) else torch.float64, device=x.device
    )


@dataclass(frozen=True)
class Step:
    """One step of a trajectory: from x at time t to x at the next, less noisy time.

    Attributes:
        index: 0 for the first step taken (the noisiest), then 1, 2, ...
        t: the time that the network is told: a time step 0 .. T-1, or a real time of the schedule.
        alpha_bar: alpha_bar_t.
        alpha_bar_next: alpha_bar at the next time taken; 1.0 after the last, where the grid ends at x_0.
        t_next: the next time taken; the schedule's ``clean`` time after the last, -1 or 0, or the grid's end.
        last: whether this step ends at x_0.
    """

    index: int
    t: float
    alpha_bar: float
    alpha_bar_next: float
    t_next: float
    last: bool

    def times(self, x: Tensor) -> Tensor:
        """Return t as the tensor (B,) that a network takes beside x (B, C, H, W): `times_like`."""
        return times_like(x, self.t)


@dataclass(frozen=True)
class Grid:
    """An ordered walk through times; iterating yields `Step` in the order of sampling.

    Attributes:
        schedule: the schedule that gives alpha_bar.
        timesteps: the times in the order of sampling (descending), repeats kept; of a discrete schedule
            int where they are time steps.
        spacing: the name of the rule that made it, ``"explicit"`` for a given list.
        requested: the number of steps asked for; ``len(grid)`` is the number taken.
        moved: the greatest distance by which `rounded` moved a time; 0 where none was.
        end: the time at which the last step arrives; None: at x_0.
    """

    schedule: Schedule
    timesteps: tuple[float, ...]
    spacing: str
    requested: int
    moved: float = 0.0
    end: float | None = None

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
        final = index == len(self) - 1
        arrives = self.schedule.clean if self.end is None else self.end
        t, t_next = self.timesteps[index], arrives if final else self.timesteps[index + 1]
        alpha_bar = self.schedule.alpha_bar
        return Step(index, t, alpha_bar(t), alpha_bar(t_next), t_next, last=final and self.end is None)

    def rounded(self) -> Grid:
        """Return the grid with every time at the nearest time step, for a network that takes no other.

        The levels move with the times. Of a continuous schedule, which has no time steps, it is the same.
        """
        if self.schedule.continuous or all(isinstance(t, int) for t in self.timesteps):
            return self
        times = tuple(round(t) for t in self.timesteps)
        moved = max(abs(a - b) for a, b in zip(times, self.timesteps, strict=True))
        end = None if self.end is None else round(self.end)
        return replace(self, timesteps=times, moved=moved, end=end)


def grid_for(model: EpsilonModel, steps: int, spacing: str) -> Grid:
    """Return the grid that a model can walk: `make_grid`'s, rounded where it takes time steps alone."""
    grid = make_grid(model.schedule, steps, spacing)
    return grid if takes_real_times(model) else grid.rounded()


def make_grid(
    schedule: Schedule, steps: int | None = None, spacing: str | Sequence[float] = "uniform"
) -> Grid:
    """Return the grid of ``steps`` times of ``schedule`` that ``spacing`` chooses.

    Args:
        schedule: the model's schedule.
        steps: S, the number of steps; may be left out with ``"all"`` or a list.
        spacing: a rule by name, with parameters after a colon: ``uniform``, ``quadratic``, ``openai``,
            ``openai-ddim``, ``linspace``, ``trailing`` and ``all`` count time steps; ``time``,
            ``time-quadratic``, ``logsnr``, ``exponential``, ``edm:rho=7``, ``karras``, ``vp``, ``beta`` and
            ``ays:model=sdxl`` choose levels of any schedule; or a plugin's. With ``stop=true``, as in
            ``edm:rho=7,stop=true``, a rule chooses S + 1 times, and sampling ends at the last of them: there
            is no step to x_0. Or the times themselves, in any order, real ones too: ``[999, 750.5, 0]``,
            ``"999,750.5,0"``, ``"sigma:80,10,1"``, ``"logsnr:-8,0,8"``.

    Raises:
        UsageError: if steps is not in 1 .. T, the rule is unknown or does not work on the schedule, or a
            listed time is outside the schedule.
    """
    T = schedule.T if isinstance(schedule, NoiseSchedule) else None
    listed = sorted(spacing) if not isinstance(spacing, str) else listed_times(schedule, spacing)
    stops = False
    if listed is not None:
        name = spacing if isinstance(spacing, str) else "explicit"
        if steps is not None and steps != len(listed):
            raise UsageError(
                f"{len(listed)} time steps were listed but {steps} steps asked for; leave one out"
            )
        steps, chosen = len(listed), [float(t) for t in listed]
    else:
        name = str(spacing)
        if steps is None:
            if name != "all" or T is None:
                raise UsageError(f"spacing {name!r} needs a number of steps")
            steps = T
        if T is not None and not 1 <= steps <= T:
            raise UsageError(f"the number of steps must be from 1 to T={T}, got {steps}")
        if steps < 1:
            raise UsageError(f"the number of steps must be at least 1, got {steps}")
        rule, stops = split_stop(name)
        chosen = chosen_times(schedule, steps + stops, rule)
    if not chosen:
        raise UsageError("a grid needs at least one time step")
    first, last = (0, schedule.last) if T is not None else (0.0, schedule.last)
    if chosen[0] < first or chosen[-1] > last or (T is None and chosen[0] == 0):
        raise UsageError(f"time steps must lie in {first:g} .. {last:g}, got {chosen[0]:g} .. {chosen[-1]:g}")
    if T is not None:
        chosen = [int(t) if float(t).is_integer() else t for t in chosen]
    end = chosen.pop(0) if stops else None
    return Grid(schedule, tuple(reversed(chosen)), name, steps, end=end)
