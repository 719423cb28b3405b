"""What every sampler starts from: q(x_t | x_0), the predicted x_0, q(x_s | x_t, x_0), a learned variance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import log, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from bench.diffusion.grid import Step
from bench.diffusion.interfaces import Clip, Prediction, Variance
from bench.errors import NotApplicable

_LEAST_VARIANCE = 1e-12  # its root is an 8,000th of the distance of two 8-bit levels: as good as none


def weighted_sum(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """Return sum_j w_j m_j of tensors of one shape, as a new tensor.

    It passes over every tensor once, one that is there twice included, and makes none in between: the
    arithmetic of a step costs as much as the memory that it reads.

    Args:
        weights: the w, not empty.
        values: the m, as many.
    """
    total: dict[int, float] = {}
    for weight, value in zip(weights, values, strict=True):
        total[id(value)] = total.get(id(value), 0.0) + weight
    once = {id(value): value for value in values}
    first, *others = once
    found = total[first] * once[first]
    for one in others:
        if total[one] != 0:
            found.add_(once[one], alpha=total[one])
    return found


def diffuse(x0: Tensor, noise: Tensor, alpha_bar: float | Tensor) -> Tensor:
    """Return x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise, a draw from q(x_t | x_0).

    Args:
        x0: images in [-1, 1], shape (B, C, H, W) or (C, H, W).
        noise: standard normal, shaped like x0.
        alpha_bar: abar_t, one for all or one for each image, (B,); roots are taken in float64.

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 4.
    """
    if not isinstance(alpha_bar, Tensor):
        return weighted_sum((sqrt(alpha_bar), sqrt(1 - alpha_bar)), (x0, noise))
    abar = alpha_bar.double().view(-1, *(1,) * (x0.ndim - 1))
    return abar.sqrt().to(x0.dtype) * x0 + (1 - abar).sqrt().to(x0.dtype) * noise


def predict_x0(
    x: Tensor,
    predicted: Prediction | Tensor,
    alpha_bar: float,
    clip: Clip = "none",
    quantile: float = 0.995,
    greatest: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """Return (x_0, eps) with x_0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t), clipped as asked.

    Args:
        x: x_t, shape (B, C, H, W).
        predicted: what the network said, whose own x_0 is taken where it tells it; or eps alone.
        alpha_bar: abar_t.
        clip: ``none``; ``x0`` clamps x_0 to [-1, 1] and returns the eps that this x_0 implies;
            ``x0-raw-eps`` clamps x_0 and returns eps as it came; ``dynamic`` and ``dynamic-raw-eps`` likewise
            with `threshold` in the place of the clamp; ``state`` does nothing here.
        quantile: the quantile that `threshold` takes.
        greatest: the greatest threshold.

    Source: Song et al. 2021, arXiv:2010.02502, eq. 9.

    Raises:
        NotApplicable: at alpha_bar = 0, where eps alone does not tell x_0.
    """
    eps, _, x0 = predicted if isinstance(predicted, Prediction) else Prediction(predicted)
    predicted_here = x0 is None
    if x0 is None:
        if alpha_bar == 0:
            raise NotApplicable(
                "at alpha_bar = 0 eps does not tell x_0: the model must predict v, x_0 or a velocity (wrap it"
                " with bench.from_prediction or bench.from_flow) without a classifier's guidance, or the grid"
                " begin at a later time"
            )
        x0 = torch.sub(x, eps, alpha=sqrt(1 - alpha_bar)).div_(sqrt(alpha_bar))
    if clip in ("none", "state"):
        return x0, eps
    if clip.startswith("dynamic"):
        x0 = threshold(x0, quantile, greatest)
    else:
        x0 = x0.clamp_(-1, 1) if predicted_here else x0.clamp(-1, 1)
    if not clip.endswith("raw-eps"):
        eps = torch.sub(x, x0, alpha=sqrt(alpha_bar)).div_(sqrt(1 - alpha_bar))
    return x0, eps


def threshold(x0: Tensor, quantile: float = 0.995, greatest: float = math.inf) -> Tensor:
    """Return x_0 / q of each sample clamped to [-1, 1], q a quantile of |x_0|, from 1 to ``greatest``.

    Args:
        x0: predicted x_0, shape (B, C, H, W).
        quantile: p in (0, 1], by linear interpolation.
        greatest: the largest q.

    Source: Saharia et al. 2022, arXiv:2205.11487, section 2.3 ("dynamic thresholding").
    """
    flat = x0.abs().flatten(1)
    q = torch.quantile(flat, quantile, dim=1).clamp(1, greatest).view(-1, *(1,) * (x0.ndim - 1))
    clamped: Tensor = x0.clamp(-q, q) / q
    return clamped


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
    return weighted_sum((x0_weight, x_weight), (x0, x))


class Posterior(NamedTuple):
    """The constants of q(x_s | x_t, x_0), a Gaussian.

    Attributes:
        beta: beta', the variance of q(x_t | x_s): DDPM's fixedlarge.
        variance: beta~, its own variance: DDPM's fixedsmall.
        x0_weight: the weight of x_0 in its mean.
    """

    beta: float
    variance: float
    x0_weight: float


def posterior_constants(step: Step) -> Posterior:
    """Return the constants of the posterior of a step:

        beta' = 1 - abar_t / abar_s
        beta~ = beta' (1 - abar_s) / (1 - abar_t)
        weight = beta' sqrt(abar_s) / (1 - abar_t)

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 7.
    """
    beta = 1 - step.alpha_bar / step.alpha_bar_next
    share = beta / (1 - step.alpha_bar)
    return Posterior(beta, share * (1 - step.alpha_bar_next), share * sqrt(step.alpha_bar_next))


def learned_variance(raw: Tensor, kind: Variance, step: Step) -> Tensor:
    """Return the variance of x_s that a network's raw output stands for, shaped like raw:

        learned        exp(raw)
        learned_range  exp((1 + v)/2 log beta' + (1 - v)/2 log beta~)
        x0             beta~ + weight^2 Var[x_0 | x_t]

    Args:
        raw: the network's.
        kind: what it holds: ``model.variance``.
        step: gives beta', beta~ and the weight of x_0.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15; Bao et al. 2022, arXiv:2201.06503, theorem 1.
    """
    if kind == "x0":
        posterior = posterior_constants(step)
        return posterior.variance + posterior.x0_weight**2 * raw
    return learned_log_variance(raw, kind, step).exp()


def learned_log_variance(raw: Tensor, kind: Variance, step: Step, first: float = 0.0) -> Tensor:
    """Return the logarithm of `learned_variance`, that of x0 from 1e-12 on.

    ``first`` stands for beta~ at the last step, where beta~ is 0 and ``learned_range`` needs another.
    """
    if kind == "x0":
        return learned_variance(raw, kind, step).clamp(min=_LEAST_VARIANCE).log()
    if kind == "learned":
        return raw
    posterior = posterior_constants(step)
    high, low = log(posterior.beta), log(first if step.last else posterior.variance)
    return ((high - low) / 2 * raw).add_((high + low) / 2)
