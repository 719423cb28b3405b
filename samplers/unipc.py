"""UniPC: a predictor and a corrector of one more order that costs no call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import expm1, factorial
from typing import Annotated, Literal

import numpy as np
from torch import Tensor

from bench import AtLeast, AtMost, EpsilonModel, Grid, Noise, Sampler, Step, hookimpl, sampler, weighted_sum
from samplers.ode import Final, Floats, History, Level, answer, first_order, phi, planned, settled

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
        b: B(z): ``bh1`` is z, ``bh2`` is e^z - 1. Only a step with a single rho, as the first and the last
            have, tells them apart.
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
    places, differences = _differences(step, list(past.levels)[:p])
    return weighted_sum([1.0, *_bend(step, places, differences, b, predict)], [base, *past.last(p)])


def _corrected(step: Step, base: Tensor, p: int, past: History, b: Scale, predict: Predict) -> Tensor:
    places, differences = _differences(step, list(past.levels)[1 : p + 1])
    told = np.eye(p + 1)  # the newest value, which lies at the step's end, then those of the predictor
    among = [told[1:].T @ one for one in differences]
    weights = _bend(step, [*places, 1.0], [*among, told[0] - told[1]], b, predict)
    return weighted_sum([1.0, *weights], [base, *past.last(p + 1)])


def _differences(step: Step, levels: Sequence[Level]) -> tuple[list[float], list[Floats]]:
    """Return (r_k, D_k) of all values but the first, which is the step's own; D_k as the values' weights."""
    start, h = levels[0].half_log_snr, _log_step(step)
    places = [(level.half_log_snr - start) / h for level in levels[1:]]
    values = np.eye(len(levels))
    told = zip(values[1:], places, strict=True)
    return places, [(value - values[0]) / place for value, place in told]


def _bend(
    step: Step, places: Sequence[float], differences: Sequence[Floats], b: Scale, predict: Predict
) -> list[float]:
    """Return -B sum_k rho_k D_k in the frame of x, as the values' weights."""
    end, h = Level.end(step), _log_step(step)
    z = -h if predict == "x0" else h
    scale = z if b == "bh1" else expm1(z)
    rho = np.asarray(_weights(places, z, scale))
    bend: Floats = -(end.a if predict == "x0" else end.s) * scale * (rho @ np.stack(differences))
    return [float(weight) for weight in bend]


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
