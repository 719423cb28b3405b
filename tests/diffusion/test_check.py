"""The conformance kit: it measures orders that are known, and every breach is told, and that one alone."""

import os
from dataclasses import replace
from math import inf, sqrt

import pytest
import torch
from support.plugins import HEUN

from bench import (
    AtLeast,
    NotApplicable,
    get_sampler,
    hookimpl,
    posterior_constants,
    predict_x0,
    sampler,
)
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
def answer_in_place(model, x, grid, noise):
    for step in grid:
        predicted = model(x, step.times(x))
        x0, eps = predict_x0(x, predicted, step.alpha_bar)
        x = sqrt(step.alpha_bar_next) * x0 + sqrt(1 - step.alpha_bar_next) * eps
        predicted.eps.zero_()
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


@sampler(name="broken", order=1, source="a test")
def none_of_one(model, x, grid, noise):
    if len(grid) > 1:
        yield from ddim_rule(model, x, grid)


@sampler(name="broken", order=1, source="a test")
def each_time_once(model, x, grid, noise):
    for step, time in zip(grid, [*grid.timesteps[1:], None], strict=True):
        x = ddim(model, x, step)
        if step.t != time:
            yield x


def ddim_rule(model, x, grid):
    for step in grid:
        x = ddim(model, x, step)
        yield x


@sampler(name="broken", order=1, source="a test")
def shows_another(model, x, grid, noise):
    for step, state in zip(grid, ddim_rule(model, x, grid), strict=True):
        yield 2 * state if step.index == 2 and not step.last else state


@sampler(name="broken", source="a test")
def thresholds_the_batch(model, x, grid, noise):
    for step in grid:
        x0, eps = predict_x0(x, model(x, step.times(x)), step.alpha_bar)
        most = max(float(x0.abs().quantile(0.995)), 1.0)
        x = sqrt(step.alpha_bar_next) * x0.clamp(-most, most) / most + sqrt(1 - step.alpha_bar_next) * eps
        yield x


@sampler(name="broken", order=2, source="a test")
def without_the_ratio(model, x, grid, noise):
    """DPM-Solver++(2M) for equal steps."""
    before = None
    for step in grid:
        x0, eps = predict_x0(x, model(x, step.times(x)), step.alpha_bar)
        ahead = x0 if before is None or step.last else 1.5 * x0 - 0.5 * before
        here, there = (sqrt((1 - a) / a) if a > 0 else inf for a in (step.alpha_bar, step.alpha_bar_next))
        part = 0.0 if here == inf else there / here
        scaled = x / sqrt(step.alpha_bar) if part else 0
        x = sqrt(step.alpha_bar_next) * (part * scaled + (1 - part) * ahead) + (
            0 if part or step.last else sqrt(1 - step.alpha_bar_next) * eps
        )
        before = x0
        yield x


def returns_a_list(model, x, grid, noise):
    return list(ddim_rule(model, x, grid))


def beside(x):
    """Every row's neighbour in the pairs (0, 1), (2, 3), ..."""
    return x[[row ^ 1 if row ^ 1 < len(x) else row for row in range(len(x))]]


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
    (none_of_one, "yields x after every step"),
    (each_time_once, "yields x after every step"),
    (broken(twice), "makes the declared calls a step"),
    (broken(lambda m, b, x, *_: x, calls_per_step=2), "makes the declared calls a step"),
    (broken(unlike_the_last_time), "gives the same for the same noise"),
    (broken(lambda m, b, x, s, *_: x + 1e-3 * x.mean(0) if s.last else x), "treats each sample alone"),
    (broken(lambda m, b, x, s, *_: x + 1e-3 * x[:1] if s.last else x), "treats each sample alone"),
    (broken(lambda m, b, x, s, *_: x + 1e-3 * beside(x) if s.last else x), "treats each sample alone"),
    (thresholds_the_batch, "treats each sample alone"),
    (in_place, "leaves its input alone"),
    (noise_in_place, "leaves its input alone"),
    (answer_in_place, "leaves its input alone"),
    (broken(draws), "changes nothing global"),
    (broken(in_single), "changes nothing global"),
    (
        broken(lambda m, b, x, s, g, noise: x + 1e-3 * noise(s.index) if s.last else x),
        "adds no noise at the last step",
    ),
    (shows_another, "yields x_t of the grid's levels"),
    (broken(lambda m, b, x, s, *_: b if s.last else x), "takes the noise out at the last step"),
    (broken(lambda m, b, x, s, *_: 1.04 * x if s.last else x), "takes the noise out at the last step"),
    (
        broken(lambda m, b, x, s, grid, *_: x if s.last else x + 0 * grid[s.index + 1].t),
        "stops where the grid stops",
    ),
    (broken(lambda m, b, x, s, *_: x.half() if s.last else x), "keeps dtype and device"),
    (
        broken(lambda m, b, x, s, *_: x * (s.t - s.t_next) / torch.tensor(s.t - s.t_next)),
        "survives a repeated time step",
    ),
    (broken(lambda m, b, x, s, grid, *_: x + 0 * grid[2].t), "survives one step and two"),
    (whole_times, "tells the network the grid's times"),
    (x0_by_hand, "starts where no signal is left"),
    (
        sampler(name="broken", order=1, source="a test")(returns_a_list),
        "lets a failure of the network through",
    ),
    (swallows, "lets a failure of the network through"),
    (broken(lambda m, b, x, s, *_: 0.9 * x if s.last else x), "converges as S goes to T"),
    (broken(lambda m, b, x, *_: x, source=""), "states a source"),
    (without_the_ratio, "keeps its order on uneven steps"),
    (replace(make(HEUN), declared=1), "has the declared order"),
]


