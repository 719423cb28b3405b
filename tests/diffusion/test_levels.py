"""Real times, continuous schedules, and the rules that choose levels of any schedule."""

import math

import numpy as np
import pytest
import torch

from bench import (
    ContinuousSchedule,
    NoiseSchedule,
    NotApplicable,
    Prediction,
    UsageError,
    classifier_guided,
    from_flow,
    from_prediction,
    get_sampler,
    make_grid,
    sample,
    thresholded,
    zero_terminal_snr,
)
from bench.diffusion.spacing import AYS, SPACINGS

LINEAR, COSINE = NoiseSchedule.linear(), NoiseSchedule.cosine()
CONTINUOUS = [
    ContinuousSchedule.edm(),
    ContinuousSchedule.ve(),
    ContinuousSchedule.vp(),
    ContinuousSchedule.flow(),
    ContinuousSchedule.flow(3.0),
]
EVERY = [LINEAR, COSINE, NoiseSchedule.linear(7), zero_terminal_snr(LINEAR), *CONTINUOUS]


def sigma(schedule, t):
    return math.sqrt(1 / schedule.alpha_bar(t) - 1)


def test_between_time_steps_the_logarithm_is_linear():
    for t in (-0.5, 0.25, 500.2, 998.75):
        below, part = math.floor(t), t - math.floor(t)
        log = (1 - part) * math.log(LINEAR.alpha_bar(below)) + part * math.log(LINEAR.alpha_bar(below + 1))
        assert LINEAR.alpha_bar(t) == pytest.approx(math.exp(log), rel=1e-13)
    assert LINEAR.alpha_bar(500) == float(LINEAR.alphas_cumprod[500])
    for t in (-1.1, 999.5):
        with pytest.raises(IndexError, match=r"outside 0 \.\. 999"):
            LINEAR.alpha_bar(t)


@pytest.mark.parametrize("schedule", EVERY, ids=lambda schedule: schedule.name)
def test_the_time_of_a_level_is_the_inverse(schedule):
    low, high = schedule.first, schedule.last
    for part in (0.0, 0.1, 0.37, 0.5, 0.99, 1.0):
        t = low + part * (high - low)
        assert schedule.time(schedule.alpha_bar(t)) == pytest.approx(t, rel=1e-7, abs=1e-9)
    assert schedule.alpha_bar(schedule.clean) == 1
    assert schedule.time(1.0) == schedule.clean


@pytest.mark.parametrize("schedule", EVERY, ids=lambda schedule: schedule.name)
def test_a_batch_of_times_has_the_alpha_bars_of_its_rows(schedule):
    times = torch.linspace(schedule.first, schedule.last, 9, dtype=torch.float64)
    found = schedule.alpha_bars(times)
    known = [schedule.alpha_bar(float(t)) for t in times]
    assert found.dtype == torch.float64
    assert found.numpy() == pytest.approx(np.array(known), rel=1e-12)


def test_continuous_schedules_are_their_formulas():
    edm, ve, vp, flow = (CONTINUOUS[i] for i in (0, 1, 2, 3))
    assert sigma(edm, 0.5) == pytest.approx(0.5)
    assert sigma(ve, 0.5) == pytest.approx(0.01 * 5000**0.5)
    assert math.log(vp.alpha_bar(0.4)) == pytest.approx(-(19.9 * 0.4**2 / 2 + 0.1 * 0.4))
    assert sigma(flow, 0.75) == pytest.approx(3.0)
    assert flow.alpha_bar(1.0) == 0
    with pytest.raises(IndexError, match="outside"):
        vp.alpha_bar(1.5)


@pytest.mark.parametrize("make", [ContinuousSchedule.edm, ContinuousSchedule.ve, ContinuousSchedule.vp])
def test_ends_must_ascend(make):
    with pytest.raises(ValueError, match="needs 0 < 2 < 1"):
        make(2, 1)


def test_a_last_beta_of_one_ends_in_noise_alone():
    made = NoiseSchedule.from_betas([0.1, 0.5, 1.0])
    assert [made.alpha_bar(t) for t in range(3)] == pytest.approx([0.9, 0.45, 0])
    with pytest.raises(ValueError, match="the last in"):
        NoiseSchedule.from_betas([0.1, 1.0, 0.5])


def test_real_times_are_visited_as_they_are_listed():
    grid = make_grid(LINEAR, spacing=[12.7, 500.2, 0])
    assert grid.timesteps == (500.2, 12.7, 0)
    steps = list(grid)
    x = torch.zeros(2, 1, 1, 1)
    assert steps[0].times(x).tolist() == [500.2] * 2
    assert steps[2].times(x).dtype == torch.int64
    rounded = grid.rounded()
    assert rounded.timesteps == (500, 13, 0)
    assert rounded.moved == pytest.approx(0.3)
    assert rounded[0].alpha_bar == LINEAR.alpha_bar(500)
    assert make_grid(LINEAR, 10).rounded() == make_grid(LINEAR, 10)


