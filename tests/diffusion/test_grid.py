"""Grids against the time steps that published code takes."""

import pytest
import torch

from bench import (
    NoiseSchedule,
    TrajectoryNoise,
    UnknownNameError,
    UsageError,
    get_sampler,
    make_grid,
    trajectory,
)
from bench.diffusion.orders import MixtureOracle

LINEAR = NoiseSchedule.linear()


def ascending(steps, spacing):
    return list(reversed(make_grid(LINEAR, steps, spacing).timesteps))


@pytest.mark.parametrize(("steps", "last"), [(10, 900), (20, 950), (50, 980), (100, 990), (1000, 999)])
def test_uniform_ends_where_the_published_code_does(steps, last):
    assert ascending(steps, "uniform") == list(range(0, 1000, 1000 // steps))
    assert ascending(steps, "uniform")[-1] == last


@pytest.mark.parametrize(("asked", "taken"), [(30, 31), (300, 334), (600, 1000)])
def test_uniform_takes_more_steps_where_s_does_not_divide_t(asked, taken):
    grid = make_grid(LINEAR, asked, "uniform")
    assert (grid.requested, len(grid), grid.distinct_levels) == (asked, taken, taken)


def test_quadratic_is_the_published_one_and_counts_its_repeats():
    assert ascending(10, "quadratic") == [0, 9, 39, 88, 158, 246, 355, 483, 632, 800]
    for steps, distinct in ((50, 49), (100, 96), (1000, 688)):
        grid = make_grid(LINEAR, steps, "quadratic")
        assert (len(grid), grid.distinct_levels) == (steps, distinct)


def test_openai_spacings():
    assert ascending(10, "openai") == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert ascending(50, "openai-ddim") == list(range(0, 1000, 20))
    for impossible in (300, 400):
        with pytest.raises(ValueError, match="no integer stride"):
            make_grid(LINEAR, impossible, "openai-ddim")


def test_linspace_trailing_and_all():
    assert ascending(5, "linspace") == [0, 250, 500, 749, 999]
    assert ascending(4, "trailing") == [249, 499, 749, 999]
    assert ascending(1000, "all") == list(range(1000))
    assert len(make_grid(LINEAR, spacing="all")) == 1000


@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "openai", "linspace", "trailing"])
def test_every_rule_stays_inside_the_schedule(spacing):
    for schedule in (LINEAR, NoiseSchedule.cosine(4000), NoiseSchedule.linear(7)):
        for steps in (1, 2, 3, 7, schedule.T):
            if steps <= schedule.T:
                grid = make_grid(schedule, steps, spacing)
                assert all(0 <= t < schedule.T for t in grid.timesteps)
                assert list(grid.timesteps) == sorted(grid.timesteps, reverse=True)


def test_explicit_steps_are_walked_from_the_noisiest():
    grid = make_grid(LINEAR, spacing=[5, 900, 300])
    steps = list(grid)
    assert [step.t for step in steps] == [900, 300, 5]
    assert [step.index for step in steps] == [0, 1, 2]
    assert [step.t_next for step in steps] == [300, 5, -1]
    assert [step.last for step in steps] == [False, False, True]
    assert steps[0].alpha_bar == LINEAR.alpha_bar(900)
    assert steps[0].alpha_bar_next == LINEAR.alpha_bar(300)
    assert steps[-1].alpha_bar_next == 1.0


@pytest.mark.parametrize(
    ("steps", "spacing", "sentence"),
    [
        (0, "uniform", "from 1 to T=1000, got 0"),
        (1001, "uniform", "from 1 to T=1000, got 1001"),
        (None, "uniform", "needs a number of steps"),
        (10, "all", "ask for 1000 steps, not 10"),
        (None, [1000], "must lie in 0 .. 999"),
        (None, [], "at least one"),
        (3, [1, 2], "leave one out"),
    ],
)
def test_bad_grids_are_refused_in_a_sentence(steps, spacing, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_grid(LINEAR, steps, spacing)


def test_unknown_spacing_is_met_with_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean quadratic"):
        make_grid(LINEAR, 10, "quadratc")


def test_a_grid_that_stops_has_one_level_more_and_no_step_to_x0():
    stopping, whole = make_grid(LINEAR, 5, "edm:rho=5,stop=true"), make_grid(LINEAR, 6, "edm:rho=5")
    assert stopping.timesteps == whole.timesteps[:5]
    assert stopping.end == whole.timesteps[5]
    assert [step.last for step in stopping] == [False] * 5
    assert stopping[4].t_next == whole[5].t
    assert stopping[4].alpha_bar_next == whole[5].alpha_bar
    assert make_grid(LINEAR, 5, "edm:rho=5,stop=false").end is None
    assert stopping.rounded().end == round(whole.timesteps[5])
    with pytest.raises(UsageError, match="stop must be true or false, got maybe"):
        make_grid(LINEAR, 5, "edm:stop=maybe")


@pytest.mark.parametrize(
    "spec",
    ["ddim", "ddim:eta=0.5", "ddpm", "heun", "dpmpp:final=none", "unipc:final=none", "lms", "ipndm"],
)
def test_a_sampler_that_stops_has_the_states_of_the_one_that_goes_on(spec):
    model = MixtureOracle(LINEAR)
    noise = TrajectoryNoise(0, range(4), model.shape)
    start = noise.initial()

    def states(steps, spacing):
        return list(trajectory(model, get_sampler(spec), make_grid(LINEAR, steps, spacing), start, noise))

    for one, other in zip(states(5, "linspace:stop=true"), states(6, "linspace"), strict=False):
        assert torch.equal(one, other)
    assert len(states(5, "linspace:stop=true")) == 5
