"""The objectives against plain float64 evaluations of the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from bench import NoiseSchedule, UsageError
from bench.training.losses import DiffusionLoss

SHAPE = (2, 3, 3)


def posterior(schedule, t, x0, xt):
    """Mean and variance of q(x_{t-1} | x_t, x_0), DDPM eqs. 6 and 7."""
    beta = float(schedule.betas[t])
    abar, before = schedule.alpha_bar(t), schedule.alpha_bar(t - 1)
    mean = math.sqrt(before) * beta / (1 - abar) * x0 + math.sqrt(1 - beta) * (1 - before) / (1 - abar) * xt
    return mean, beta * (1 - before) / (1 - abar)


def bound_in_bits(schedule, t, x0, xt, eps, log_variance):
    """T L_t in bits per dimension of one image, everything in float64 and written out."""
    beta, abar = float(schedule.betas[t]), schedule.alpha_bar(t)
    mean = (xt - beta / math.sqrt(1 - abar) * eps) / math.sqrt(1 - beta)
    model = Normal(mean, (0.5 * log_variance).exp())
    if t > 0:
        true_mean, true_variance = posterior(schedule, t, x0, xt)
        nats = kl_divergence(Normal(true_mean, math.sqrt(true_variance)), model)
    else:
        upper = torch.where(x0 > 0.999, 1.0, model.cdf(x0 + 1 / 255))
        lower = torch.where(x0 < -0.999, 0.0, model.cdf(x0 - 1 / 255))
        nats = -(upper - lower).log()
    return schedule.T * nats.mean() / math.log(2)


def case(schedule, steps, seed=0):
    g = torch.Generator().manual_seed(seed)
    t = torch.tensor(steps)
    levels = torch.randint(0, 256, (len(t), *SHAPE), generator=g)
    levels[:, 0, 0, 0], levels[:, 0, 0, 1] = 0, 255  # the open outer bins
    x0 = levels.double() / 127.5 - 1
    noise = torch.randn(x0.shape, generator=g, dtype=torch.float64)
    error = 0.1 * torch.randn(x0.shape, generator=g, dtype=torch.float64)
    v = 2 * torch.rand(x0.shape, generator=g, dtype=torch.float64) - 1
    return t, x0, noise, noise + error, v


@pytest.mark.parametrize(
    "schedule", [NoiseSchedule.linear(1000), NoiseSchedule.cosine(50)], ids=["linear", "cosine"]
)
@pytest.mark.parametrize("variance", ["learned_range", "fixedsmall", "fixedlarge"])
def test_terms_equal_the_formulas_in_float64(schedule, variance):
    last = schedule.T - 2  # the cosine's clipped last step is tested by its neighbours
    t, x0, noise, eps, v = case(schedule, [0, 0, 1, 2, last // 2, last])
    loss = DiffusionLoss(schedule, "vlb", variance)
    x_t = loss.diffuse(x0, t, noise)
    output = torch.cat([eps, v], 1) if variance == "learned_range" else eps
    got = loss(output.float(), x0.float(), x_t.float(), t, noise.float())
    for i, step in enumerate(t.tolist()):
        abar = schedule.alpha_bar(step)
        assert torch.allclose(x_t[i], math.sqrt(abar) * x0[i] + math.sqrt(1 - abar) * noise[i], rtol=1e-14)
        high = math.log(float(schedule.betas[step]))
        low = math.log(posterior(schedule, max(step, 1), x0[i], x_t[i])[1])
        share = {"fixedsmall": 0.0, "fixedlarge": 1.0, "learned_range": (v[i] + 1) / 2}[variance]
        log_variance = torch.as_tensor(share * high + (1 - share) * low, dtype=torch.float64).expand_as(x0[i])
        want = bound_in_bits(schedule, step, x0[i], x_t[i], eps[i], log_variance)
        # fixedsmall at t = 1, 2 subtracts float32 numbers near 1
        assert float(got.vlb[i]) == pytest.approx(float(want), rel=2e-4, abs=1e-3)
        assert float(got.simple[i]) == pytest.approx(float((eps[i] - noise[i]).square().mean()), rel=1e-5)
    assert torch.equal(got.total, got.vlb)


def test_the_hybrid_is_the_weighted_sum():
    schedule = NoiseSchedule.linear()
    t, x0, noise, eps, v = (u.float() if u.is_floating_point() else u for u in case(schedule, [0, 3, 700]))
    loss = DiffusionLoss(schedule, "hybrid", "learned_range", vlb_weight=0.25)
    got = loss(torch.cat([eps, v], 1), x0, loss.diffuse(x0, t, noise).float(), t, noise)
    assert torch.allclose(got.total, got.simple + 0.25 * got.vlb)


def gradients(objective):
    schedule = NoiseSchedule.linear()
    t, x0, noise, eps, v = (u.float() if u.is_floating_point() else u for u in case(schedule, [0, 1, 500]))
    eps.requires_grad_(), v.requires_grad_()
    loss = DiffusionLoss(schedule, objective, "learned_range")
    loss(torch.cat([eps, v], 1), x0, loss.diffuse(x0, t, noise).float(), t, noise).total.sum().backward()
    return eps, v, noise


def test_the_hybrid_stops_the_gradient_of_the_mean():
    eps, v, noise = gradients("hybrid")
    dimensions = math.prod(SHAPE)
    simple = (2 * (eps - noise) / dimensions).detach()
    assert torch.allclose(eps.grad, simple, rtol=1e-4, atol=1e-7)  # of L_simple alone
    assert (v.grad != 0).all()
    eps, _, noise = gradients("vlb")
    assert not torch.allclose(eps.grad, (2 * (eps - noise) / dimensions).detach(), rtol=0.1)


def test_the_variance_of_least_bound_is_the_error_of_the_mean():
    # KL(N(m1, s1) || N(m2, s2)) is least at s2 = s1 + (m1 - m2)^2: gradient descent on v must find it.
    schedule = NoiseSchedule.linear()
    t = torch.full((1,), 10)
    x0 = torch.zeros(1, *SHAPE)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    eps = noise + 0.12
    loss = DiffusionLoss(schedule, "hybrid", "learned_range", vlb_weight=1.0)
    v = torch.zeros(x0.shape, requires_grad=True)
    optimiser = torch.optim.LBFGS([v], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimiser.zero_grad()
        total = loss(torch.cat([eps, v], 1), x0, loss.diffuse(x0, t, noise).float(), t, noise).total.sum()
        total.backward()
        return total

    optimiser.step(closure)
    beta, abar, before = float(schedule.betas[10]), schedule.alpha_bar(10), schedule.alpha_bar(9)
    low = beta * (1 - before) / (1 - abar)
    best = low + beta**2 / ((1 - beta) * (1 - abar)) * 0.12**2
    share = (math.log(best) - math.log(low)) / (math.log(beta) - math.log(low))
    assert torch.allclose((v + 1) / 2, torch.full_like(v, share), rtol=1e-3)


def test_a_network_without_a_variance_is_refused():
    loss = DiffusionLoss(NoiseSchedule.linear(), "hybrid", "learned_range")
    x = torch.zeros(1, *SHAPE)
    with pytest.raises(UsageError, match="needs a network with 4 output channels, got 2"):
        loss(x, x, x, torch.zeros(1, dtype=torch.int64), x)
    with pytest.raises(UsageError, match="needs learned_range"):
        DiffusionLoss(NoiseSchedule.linear(), "hybrid", "fixedlarge")
