r"""Where a solver errs: the error of each of its steps from a point of the exact path.

A rule without noise follows the probability flow of the network, whose exact solution x(t) is known by a fine
grid. Put on x(t_k), with the history of the path behind it, the rule takes one step to t_{k+1}; what it then
lies off x(t_{k+1}) is the local error of this step. It is told in units of x_0, as |x - x(t)| / sqrt(abar_t),
and once more after the flow has carried it to x_0, where it is what this step alone does to the image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bench.diffusion.grid import Grid
from bench.diffusion.guidance import Around
from bench.diffusion.interfaces import EpsilonModel, Prediction, takes_real_times
from bench.diffusion.orders import no_noise
from bench.diffusion.sampling import Sampler, sample, trajectory
from bench.errors import BenchError, UsageError
from bench.stats.resampling import jackknife

PARTS = 8
"""Fine steps within each step of the rule."""

GROUPS = 16
"""Jackknife groups of the images."""

NEAR = 1e-4
"""A rule stands on a point of the path where it asks the network about one that differs by less."""


@dataclass(frozen=True)
class LocalError:
    """The error of one step.

    Attributes:
        step: 1 for the first, noisiest step.
        t: the time where it begins.
        t_next: the time where it ends.
        sigma: sqrt((1 - abar_t) / abar_t) where it begins.
        sigma_next: the same where it ends; 0 at x_0.
        error: root mean square over pixels and images of what it lies off the path, in units of x_0.
        error_se: its standard error.
        carried: root mean square of what it does to x_0.
        carried_se: its standard error.
        share: its part in the sum of the squares of ``carried`` over the steps.
    """

    step: int
    t: float
    t_next: float
    sigma: float
    sigma_next: float
    error: float
    error_se: float
    carried: float
    carried_se: float
    share: float


@dataclass(frozen=True)
class LocalErrors:
    """The errors of all steps of a rule on one grid.

    Attributes:
        steps: one a step.
        from_rest: whether the rule begins anew at every point, because it keeps its state to itself.
        path_error: root mean square at x_0 between the path of `PARTS` fine steps a step and that of twice as
            many: what is not known of the path.
    """

    steps: tuple[LocalError, ...]
    from_rest: bool
    path_error: float


@dataclass
class _Watched(Around):
    """A model that keeps the first x it is asked about after `watch`."""

    model: EpsilonModel
    first: Tensor | None = None
    _open: bool = field(default=False, repr=False)

    @property
    def inside(self) -> EpsilonModel:
        return self.model

    def watch(self) -> None:
        self.first, self._open = None, True

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        if self._open:
            self.first, self._open = x.clone(), False
        return self.model(x, t)


def local_errors(
    model: EpsilonModel, sampler: Sampler, grid: Grid, x: Tensor, fine: Sampler, parts: int = PARTS
) -> LocalErrors:
    """Return the error of every step of a rule that draws no noise.

    Args:
        model: the noise predictor, bound to as many samples as there are in x.
        sampler: the rule.
        grid: its time steps.
        x: x at the first of them, (B, C, H, W).
        fine: the rule that solves the flow on the finer grid.
        parts: fine steps within each step; as many as there are time steps between, where these are fewer.

    Raises:
        UsageError: if there are fewer than two images.
        BenchError: if a rule yields another number of states than its grid has steps.
    """
    if len(x) < 2:
        raise UsageError(f"the error of a step needs at least 2 images, got {len(x)}")
    path, pieces = _path(model, fine, grid, x, parts)
    end = _path(model, fine, grid, x, 2 * parts)[0][-1]
    landed = _from_path(model, sampler, grid, path)
    from_rest = landed is None
    if landed is None:
        landed = _from_rest(model, sampler, grid, path)
    off = [(reached - there) for reached, there in zip(landed, path[1:], strict=True)]
    ends = [
        _carried(model, fine, pieces[k + 1 :], reached, path[k + 1]) if k + 1 < len(grid) else off[k]
        for k, reached in enumerate(landed)
    ]
    told = [_rms(one, math.sqrt(grid[k].alpha_bar_next)) for k, one in enumerate(off)]
    last = [_rms(one) for one in ends]
    total = sum(value**2 for value, _ in last) or 1.0
    steps = tuple(
        LocalError(
            step.index + 1, step.t, step.t_next, _sigma(step.alpha_bar), _sigma(step.alpha_bar_next),
            *told[k], *last[k], last[k][0] ** 2 / total,
        )
        for k, step in enumerate(grid)
    )  # fmt: skip
    return LocalErrors(steps, from_rest, _rms(end - path[-1])[0])


def _path(
    model: EpsilonModel, fine: Sampler, grid: Grid, x: Tensor, parts: int
) -> tuple[list[Tensor], list[Grid]]:
    """Return x at every time of a grid, x_0 last, and the fine grid of each of its steps."""
    pieces = [_within(model, grid, k, parts) for k in range(len(grid))]
    walk = _joined(grid, pieces)
    states = [state.clone() for state in trajectory(model, fine, walk, x.clone(), no_noise)]
    _check_count(fine, states, walk)
    ends = itertools.accumulate(len(piece) for piece in pieces)
    return [x, *(states[reached - 1] for reached in ends)], pieces


def _within(model: EpsilonModel, grid: Grid, index: int, parts: int) -> Grid:
    """Return the fine steps within one step, at equal parts of log SNR; the last of all leads to its end."""
    step, schedule = grid[index], grid.schedule
    if step.last and step.t <= schedule.first:
        return replace(grid, timesteps=(step.t,))
    end = schedule.alpha_bar(schedule.first) if step.last else step.alpha_bar_next
    low, high = (math.log(a / (1 - a)) for a in (max(step.alpha_bar, 1e-12), end))
    levels = [low + (high - low) * k / parts for k in range(1, parts)]
    between = [schedule.time(1 / (1 + math.exp(-level))) for level in levels]
    times = [step.t, *between, *([schedule.first] if step.last else [])]
    if not takes_real_times(model):
        times = [round(t) for t in times]
    stop = step.t_next
    kept = [t for t in dict.fromkeys(times) if t == step.t or stop < t < step.t]
    return replace(grid, timesteps=tuple(kept))


def _joined(grid: Grid, pieces: list[Grid]) -> Grid:
    """Return the walk through some consecutive fine grids, which ends where the whole grid does."""
    times = tuple(t for piece in pieces for t in piece.timesteps)
    return replace(grid, timesteps=times, spacing="explicit", requested=len(times))


def _from_path(model: EpsilonModel, sampler: Sampler, grid: Grid, path: list[Tensor]) -> list[Tensor] | None:
    """Return where every step leads from the path, in one run that is put back on it after each.

    The tensor that a rule yields is overwritten. None where the rule goes on from another one: its first
    question in a step is then about another point.
    """
    watched, landed = _Watched(model), list[Tensor]()
    for k, state in enumerate(trajectory(watched, sampler, grid, path[0].clone(), no_noise)):
        if k >= len(grid) or (k and not _stands(watched.first, path[k])):
            return None
        landed.append(state.clone())
        state.copy_(path[k + 1])
        watched.watch()
    _check_count(sampler, landed, grid)
    return landed


def _stands(asked: Tensor | None, point: Tensor) -> bool:
    """Return whether a rule asked about a point of the path."""
    return asked is not None and asked.shape == point.shape and float((asked - point).abs().max()) < NEAR


def _from_rest(model: EpsilonModel, sampler: Sampler, grid: Grid, path: list[Tensor]) -> list[Tensor]:
    """Return where the first step of a rule leads that begins at each point of the path in turn."""
    landed = []
    for k in range(len(grid)):
        walk = replace(grid, timesteps=grid.timesteps[k:], requested=len(grid) - k)
        states: Iterator[Tensor] = trajectory(model, sampler, walk, path[k].clone(), no_noise)
        landed.append(next(states).clone())
    return landed


def _check_count(sampler: Sampler, states: list[Tensor], grid: Grid) -> None:
    if len(states) != len(grid):
        raise BenchError(f"sampler {sampler.label!r} yielded {len(states)} states in {len(grid)} steps")


def _carried(
    model: EpsilonModel, fine: Sampler, pieces: list[Grid], reached: Tensor, there: Tensor
) -> Tensor:
    """Return what the flow makes at x_0 of the distance between two points, both begun anew."""
    walk = _joined(pieces[0], pieces)
    one, other = (sample(model, fine, walk, x.clone(), no_noise) for x in (reached, there))
    return one - other


def _rms(off: Tensor, scale: float = 1.0) -> tuple[float, float]:
    """Return (root mean square, its standard error by groups of images) of off / scale."""
    each = off.double().square().flatten(1).mean(1) / scale**2
    groups = min(GROUPS, len(each))
    parts = torch.arange(len(each), device=each.device) * groups // len(each)
    left = [math.sqrt(float(each[parts != group].mean())) for group in range(groups)]
    found = jackknife(math.sqrt(float(each.mean())), left)
    return found.value, found.se


def _sigma(alpha_bar: float) -> float:
    return math.sqrt((1 - alpha_bar) / alpha_bar) if alpha_bar > 0 else math.inf