@pytest.mark.parametrize(
    ("spacing", "sigmas"),
    [("sigma:80,10,1", (80, 10, 1)), ("logsnr:-4,0,4", (math.e**2, 1, math.e**-2))],
)
@pytest.mark.parametrize("schedule", [LINEAR, *CONTINUOUS[:1], CONTINUOUS[3]], ids=lambda s: s.name)
def test_levels_can_be_listed(spacing, sigmas, schedule):
    grid = make_grid(schedule, spacing=spacing)
    assert [sigma(schedule, t) for t in grid.timesteps] == pytest.approx(sigmas, rel=1e-6)


def test_listed_times_are_read_from_text():
    assert make_grid(LINEAR, 5, "999,750,500.5,250,0").timesteps == (999, 750, 500.5, 250, 0)
    with pytest.raises(UsageError, match="3 time steps were listed but 4 steps asked for"):
        make_grid(LINEAR, 4, "999,500,0")
    with pytest.raises(UsageError, match="must list numbers"):
        make_grid(LINEAR, spacing="sigma:80,x1")
    with pytest.raises(UsageError, match=r"sigma 1000 lies outside .* of linear"):
        make_grid(LINEAR, spacing="sigma:1000")
    with pytest.raises(UsageError, match=r"must lie in 0 \.\. 999"):
        make_grid(LINEAR, spacing=[1000.5])


LEVELS = [
    "time",
    "time-quadratic",
    "logsnr",
    "exponential",
    "edm",
    "edm:rho=3",
    "karras",
    "vp",
    "vp:rho=2",
    "beta",
    "ays",
    "ays:model=sdxl",
]


@pytest.mark.parametrize("schedule", EVERY[:2] + EVERY[3:], ids=lambda schedule: schedule.name)
@pytest.mark.parametrize("spacing", ["uniform", *LEVELS])
def test_every_rule_on_levels_works_on_every_schedule(spacing, schedule):
    for steps in (1, 2, 10, 37):
        grid = make_grid(schedule, steps, spacing)
        assert len(grid) >= steps
        levels = [step.alpha_bar for step in grid]
        assert levels == sorted(levels)
        assert all(schedule.first <= t <= schedule.last for t in grid.timesteps)
        assert grid[len(grid) - 1].alpha_bar_next == 1


def test_rules_have_the_levels_of_their_formulas():
    edm = CONTINUOUS[0]
    levels = [sigma(edm, t) for t in make_grid(edm, 5, "edm").timesteps]
    roots = np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 5)
    assert levels == pytest.approx(list(roots**7), rel=1e-9)
    ratios = [sigma(LINEAR, t) for t in make_grid(LINEAR, 6, "logsnr").timesteps]
    assert np.diff(np.log(ratios)) == pytest.approx(np.full(5, np.log(ratios[1] / ratios[0])), rel=1e-6)
    assert make_grid(LINEAR, 4, "time").timesteps == (999, 666, 333, 0)
    assert make_grid(CONTINUOUS[3], 4).timesteps == (1.0, 0.75, 0.5, 0.25)
    assert make_grid(CONTINUOUS[4], 4).timesteps == pytest.approx(
        [3 * u / (1 + 2 * u) for u in (1, 0.75, 0.5, 0.25)]
    )
    assert [sigma(LINEAR, t) for t in make_grid(LINEAR, 10, "ays").timesteps] == pytest.approx(
        AYS["sd15"], rel=1e-6
    )
    ends = [sigma(LINEAR, t) for t in make_grid(LINEAR, 9, "karras").timesteps]
    assert (ends[0], ends[-1]) == pytest.approx((sigma(LINEAR, 999), sigma(LINEAR, 0)))


@pytest.mark.parametrize("spacing", ["quadratic", "openai", "openai-ddim", "linspace", "trailing", "all"])
def test_rules_on_time_steps_say_that_a_continuous_schedule_has_none(spacing):
    with pytest.raises(UsageError, match=f"spacing '{spacing}' counts the time steps .* use uniform, time"):
        make_grid(CONTINUOUS[0], 10, spacing)


