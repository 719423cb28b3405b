"""Samplers against closed forms: the variance of their output, and identities between them."""

import math

import pytest
import torch

from bench import (
    NoiseSchedule,
    NotApplicable,
    Prediction,
    UsageError,
    get_sampler,
    learned_variance,
    make_grid,
    sample,
)
from bench.diffusion.noise import normal_noise
from bench.diffusion.orders import GaussianOracle, output_variance

LINEAR = NoiseSchedule.linear()
# Variance of the output for data N(0, 1/4), exact eps, x_T ~ N(0, 1): a recursion in closed form.
VARIANCES = {
    ("uniform", 10): (0.139972, 0.139180, 0.134750, 0.111064, 0.346951),
    ("uniform", 20): (0.188126, 0.187064, 0.181203, 0.153244, 0.296005),
    ("uniform", 50): (0.223199, 0.222362, 0.217764, 0.197245, 0.267526),
    ("uniform", 100): (0.236177, 0.235623, 0.232576, 0.219264, 0.258562),
    ("all", 1000): (0.248498, 0.248417, 0.247981, 0.246125, 0.250752),
    ("quadratic", 10): (0.180218, 0.179015, 0.172328, 0.139039, 0.322601),
}
ROWS = ("ddim:eta=0", "ddim:eta=0.2", "ddim:eta=0.5", "ddim:eta=1", "ddpm:variance=fixedlarge,clip=none")


@pytest.mark.parametrize(("spacing", "steps"), list(VARIANCES))
def test_output_variance_is_the_closed_form(spacing, steps):
    for spec, expected in zip(ROWS, VARIANCES[spacing, steps], strict=True):
        if steps == 1000 and spec not in ("ddim:eta=0", "ddim:eta=1"):
            continue  # a thousand impulses for a thousand steps: two rows are enough
        got = output_variance(get_sampler(spec), LINEAR, make_grid(LINEAR, steps, spacing))
        assert got == pytest.approx(expected, abs=5e-7), spec


def test_optimal_variance_is_exact_on_gaussian_data():
    """With Var[x_0 | x_t] known every reverse step of Gaussian data is exact, at ten steps as at a thousand.

    What is missing is the variance of x_0 given x at t=0: the last step adds no noise.
    """
    grid = make_grid(LINEAR, 10, "linspace")
    got = output_variance(get_sampler("ddpm:variance=learned,clip=none"), LINEAR, grid)
    abar = LINEAR.alpha_bar(0)
    missing = 0.25 * (1 - abar) / (0.25 * abar + 1 - abar)
    assert got == pytest.approx(0.25 - missing, abs=1e-8)


class Wild:
    """Predicts eps large enough that x_0 leaves [-1, 1] at most pixels."""

    schedule, shape, variance = LINEAR, (3, 8, 8), "fixed"

    def __call__(self, x, t):
        return Prediction(0.9 * torch.sin(3 * x) + 0.1 * x)


def run(spec, dtype=torch.float64, steps=10, spacing="uniform"):
    x = normal_noise(0, range(3), 0, (3, 8, 8)).to(dtype)
    grid = make_grid(LINEAR, steps, spacing)

    def noise(index):
        return normal_noise(0, range(3), index + 1, (3, 8, 8)).to(dtype)

    return sample(Wild(), get_sampler(spec), grid, x, noise)


def gap(one, other, **options):
    return float((run(one, **options) - run(other, **options)).abs().max())


def test_fixedsmall_with_clamped_x0_is_ddim_at_eta_one_with_eps_rederived():
    for spacing in ("uniform", "quadratic"):
        assert gap("ddpm:variance=fixedsmall,clip=x0", "ddim:eta=1,clip=x0", spacing=spacing) < 1e-12


def test_the_three_clip_modes_differ():
    assert gap("ddim:eta=1,clip=x0", "ddim:eta=1,clip=x0-raw-eps") > 0.1
    assert gap("ddim:eta=1,clip=x0", "ddim:eta=1,clip=none") > 0.1


def test_without_clipping_fixedsmall_is_ddim_at_eta_one():
    """Relative, because x_0 leaves [-1, 1] by far on this network."""
    one, other = run("ddpm:variance=fixedsmall,clip=none"), run("ddim:eta=1,clip=none")
    assert float(((one - other) / one.abs().clamp(min=1)).abs().max()) < 1e-10


