"""The variational bound on -log p(x_0), term by term, on any sub-sequence of time steps.

For the time steps tau of a grid, t -> s from each to the next one taken, and abar of the chosen steps,

    -log p(x_0) <= KL(q(x_max(tau) | x_0) || N(0, I))              prior
                 + sum_t E KL(q(x_s | x_t, x_0) || p(x_s | x_t))   one term a step but the last
                 - E log p(x_0 | x_min(tau))                       decoder

(Ho et al. 2020, arXiv:2006.11239, eq. 5; on a sub-sequence Nichol & Dhariwal 2021, arXiv:2102.09672,
eqs. 4 to 7 with the betas of the chosen steps). The mean of q(x_s | x_t, x_0) holds x_0 with the weight w,
that of p(x_s | x_t) holds the predicted x_0^ with the same, and both hold x_t alike, so that for a reverse
variance sigma^2 each dimension has

    KL = 1/2 (log(sigma^2 / beta~) - 1 + (beta~ + w^2 (x_0 - x_0^)^2) / sigma^2)

without the difference of two nearly equal means. Everything but the network is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bench.diffusion.grid import Grid, Step
from bench.diffusion.interfaces import EpsilonModel, Prediction, Variance
from bench.diffusion.noise import normal_noise
from bench.diffusion.posterior import (
    Posterior,
    diffuse,
    learned_log_variance,
    posterior_constants,
    posterior_mean,
    predict_x0,
)
from bench.diffusion.terms import discretised_gaussian_nll, gaussian_kl, prior_term
from bench.errors import NotApplicable

ReverseVariance = Literal["fixedsmall", "fixedlarge", "learned"]
"""The variance of p(x_s | x_t): beta~, beta', or what the network says."""


BoundClip = Literal["x0", "none"]
"""What is done to a predicted x_0: clamped to [-1, 1], as the published bounds are computed; or nothing."""


NOISE_DRAW = 1 << 32
"""``draw`` of the noise in x_t: no sampler counts that far, so no trajectory shares it."""


@dataclass(frozen=True)
class Chain:
    """A reverse process: which time steps, and which variance.

    Attributes:
        steps: from the noisiest; no level twice, for a repeated step is the identity in q and in p.
        variance: the variance of p(x_s | x_t).
    """

    steps: tuple[Step, ...]
    variance: ReverseVariance

    @classmethod
    def of(cls, grid: Grid, variance: ReverseVariance) -> Chain:
        """Return the chain through the distinct levels of a grid."""
        levels = tuple(sorted(set(grid.timesteps), reverse=True))
        return cls(tuple(Grid(grid.schedule, levels, grid.spacing, grid.requested)), variance)

    @property
    def first_variance(self) -> float:
        """The variance that stands for beta~ at the step to x_0, where beta~ is 0: that of the step before.

        A chain of a single step has none before it and takes beta' = 1 - abar.

        Source: Ho et al. 2020 and Nichol & Dhariwal 2021, published code. Bao et al. 2022 take beta~ of the
        full schedule's second step whatever the sub-sequence.
        """
        if len(self.steps) == 1:
            return posterior_constants(self.steps[0]).beta
        return posterior_constants(self.steps[-2]).variance


class BoundTerms(NamedTuple):
    """The bound of each image, in bits per dimension; float64, on the CPU.

    Attributes:
        prior: (B,).
        kl: one row for each step but the last, from the noisiest; (S - 1, B).
        decoder: (B,).
    """

    prior: Tensor
    kl: Tensor
    decoder: Tensor

    @property
    def total(self) -> Tensor:
        """Sum of the terms, (B,)."""
        return self.prior + self.kl.sum(0) + self.decoder


