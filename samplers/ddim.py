"""DDIM: the non-Markovian family from a deterministic map (eta = 0) to ancestral sampling (eta = 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Annotated

from torch import Tensor

from bench import (
    Added,
    AtLeast,
    AtMost,
    Clip,
    EpsilonModel,
    Grid,
    Noise,
    Sampler,
    hookimpl,
    posterior_constants,
    predict_x0,
    sampler,
    weighted_sum,
)


@sampler(
    order=1, source="Song et al. 2021, Denoising Diffusion Implicit Models, arXiv:2010.02502, eq. 12 and 16"
)
def ddim(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    eta: Annotated[float, AtLeast(0)] = 0.0,
    clip: Clip = "none",
    quantile: Annotated[float, AtLeast(0), AtMost(1), Added("0.2.0")] = 0.995,
    greatest: Annotated[float, AtLeast(1), Added("0.2.0")] = 1000.0,
) -> Iterator[Tensor]:
    r"""Step from t to s, the next time step of the grid, with z standard normal:

        sigma^2 = eta^2 (1 - abar_s) / (1 - abar_t) (1 - abar_t / abar_s)
        x_s     = sqrt(abar_s) x_0(x_t) + sqrt(1 - abar_s - sigma^2) eps(x_t, t) + sigma z

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for at a step only where sigma > 0.
        eta: 0 is deterministic, 1 is DDPM's fixedsmall posterior; above 1, sigma^2 is kept at
            1 - abar_s at most, all the noise that x_s can hold.
        clip: ``none`` as published; ``x0`` clamps x_0 to [-1, 1] and re-derives eps from it;
            ``x0-raw-eps`` clamps x_0 and keeps the network's eps; ``dynamic`` and ``dynamic-raw-eps``
            threshold x_0 at a quantile of each sample; ``state`` clamps x itself after every step.
        quantile: the quantile of |x_0|, for the dynamic modes.
        greatest: the largest threshold of the dynamic modes.

    Yields:
        x after every step; the last is x_0.
    """
    for step in grid:
        abar_next = step.alpha_bar_next
        predicted = model(x, step.times(x))
        variance = min(eta**2 * posterior_constants(step).variance, 1 - abar_next)
        of_x0, of_eps = sqrt(abar_next), sqrt(1 - abar_next - variance)
        if clip == "none" and predicted.x0 is None and step.alpha_bar > 0:  # x_0 itself is not needed
            of_x, slope = of_x0 / sqrt(step.alpha_bar), sqrt(1 - step.alpha_bar)
            shares, parts = [of_x, of_eps - of_x * slope], [x, predicted.eps]
        else:
            x0, eps = predict_x0(x, predicted, step.alpha_bar, clip, quantile, greatest)
            shares, parts = [of_x0, of_eps], [x0, eps]
        if variance > 0:
            shares, parts = [*shares, sqrt(variance)], [*parts, noise(step.index)]
        x = weighted_sum(shares, parts)
        if clip == "state":
            x = x.clamp_(-1, 1)
        yield x


@hookimpl
def bench_samplers() -> Sequence[Sampler]:
    """Register the rows of the DDIM paper's table 1."""
    return [ddim.with_(eta=eta) for eta in (0.0, 0.2, 0.5, 1.0)]
