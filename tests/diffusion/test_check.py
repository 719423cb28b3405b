"""The conformance kit: it measures orders that are known, and finds what is broken."""

import pytest
from support.plugins import HEUN

from bench import AtLeast, get_sampler, hookimpl, sampler
from bench.diffusion.conformance import check_sampler, measured_order


def findings(sampler):
    return {finding.clause: finding for finding in check_sampler(sampler)}


def make(source):
    space = {}
    exec(source, space)
    return next(iter(space["bench_samplers"]()))


@pytest.mark.parametrize("spec", ["ddim", "ddim:eta=1", "ddpm", "sigma-hat", "ddpm:variance=learned"])
def test_built_ins_keep_the_contract(spec):
    broken = [f for f in check_sampler(get_sampler(spec)) if f.kept is False]
    assert broken == []


def test_first_and_second_order_are_told_apart():
    assert measured_order(get_sampler("ddim"))[0] == pytest.approx(1, abs=0.05)
    assert measured_order(make(HEUN))[0] == pytest.approx(2, abs=0.15)


def test_a_false_claim_of_order_is_found():
    wrong = make(HEUN.replace("order=2", "order=3"))
    finding = findings(wrong)["has the declared order"]
    assert finding.kept is False
    assert "declared 3" in finding.detail


def test_optimal_variance_has_no_order_because_it_has_no_error():
    finding = findings(get_sampler("ddpm:variance=learned"))["has the declared order"]
    assert finding.kept is None
    assert "exact on Gaussian data" in finding.detail


@sampler
def in_place(model, x, grid, noise):
    for step in grid:
        x *= 0.9
        model(x, step.times(x))
        yield x


@sampler
def own_noise(model, x, grid, noise):
    import torch

    for step in grid:
        x = model(x, step.times(x)).eps + torch.randn_like(x)
        yield x


@sampler
def only_the_end(model, x, grid, noise):
    for step in grid:
        x = x - 0.01 * model(x, step.times(x)).eps
    yield x


@sampler
def noisy_end(model, x, grid, noise):
    for step in grid:
        x = 0.5 * x + 0.1 * noise(step.index)
        yield x


@sampler
def mixes_samples(model, x, grid, noise):
    for step in grid:
        x = x - 0.1 * x.mean()
        model(x, step.times(x))
        yield x


@sampler
def divides_by_the_gap(model, x, grid, noise):
    for step in grid:
        x = x * (step.alpha_bar - step.alpha_bar_next) / (step.alpha_bar - step.alpha_bar_next)
        yield x * float("1") if step.alpha_bar != step.alpha_bar_next else x * float("nan")


@pytest.mark.parametrize(
    ("broken", "clause"),
    [
        (in_place, "leaves its input and the global random state alone"),
        (own_noise, "gives the same for the same noise"),
        (own_noise, "leaves its input and the global random state alone"),
        (only_the_end, "yields x after every step"),
        (noisy_end, "adds no noise at the last step"),
        (mixes_samples, "treats each sample alone"),
        (divides_by_the_gap, "survives a repeated time step"),
    ],
)
def test_each_breach_is_found(broken, clause):
    assert findings(broken)[clause].kept is False


def test_public_names_for_plugin_authors_exist():
    assert AtLeast(0).bound == 0
    assert callable(hookimpl)
