"""Schedules against the constants of the papers and their code."""

import math

import pytest
import torch

from bench import NoiseSchedule, make_grid, posterior_constants


def test_linear_schedule_has_the_published_constants():
    schedule = NoiseSchedule.linear()
    assert schedule.alphas_cumprod.dtype == torch.float64
    assert schedule.alpha_bar(0) == pytest.approx(0.9999, abs=1e-15)
    assert schedule.alpha_bar(999) == pytest.approx(4.035830e-5, rel=1e-6)
    assert float(schedule.betas[1]) == pytest.approx(1.199199e-4, rel=1e-6)
    assert schedule.alpha_bar(-1) == 1.0


@pytest.mark.parametrize(
    ("T", "first_beta", "last_alpha_bar"), [(1000, 4.128422e-5, 2.4288e-9), (4000, 9.865819e-6, 1.518e-10)]
)
def test_cosine_schedule_has_the_published_constants(T, first_beta, last_alpha_bar):
    schedule = NoiseSchedule.cosine(T)
    assert float(schedule.betas[0]) == pytest.approx(first_beta, rel=1e-6)
    assert schedule.alpha_bar(T - 1) == pytest.approx(last_alpha_bar, rel=1e-4)
    assert float(schedule.betas[-1]) == 0.999
    if T == 1000:
        assert float(schedule.betas[-2]) == pytest.approx(0.75, abs=1e-3)
        assert int((schedule.betas == 0.999).sum()) == 1


def test_posterior_of_the_full_grid_has_the_published_constants():
    grid = make_grid(NoiseSchedule.linear(), spacing="all")
    first, second, last = grid[0], grid[998], grid[999]
    assert posterior_constants(last)[1] == 0
    beta, beta_tilde, _ = posterior_constants(second)
    assert beta_tilde == pytest.approx(5.45318766e-5, rel=1e-8)
    assert math.log(beta_tilde) == pytest.approx(-9.816725, abs=1e-6)
    assert math.log(beta) == pytest.approx(-9.028686, abs=1e-6)
    _, _, x0_weight = posterior_constants(first)
    x_weight = (
        (1 - first.alpha_bar_next) * math.sqrt(1 - posterior_constants(first)[0]) / (1 - first.alpha_bar)
    )
    assert x0_weight == pytest.approx(1.2835149e-4, rel=1e-7)
    assert x_weight == pytest.approx(0.9899486783, rel=1e-9)
    # The x_0 coefficient of the last step is exactly 1: the float identity, not nearly.
    assert posterior_constants(last)[2] == 1.0


def test_float64_tables_keep_what_float32_loses():
    schedule = NoiseSchedule.linear()
    single = torch.cumprod(1 - schedule.betas.float(), 0).double()
    lost = ((1 - single) / (1 - schedule.alphas_cumprod) - 1).abs().max()
    assert lost > 1e-5


@pytest.mark.parametrize("betas", [[], [0.0], [1.0, 0.5], [1.1], [0.1, -0.1], [float("nan")], [[0.1]]])
def test_bad_betas_are_refused(betas):
    with pytest.raises(ValueError, match="beta"):
        NoiseSchedule.from_betas(betas)


def test_schedules_compare_by_their_numbers():
    linear = NoiseSchedule.linear()
    assert linear == NoiseSchedule.from_betas(linear.betas)
    assert linear != NoiseSchedule.cosine()
    with pytest.raises(IndexError, match="outside"):
        linear.alpha_bar(1000)
