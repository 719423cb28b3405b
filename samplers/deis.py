"""DEIS: exponential integrators of the noise, extrapolated in the variable of choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.polynomial import polynomial
from torch import Tensor

from bench import (
    AtLeast,
    AtMost,
    ContinuousSchedule,
    EpsilonModel,
    Grid,
    Noise,
    Sampler,
    Schedule,
    hookimpl,
    sampler,
)
from samplers.ode import Final, Floats, Level, adams, exponential_weights, lagrange, places, sigma_weights

Basis = Literal["t", "rho", "logrho", "vp"]

_VP = ContinuousSchedule.vp_between()

_PIECES = 32  # of a step in continuous time; between time steps of a discrete schedule sigma is smooth
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)


@sampler(
    order=lambda order, **_: order,
    source="Zhang & Chen 2022, DEIS, arXiv:2204.13902, tAB and rhoAB",
    most_steps=100,
)
def deis(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    order: Annotated[int, AtLeast(1), AtMost(4)] = 4,
    basis: Basis = "t",
    final: Final = "only",
    afs: bool = False,
) -> Iterator[Tensor]:
    """Step from t to u with eps extrapolated by the polynomial through its last values:

        y_u = y_t + sum_j eps_j int_t^u l_j(tau) (d sigma / d tau) d tau

    with l_j Lagrange's polynomials in the time t (the paper's tAB), in sigma (rhoAB, which is `lms`) or in
    log sigma (DPM-Solver's variable: order=2 is `dpm-solver` with form=heun, order=3 with weights=exact). Of
    a model whose time is no variance-preserving diffusion's, as EDM's sigma, ``vp`` is the paper's tAB: t of
    the linear beta that reaches from sigma = 0.002 at t = 0.001 to 80 at t = 1.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: never asked for.
        order: the number of past values: the paper's tAB3 has 4.
        basis: the variable of the polynomials: ``t``, ``rho`` for sigma, ``logrho`` for its logarithm, ``vp``
            for the time of a variance-preserving diffusion.
        final: how the orders end; see `samplers.ode.Final`.
        afs: take x_T as its own eps, and save the first call.

    Yields:
        x after every step; the last is x_0.
    """

    def weigh(levels: Sequence[Level], end: Level) -> list[float]:
        if basis == "t":
            return _time_weights(grid.schedule, levels, end)
        if basis == "vp":
            return _time_weights(_VP, [_in_vp(level) for level in levels], _in_vp(end))
        return sigma_weights(levels, end) if basis == "rho" else _log_sigma_weights(levels, end)

    if basis == "logrho" and final == "none":
        final = "only"  # log sigma is infinite at the end
    return adams(model, x, grid, order, final, afs, weigh)


def _in_vp(level: Level) -> Level:
    return Level(_VP.to_time(level.alpha_bar), level.alpha_bar)


def _log_sigma_weights(levels: Sequence[Level], end: Level) -> list[float]:
    h = end.half_log_snr - levels[0].half_log_snr
    at = places([level.half_log_snr for level in levels], end.half_log_snr)
    return [-end.sigma * h * weight for weight in exponential_weights(at, h)]


def _time_weights(schedule: Schedule, levels: Sequence[Level], end: Level) -> list[float]:
    """Return the integrals of l_j(t) d sigma, by parts, since sigma has no slope at time steps:

    l_j(u) sigma_u - l_j(t) sigma_t - int l_j'(tau) sigma(tau) d tau
    """
    start, length = levels[0].t, end.t - levels[0].t
    v, weights = _nodes(schedule, start, end.t)
    alpha_bar = schedule.alpha_bars(torch.from_numpy(start + length * v)).numpy()
    sigma = weights * np.sqrt((1 - alpha_bar) / alpha_bar)
    found = []
    for powers in lagrange(places([level.t for level in levels], end.t)):
        inside = np.sum(polynomial.polyval(v, polynomial.polyder(powers)) * sigma)
        found.append(float(np.sum(powers) * end.sigma - powers[0] * levels[0].sigma - inside))
    return found


def _nodes(schedule: Schedule, start: float, stop: float) -> tuple[Floats, Floats]:
    """Return (nodes, weights) of a composite Gauss rule over a step in time, in units of the step."""
    if schedule.continuous:
        edges = np.linspace(0, 1, _PIECES + 1)
    else:
        inner = np.arange(np.ceil(start) - 1, np.floor(stop), -1)
        edges = np.concatenate([[0], (inner - start) / (stop - start), [1]])
    left, width = edges[:-1, None], np.diff(edges)[:, None]
    return (left + width * (_NODES + 1) / 2).ravel(), (width * _WEIGHTS / 2).ravel()


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register DEIS."""
    return [deis]