@pytest.mark.parametrize(("rule", "clause"), BREACHES, ids=[clause for _, clause in BREACHES])
def test_each_breach_is_found_and_it_alone(rule, clause):
    assert [finding.clause for finding in check_sampler(rule) if finding.kept is False] == [clause]


def test_every_clause_has_a_breach():
    assert {clause for _, clause in BREACHES} == set(CLAUSES)


def sums(variance, asks=lambda step: True):
    """DDIM with noise of a variance: (step) -> v."""

    def rule(model, x, grid, noise):
        for step in grid:
            v = variance(step)
            x0, eps = predict_x0(x, model(x, step.times(x)), step.alpha_bar)
            x = sqrt(step.alpha_bar_next) * x0 + sqrt(max(0, 1 - step.alpha_bar_next - v)) * eps
            if asks(step):
                x = x + sqrt(v) * noise(step.index)
            yield x

    return sampler(name="noisy", order=1, source="a test")(rule)


def ancestral(step):
    return posterior_constants(step).variance


def at_times(step):
    return step.index % 16 == 15


@pytest.mark.parametrize(
    "rule",
    [
        sums(ancestral),
        sums(lambda step: 0.0),
        sums(lambda step: ancestral(step) * at_times(step), asks=at_times),
    ],
    ids=["asked for at the last step too", "asked for and times 0", "at some steps only"],
)
def test_noise_is_what_moves_x_and_not_what_is_asked_for(rule):
    assert [finding for finding in check_sampler(rule) if not finding.kept] == []


@sampler(name="corrects", order=1, source="Song et al. 2021, arXiv:2011.13456, algorithm 5", calls_per_step=2)
def corrects(model, x, grid, noise):
    """Langevin steps as long as the norms of score and noise say: not linear in the noise."""
    for step in grid:
        x = ddim(model, x, step)
        if not step.last:
            after = grid.schedule.alpha_bar(step.t_next)
            eps = model(x, torch.full((len(x),), step.t_next)).eps
            z = noise(step.index)
            sizes = [part.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for part in (z, eps / sqrt(1 - after))]
            length = 2 * (0.05 * sizes[0] / sizes[1]) ** 2
            x = x - length * eps / sqrt(1 - after) + (2 * length).sqrt() * z
        yield x


def test_of_a_rule_that_is_not_linear_in_its_noise_no_law_is_told():
    found = findings(corrects)
    assert [one for one in found.values() if one.kept is False] == []
    assert "not linear in its noise" in found["converges as S goes to T"].detail
    assert found["has the declared order"].kept is None


def refuses(model, x, grid, noise):
    raise NotApplicable("for another model")
    yield x


def test_a_sampler_that_runs_nowhere_keeps_nothing():
    assert "nothing measured" in badge(check_sampler(sampler(source="a test")(refuses)))


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
    assert "20 of 20 clauses kept" in badge(found)
    assert badge(found).endswith("brightgreen)")
    assert badge([replace(found[0], kept=False), *found[1:]]).endswith("19_of_20_clauses_kept-red)")


def test_public_names_for_plugin_authors_exist():
    assert AtLeast(0).bound == 0
    assert callable(hookimpl)
