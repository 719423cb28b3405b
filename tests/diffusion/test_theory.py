"""The steps of docs/theory.md that no other test proves, each against an independent derivation."""

import itertools
import math

import pytest
import torch

from bench import (
    NoiseSchedule,
    Prediction,
    classifier_guided,
    diffuse,
    get_sampler,
    guided,
    make_grid,
    posterior_constants,
    posterior_mean,
    predict_x0,
    trajectory,
)
from bench.diffusion.orders import GaussianOracle, MixtureOracle
from bench.diffusion.terms import gaussian_kl

LINEAR = NoiseSchedule.linear()
GRIDS = [make_grid(LINEAR, 10), make_grid(LINEAR, 7, "trailing"), make_grid(LINEAR, spacing="all")]
ONE, ZERO = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)


def test_steps_of_the_forward_process_compose():
    """Step by step x_t = sqrt(1 - beta_t) x_(t-1) + sqrt(beta_t) z: its mean's factor and its variance."""
    factor, variance = 1.0, 0.0
    for t, beta in enumerate(LINEAR.betas.tolist()):
        factor, variance = math.sqrt(1 - beta) * factor, (1 - beta) * variance + beta
        abar = LINEAR.alpha_bar(t)
        assert float(diffuse(ONE, ZERO, abar)) == pytest.approx(factor, rel=1e-12)
        assert float(diffuse(ZERO, ONE, abar)) ** 2 == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.spacing}-{len(grid)}")
def test_the_posterior_is_bayes_rule(grid):
    """The law of x_s given x_t, from the joint Gaussian of both given x_0: covariance over variance."""
    for step in grid:
        here, there = step.alpha_bar, step.alpha_bar_next
        keep = math.sqrt(here / there)  # x_t = keep x_s + noise
        gain = keep * (1 - there) / (1 - here)
        beta, variance, _ = posterior_constants(step)
        assert beta == pytest.approx(1 - keep**2, rel=1e-9)
        assert variance == pytest.approx((1 - there) - gain * keep * (1 - there), rel=1e-6, abs=1e-15)
        of_x0 = float(posterior_mean(ZERO, ONE, step))
        assert of_x0 == pytest.approx(math.sqrt(there) - gain * math.sqrt(here), rel=1e-6)
        assert float(posterior_mean(ONE, ZERO, step)) == pytest.approx(gain, rel=1e-9, abs=1e-15)


def normal(x, mean, variance):
    return torch.exp(-((x - mean) ** 2) / (2 * variance)) / torch.sqrt(
        2 * math.pi * torch.as_tensor(variance)
    )


def test_the_best_prediction_is_the_mean_of_the_noise_and_the_score():
    """E[eps | x_t] by a sum over x_0, and -sqrt(1 - abar) d log p / dx by differences, of a mixture."""
    oracle = MixtureOracle()
    x0 = torch.linspace(-5, 5, 40_001, dtype=torch.float64)
    law = sum(
        w * normal(x0, m, s**2) for w, m, s in zip(oracle.weights, oracle.means, oracle.stds, strict=True)
    )
    for t in (0.1, 0.4, 0.8):
        abar = oracle.schedule.alpha_bar(t)

        def density(x, abar=abar):
            return (law * normal(x, math.sqrt(abar) * x0, 1 - abar)).sum()

        for x in (-1.3, 0.2, 0.9):
            eps = (x - math.sqrt(abar) * x0) / math.sqrt(1 - abar)
            weight = law * normal(x, math.sqrt(abar) * x0, 1 - abar)
            told = float(oracle(x * ONE, torch.tensor([t], dtype=torch.float64)).eps)
            assert told == pytest.approx(float((weight * eps).sum() / weight.sum()), abs=1e-8)
            h = 1e-4
            slope = float(density(x + h).log() - density(x - h).log()) / (2 * h)
            assert told == pytest.approx(-math.sqrt(1 - abar) * slope, abs=1e-6)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.spacing}-{len(grid)}")
def test_a_term_of_the_bound_is_a_weighted_error_of_the_noise(grid):
    x, eps, guess = torch.tensor(0.7).double(), torch.tensor(-0.4).double(), torch.tensor(0.9).double()
    for step in list(grid)[:-1]:
        beta, tilde, weight = posterior_constants(step)
        told, meant = (predict_x0(x, one, step.alpha_bar)[0] for one in (guess, eps))
        for variance in (tilde, beta):
            off = gaussian_kl(math.log(tilde), weight**2 * (meant - told) ** 2, math.log(variance))
            on = gaussian_kl(math.log(tilde), torch.zeros_like(x), math.log(variance))
            factor = beta**2 / (2 * variance * (1 - beta) * (1 - step.alpha_bar))
            assert float(off - on) == pytest.approx(factor * float(eps - guess) ** 2, rel=1e-6)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.spacing}-{len(grid)}")
def test_the_two_fixed_variances_are_those_of_a_point_and_of_white_noise(grid):
    """Of data N(0, s^2) the variance of x_s given x_t is known: s = 0 has beta~, s = 1 has beta'."""
    for step in grid:
        beta, tilde, _ = posterior_constants(step)
        for spread, fixed in ((0.0, tilde), (1.0, beta)):
            there = step.alpha_bar_next * spread**2 + 1 - step.alpha_bar_next
            here = step.alpha_bar * spread**2 + 1 - step.alpha_bar
            true = there - (step.alpha_bar / step.alpha_bar_next) * there**2 / here
            assert fixed == pytest.approx(true, rel=1e-6, abs=1e-14)


