"""EDM: Heun's method in sigma, with noise added before each step (churn)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, sqrt
from typing import Annotated

from torch import Tensor

from bench import (
    AtLeast,
    AtMost,
    EpsilonModel,
    Grid,
    Noise,
    Sampler,
    diffuse,
    hookimpl,
    sampler,
    weighted_sum,
)
from samplers.inner import at_sigma, renoised
from samplers.ode import Level

MOST_CHURN = sqrt(2) - 1
"""Karras et al.'s bound of gamma: no step adds more noise than there is."""


@sampler(
    order=2,
    calls_per_step=2,
    source="Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models,"
    " arXiv:2206.00364, algorithm 2; without churn algorithm 1",
    most_steps=100,
)
def edm(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    churn: Annotated[float, AtLeast(0)] = 0.0,
    churn_min: Annotated[float, AtLeast(0)] = 0.0,
    churn_max: Annotated[float, AtLeast(0), AtMost(inf)] = inf,
    churn_noise: Annotated[float, AtLeast(0)] = 1.0,
) -> Iterator[Tensor]:
    """Step from sigma to sigma_u, with y = x / sqrt(abar) and z standard normal, N the number of steps:

        gamma   = min(churn / N, sqrt(2) - 1) where churn_min <= sigma <= churn_max, else 0
        sigma^  = (1 + gamma) sigma
        y^      = y + sqrt(sigma^^2 - sigma^2) churn_noise z
        y_u     = `heun_step` from y^ at sigma^

    sigma^ is no more than the schedule's greatest sigma, and the level of the nearest time step where the
    network takes no other.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for at a step only where sigma^ > sigma.
        churn: the paper's S_churn; 0 is Heun's method without noise.
        churn_min: the least sigma where noise is added, the paper's S_tmin.
        churn_max: the greatest one, S_tmax.
        churn_noise: the standard deviation of z, S_noise.

    Yields:
        x after every step; the last is x_0.
    """
    gamma = min(churn / len(grid), MOST_CHURN)
    for step in grid:
        start = Level.start(step)
        if gamma > 0 and churn_min <= start.sigma <= churn_max:
            raised = at_sigma(model, (1 + gamma) * start.sigma)
            if raised.sigma > start.sigma:
                x, start = renoised(x, start, raised, churn_noise * noise(step.index)), raised
        x = heun_step(model, x, start, Level.end(step))
        yield x


def heun_step(model: EpsilonModel, x: Tensor, start: Level, end: Level) -> Tensor:
    """Return x after a step of Heun's method from sigma to sigma_u, y = x / sqrt(abar):

        y1  = y + (sigma_u - sigma) eps(y, sigma)
        y_u = y1 + (sigma_u - sigma) (eps(y1, sigma_u) - eps(y, sigma)) / 2

    A step to sigma_u = 0, and one from alpha_bar = 0 where sigma is infinite, end at y1: one call.

    Args:
        model: the noise predictor.
        x: at the start, shape (B, C, H, W).
        start: the level of sigma.
        end: the level of sigma_u.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1.
    """
    x0, eps = start.ask(model, x)
    x = diffuse(x0, eps, end.alpha_bar)
    if end.alpha_bar == 1 or start.alpha_bar == 0:
        return x
    _, eps_end = end.ask(model, x)
    half = end.a * (end.sigma - start.sigma) / 2
    return weighted_sum((1.0, half, -half), (x, eps_end, eps))


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register EDM's sampler, and Heun's method, which it is without churn."""
    return [edm, edm.with_(churn=0.0, alias="heun")]