@pytest.mark.parametrize(
    ("spacing", "says"),
    [
        ("edm:roh=7", "spacing 'edm:roh=7' cannot be used here: .*roh"),
        ("edm:sigma-max=500", "sigma 500 lies outside"),
        ("ays:model=sd3", "has the levels of sd15, sdxl, svd, not of 'sd3'"),
        ("edm:7", "expected key=value after the colon"),
        ("karas", "did you mean karras"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said(spacing, says):
    with pytest.raises(UsageError, match=says):
        make_grid(LINEAR, 10, spacing)


def test_a_plugin_s_rule_that_raises_is_one_sentence(monkeypatch):
    def broken(T, S):
        raise ValueError("no such luck")

    monkeypatch.setitem(SPACINGS.entries, "broken", broken)
    with pytest.raises(UsageError, match="spacing 'broken' cannot be used here: no such luck"):
        make_grid(LINEAR, 10, "broken")


class Eps:
    """Predicts noise alone."""

    schedule, shape, variance = zero_terminal_snr(LINEAR), (1, 2, 2), "fixed"

    def __call__(self, x, t):
        return Prediction(x)


@pytest.mark.parametrize("spec", ["ddim", "ddpm"])
def test_where_nothing_is_left_of_x_0_eps_alone_is_refused(spec):
    x = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(NotApplicable, match="at alpha_bar = 0 eps does not tell x_0"):
        sample(Eps(), get_sampler(spec), make_grid(Eps.schedule, 5, "trailing"), x, torch.zeros_like)
    model = from_flow(lambda z, s: 0.5 * z, (1, 2, 2))
    end = sample(model, get_sampler(spec), make_grid(model.schedule, 5), x, lambda index: torch.zeros_like(x))
    assert bool(torch.isfinite(end).all())


@pytest.mark.parametrize("clip", ["none", "x0"])
def test_a_classifier_moves_an_x_0_that_is_told_while_something_is_left_of_it(clip):
    schedule, x = Eps.schedule, torch.linspace(-2, 2, 12, dtype=torch.float64).view(3, 1, 2, 2)
    inside = from_prediction(lambda x, t: 0.5 * x, schedule, (1, 2, 2), "v")
    model = classifier_guided(inside, lambda x, t: 1 - x, 2.0, clip)
    told = model(x, torch.full((3,), 400))
    abar = schedule.alpha_bar(400)
    follows = (x - math.sqrt(1 - abar) * told.eps) / math.sqrt(abar)
    torch.testing.assert_close(told.x0, follows, rtol=1e-10, atol=1e-10)
    assert model(x, torch.full((3,), 999)).x0 is None
    grid = make_grid(schedule, 5, "trailing")
    end = sample(model, get_sampler("ddpm:guide=mean"), grid, x, lambda index: torch.zeros_like(x))
    assert bool(torch.isfinite(end).all())


@pytest.mark.parametrize("wrap", [thresholded, lambda model: classifier_guided(model, None, clip="x0")])
def test_an_x_0_that_nothing_tells_is_not_clipped(wrap):
    with pytest.raises(NotApplicable, match="does not tell the x_0 that is to be clipped"):
        wrap(Eps())(torch.ones(1, 1, 2, 2), torch.tensor([999]))


def test_straight_flow_is_drawn_exactly_in_one_step():
    """With x_0 a point p the velocity is (z - p) / s: every grid ends there."""
    point = torch.tensor([0.3, -0.2, 0.7, 0.1]).view(1, 1, 2, 2)
    model = from_flow(lambda z, s: (z - point) / s.view(-1, 1, 1, 1).to(z), (1, 2, 2))
    x = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    for steps in (1, 7):
        end = sample(model, get_sampler("ddim"), make_grid(model.schedule, steps), x, None)
        assert float((end - point).abs().max()) < 1e-5


def test_equal_parts_of_a_variance_preserving_time_lie_on_edm_s_schedule():
    """sigma(t)^2 = exp(slope t^2 / 2 + beta_min t) - 1 with sigma(0.001) = 0.002 and sigma(1) = 80."""
    roots = np.linspace(math.sqrt(1e-3), 1, 7)
    beta = np.linalg.solve([[1e-6 / 2, 1e-3], [1 / 2, 1]], [math.log1p(0.002**2), math.log1p(80.0**2)])
    sigmas = np.sqrt(np.expm1(beta[0] * roots**4 / 2 + beta[1] * roots**2))
    edm = ContinuousSchedule.edm()
    grid = make_grid(edm, 6, "vp:rho=2,stop=true")
    assert [grid.end, *reversed(grid.timesteps)] == pytest.approx(list(sigmas), rel=1e-9)
    clock = ContinuousSchedule.vp_between()
    for t in (1e-3, 0.01, 0.3, 1.0):
        assert clock.time(clock.alpha_bar(t)) == pytest.approx(t, rel=1e-9)
    assert make_grid(edm, 1, "vp").timesteps == (80.0,)
    assert make_grid(LINEAR, 2, "vp:sigma_max=10").timesteps == pytest.approx(
        [LINEAR.time(1 / 101), 0], abs=1e-9
    )
    with pytest.raises(UsageError, match="sigma 90 lies outside"):
        make_grid(edm, 5, "vp:sigma-max=90")
