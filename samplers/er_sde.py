"""ER-SDE-Solver: multistep rules in sigma for a family of reverse-time SDEs between the ODE and DDPM's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import exp, log, nan
from typing import Annotated, Literal

import numpy as np
from torch import Tensor

from bench import (
    AtLeast,
    AtMost,
    EpsilonModel,
    Grid,
    Noise,
    Sampler,
    hookimpl,
    sampler,
    weighted_sum,
)
from samplers.inner import renoised
from samplers.ode import Floats, History, Level, planned

Scale = Literal["er", "sde", "ode"]
"""The paper's noise scale phi(sigma): ``er``: sigma (exp(sigma^0.3) + 10), its best; ``sde``: sigma^2, DDPM's
reverse process; ``ode``: sigma, the probability flow."""

_NODES, _LENGTHS = np.polynomial.legendre.leggauss(32)  # exact to rounding for a step of any grid


@sampler(
    order=lambda order, scale, weights, **_: (
        order if scale == "ode" and weights == "exact" else min(order, 2)
    ),
    source="Cui et al. 2023, Elucidating the Solution Space of Extended Reverse-Time SDE for Diffusion"
    " Models, arXiv:2309.06169, and its published code",
    most_steps=100,
)
def er_sde(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    order: Annotated[int, AtLeast(1), AtMost(3)] = 3,
    scale: Scale = "er",
    weights: Literal["published", "exact"] = "published",
) -> Iterator[Tensor]:
    """Step from sigma to sigma_u, y = x / sqrt(abar), D = x_0(y, sigma), r = phi(sigma_u) / phi(sigma):

        y_u = r y + (1 - r) D + w_1 d_1 + 2 w_2 d_2 + sqrt(sigma_u^2 - r^2 sigma^2) z
        w_k = integral from sigma_u to sigma of (phi(sigma_u) / phi(v) - 1) (v - sigma)^(k-1) dv

    d_1 and d_2 are divided differences of x_0 over sigma, from the last two and three steps. The polynomial
    through three values of x_0 has the further term (sigma - sigma_1) w_1 d_2, sigma_1 that of the step
    before: published code leaves it out, and is of order 2 then.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for at every step but the last, where r sigma < sigma_u.
        order: the number of values of x_0 that are combined.
        scale: phi: ``er``, ``sde`` or ``ode``.
        weights: ``published``; or ``exact``, with that further term.

    Yields:
        x after every step; the last is x_0.
    """
    known = History(3)
    for step, values in planned(grid, order, "only"):
        if values == 0:  # a repeated level: nothing changes
            yield x
            continue
        start, end = Level.start(step), Level.end(step)
        x0, eps = start.ask(model, x)
        known.add(start, x0)
        left = _RATES[scale](end.sigma) / _RATES[scale](start.sigma)
        down = Level(nan, 1 / (1 + (left * end.sigma) ** 2))  # r sigma = left sigma_u: what y_u keeps of eps
        shares, parts = [down.a, down.s], [x0, eps]
        if values > 1:
            bend = _bend(known, values, _weights(scale, start.sigma, end.sigma), weights == "exact")
            shares, parts = [*shares, *(down.a * bend).tolist()], [*parts, *known.last(values)]
        x = weighted_sum(shares, parts)
        if left < 1 and not step.last:
            x = renoised(x, down, end, noise(step.index))
        yield x


_RATES: dict[Scale, Callable[[float], float]] = {
    "er": lambda sigma: exp(min(sigma**0.3, 700.0)) + 10,  # 700: of a sigma that is as good as infinite
    "sde": lambda sigma: sigma,
    "ode": lambda sigma: 1.0,
}
"""phi(sigma) / sigma."""


def _weights(scale: Scale, sigma: float, sigma_next: float) -> tuple[float, float]:
    """Return w_1 and w_2; the nodes are spread in log sigma, where phi is smooth."""
    rate = _RATES[scale]
    middle, half = (log(sigma) + log(sigma_next)) / 2, (log(sigma) - log(sigma_next)) / 2
    places = np.exp(middle + half * _NODES)
    ratio = np.array([sigma_next * rate(sigma_next) / (v * rate(v)) for v in places])
    change = half * _LENGTHS * places * (ratio - 1)
    return float(change.sum()), float((change * (places - sigma)).sum())


def _bend(known: History, values: int, weights: tuple[float, float], exact: bool) -> Floats:
    """Return what the divided differences of x_0 add to y_u, as the weights of its last values."""
    sigma = [level.sigma for level in known.levels]
    x0 = np.eye(values)
    first: Floats = (x0[0] - x0[1]) / (sigma[0] - sigma[1])
    if values == 2:
        return weights[0] * first
    second: Floats = (first - (x0[1] - x0[2]) / (sigma[1] - sigma[2])) / (sigma[0] - sigma[2])
    further = (sigma[0] - sigma[1]) * weights[0] if exact else 0.0
    return weights[0] * first + (2 * weights[1] + further) * second


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register it."""
    return [er_sde]
