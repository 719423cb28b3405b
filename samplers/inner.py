"""What rules of several calls and of noise share: levels inside a step, and the way to a noisier level."""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf, log, sqrt

from torch import Tensor

from bench import (
    EpsilonModel,
    takes_real_times,
    weighted_sum,
)
from samplers.ode import Level

_NO_LENGTH = 1e-9
"""A step as short as this in lambda is first order to rounding; parts of it are not told apart."""


def between(model: EpsilonModel, start: Level, end: Level, places: Sequence[float]) -> list[Level]:
    """Return the levels at parts r of a step from t to u in lambda:

        lambda = lambda_t + r (lambda_u - lambda_t)

    A network that takes time steps alone is asked at the nearest one, but never at t again, and at none
    twice: fewer levels then come back, and the rule is of a lower order there. Rules must take r from the
    levels that come back. None lies inside a step from alpha_bar = 0 or to alpha_bar = 1, which is infinitely
    long, or of no length.

    Args:
        model: the noise predictor that is to be asked.
        start: the level of t.
        end: the level of u.
        places: the parts r, ascending.
    """
    h = end.half_log_snr - start.half_log_snr
    if isinf(h) or abs(h) < _NO_LENGTH:
        return []
    found: list[Level] = []
    for place in places:
        level = Level.of(model, start.half_log_snr + place * h)
        if level.t >= start.t and not takes_real_times(model):
            level = Level.at(model, start.t - 1)
        if level not in found:
            found.append(level)
    return found


def at_sigma(model: EpsilonModel, sigma: float) -> Level:
    """Return the level of a sigma > 0, at the nearest time step where the model takes no other.

    Where the schedule's noisiest level has less, it is that one.
    """
    noisiest = Level.at(model, model.schedule.last)
    inside = sigma < (1 - _NO_LENGTH) * noisiest.sigma
    return Level.of(model, -log(sigma)) if inside else noisiest


def renoised(x: Tensor, clean: Level, noisy: Level, z: Tensor) -> Tensor:
    """Return x raised from one level to a noisier one, q(x_u | x_t) of the forward process:

        y_u = y_t + sqrt(sigma_u^2 - sigma_t^2) z, y = x / sqrt(abar)

    Args:
        x: x_t, shape (B, C, H, W).
        clean: the level of t.
        noisy: the level of u, sigma_u >= sigma_t, alpha_bar_u > 0.
        z: standard normal, shaped like x.

    Source: Karras et al. 2022, arXiv:2206.00364, eq. 1 (noise levels add up in squares).
    """
    spread = sqrt(max(0.0, noisy.sigma**2 - clean.sigma**2))
    return weighted_sum((noisy.a / clean.a, noisy.a * spread), (x, z))
