"""Drawing time steps: probabilities, and weights that leave the expected loss unchanged."""

from __future__ import annotations

import torch

from bench.training.timesteps import LossSecondMomentTimesteps, UniformTimesteps

T = 8


def informed():
    sampler = LossSecondMomentTimesteps(T)
    losses = torch.arange(1.0, T + 1)
    for k in range(10):
        sampler.update(torch.arange(T), losses * (1 + 0.1 * k))
    return sampler, losses


def test_probabilities_follow_the_root_of_the_second_moment():
    sampler, losses = informed()
    moments = torch.stack([losses.double() * (1 + 0.1 * k) for k in range(10)]).square().mean(0).sqrt()
    wanted = 0.999 * moments / moments.sum() + 0.001 / T
    assert torch.allclose(sampler.probabilities(), wanted, rtol=1e-6)


def test_uniform_until_every_step_has_ten_losses():
    sampler = LossSecondMomentTimesteps(T)
    for _ in range(10):
        sampler.update(torch.arange(T - 1), torch.ones(T - 1))
    assert torch.equal(sampler.probabilities(), torch.full((T,), 1 / T, dtype=torch.float64))


def test_old_losses_are_forgotten():
    sampler, _ = informed()
    for _ in range(10):
        sampler.update(torch.arange(T), torch.ones(T))
    assert torch.allclose(sampler.probabilities(), torch.full((T,), 1 / T, dtype=torch.float64))


def test_weights_are_unbiased():
    sampler, _ = informed()
    f = torch.linspace(-1, 3, T) ** 3
    p = sampler.probabilities()
    t, weights = sampler.draw(200_000, torch.Generator().manual_seed(0))
    assert torch.allclose(weights.double(), 1 / (T * p[t]), rtol=1e-6)
    frequencies = torch.bincount(t, minlength=T).double() / len(t)
    assert torch.allclose(frequencies, p, atol=5 * (0.25 / len(t)) ** 0.5)
    estimates = weights.double() * f[t].double()
    error = 4 * float(estimates.std()) / len(t) ** 0.5
    assert abs(float(estimates.mean()) - float(f.double().mean())) < error
    unweighted = float(f[t].double().mean())
    assert abs(unweighted - float(f.double().mean())) > 10 * error  # the weights do something


def test_uniform_draws_have_weight_one():
    t, weights = UniformTimesteps(T).draw(10_000, torch.Generator().manual_seed(0))
    assert torch.equal(weights, torch.ones(10_000))
    assert torch.bincount(t, minlength=T).min() > 1000