class Knowing:
    """A model that knows x_0, and so the noise in any x_t: data that are a point."""

    schedule, shape, variance = LINEAR, (1, 1, 1), "fixed"

    def __init__(self, x0):
        self.x0 = x0

    def __call__(self, x, t):
        abar = self.schedule.alpha_bars(t).view(-1, 1, 1, 1)
        return Prediction((x - abar.sqrt() * self.x0) / (1 - abar).sqrt())


@pytest.mark.parametrize("eta", [0, 0.3, 1])
@pytest.mark.parametrize("grid", GRIDS[:2], ids=lambda grid: grid.spacing)
def test_every_member_of_ddim_s_family_has_the_marginals_of_the_forward_process(grid, eta):
    """Row 0 starts from the mean of x_T, row 1 has an impulse in x_T, the others one in a draw of noise."""
    x0, rows = 0.8, len(grid) + 2
    unit = torch.eye(rows, dtype=torch.float64).view(rows, rows, 1, 1, 1)
    first = grid[0].alpha_bar
    start = math.sqrt(first) * x0 + math.sqrt(1 - first) * unit[1]
    states = trajectory(Knowing(x0), get_sampler(f"ddim:eta={eta}"), grid, start, lambda i: unit[i + 2])
    for step, state in zip(grid, states, strict=True):
        mean, *impulses = state.flatten().tolist()
        assert mean == pytest.approx(math.sqrt(step.alpha_bar_next) * x0, rel=1e-9)
        variance = sum((one - mean) ** 2 for one in impulses)
        assert variance == pytest.approx(1 - step.alpha_bar_next, rel=1e-9, abs=1e-12)


def test_ddim_without_noise_is_euler_s_method_on_the_probability_flow():
    """With y = x / sqrt(abar) and sigma = sqrt(1 / abar - 1): dy = eps dsigma."""
    model, grid = GaussianOracle(LINEAR), make_grid(LINEAR, 13)
    start = torch.linspace(-2, 2, 8, dtype=torch.float64).view(2, 1, 2, 2)
    y = start / math.sqrt(grid[0].alpha_bar)
    for step, state in zip(grid, trajectory(model, get_sampler("ddim"), grid, start, None), strict=True):
        before, after = (math.sqrt(1 / abar - 1) for abar in (step.alpha_bar, step.alpha_bar_next))
        y = y + (after - before) * model(math.sqrt(step.alpha_bar) * y, step.times(y)).eps
        torch.testing.assert_close(state, math.sqrt(step.alpha_bar_next) * y, rtol=1e-12, atol=1e-12)


def test_betas_of_a_sub_sequence_are_those_of_a_schedule_of_its_own():
    """A schedule of the betas of the chosen steps has their abar, and every constant of the posterior."""
    grid = make_grid(LINEAR, 20, "openai")
    betas = [posterior_constants(step).beta for step in grid][::-1]
    whole = make_grid(NoiseSchedule.from_betas(betas), spacing="all")
    for step, other in itertools.zip_longest(grid, whole):
        assert step.alpha_bar == pytest.approx(other.alpha_bar, rel=1e-12)
        assert posterior_constants(step) == pytest.approx(posterior_constants(other), rel=1e-9)


class TwoClasses:
    """Classes N(1, 0.3) and N(-0.5, 0.2) of weight 0.4 and 0.6; label 2 is none."""

    schedule, shape, variance, prediction, classes = LINEAR, (1, 1, 1), "fixed", "eps", 2
    means, spreads, weights = (1.0, -0.5), (0.3, 0.2), (0.4, 0.6)

    def log_densities(self, x, t):
        """log of weight times density at x_t of each class, (2, B, 1, 1, 1)."""
        abar = self.schedule.alpha_bars(t).view(-1, 1, 1, 1)
        rows = []
        for mean, spread, weight in zip(self.means, self.spreads, self.weights, strict=True):
            total = abar * spread + 1 - abar
            rows.append(math.log(weight) - total.log() / 2 - (x - abar.sqrt() * mean) ** 2 / (2 * total))
        return torch.stack(rows)

    def slope(self, x, t, of):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(of(self.log_densities(x, t)).sum(), x)[0]

    def __call__(self, x, t, label):
        abar = self.schedule.alpha_bars(t).view(-1, 1, 1, 1)
        of = {0: lambda rows: rows[0], 1: lambda rows: rows[1], 2: lambda rows: rows.logsumexp(0)}
        parts = [self.slope(x, t, of[int(one)])[row] for row, one in enumerate(label)]
        return Prediction(-(1 - abar).sqrt() * torch.stack(parts))

    def classifier(self, x, t):
        """grad log p(label 0 | x_t), by Bayes' rule."""
        return self.slope(x, t, lambda rows: rows[0] - rows.logsumexp(0))


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_a_classifier_s_gradient_and_guidance_without_one_are_one_formula(scale):
    net = TwoClasses()
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(-1, 1, 1, 1)
    unconditional = guided(net, [2] * 9)
    for t in (50, 400, 900):
        at = torch.full((9,), t)
        by_classifier = classifier_guided(unconditional, net.classifier, scale)(x, at).eps
        free = guided(net, [0] * 9, scale)(x, at).eps
        torch.testing.assert_close(by_classifier, free, rtol=1e-9, atol=1e-9)
        if scale == 1:  # Bayes: the score of the class itself
            torch.testing.assert_close(free, net(x, at, torch.zeros(9)).eps, rtol=1e-12, atol=1e-12)
