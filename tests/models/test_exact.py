"""The exact models against the law they claim, by automatic differentiation of its density."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from bench import EpsilonModel, NoiseSchedule
from models.exact import ExactGaussian, ExactMixture, kernel_density

LINEAR = NoiseSchedule.linear()
D = 4


def gaussian():
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(D, D, generator=generator, dtype=torch.float64) / 2
    mean = torch.randn(1, 2, 2, generator=generator, dtype=torch.float64)
    return ExactGaussian(mean, root @ root.T)


def mixture():
    generator = torch.Generator().manual_seed(2)
    means = torch.randn(3, 1, 2, 2, generator=generator, dtype=torch.float64)
    return ExactMixture(means, 0.3, weights=[0.5, 0.3, 0.2])


def log_density(model, flat, abar):
    """log q(x_t) from the definition of the forward process, by torch's own distributions."""
    identity = torch.eye(D, dtype=torch.float64)
    if isinstance(model, ExactGaussian):
        covariance = abar * model.law_covariance + (1 - abar) * identity
        return MultivariateNormal(math.sqrt(abar) * model.law_mean, covariance).log_prob(flat)
    covariance = (abar * model.std**2 + 1 - abar) * identity
    parts = [MultivariateNormal(math.sqrt(abar) * mean, covariance).log_prob(flat) for mean in model._means]
    return torch.logsumexp(torch.stack(parts) + model._weights.log()[:, None], 0)


@pytest.mark.parametrize("make", [gaussian, mixture])
@pytest.mark.parametrize("t", [0, 10, 300, 999])
def test_eps_is_the_score_and_the_variance_its_derivative(make, t):
    """eps = -sqrt(1 - abar) grad log q; Cov[x_0|x_t] = (1 - abar)/abar (I + (1 - abar) grad^2 log q)."""
    model, abar = make(), LINEAR.alpha_bar(t)
    x = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
    eps, variance, _ = model(x, torch.full((5,), t))

    flat = x.flatten(1).requires_grad_()
    (score,) = torch.autograd.grad(log_density(model, flat, abar).sum(), flat)
    assert torch.allclose(eps.flatten(1), -math.sqrt(1 - abar) * score, rtol=1e-9, atol=1e-9)

    for row in range(5):
        hessian = torch.autograd.functional.hessian(
            lambda v: log_density(model, v[None], abar).sum(), x[row].flatten()
        )
        covariance = (1 - abar) / abar * (torch.eye(D, dtype=torch.float64) + (1 - abar) * hessian)
        assert torch.allclose(variance[row].flatten(), covariance.diagonal(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", [gaussian, mixture])
def test_draws_follow_the_stated_law(make):
    model = make()
    draws = model.draw(20_000, seed=3).double().flatten(1)
    error = (draws.mean(0) - model.law_mean).abs() / (model.law_covariance.diagonal() / 20_000).sqrt()
    assert error.max() < 4.5
    assert torch.allclose(
        draws.T.cov(), model.law_covariance, atol=0.05 * float(model.law_covariance.diagonal().max())
    )
    assert torch.equal(model.draw(10, seed=3), model.draw(10, seed=3))
    assert not torch.equal(model.draw(10, seed=3), model.draw(10, seed=4))


@pytest.mark.parametrize("make", [gaussian, mixture])
def test_float32_keeps_to_float64(make):
    model = make()
    x = torch.randn(8, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    for t in (0, 500, 999):
        single, double = model(x, torch.full((8,), t)), model(x.double(), torch.full((8,), t))
        assert torch.allclose(single.eps.double(), double.eps, atol=2e-3 if t == 0 else 1e-5)


def test_the_kernel_density_of_one_image_is_that_gaussian():
    image = torch.tensor([[[[0, 128], [255, 64]]]], dtype=torch.uint8)
    kernel = kernel_density(image, 0.2)
    same = ExactGaussian(image[0].double() / 127.5 - 1, 0.04 * torch.eye(4, dtype=torch.float64))
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.full((3,), 400)
    for ours, theirs in zip(kernel(x, t)[:2], same(x, t)[:2], strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert torch.allclose(kernel.law_covariance, same.law_covariance)


def test_they_follow_the_protocol_and_tell_laws_apart():
    assert isinstance(gaussian(), EpsilonModel)
    assert isinstance(mixture(), EpsilonModel)
    assert gaussian().fingerprint != mixture().fingerprint
    with pytest.raises(ValueError, match="must be positive"):
        ExactMixture(torch.zeros(1, 1, 2, 2), 0.0)
    with pytest.raises(ValueError, match="as many positive weights"):
        ExactMixture(torch.zeros(2, 1, 2, 2), 1.0, weights=[1.0])
    with pytest.raises(ValueError, match="square covariance"):
        ExactGaussian(torch.zeros(1, 2, 2), torch.eye(3))