def variational_bounds(
    model: EpsilonModel,
    x0: Tensor,
    chains: Sequence[Chain],
    noise: Callable[[int], Tensor],
    clip: BoundClip = "x0",
    after_level: Callable[[int], None] = lambda t: None,
) -> list[BoundTerms]:
    """Return the terms of the bound for several chains, one draw of x_t for each image and time step.

    x_t depends on the image and on t alone, so chains that visit the same t share the network's answer: the
    cost is one call for each time step that any of them visits, and their bounds can be compared in pairs.

    Args:
        model: the noise predictor; ``learned`` chains need one that predicts a variance.
        x0: images in [-1, 1], float64, (B, C, H, W).
        chains: from `Chain.of`, on the model's schedule.
        noise: noise(t) -> standard normal values shaped like x0, in the dtype that the network is called in;
            see `bound_noise`.
        clip: ``x0`` clamps the predicted x_0 to [-1, 1], as published; or ``none``.
        after_level: told t after each network call.

    Raises:
        NotApplicable: if a variance is to be learned and the model predicts none, or nothing tells x_0.
    """
    if model.variance == "fixed" and any(chain.variance == "learned" for chain in chains):
        raise NotApplicable("the model predicts no variance")
    visits: dict[int, list[tuple[int, Step]]] = {}
    for place, chain in enumerate(chains):
        for step in chain.steps:
            visits.setdefault(int(step.t), []).append((place, step))
    x0 = x0.double()
    rows: list[list[Tensor]] = [[prior_term(x0, chain.steps[0].alpha_bar)] for chain in chains]
    for t in sorted(visits, reverse=True):
        at, z = visits[t][0][1], noise(t)
        x = diffuse(x0, z, at.alpha_bar).to(z.dtype)
        seen = _Seen.of(model, x0, x, at, clip)
        for place, step in visits[t]:
            rows[place].append(_term(chains[place], step, seen))
        after_level(t)
    return [_terms(chain) for chain in rows]


def bound_noise(
    seed: int, indices: Sequence[int] | range, shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> Callable[[int], Tensor]:
    """Return noise(t), a function of the seed, the image's index and t: the same on every sub-sequence."""
    return lambda t: normal_noise(seed, indices, t + 1, shape, draw=NOISE_DRAW, device=device)


class _Seen(NamedTuple):
    """What the network said of one time step, float64.

    Attributes:
        x0: the images.
        x: x_t.
        predicted: x_0^.
        square: (x_0 - x_0^)^2.
        mean_square: its mean over the dimensions, (B,).
        raw: its raw variance.
        kind: what that holds.
    """

    x0: Tensor
    x: Tensor
    predicted: Tensor
    square: Tensor
    mean_square: Tensor
    raw: Tensor | None
    kind: Variance

    @classmethod
    def of(cls, model: EpsilonModel, x0: Tensor, x: Tensor, step: Step, clip: BoundClip) -> _Seen:
        eps, raw, own = model(x, step.times(x))
        x, eps = x.double(), eps.double()
        raw, own = (None if part is None else part.double() for part in (raw, own))
        # Only x_0 is wanted; which eps would go with the clamped one does not matter.
        told = Prediction(eps, raw, own)
        predicted, _ = predict_x0(x, told, step.alpha_bar, "none" if clip == "none" else "x0-raw-eps")
        square = (x0 - predicted).square()
        return cls(x0, x, predicted, square, square.flatten(1).mean(1), raw, model.variance)


def _term(chain: Chain, step: Step, seen: _Seen) -> Tensor:
    """Return the term of one step in bits per dimension, (B,)."""
    posterior = posterior_constants(step)
    log_variance: Tensor | float
    if chain.variance == "learned":
        assert seen.raw is not None  # the model said it predicts one
        log_variance = learned_log_variance(seen.raw, seen.kind, step, chain.first_variance)
    elif step.last:
        log_variance = log(chain.first_variance)
    else:
        log_variance = log(posterior.beta if chain.variance == "fixedlarge" else posterior.variance)
    if step.last:
        mean = posterior_mean(seen.x, seen.predicted, step)
        nats = discretised_gaussian_nll(seen.x0, mean, log_variance)
    elif chain.variance == "learned":
        nats = _kl(posterior, seen.square, log_variance)
    else:  # linear in the square: its mean is enough
        return _kl(posterior, seen.mean_square, log_variance) / log(2)
    return nats.flatten(1).mean(1) / log(2)


def _kl(posterior: Posterior, square: Tensor, log_variance: Tensor | float) -> Tensor:
    """Return the divergence in nats where the means differ by the weight of x_0 times x_0 - x_0^."""
    return gaussian_kl(log(posterior.variance), posterior.x0_weight**2 * square, log_variance)


def _terms(rows: list[Tensor]) -> BoundTerms:
    table = torch.stack(rows).cpu()
    return BoundTerms(table[0], table[1:-1], table[-1])
