"""What the variational bound is made of: divergences of Gaussians, and the mass of a Gaussian in a bin."""

from __future__ import annotations

from math import log, log1p, pi

import torch
from torch import Tensor

HALF_BIN = 1 / 255
"""Half the distance of two of the 256 levels in [-1, 1]."""


_OUTER = 0.999  # beyond it lie the outermost levels, whose bins are open


def prior_term(x0: Tensor, alpha_bar: float) -> Tensor:
    """Return KL(N(sqrt(abar) x_0, (1 - abar) I) || N(0, I)) in bits per dimension, (B,).

    Per dimension 1/2 (abar x_0^2 - abar - log(1 - abar)) nats.

    Source: Ho et al. 2020, eq. 5, L_T.
    """
    mean_square = x0.square().flatten(1).mean(1)
    return 0.5 * (alpha_bar * mean_square - alpha_bar - log1p(-alpha_bar)) / log(2)


def gaussian_kl(log_posterior: Tensor | float, distance: Tensor, log_variance: Tensor | float) -> Tensor:
    """Return KL(q || p) of two Gaussians q = N(m, b) and p = N(m^, v) in nats, shaped like ``distance``:

        1/2 (log v - log b - 1 + b / v + (m - m^)^2 / v)

    Args:
        log_posterior: log b; for q(x_s | x_t, x_0), log beta~.
        distance: (m - m^)^2, the square of the distance of the means.
        log_variance: log v.

    Source: Nichol & Dhariwal 2021, eq. 6.
    """
    dtype, device = distance.dtype, distance.device
    log_variance = torch.as_tensor(log_variance, dtype=dtype, device=device)
    narrower = torch.as_tensor(log_posterior, dtype=dtype, device=device) - log_variance
    return 0.5 * (-narrower - 1 + narrower.exp() + distance * (-log_variance).exp())


def discretised_gaussian_nll(
    x0: Tensor, mean: Tensor, log_variance: Tensor | float, least: float = 0.0
) -> Tensor:
    """Return -log of the mass that N(mean, variance) gives to the bin of x_0, in nats, shaped like x0.

    Each of the 256 levels has a bin of width 2/255 around it; the bins of -1 and 1 are open outwards.
    Published code approximates the normal distribution function by tanh and lets no mass fall below 1e-12,
    which caps a dimension at 39.9 bits; here both are exact, so that the bound is one.

    Args:
        x0: images in [-1, 1], on the 256 levels, (B, C, H, W).
        mean: the mean of the Gaussian, shaped like x0.
        log_variance: its logarithm, shaped like x0 or one number.
        least: a mass below it counts as it, and gives no gradient; training wants that, a bound does not.

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
    return nll if least == 0 else nll.clamp(max=-log(least))


def gaussian_nll(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return -log of the density of N(mean, variance) at x_0, in nats, shaped like x0:

        1/2 (log(2 pi) + log variance + (x_0 - mean)^2 / variance)

    Args:
        x0: values on no levels, as latents are, (B, C, H, W).
        mean: the mean of the Gaussian, shaped like x0.
        log_variance: its logarithm, shaped like x0.
    """
    return 0.5 * (log(2 * pi) + log_variance + (x0 - mean).square() * (-log_variance).exp())
