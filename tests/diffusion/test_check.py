"""The conformance kit: it measures orders that are known, and every breach is told, and that one alone."""

import os
from dataclasses import replace
from math import sqrt

import pytest
import torch
from support.plugins import HEUN

from bench import AtLeast, get_sampler, hookimpl, predict_x0, sampler
from bench.diffusion.conformance import CLAUSES, badge, check_clause, check_sampler
from bench.diffusion.orders import measured_order


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


@pytest.mark.parametrize(
    ("spec", "claimed"),
    [("dpmpp-3m", 3), ("dpm-solver:order=3", 3), ("ipndm-v", 4), ("ipndm", 4), ("dpmpp-3m-sde", 3)],
)
def test_orders_that_published_codes_claim_and_do_not_have_are_found(spec, claimed):
    finding = check_clause(replace(get_sampler(spec), declared=claimed), "has the declared order")
    assert finding.kept is False
    assert f"declared {claimed}" in finding.detail


def test_optimal_variance_has_no_order_because_it_has_no_error():
    finding = findings(get_sampler("ddpm:variance=learned"))["has the declared order"]
    assert finding.kept is None
    assert "exact on Gaussian data" in finding.detail


def ddim(model, x, step, times=None):
    """x_u of the rule that every broken sampler below is made from."""
    x0, eps = predict_x0(x, model(x, step.times(x) if times is None else times), step.alpha_bar)
    return sqrt(step.alpha_bar_next) * x0 + sqrt(1 - step.alpha_bar_next) * eps


def broken(body, **declared):
    """A sampler that does to DDIM's x_u what ``body`` says: (model, x_t, x_u, step, grid, noise) -> x_u."""

    def rule(model, x, grid, noise):
        for step in grid:
            x = body(model, x, ddim(model, x, step), step, grid, noise)
            yield x

    return sampler(**{"name": "broken", "order": 1, "source": "a test", **declared})(rule)


@sampler(name="broken", order=1, source="a test")
def one_time_too_many(model, x, grid, noise):
    for step in grid:
        x = ddim(model, x, step)
        yield x
    yield x


@sampler(name="broken", order=1, source="a test")
def one_time_too_few(model, x, grid, noise):
    for step in grid:
        x = ddim(model, x, step)
        if not step.last:
            yield x


@sampler(name="broken", order=1, source="a test")
def endless(model, x, grid, noise):
    yield from one_time_too_many.function(model, x, grid, noise)
    while True:
        yield x


@sampler(name="broken", order=1, source="a test")
def in_place(model, x, grid, noise):
    x.add_(1e-6)
    for step in grid:
        x = ddim(model, x, step)
        yield x


@sampler(name="broken", order=1, source="a test")
def noise_in_place(model, x, grid, noise):
    for step in grid:
        x = ddim(model, x, step)
        if not step.last:
            x = x + 0 * noise(step.index).add_(1)
        yield x


@sampler(name="broken", order=1, source="a test")
def whole_times(model, x, grid, noise):
    for step in grid:
        x = ddim(model, x, step, step.times(x).round() if step.t > 1 else None)
        yield x


@sampler(name="broken", order=1, source="a test")
def x0_by_hand(model, x, grid, noise):
    for step in grid:
        eps = model(x, step.times(x)).eps
        x0 = (x - sqrt(1 - step.alpha_bar) * eps) / torch.tensor(step.alpha_bar, dtype=x.dtype).sqrt()
        x = sqrt(step.alpha_bar_next) * x0 + sqrt(1 - step.alpha_bar_next) * eps
        yield x


@sampler(name="broken", order=1, source="a test")
def swallows(model, x, grid, noise):
    for step in grid:
        try:
            x = ddim(model, x, step)
        except ArithmeticError:
            x = x.clone()
        yield x


COUNTER = []


def unlike_the_last_time(model, before, x, step, grid, noise):
    if step.last:
        COUNTER.append(step)
    return x + 1e-6 * (len(COUNTER) % 2) if step.last else x


