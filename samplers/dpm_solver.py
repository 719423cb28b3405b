"""DPM-Solver and DPM-Solver++, multistep: exponential integrators of the noise, or of x_0, in lambda."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, expm1, sqrt
from typing import Annotated, Literal

import numpy as np
from torch import Tensor

from bench import AtLeast, AtMost, EpsilonModel, Grid, Noise, Sampler, hookimpl, sampler, weighted_sum
from samplers.ode import Final, Floats, History, Level, answer, phi, planned

Form = Literal["midpoint", "heun"]
Weights = Literal["published", "exact"]


def _order(order: int, weights: Weights, **others: object) -> int:
    return min(order, 2) if weights == "published" else order


def _weak_order(order: int, weights: Weights, eta: float, **others: object) -> int:
    return _order(order, weights) if eta == 0 else min(order, 2)


@sampler(order=_order, source="Lu et al. 2022, DPM-Solver, arXiv:2206.00927", most_steps=100)
def dpm_solver(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    order: Annotated[int, AtLeast(1), AtMost(3)] = 2,
    form: Form = "midpoint",
    weights: Weights = "published",
    final: Final = "lowered10_then_x0",
    afs: bool = False,
) -> Iterator[Tensor]:
    """Step from t to u with eps extrapolated by a polynomial in v = (lambda - lambda_t) / h:

        y_u = y_t - sigma_u h int_0^1 e^((1-v) h) eps(v) dv        eps(v) = e_0 + D_1 v + D_2 v^2
            = y_t - sigma_u [(e^h - 1) e_0 + h phi_2(h) D_1 + h 2 phi_3(h) D_2]

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: never asked for.
        order: the number of past values of eps; 1 is DDIM.
        form: steps with two values take the integral (``heun``), or phi_1 / 2 for phi_2 (``midpoint``).
        weights: ``published`` has half the integral's weight for D_2, as every published code, and is of
            order 2 for order=3; ``exact`` is of order 3.
        final: how the orders end; see `samplers.ode.Final`.
        afs: take x_T as its own eps, and save the first call.

    Yields:
        x after every step; the last is x_0.
    """
    past = History(order)
    for step, p in planned(grid, order, final):
        if p > 0:
            x0, eps = answer(model, x, step, afs=afs and past.empty)
            past.add(Level.start(step), eps)
            end, bend = Level.end(step), np.zeros(0)
            if p > 1:
                h = end.half_log_snr - past.levels[0].half_log_snr
                bend = -end.s * h * _correction(past, h, h, p, form, weights)
            x = weighted_sum([end.a, end.s, *bend.tolist()], [x0, eps, *past.last(len(bend))])
        yield x


@sampler(order=_order, source="Lu et al. 2022, DPM-Solver++, arXiv:2211.01095, algorithm 2", most_steps=100)
def dpmpp(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    order: Annotated[int, AtLeast(1), AtMost(3)] = 2,
    form: Form = "midpoint",
    weights: Weights = "published",
    final: Final = "lowered10_then_x0",
    afs: bool = False,
) -> Iterator[Tensor]:
    """Step from t to u with x_0 extrapolated by a polynomial in v = (lambda - lambda_t) / h:

        y_u = e^-h y_t + h int_0^1 e^(-(1-v) h) x_0(v) dv        x_0(v) = D_0 + D_1 v + D_2 v^2
            = e^-h y_t + (1 - e^-h) D_0 + h phi_2(-h) D_1 + h 2 phi_3(-h) D_2

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: never asked for.
        order: the number of past values of x_0; 1 is DDIM.
        form: steps with two values take the integral (``heun``), or phi_1 / 2 for phi_2 (``midpoint``).
        weights: ``published`` has half the integral's weight for D_2, as every published code, and is of
            order 2 for order=3; ``exact`` is of order 3.
        final: how the orders end; see `samplers.ode.Final`.
        afs: take x_T as its own eps, and save the first call.

    Yields:
        x after every step; the last is x_0.
    """
    return _plus_plus(model, x, grid, noise, order, form, weights, final, afs, eta=0.0)


@sampler(order=_weak_order, source="Lu et al. 2022, DPM-Solver++, arXiv:2211.01095, app. B", most_steps=100)
def dpmpp_sde(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    order: Annotated[int, AtLeast(1), AtMost(3)] = 2,
    form: Form = "midpoint",
    eta: Annotated[float, AtLeast(0)] = 1.0,
    weights: Weights = "published",
    final: Final = "only",
    afs: bool = False,
) -> Iterator[Tensor]:
    """Step from t to u along the reverse SDE, g = (1 + eta) h and z standard normal:

        y_u = e^-g y_t + (1 - e^-g) D_0 + g phi_2(-g) D_1 + g 2 phi_3(-g) D_2
              + sigma_u sqrt(1 - e^(-2 eta h)) z

    The polynomial D_0 + D_1 v + D_2 v^2 is that of `dpmpp`. Order is that of the law of x_0.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for at every step but the last where eta > 0.
        order: the number of past values of x_0; 1 with eta=1 is DDIM with eta=1.
        form: steps with two values take the integral (``heun``), or phi_1 / 2 for phi_2 (``midpoint``).
        eta: 1 is the paper's; 0 is `dpmpp`; others as in k-diffusion.
        weights: ``published`` has half the integral's weight for D_2, as every published code; ``exact``.
        final: how the orders end; see `samplers.ode.Final`.
        afs: take x_T as its own eps, and save the first call.

    Yields:
        x after every step; the last is x_0.
    """
    return _plus_plus(model, x, grid, noise, order, form, weights, final, afs, eta)


def _plus_plus(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    order: int,
    form: Form,
    weights: Weights,
    final: Final,
    afs: bool,
    eta: float,
) -> Iterator[Tensor]:
    past = History(order)
    for step, p in planned(grid, order, final):
        if p > 0:
            end, bend = Level.end(step), np.zeros(0)
            h = end.half_log_snr - Level.start(step).half_log_snr
            x0, eps = answer(model, x, step, afs=afs and past.empty)
            past.add(Level.start(step), x0)
            shares, parts = [end.a, end.s], [x0, eps]
            if eta > 0 and end.s > 0:
                shares = [end.a, end.s * exp(-eta * h), end.s * sqrt(-expm1(-2 * eta * h))]
                parts = [x0, eps, noise(step.index)]
            if p > 1:
                g = (1 + eta) * h
                bend = end.a * g * _correction(past, h, -g, p, form, weights)
            x = weighted_sum([*shares, *bend.tolist()], [*parts, *past.last(len(bend))])
        yield x


def _correction(past: History, h: float, z: float, order: int, form: Form, weights: Weights) -> Floats:
    """Return phi_2(z) D_1 + 2 phi_3(z) D_2, with phi_1(z) / 2 or phi_3(z) where the form or weights say so.

    D_1 and D_2 are those of the polynomial in v through the last two or three values, each of them written as
    the weights of these values.
    """
    values = np.eye(order)
    r0 = (past.levels[0].half_log_snr - past.levels[1].half_log_snr) / h
    d10: Floats = (values[0] - values[1]) / r0
    if order == 2:
        return (phi(1, z) / 2 if form == "midpoint" else phi(2, z)) * d10
    r1 = (past.levels[1].half_log_snr - past.levels[2].half_log_snr) / h
    bend: Floats = (d10 - (values[1] - values[2]) / r1) / (r0 + r1)
    return phi(2, z) * (d10 + r0 * bend) + (1 if weights == "published" else 2) * phi(3, z) * bend


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register the three, and what k-diffusion and diffusers call some of their choices."""
    return [
        dpm_solver,
        dpmpp.with_(alias="dpmpp-2m", order=2, final="only"),
        dpmpp.with_(alias="dpmpp-3m", order=3, final="lowered15"),
        dpmpp_sde.with_(alias="dpmpp-2m-sde", order=2),
        dpmpp_sde.with_(alias="dpmpp-3m-sde", order=3, form="heun"),
    ]
