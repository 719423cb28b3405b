"""The training objectives, one number an image: L_simple, the terms of L_vlb, and L_hybrid."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bench.diffusion.posterior import diffuse, predict_x0
from bench.diffusion.schedule import NoiseSchedule
from bench.diffusion.terms import discretised_gaussian_nll, gaussian_kl, gaussian_nll
from bench.errors import UsageError
from bench.training.config import Objective, TrainedVariance

_LEAST = 1e-12  # of a bin's probability: its logarithm stays finite and keeps a gradient elsewhere


class Losses(NamedTuple):
    """Per image, shape (B,) each.

    Attributes:
        total: what is minimised, before any weight of the time-step sampler.
        simple: mean over the dimensions of (eps - eps_theta)^2.
        vlb: T L_t in bits per dimension, whose mean over uniform t is L_vlb without the prior term.
    """

    total: Tensor
    simple: Tensor
    vlb: Tensor


class DiffusionLoss:
    """Computes the losses of one network output.

        L_simple = E ||eps - eps_theta(x_t, t)||^2 / D
        L_vlb    = sum_t L_t,  L_0 = -log p(x_0 | x_1),  L_t = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))
        L_hybrid = L_simple + lambda L_vlb, with the gradient of L_vlb through the mean stopped

    With both means functions of eps, (mu~ - mu)^2 = beta_t^2 (eps - eps_theta)^2 / (alpha_t (1 - abar_t)).

    Args:
        schedule: gives beta_t and abar_t.
        objective: which of the three is the total.
        variance: ``fixedsmall``, ``fixedlarge`` or ``learned_range``.
        vlb_weight: lambda.
        device: where the tables lie.
        discrete: whether x_0 lies on the 256 levels of images; L_0 of latents is that of a density instead.

    Source: Ho et al. 2020, arXiv:2006.11239, eqs. 5, 7, 13, 14; Nichol & Dhariwal 2021, arXiv:2102.09672,
    eqs. 15 and 16.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        objective: Objective,
        variance: TrainedVariance,
        vlb_weight: float = 0.001,
        device: torch.device | str = "cpu",
        discrete: bool = True,
    ) -> None:
        if objective == "hybrid" and variance != "learned_range":
            raise UsageError(f"L_hybrid trains the variance, so it needs learned_range, not {variance}")
        self.objective, self.variance, self.vlb_weight, self.T = objective, variance, vlb_weight, schedule.T
        self._nll = _of_level if discrete else gaussian_nll
        betas, abar = schedule.betas, schedule.alphas_cumprod
        before = torch.cat([abar.new_ones(1), abar[:-1]])
        posterior = betas * (1 - before) / (1 - abar)
        if schedule.T > 1:
            posterior[0] = posterior[1]  # beta~_0 = 0 has no logarithm
        else:
            posterior[0] = betas[0]
        self._abar = abar.to(device)
        self._first = float(abar[0])
        self._low = posterior.log().to(device)
        self._high = betas.log().to(device)
        self._mean_scale = (betas**2 / ((1 - betas) * (1 - abar))).to(device)

    def diffuse(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return x_t, shaped like x0 (B, C, H, W), for time steps t, int64 (B,); see `bench.diffuse`."""
        return diffuse(x0, noise, self._abar[t])

    def __call__(self, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Losses:
        """Return the losses of each image.

        Args:
            output: what the network returned: eps, or eps and v along the channels; (B, C or 2C, H, W).
            x0: images in [-1, 1], (B, C, H, W).
            x_t: from :meth:`diffuse`.
            t: int64 (B,).
            noise: the eps of x_t.

        Raises:
            UsageError: if the network's channels do not fit the variance.
        """
        channels = x0.shape[1]
        wanted = 2 * channels if self.variance == "learned_range" else channels
        if output.shape[1] != wanted:
            raise UsageError(
                f"variance {self.variance} needs a network with {wanted} output channels, got"
                f" {output.shape[1]}"
            )
        output = output.float()
        eps = output[:, :channels]
        simple = (eps - noise).square().flatten(1).mean(1)
        mean_eps = eps.detach() if self.objective == "hybrid" else eps
        log_variance = self._log_variance(output, t, x0)
        if self.objective == "simple":
            with torch.no_grad():
                vlb = self._bound(mean_eps, log_variance, x0, x_t, t, noise)
            return Losses(simple, simple.detach(), vlb)
        vlb = self._bound(mean_eps, log_variance, x0, x_t, t, noise)
        total = vlb if self.objective == "vlb" else simple + self.vlb_weight * vlb
        return Losses(total, simple.detach(), vlb.detach())

    def _log_variance(self, output: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        low, high = _at(self._low, t, x0), _at(self._high, t, x0)
        if self.variance == "learned_range":
            share = (output[:, x0.shape[1] :] + 1) / 2
            return share * high + (1 - share) * low
        return (low if self.variance == "fixedsmall" else high).expand_as(x0)

    def _bound(
        self, eps: Tensor, log_variance: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        distance = _at(self._mean_scale, t, x0) * (eps - noise).square()
        nats = gaussian_kl(_at(self._low, t, x0), distance, log_variance).flatten(1).mean(1)
        first = (t == 0).nonzero().squeeze(1)
        if len(first):
            nats = nats.index_put(
                (first,), self._decoder(eps[first], log_variance[first], x0[first], x_t[first])
            )
        return nats * (self.T / math.log(2))

    def _decoder(self, eps: Tensor, log_variance: Tensor, x0: Tensor, x_t: Tensor) -> Tensor:
        """Return -log p(x_0 | x_1) in nats per dimension; the mean is x_0 as the network predicts it."""
        mean, _ = predict_x0(x_t, eps, self._first)
        nll = self._nll(x0.double(), mean.double(), log_variance.double())
        return nll.flatten(1).mean(1).float()


def _of_level(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    return discretised_gaussian_nll(x0, mean, log_variance, _LEAST)


def _at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    return table[t].to(like.dtype).view(-1, *(1,) * (like.ndim - 1))