@pytest.mark.parametrize("spec", ["ddim:eta=1", "ddpm", "sigma-hat", "ddpm:variance=learned"])
@pytest.mark.parametrize("spacing", ["uniform", "trailing"])
def test_no_noise_at_the_last_step(spec, spacing):
    asked = []
    grid = make_grid(LINEAR, 7, spacing)
    x = normal_noise(0, range(2), 0, (1, 2, 2))
    sample(
        GaussianOracle(LINEAR), get_sampler(spec), grid, x, lambda i: asked.append(i) or torch.zeros_like(x)
    )
    assert asked == list(range(len(grid) - 1))


def test_ddim_without_noise_never_asks_for_any():
    def noise(index):
        raise AssertionError("eta=0 asked for noise")

    x = normal_noise(0, range(2), 0, (1, 2, 2))
    sample(GaussianOracle(LINEAR), get_sampler("ddim"), make_grid(LINEAR, 10), x, noise)


def test_a_repeated_step_changes_nothing():
    x = normal_noise(0, range(2), 0, (1, 2, 2)).double()
    by_level = {500: torch.ones_like(x), 0: torch.zeros_like(x)}
    for spec in ("ddim:eta=1", "ddpm", "sigma-hat", "ddpm:variance=learned"):
        once = make_grid(LINEAR, spacing=[0, 500])
        twice = make_grid(LINEAR, spacing=[0, 500, 500])
        ends = [
            sample(GaussianOracle(LINEAR), get_sampler(spec), grid, x, lambda i, g=grid: by_level[g[i].t])
            for grid in (once, twice)
        ]
        assert torch.allclose(*ends, rtol=0, atol=1e-14)


def test_learned_range_spans_the_two_fixed_variances():
    step = make_grid(LINEAR, 10)[3]
    beta = 1 - step.alpha_bar / step.alpha_bar_next
    beta_tilde = beta * (1 - step.alpha_bar_next) / (1 - step.alpha_bar)
    v = torch.tensor([-1.0, 1.0, 0.0], dtype=torch.float64)
    low, high, middle = learned_variance(v, "learned_range", step)
    assert float(low) == pytest.approx(beta_tilde, rel=1e-12)
    assert float(high) == pytest.approx(beta, rel=1e-12)
    assert float(middle) == pytest.approx(math.sqrt(beta * beta_tilde), rel=1e-12)


def test_a_model_without_variance_has_no_learned_row():
    x = normal_noise(0, range(1), 0, (3, 8, 8))
    with pytest.raises(NotApplicable, match="predicts no variance"):
        sample(Wild(), get_sampler("ddpm:variance=learned"), make_grid(LINEAR, 10), x, torch.zeros_like)


def test_noise_above_what_x_can_hold_is_kept_finite():
    end = run("ddim:eta=5")
    assert bool(torch.isfinite(end).all())


def test_specs_round_trip_and_name_their_parameters():
    spec = "ddim:eta=0.35,clip=x0-raw-eps"
    assert get_sampler(spec).spec == spec
    assert get_sampler("ddim").label == "ddim eta=0"
    assert get_sampler("sigma-hat").spec == "ddpm:variance=fixedlarge,clip=x0"
    assert get_sampler("sigma-hat").label == "sigma-hat"
    assert get_sampler("ddpm:variance=learned,clip=none").label == "ddpm learned clip none"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("dddim", "did you mean ddim"),
        ("ddim:eta=-1", "ddim:eta must be at least 0, got -1"),
        ("ddim:eta=nan", "must be a finite number"),
        ("ddim:eta=high", "must be a finite number, got 'high'"),
        ("ddim:clip=maybe", "one of none, x0, x0-raw-eps"),
        ("ddim:et=1", "unknown parameter of sampler ddim 'et'; did you mean eta"),
        ("ddim:eta", "expected key=value"),
    ],
)
def test_bad_specs_are_refused_in_a_sentence(spec, sentence):
    with pytest.raises(UsageError, match=sentence):
        get_sampler(spec)
