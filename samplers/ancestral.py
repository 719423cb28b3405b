"""Ancestral solvers: a step of an ODE solver beyond the level asked for, then noise up to it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import nan
from typing import Annotated

from torch import Tensor

from bench import (
    AtLeast,
    EpsilonModel,
    Grid,
    Noise,
    Sampler,
    diffuse,
    hookimpl,
    sampler,
    weighted_sum,
)
from samplers.ddim import ddim
from samplers.dpm_single import PLACES, Predict, single_step
from samplers.inner import between, renoised
from samplers.ode import Level


def cleaner(start: Level, end: Level, eta: float) -> Level:
    """Return the level "down" from which noise leads up to the end of a step:

        sigma_up^2   = min(sigma_u^2, eta^2 sigma_u^2 (sigma_t^2 - sigma_u^2) / sigma_t^2)
        sigma_down^2 = sigma_u^2 - sigma_up^2

    Args:
        start: the level of sigma_t.
        end: the level of sigma_u.
        eta: 0 adds no noise; 1 as much as DDPM's posterior of a point.

    Source: Song et al. 2021, arXiv:2010.02502, eq. 16, in sigma = sqrt(1/abar - 1), as k-diffusion writes it.
    """
    share = min(1.0, eta**2 * (1 - (end.sigma / start.sigma) ** 2))
    return Level(nan, 1 / (1 + end.sigma**2 * (1 - share))) if share > 0 else end


@sampler(
    order=2,
    calls_per_step=2,
    source='Lu et al. 2022, arXiv:2206.00927, algorithm 1, to the level "down" of k-diffusion\'s'
    " sample_dpm_2_ancestral",
    most_steps=100,
)
def dpm2_ancestral(
    model: EpsilonModel, x: Tensor, grid: Grid, noise: Noise, *, eta: Annotated[float, AtLeast(0)] = 1.0
) -> Iterator[Tensor]:
    """Step from t to u by DPM-Solver-2 to the level "down", then by noise to u, y = x / sqrt(abar):

        y_1    = y + (sigma_1 - sigma_t) eps(y, t)                  sigma_1 = sqrt(sigma_t sigma_down)
        y_down = y + (sigma_down - sigma_t) eps(y_1, t_1)
        y_u    = y_down + sigma_up z

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for at every step but the last, where eta > 0.
        eta: see `cleaner`; 0 is DPM-2.

    Yields:
        x after every step; the last is x_0.
    """
    return _walked(model, x, grid, noise, "eps", eta)


@sampler(
    order=2,
    calls_per_step=2,
    source='Lu et al. 2022, arXiv:2211.01095, algorithm 1, to the level "down" of k-diffusion\'s'
    " sample_dpmpp_2s_ancestral",
    most_steps=100,
)
def dpmpp_2s_ancestral(
    model: EpsilonModel, x: Tensor, grid: Grid, noise: Noise, *, eta: Annotated[float, AtLeast(0)] = 1.0
) -> Iterator[Tensor]:
    """Step from t to u by DPM-Solver++(2S) to the level "down", h away in lambda, then by noise to u:

        y_1    = e^(-h/2) y + (1 - e^(-h/2)) x_0(y, t)
        y_down = e^-h y + (1 - e^-h) x_0(y_1, t_1)
        y_u    = y_down + sigma_up z

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for at every step but the last, where eta > 0.
        eta: see `cleaner`; 0 is DPM-Solver++(2S).

    Yields:
        x after every step; the last is x_0.
    """
    return _walked(model, x, grid, noise, "x0", eta)


def _walked(
    model: EpsilonModel, x: Tensor, grid: Grid, noise: Noise, predict: Predict, eta: float
) -> Iterator[Tensor]:
    for step in grid:
        start, end = Level.start(step), Level.end(step)
        if start.alpha_bar == end.alpha_bar:  # nothing changes
            yield x
            continue
        down = cleaner(start, end, eta)
        levels = [start, *between(model, start, down, PLACES[2]), down]
        *_, x = single_step(model, x, levels, predict)
        x = _up(x, down, end, noise, step.index)
        yield x


def _up(x: Tensor, down: Level, end: Level, noise: Noise, index: int, draw: int = 0) -> Tensor:
    """Return x at the end of a step, by noise from the level "down"."""
    return renoised(x, down, end, noise(index, draw)) if down.sigma < end.sigma else x


@sampler(
    order=1,
    calls_per_step=2,
    source="Lu et al. 2022, arXiv:2211.01095, algorithm 1, with noise at both levels, as k-diffusion's"
    " sample_dpmpp_sde",
    most_steps=100,
)
def dpmpp_sde_single(
    model: EpsilonModel, x: Tensor, grid: Grid, noise: Noise, *, eta: Annotated[float, AtLeast(0)] = 1.0
) -> Iterator[Tensor]:
    """Step from t to u with a level between, r = 1/2 in lambda, z and z' two draws:

        y_1    = DDIM's step to the middle's "down" with D_0 = x_0(y, t), + sigma_up z
        D      = (1 - 1/(2r)) D_0 + 1/(2r) x_0(y_1, t_1)
        y_u    = sigma_down / sigma_t y + (1 - sigma_down / sigma_t) D + sigma_up z'

    Both levels have a "down" of their own, see `cleaner`. It is of weak order 1: the second call lowers the
    error and not its order. Published code takes z and z' from one Brownian path; here they are independent.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for twice at every step but the last, where eta > 0.
        eta: see `cleaner`.

    Yields:
        x after every step; the last is x_0.
    """
    for step in grid:
        start, end = Level.start(step), Level.end(step)
        if start.alpha_bar == end.alpha_bar:  # nothing changes
            yield x
            continue
        x0, eps = start.ask(model, x)
        down = cleaner(start, end, eta)
        lower = diffuse(x0, eps, down.alpha_bar)
        for middle in between(model, start, end, PLACES[2]):
            r = (middle.half_log_snr - start.half_log_snr) / (end.half_log_snr - start.half_log_snr)
            below = cleaner(start, middle, eta)
            x = _up(diffuse(x0, eps, below.alpha_bar), below, middle, noise, step.index)
            x0_middle, _ = middle.ask(model, x)
            bend = down.a * (1 - down.sigma / start.sigma) / (2 * r)
            lower = weighted_sum((1.0, bend, -bend), (lower, x0_middle, x0))
        x = _up(lower, down, end, noise, step.index, draw=1)
        yield x


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register them, and the names by which DDIM is known where noise levels are counted in sigma."""
    return [
        ddim.with_(eta=0.0, alias="euler"),
        ddim.with_(eta=1.0, alias="euler-ancestral"),
        ddim.with_(eta=1.0, alias="euler-a"),
        dpm2_ancestral,
        dpmpp_2s_ancestral,
        dpmpp_sde_single,
    ]