def twice(model, before, x, step, grid, noise):
    model(before, step.times(before))
    return x


def draws(model, before, x, step, grid, noise):
    torch.rand(1)
    return x


def in_single(model, before, x, step, grid, noise):
    torch.set_default_dtype(torch.float64 if step.last else torch.get_default_dtype())
    return x


BREACHES = [
    (one_time_too_many, "yields x after every step"),
    (one_time_too_few, "yields x after every step"),
    (endless, "yields x after every step"),
    (broken(twice), "makes the declared calls a step"),
    (broken(lambda m, b, x, *_: x, calls_per_step=2), "makes the declared calls a step"),
    (broken(unlike_the_last_time), "gives the same for the same noise"),
    (broken(lambda m, b, x, s, *_: x + 1e-3 * x.mean(0) if s.last else x), "treats each sample alone"),
    (in_place, "leaves its input alone"),
    (noise_in_place, "leaves its input alone"),
    (broken(draws), "changes nothing global"),
    (broken(in_single), "changes nothing global"),
    (
        broken(lambda m, b, x, s, g, noise: x + 1e-3 * noise(s.index) if s.last else x),
        "adds no noise at the last step",
    ),
    (broken(lambda m, b, x, s, *_: x.half() if s.last else x), "keeps dtype and device"),
    (
        broken(lambda m, b, x, s, *_: x * (s.t - s.t_next) / torch.tensor(s.t - s.t_next)),
        "survives a repeated time step",
    ),
    (broken(lambda m, b, x, s, grid, *_: x + 0 * grid[2].t), "survives one step and two"),
    (whole_times, "tells the network the grid's times"),
    (x0_by_hand, "starts where no signal is left"),
    (swallows, "lets a failure of the network through"),
    (broken(lambda m, b, x, s, *_: 0.9 * x if s.last else x), "converges as S goes to T"),
    (broken(lambda m, b, x, *_: x, source=""), "states a source"),
    (broken(lambda m, b, x, *_: x, order=2), "has the declared order"),
]


@pytest.mark.parametrize(("rule", "clause"), BREACHES, ids=[clause for _, clause in BREACHES])
def test_each_breach_is_found_and_it_alone(rule, clause):
    assert [finding.clause for finding in check_sampler(rule) if finding.kept is False] == [clause]


def test_every_clause_has_a_breach():
    assert {clause for _, clause in BREACHES} == set(CLAUSES)


def elsewhere(model, before, x, step, grid, noise):
    os.environ["SAMPLER_BENCH_TEST_BREACH"] = "1"
    os.chdir("/")
    return x


def test_what_a_sampler_changes_globally_is_put_back():
    here = os.getcwd()
    detail = findings(broken(elsewhere))["changes nothing global"].detail
    assert detail == "it changed the working directory, the environment"
    assert os.getcwd() == here
    assert "SAMPLER_BENCH_TEST_BREACH" not in os.environ
    before = torch.get_default_dtype(), torch.get_rng_state()
    check_sampler(broken(in_single))
    check_sampler(broken(draws))
    assert torch.get_default_dtype() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_rule_keeps_its_order_with_one_wrong_weight_only_if_it_had_none():
    """DPM-Solver++(2M) with 0.45 for 1/2."""
    rule = HEUN.replace("/ 2", "* 0.45")
    assert rule != HEUN
    assert findings(make(rule))["has the declared order"].kept is False


def test_the_badge_counts_what_is_kept():
    found = check_sampler(get_sampler("ddim"))
    assert "16 of 16 clauses kept" in badge(found)
    assert badge(found).endswith("brightgreen)")
    assert badge([replace(found[0], kept=False), *found[1:]]).endswith("15_of_16_clauses_kept-red)")


def test_public_names_for_plugin_authors_exist():
    assert AtLeast(0).bound == 0
    assert callable(hookimpl)
