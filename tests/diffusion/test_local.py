"""The error of each step against closed forms: a linear predictor, and orders on a mixture of Gaussians."""

import math

import pytest
import torch

from bench import get_sampler, make_grid
from bench.diffusion.local import local_errors
from bench.diffusion.orders import GaussianOracle, MixtureOracle, even_in_log_snr
from bench.diffusion.sampling import sampler
from bench.diffusion.schedule import NoiseSchedule
from bench.errors import UsageError

FINE = get_sampler("dpmpp-3m")


def start(shape, rows=32):
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def std_at(model, alpha_bar):
    return math.sqrt(alpha_bar * model.std**2 + 1 - alpha_bar)


def test_the_error_of_a_ddim_step_is_the_closed_form():
    """On Gaussian data the flow multiplies x by a ratio of standard deviations, DDIM by another factor."""
    model = GaussianOracle(NoiseSchedule.linear())
    model.continuous = True
    grid = make_grid(model.schedule, 6, "linspace")
    x = start(model.shape)
    found = local_errors(model, get_sampler("ddim"), grid, x, FINE, parts=32)
    scale = float(x.square().mean().sqrt())
    begin = std_at(model, grid[0].alpha_bar)
    for step, told in zip(list(grid)[:-1], found.steps[:-1], strict=True):
        a, b = step.alpha_bar, step.alpha_bar_next
        gain = math.sqrt(1 - a) / (a * model.std**2 + 1 - a)
        ddim = math.sqrt(b / a) * (1 - math.sqrt(1 - a) * gain) + math.sqrt(1 - b) * gain
        here = scale * std_at(model, a) / begin
        off = abs(ddim - std_at(model, b) / std_at(model, a)) * here
        assert told.error == pytest.approx(off / math.sqrt(b), rel=2e-3)
        assert told.carried == pytest.approx(off * model.std / std_at(model, b), rel=3e-3)
    assert not found.from_rest
    assert sum(step.share for step in found.steps) == pytest.approx(1)
    assert found.steps[-1].sigma_next == 0


@pytest.mark.parametrize(("spec", "order"), [("ddim", 1), ("dpmpp-2m", 2), ("heun", 2)])
def test_local_errors_fall_by_an_order_more_than_global_ones(spec, order):
    """Error per step ~ h^(p + 1), with the history of the path itself: multistep rules too."""
    model = MixtureOracle()
    x = start(model.shape, 8)
    middle = []
    for steps in (20, 40):
        grid = even_in_log_snr(steps)
        found = local_errors(model, get_sampler(spec), grid, x, FINE, parts=4)
        assert not found.from_rest
        part = [one.error for one in found.steps if 0.3 < one.sigma < 3]
        middle.append(sum(part) / len(part))
    assert math.log2(middle[0] / middle[1]) == pytest.approx(order + 1, abs=0.35)


def test_a_rule_that_is_the_exact_one_has_no_error():
    """All but the last step: the exact path halts at the least noisy time before x_0, the rule does not."""
    model, heun = MixtureOracle(), get_sampler("heun")
    found = local_errors(model, heun, even_in_log_snr(8), start(model.shape), heun, parts=1)
    assert len(found.steps) == 9
    assert {one.error for one in found.steps[:-1]} == {0}
    assert {one.carried for one in found.steps[:-1]} == {0}


@sampler(name="secretive")
def secretive(model, x, grid, noise):
    """DDIM whose states are copies: it cannot be put on another point."""
    for step in grid:
        eps = model(x, step.times(x)).eps
        x0 = (x - math.sqrt(1 - step.alpha_bar) * eps) / math.sqrt(step.alpha_bar)
        x = math.sqrt(step.alpha_bar_next) * x0 + math.sqrt(1 - step.alpha_bar_next) * eps
        yield x.clone()


def test_a_rule_that_keeps_its_state_to_itself_begins_anew_at_every_point():
    model = MixtureOracle()
    grid, x = even_in_log_snr(8), start(model.shape)
    open_, closed = (local_errors(model, one, grid, x, FINE) for one in (get_sampler("ddim"), secretive))
    assert closed.from_rest and not open_.from_rest
    assert [one.error for one in closed.steps] == pytest.approx([one.error for one in open_.steps], rel=1e-9)


def test_a_model_of_whole_time_steps_is_asked_about_no_other():
    asked = []

    class Whole(GaussianOracle):
        continuous = False

        def __call__(self, x, t):
            asked.append(t.dtype)
            return super().__call__(x, t)

    model = Whole(NoiseSchedule.linear())
    found = local_errors(model, get_sampler("ddim"), make_grid(model.schedule, 5), start(model.shape), FINE)
    assert set(asked) == {torch.int64}
    assert 0 < found.path_error < max(one.carried for one in found.steps) / 10


def test_one_image_has_no_error_bar():
    model = MixtureOracle()
    with pytest.raises(UsageError, match="at least 2 images, got 1"):
        local_errors(model, get_sampler("ddim"), even_in_log_snr(4), start(model.shape, 1), FINE)
