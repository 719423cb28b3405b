"""What the variational bound is made of: divergences of Gaussians, and the mass of a Gaussian in a bin."""

from __future__ import annotations

from math import log, log1p

import torch
from torch import Tensor

from bench.diffusion import posterior_constants
from bench.grid import Step
from bench.interfaces import Variance

HALF_BIN = 1 / 255
"""Half the distance of two of the 256 levels in [-1, 1]."""

_OUTER = 0.999  # beyond it lie the outermost levels, whose bins are open
_LEAST_VARIANCE = 1e-12  # the standard deviation is a 4,000th of a bin: as good as none


def prior_term(x0: Tensor, alpha_bar: float) -> Tensor:
    """Return KL(N(sqrt(abar) x_0, (1 - abar) I) || N(0, I)) in bits per dimension, (B,).

    Per dimension 1/2 (abar x_0^2 - abar - log(1 - abar)) nats.

    Source: Ho et al. 2020, eq. 5, L_T.
    """
    mean_square = x0.square().flatten(1).mean(1)
    return 0.5 * (alpha_bar * mean_square - alpha_bar - log1p(-alpha_bar)) / log(2)


def gaussian_kl(posterior: float, square: Tensor, log_variance: Tensor | float, weight: float) -> Tensor:
    """Return KL(q(x_s | x_t, x_0) || p(x_s | x_t)) in nats, shaped like ``square`` and ``log_variance``.

    Args:
        posterior: beta~, the variance of q.
        square: (x_0 - x_0^)^2.
        log_variance: log sigma^2 of p.
        weight: w, that of x_0 in both means.

    Source: Nichol & Dhariwal 2021, eq. 6 with Ho et al. 2020, eq. 7.
    """
    log_variance = torch.as_tensor(log_variance, dtype=square.dtype, device=square.device)
    spread = (posterior + weight**2 * square) * (-log_variance).exp()
    return 0.5 * (log_variance - log(posterior) - 1 + spread)


def discretised_gaussian_nll(x0: Tensor, mean: Tensor, log_variance: Tensor | float) -> Tensor:
    """Return -log of the mass that N(mean, variance) gives to the bin of x_0, in nats, shaped like x0.

    Each of the 256 levels has a bin of width 2/255 around it; the bins of -1 and 1 are open outwards.
    Published code approximates the normal distribution function by tanh and lets no mass fall below 1e-12,
    which caps a dimension at 39.9 bits; here both are exact, so that the bound is one.

    Source: Ho et al. 2020, eq. 13.
    """
    log_variance = torch.as_tensor(log_variance, dtype=x0.dtype, device=x0.device)
    scale, centred = (-0.5 * log_variance).exp(), x0 - mean
    below = torch.where(x0 < -_OUTER, -torch.inf, (centred - HALF_BIN) * scale)
    above = torch.where(x0 > _OUTER, torch.inf, (centred + HALF_BIN) * scale)
    # Phi(above) - Phi(below) = Phi(-below) - Phi(-above): in the lower tail log Phi keeps its digits.
    upper = below + above > 0
    above, below = torch.where(upper, -below, above), torch.where(upper, -above, below)
    log_above, log_below = torch.special.log_ndtr(above), torch.special.log_ndtr(below)
    nll: Tensor = -(log_above + torch.log1p(-(log_below - log_above).exp()))
    return nll


def learned_log_variance(raw: Tensor, kind: Variance, step: Step, first: float) -> Tensor:
    """Return log sigma^2 that a network's raw output stands for, shaped like raw.

        learned        raw itself
        learned_range  (1 + v)/2 log beta' + (1 - v)/2 log beta~, with ``first`` for beta~ at the last step
        x0             log(beta~ + w^2 Var[x_0 | x_t])

    Args:
        raw: the network's, float64.
        kind: what it holds: ``model.variance``.
        step: gives beta', beta~ and w.
        first: `Chain.first_variance`.

    Source: Nichol & Dhariwal 2021, eq. 15; Bao et al. 2022, arXiv:2201.06503, eq. 8.
    """
    beta, beta_tilde, weight = posterior_constants(step)
    if kind == "x0":
        return (beta_tilde + weight**2 * raw).clamp(min=_LEAST_VARIANCE).log()
    if kind == "learned":
        return raw
    high, low = log(beta), log(first if step.last else beta_tilde)
    return (high + low) / 2 + (high - low) / 2 * raw
