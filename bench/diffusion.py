"""The two formulas every sampler starts from: the predicted x_0, and the posterior q(x_s | x_t, x_0)."""

from __future__ import annotations

from math import sqrt

from torch import Tensor

from bench.grid import Step
from bench.interfaces import Clip


def predict_x0(x: Tensor, eps: Tensor, alpha_bar: float, clip: Clip = "none") -> tuple[Tensor, Tensor]:
    """Return (x_0, eps) with x_0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t), clipped as asked.

    Args:
        x: x_t, shape (B, C, H, W).
        eps: predicted noise, shaped like x.
        alpha_bar: abar_t.
        clip: ``none``; ``x0`` clamps x_0 to [-1, 1] and returns the eps that this x_0 implies;
            ``x0-raw-eps`` clamps x_0 and returns eps as it came.

    Source: Song et al. 2021, arXiv:2010.02502, eq. 9.
    """
    x0 = (x - sqrt(1 - alpha_bar) * eps) / sqrt(alpha_bar)
    if clip == "none":
        return x0, eps
    x0 = x0.clamp(-1, 1)
    if clip == "x0":
        eps = (x - sqrt(alpha_bar) * x0) / sqrt(1 - alpha_bar)
    return x0, eps


def posterior_mean(x: Tensor, x0: Tensor, step: Step) -> Tensor:
    """Return the mean of q(x_s | x_t, x_0), s the next time step taken, beta' = 1 - abar_t / abar_s:

        beta' sqrt(abar_s) / (1 - abar_t) x_0 + (1 - abar_s) sqrt(1 - beta') / (1 - abar_t) x_t

    At the last step the coefficients are exactly 1 and 0.

    Args:
        x: x_t, shape (B, C, H, W).
        x0: shaped like x.
        step: gives abar_t and abar_s.

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 7.
    """
    beta, _, x0_weight = posterior_constants(step)
    x_weight = (1 - step.alpha_bar_next) * sqrt(1 - beta) / (1 - step.alpha_bar)
    return x0_weight * x0 + x_weight * x


def posterior_constants(step: Step) -> tuple[float, float, float]:
    """Return beta', the posterior variance beta~ and the weight of x_0 in the posterior mean:

        beta' = 1 - abar_t / abar_s
        beta~ = beta' (1 - abar_s) / (1 - abar_t)
        weight = beta' sqrt(abar_s) / (1 - abar_t)

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 7.
    """
    beta = 1 - step.alpha_bar / step.alpha_bar_next
    share = beta / (1 - step.alpha_bar)
    return beta, share * (1 - step.alpha_bar_next), share * sqrt(step.alpha_bar_next)
