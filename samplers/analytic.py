"""Analytic-DPM: the best reverse variance for the network's mean, from one number a time step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf, pi, sqrt
from pathlib import Path
from typing import Annotated, Literal

from torch import Tensor

from bench import (
    AtLeast,
    AtMost,
    Clip,
    EpsilonModel,
    Grid,
    Noise,
    NotApplicable,
    Sampler,
    Step,
    hookimpl,
    posterior_constants,
    posterior_mean,
    predict_x0,
    read_moments,
    sampler,
    weighted_sum,
)

_SOURCE = "Bao et al. 2022, Analytic-DPM, arXiv:2201.06503, theorem 1, and its published code"


@sampler(order=1, source=_SOURCE)
def analytic_ddpm(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    clip: Literal["x0", "none"] = "x0",
    moments: str = "",
    levels: Annotated[float, AtLeast(0), AtMost(inf)] = inf,
) -> Iterator[Tensor]:
    """Draw x_s from N(mean, variance), s the next time step, beta~ and weight those of q(x_s | x_t, x_0):

        c        = (1 - abar_t) / abar_t (1 - Gamma_t), kept in [0, 1]: the mean variance of x_0 given x_t
        variance = beta~ + weight^2 c

    The mean is DDPM's; Gamma_t is the second moment of the network's noise, see `NoiseMoments`. No noise is
    added at the last step.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for at every step but the last.
        clip: ``x0`` clamps the predicted x_0 to [-1, 1], as published; ``none``.
        moments: file with Gamma_t of the grid's times, from ``sampler-bench moments``; none is needed for
            a model that knows them, by a method ``noise_moment(t)``.
        levels: the greatest mean size of the noise at the step before the last, in levels of 8 bits; 1 or 2
            in the published tables of CIFAR-10.

    Yields:
        x after every step; the last is x_0.

    Raises:
        NotApplicable: if no moments are given, and the model does not know them.
        UsageError: if they are none of this grid's.
    """
    moment = _known(moments, model)
    for step in grid:
        raw: Clip = "x0-raw-eps" if clip == "x0" else "none"  # eps is not needed again
        x0, _ = predict_x0(x, model(x, step.times(x)), step.alpha_bar, raw)
        posterior = posterior_constants(step)
        variance = posterior.variance + posterior.x0_weight**2 * _variance_of_x0(moment, step)
        x = _drawn(posterior_mean(x, x0, step), variance, step, grid, noise, levels)
        yield x


@sampler(order=1, source=_SOURCE)
def analytic_ddim(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    eta: Annotated[float, AtLeast(0)] = 0.0,
    clip: Literal["x0-raw-eps", "none"] = "x0-raw-eps",
    moments: str = "",
    levels: Annotated[float, AtLeast(0), AtMost(inf)] = inf,
) -> Iterator[Tensor]:
    """Draw x_s from N(mean, variance), s the next time step, c as in `analytic_ddpm`:

        lambda^2 = eta^2 beta~                                          DDIM's variance
        mean     = sqrt(abar_s) x_0 + sqrt(1 - abar_s - lambda^2) eps   DDIM's
        variance = lambda^2 + (sqrt(abar_s) - sqrt((1 - abar_s - lambda^2) abar_t / (1 - abar_t)))^2 c

    Even at eta = 0 it draws noise: x_0 is not known from x_t.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for at every step but the last.
        eta: 0 for DDIM's mean, 1 for DDPM's.
        clip: ``x0-raw-eps`` clamps x_0 to [-1, 1] and keeps the network's eps, as published; ``none``.
        moments: see `analytic_ddpm`.
        levels: see `analytic_ddpm`.

    Yields:
        x after every step; the last is x_0.

    Raises:
        NotApplicable: if no moments are given, and the model does not know them.
        UsageError: if they are none of this grid's.
    """
    moment = _known(moments, model)
    for step in grid:
        abar, abar_next = step.alpha_bar, step.alpha_bar_next
        x0, eps = predict_x0(x, model(x, step.times(x)), abar, clip)
        given = min(eta**2 * posterior_constants(step).variance, 1 - abar_next)
        mean = weighted_sum((sqrt(abar_next), sqrt(1 - abar_next - given)), (x0, eps))
        weight = sqrt(abar_next) - sqrt((1 - abar_next - given) * abar / (1 - abar))
        variance = given + weight**2 * _variance_of_x0(moment, step)
        x = _drawn(mean, variance, step, grid, noise, levels)
        yield x


def _known(moments: str, model: EpsilonModel) -> Callable[[float], float]:
    """Return Gamma_t as a function of the time: a file's, or a model's own where it knows its law."""
    own: Callable[[float], float] | None = getattr(model, "noise_moment", None)
    if moments:
        return read_moments(Path(moments)).at
    if own is None:
        raise NotApplicable(
            "analytic variances need the second moments of the model's noise: `sampler-bench moments`"
            " estimates them, moments=FILE gives them"
        )
    return own


def _variance_of_x0(moment: Callable[[float], float], step: Step) -> float:
    """Return c: between none and that of images of -1 and 1, which is also said where alpha_bar = 0."""
    if step.alpha_bar == 0:
        return 1.0
    return min(1.0, max(0.0, (1 - step.alpha_bar) / step.alpha_bar * (1 - moment(step.t))))


def _drawn(mean: Tensor, variance: float, step: Step, grid: Grid, noise: Noise, levels: float) -> Tensor:
    """Return a draw, bounded at the step before the last: E|z| is sqrt(2/pi), a level 2/255."""
    if step.last or step.alpha_bar == step.alpha_bar_next:
        return mean
    if step.index == len(grid) - 2:
        variance = min(variance, (levels * 2 / 255 * sqrt(pi / 2)) ** 2)
    return mean.add_(noise(step.index), alpha=sqrt(variance))


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register both."""
    return [analytic_ddpm, analytic_ddim]
