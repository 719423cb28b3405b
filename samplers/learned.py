"""A rule whose coefficients were learned, from a file: any explicit solver in the noise, told by numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from bench import (
    EpsilonModel,
    Grid,
    Noise,
    NotApplicable,
    Sampler,
    hookimpl,
    make_grid,
    sampler,
    weighted_sum,
)
from bench.diffusion.learned import read_learned
from samplers.ode import Level, answer

_NEAR = 0.02
"""Relative difference of a level that rounding to a time step may bring."""


@sampler(source="coefficients from a file, whose own source it tells", most_steps=100)
def learned(model: EpsilonModel, x: Tensor, grid: Grid, noise: Noise, *, file: str = "") -> Iterator[Tensor]:
    """Step k with the weights that a file has for as many steps, y = x / sqrt(alpha_bar):

        y_(k+1) = y_k + sum_(j <= k) w_kj eps_j

    Every explicit rule has this form: a multistep rule by its few last weights, one of several calls a step
    with each of its stages as a step of its own.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps, which must be the file's: ``--spacing`` takes the same file.
        noise: never asked for.
        file: JSON, see `bench.diffusion.learned`.

    Yields:
        x after every step; the last is x_0.

    Raises:
        UsageError: if the file cannot be read.
        NotApplicable: if it has no weights for as many steps, or those of other levels.
    """
    if not file:
        raise NotApplicable("learned needs a file of weights: --samplers learned:file=FILE.json")
    solver = read_learned(Path(file)).solvers.get(len(grid))
    if solver is None or solver.weights is None:
        raise NotApplicable(f"{Path(file).name} has no weights for {len(grid)} steps")
    _refuse_other_levels(grid, file)
    past: list[Tensor] = []
    for step, (*others, own) in zip(grid, solver.weights, strict=True):
        x0, eps = answer(model, x, step)
        # DDIM's step and what the weights have beyond it: no digits are lost where alpha_bar is near 0.
        end = Level.end(step)
        beyond = own - (end.sigma - Level.start(step).sigma)
        past.append(eps)
        x = weighted_sum([end.a, end.s, *(end.a * weight for weight in [*others, beyond])], [x0, eps, *past])
        yield x


def _refuse_other_levels(grid: Grid, file: str) -> None:
    asked = make_grid(grid.schedule, len(grid), file)
    pairs = zip(grid, asked, strict=True)
    for mine, theirs in pairs:
        here, there = Level.start(mine).sigma, Level.start(theirs).sigma
        if abs(here - there) > _NEAR * there:
            raise NotApplicable(f"the weights of {file} are for its own time points: give --spacing {file}")


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register the rule."""
    return [learned]
