"""UniPC: a predictor and a corrector of one more order that costs no call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import expm1, factorial
from typing import Annotated, Literal

import numpy as np
from torch import Tensor

from bench import AtLeast, AtMost, EpsilonModel, Grid, Noise, Sampler, Step, hookimpl, sampler
from samplers.ode import Final, History, Level, answer, combined, first_order, phi, planned, settled

Scale = Literal["bh1", "bh2"]
Predict = Literal["x0", "eps"]


def _order(order: int, final: Final, **others: object) -> int:
    return order + 1 if final in ("only", "none") else order


@sampler(order=_order, source="Zhao et al. 2023, UniPC, arXiv:2302.04867", most_steps=100)
def unipc(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    order: Annotated[int, AtLeast(1), AtMost(3)] = 3,
    b: Scale = "bh1",
    predict: Predict = "x0",
    final: Final = "lowered_then_x0",
    afs: bool = False,
) -> Iterator[Tensor]:
    """Predict x at u from p values m of x_0, ask the network there, correct x at u by what it says:

        predictor    y = e^-h y_t + (1 - e^-h) m_0 - B(-h) sum_(k<p) rho_k D_k
        corrector    y = e^-h y_t + (1 - e^-h) m_0 - B(-h) [sum_(k<p) rho'_k D_k + rho'_p (m_u - m_0)]

    with D_k = (m_k - m_0) / r_k, r_k = (lambda_k - lambda_t) / h. The rho match the expansion of the integral
    in h: sum_k r_k^(i-1) rho_k = i! z phi_(i+1)(z) / B(z) for i = 1 .. as many as there are rho, z = -h; a
    single one is 1/2. With predict=eps, z = h, the base is y_t - sigma_u (e^h - 1) m_0 and B is multiplied by
    sigma_u. The next step starts from the corrected x and from m_u, which is not asked for again.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: never asked for.
        order: p, the number of past values; the corrector makes the order of convergence p + 1, where the
            orders are not lowered.
        b: B(z): ``bh1`` is z, ``bh2`` is e^z - 1; with order 3 both give the same.
        predict: what m is: x_0 or eps.
        final: how the orders end; see `samplers.ode.Final`. With ``lowered_then_x0``, as published, the step
            before the one to x_0 is not corrected.
        afs: take x_T as its own eps, and save the first call.

    Yields:
        x after every step, not yet corrected; the last is x_0.
    """
    skips_last = settled(grid, final) == "lowered_then_x0"
    past = History(order + 1)  # what was told at u is in it when x at u is corrected
    predicted: tuple[Step, Tensor, int] | None = None  # the step to here, its base and its order
    for step, p in planned(grid, order, final):
        if p > 0:
            x0, eps = answer(model, x, step, afs=afs and past.empty)
            past.add(Level.start(step), x0 if predict == "x0" else eps)
            if predicted is not None and not (step.last and skips_last):
                x = _corrected(*predicted, past, b, predict)
                x0, eps = _as_told(x, past.values[0], step, predict)
            base = first_order(step, x0, eps)
            x = _predicted(step, base, p, past, b, predict)
            predicted = (step, base, p) if step.alpha_bar > 0 else None
        yield x


def _as_told(x: Tensor, told: Tensor, step: Step, predict: Predict) -> tuple[Tensor, Tensor]:
    """Return (x_0, eps) of which one was told and the other follows from the x that is there now."""
    level = Level.start(step)
    if predict == "x0":
        return told, (x - level.a * told) / level.s
    return (x - level.s * told) / level.a, told


def _predicted(step: Step, base: Tensor, p: int, past: History, b: Scale, predict: Predict) -> Tensor:
    if p == 1:
        return base
    places, differences = _differences(step, list(past.levels)[:p], list(past.values)[:p])
    return base - _sum(step, places, differences, b, predict)


def _corrected(step: Step, base: Tensor, p: int, past: History, b: Scale, predict: Predict) -> Tensor:
    levels, values = list(past.levels), list(past.values)
    places, differences = _differences(step, levels[1 : p + 1], values[1 : p + 1])
    return base - _sum(step, [*places, 1.0], [*differences, values[0] - values[1]], b, predict)


def _differences(
    step: Step, levels: Sequence[Level], values: Sequence[Tensor]
) -> tuple[list[float], list[Tensor]]:
    """Return (r_k, D_k) of all values but the first, which is the step's own."""
    start, h = levels[0].half_log_snr, _log_step(step)
    places = [(level.half_log_snr - start) / h for level in levels[1:]]
    told = zip(values[1:], places, strict=True)
    return places, [(value - values[0]) / place for value, place in told]


def _sum(
    step: Step, places: Sequence[float], differences: Sequence[Tensor], b: Scale, predict: Predict
) -> Tensor:
    """Return B sum_k rho_k D_k in the frame of x."""
    end, h = Level.end(step), _log_step(step)
    z = -h if predict == "x0" else h
    scale = z if b == "bh1" else expm1(z)
    return (end.a if predict == "x0" else end.s) * scale * combined(_weights(places, z, scale), differences)


def _weights(places: Sequence[float], z: float, scale: float) -> list[float]:
    """Return the rho: the solution of sum_k r_k^(i-1) rho_k = i! z phi_(i+1)(z) / B; 1/2 for one alone."""
    n = len(places)
    if n == 1:
        return [0.5]
    sides = [factorial(i) * z * phi(i + 1, z) / scale for i in range(1, n + 1)]
    powers = np.vander(places, n, increasing=True).T
    return [float(rho) for rho in np.linalg.solve(powers, sides)]


def _log_step(step: Step) -> float:
    return Level.end(step).half_log_snr - Level.start(step).half_log_snr


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register UniPC."""
    return [unipc]
