"""Multistep samplers: names of one rule, weights against quadrature, first and last steps, repeats."""

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.polynomial import polynomial
from scipy.integrate import quad

from bench import (
    ContinuousSchedule,
    NoiseSchedule,
    NotApplicable,
    Prediction,
    TrajectoryNoise,
    UsageError,
    from_prediction,
    get_sampler,
    load_model,
    make_grid,
    predict_x0,
    sample,
    trajectory,
    zero_terminal_snr,
)
from bench.diffusion.conformance import CLAUSES
from bench.diffusion.grid import grid_for
from bench.diffusion.noise import normal_noise
from bench.diffusion.orders import GaussianOracle, PixelOracle
from bench.plugins.loading import Registry, registry
from samplers.deis import _VP, _in_vp, _time_weights
from samplers.ode import Level, exponential_weights, lagrange, phi, places, planned, sigma_weights

DOCUMENT = Path(__file__).parents[2] / "docs" / "samplers.md"
LINEAR = NoiseSchedule.linear()
RULES = [
    "dpmpp:order=1",
    "dpmpp",
    "dpmpp-2m",
    "dpmpp-3m",
    "dpmpp:order=3,weights=exact,final=only",
    "dpm-solver",
    "dpm-solver:order=3,final=lowered15",
    "dpmpp-2m-sde",
    "dpmpp-3m-sde",
    "dpmpp-sde:order=1,eta=0.3,final=lowered",
    "unipc",
    "unipc:order=1,b=bh2,final=only",
    "unipc:order=2,b=bh2,final=lowered",
    "unipc:order=3,predict=eps,final=none",
    "deis",
    "deis:basis=rho,final=none",
    "deis:basis=t,final=none",
    "deis:order=3,basis=logrho,final=none",
    "deis:basis=vp",
    "lms",
    "ipndm",
    "ipndm:final=none",
    "ipndm-v",
    "ipndm-v:weights=exact",
    "pndm",
    "pndm:start=runge-kutta",
    "sa-solver",
    "sa-solver:predictor=3,corrector=4,mode=more",
    "sa-solver:predictor=2,corrector=0,tau=0,final=only",
]
NOISY = [spec for spec in RULES if "sde" in spec or (spec.startswith("sa") and "tau=0" not in spec)]


class Curved:
    """A noise predictor that is not linear in x."""

    shape, variance, continuous = (3, 4, 4), "fixed", True

    def __init__(self, schedule=LINEAR):
        self.schedule, self.called = schedule, []

    def __call__(self, x, t):
        self.called.append(float(t[0]))
        abar = self.schedule.alpha_bars(t).to(x.dtype).view(-1, 1, 1, 1)
        return Prediction((1 - abar).sqrt() * x + 0.1 * torch.sin(3 * x + 2 * abar))


def start(dtype=torch.float64):
    return normal_noise(0, range(2), 0, (3, 4, 4)).to(dtype)


def noise(index, draw=0):
    return normal_noise(0, range(2), index + 1, (3, 4, 4), draw=draw).double()


def run(spec, spacing, model=None):
    model = model or Curved()
    return sample(model, get_sampler(spec), make_grid(model.schedule, spacing=spacing), start(), noise)


QUADRATIC = [0, 9, 39, 88, 158, 246, 355, 483, 632, 800]


SAME = re.findall(r"^\| `(\S+)` \| `(\S+)` \|$", DOCUMENT.read_text(encoding="utf-8"), re.M)
"""The table of names in docs/samplers.md."""


@pytest.mark.parametrize(("one", "other"), SAME)
def test_names_of_one_rule_give_one_trajectory(one, other):
    assert float((run(one, QUADRATIC) - run(other, QUADRATIC)).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dpmpp:form=heun", "dpmpp"),
        ("dpmpp:order=3", "dpmpp:order=3,weights=exact"),
        ("dpm-solver", "dpmpp"),
        ("unipc:order=2,b=bh1", "unipc:order=2,b=bh2"),
        ("unipc:predict=eps", "unipc"),
        ("deis:basis=rho", "deis"),
        ("ipndm-v", "ipndm-v:weights=exact"),
        ("sa-solver:mode=more", "sa-solver"),
        ("lms:final=lowered", "lms"),
    ],
)
def test_parameters_change_the_rule(one, other):
    assert float((run(one, QUADRATIC) - run(other, QUADRATIC)).abs().max()) > 1e-4


@pytest.mark.parametrize("spec", RULES)
def test_one_step_is_the_predicted_x0(spec):
    model, x = Curved(), start()
    end = sample(model, get_sampler(spec), make_grid(LINEAR, spacing=[999]), x, noise)
    x0, _ = predict_x0(x, Curved()(x, torch.full((2,), 999)), LINEAR.alpha_bar(999))
    assert torch.allclose(end, x0, rtol=0, atol=1e-12)
    assert len(model.called) == 1


LAST_IS_TOLD = ("dpmpp", "dpm-solver", "unipc", "unipc:predict=eps", "deis", "ipndm", "ipndm-v", "sa-solver")


@pytest.mark.parametrize("spec", LAST_IS_TOLD)
def test_the_end_is_the_x0_that_is_told_of_the_state_before(spec):
    """With the authors' ends; UniPC with predict=eps shows that it does not correct that state."""
    states = list(
        trajectory(Curved(), get_sampler(spec), make_grid(LINEAR, spacing=QUADRATIC), start(), noise)
    )
    told, _ = predict_x0(states[-2], Curved()(states[-2], torch.zeros(2).long()), LINEAR.alpha_bar(0))
    assert torch.allclose(states[-1], told, rtol=0, atol=1e-13)
    corrected = run("unipc:predict=eps,final=lowered", QUADRATIC)
    assert float((corrected - run("unipc:predict=eps", QUADRATIC)).abs().max()) > 1e-6


@pytest.mark.parametrize("spec", RULES)
def test_two_steps_are_finite_and_cost_two_calls(spec):
    model = Curved()
    end = sample(model, get_sampler(spec), make_grid(LINEAR, spacing=[0, 999]), start(), noise)
    assert bool(torch.isfinite(end).all())
    more = {"pndm": 1, "pndm:start=runge-kutta": 3, "sa-solver:predictor=3,corrector=4,mode=more": 1}
    assert len(model.called) == 2 + more.get(spec, 0)


@pytest.mark.parametrize("spec", RULES)
def test_a_repeated_level_leaves_x_and_the_history_as_they_are(spec):
    """The noise of a step is told by the level it starts from, so that both grids draw the same."""

    def states(spacing):
        model = Curved()
        grid = make_grid(LINEAR, spacing=spacing)
        found = trajectory(model, get_sampler(spec), grid, start(), lambda i: noise(int(grid.timesteps[i])))
        return list(found), len(model.called)

    once, calls = states([0, 100, 300, 500, 700, 900])
    twice, calls_of_twice = states([0, 0, 100, 300, 300, 500, 700, 900, 900])
    assert torch.equal(twice[0], start())
    assert all(torch.equal(a, b) for a, b in zip(once, [twice[i] for i in (1, 2, 3, 5, 6, 8)], strict=True))
    assert calls_of_twice == calls


@pytest.mark.parametrize("spec", RULES)
def test_a_first_step_without_signal_takes_x0_from_the_network(spec):
    schedule = zero_terminal_snr(LINEAR)

    def velocity(x, t):
        return 0.5 * x - 0.2 * torch.sin(2 * x)

    model = from_prediction(velocity, schedule, (3, 4, 4), "v")
    grid, x = make_grid(schedule, spacing=[0, 200, 400, 600, 800, 999]), start()
    states = list(trajectory(model, get_sampler(spec), grid, x, noise))
    assert all(bool(torch.isfinite(state).all()) for state in states)
    if spec not in NOISY:
        x0, eps = predict_x0(x, model(x, torch.full((2,), 999)), 0.0)
        abar = schedule.alpha_bar(800)
        first = math.sqrt(abar) * x0 + math.sqrt(1 - abar) * eps
        assert torch.allclose(states[0], first, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", ["dpmpp", "unipc", "ipndm", "sa-solver"])
def test_noise_alone_tells_no_x0_without_signal(spec):
    schedule = zero_terminal_snr(LINEAR)
    with pytest.raises(NotApplicable, match="eps does not tell x_0"):
        run(spec, [0, 500, 999], Curved(schedule))
    model = from_prediction(lambda x, t: x, schedule, (3, 4, 4), "v")
    with pytest.raises(NotApplicable, match="afs needs a first step with alpha_bar > 0"):
        run(f"{spec}:afs=true", [0, 500, 999], model)


@pytest.mark.parametrize("spec", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept_and_x_is_not_touched(spec, dtype):
    x, grid = start(dtype), make_grid(LINEAR, spacing=QUADRATIC)
    end = sample(Curved(), get_sampler(spec), grid, x, lambda i: noise(i).to(dtype))
    assert end.dtype == dtype
    assert torch.equal(x, start(dtype))
    exact = run(spec, QUADRATIC)
    assert float((end - exact).abs().max()) < (1e-4 if dtype == torch.float32 else 1e-15)


@pytest.mark.parametrize("spec", RULES)
def test_noise_is_drawn_where_the_rule_has_some_and_never_at_the_last_step(spec):
    asked = []

    def counted(index, draw=0):
        asked.append((index, draw))
        return noise(index, draw)

    sample(Curved(), get_sampler(spec), make_grid(LINEAR, spacing=QUADRATIC), start(), counted)
    silent = spec == "sa-solver"  # nor at the step before: tau is 0 there
    assert asked == ([(i, 0) for i in range(len(QUADRATIC) - 1 - silent)] if spec in NOISY else [])


@pytest.mark.parametrize("spec", [spec for spec in RULES if "afs" not in spec])
def test_afs_takes_x_as_its_own_noise_and_saves_the_first_call(spec):
    sampler, x = get_sampler(spec).with_(afs=True), start()
    plain, saving = Curved(), Curved()
    grid = make_grid(LINEAR, spacing=QUADRATIC)
    list(trajectory(plain, get_sampler(spec), grid, x, noise))
    first, *_ = trajectory(saving, sampler, grid, x, noise)
    assert saving.called == plain.called[1:]
    if spec not in NOISY and "pndm" not in spec:
        abar, abar_next = grid[0].alpha_bar, grid[0].alpha_bar_next
        expected = math.sqrt(abar_next) * (1 - math.sqrt(1 - abar)) / math.sqrt(abar) + math.sqrt(
            1 - abar_next
        )
        assert torch.allclose(first, expected * x, rtol=0, atol=1e-12)


class Lonely(Curved):
    """A network that takes time steps alone."""

    continuous = False

    def __call__(self, x, t):
        assert t.dtype == torch.int64
        return super().__call__(x, t)


@pytest.mark.parametrize("spec", RULES)
def test_a_network_of_time_steps_is_asked_at_time_steps(spec):
    model = Lonely()
    assert bool(torch.isfinite(run(spec, [0, 1, 2, 4, 101, 300, 900], model)).all())
    assert all(t.is_integer() for t in model.called)


SCHEDULES = {
    "edm": ContinuousSchedule.edm(),
    "ve": ContinuousSchedule.ve(),
    "vp": ContinuousSchedule.vp(),
    "flow": ContinuousSchedule.flow(),
    "cosine": NoiseSchedule.cosine(),
}
QUIET = [spec for spec in RULES if spec not in NOISY and "order=1" not in spec]


@pytest.mark.parametrize("spec", QUIET)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_higher_order_beats_ddim_on_every_schedule(name, spec):
    """On data N(0, 1/4), whose flow to the last level is known, by 40 steps."""
    schedule = SCHEDULES[name]
    grid = make_grid(schedule, 40, "logsnr")

    def error(spec):
        model, last = GaussianOracle(schedule), grid[len(grid) - 1].alpha_bar
        x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        states = list(trajectory(model, get_sampler(spec), grid, x, noise))
        exact = math.sqrt((last / 4 + 1 - last) / (grid[0].alpha_bar / 4 + 1 - grid[0].alpha_bar))
        assert bool(torch.isfinite(states[-1]).all())
        return abs(float(states[-2]) - exact)

    assert error(spec) < error("ddim") / 2


@pytest.fixture(scope="module")
def digits():
    """The shipped network, x_T of eight samples, and where the flow leads them, by 200 steps."""
    model = load_model("digits").model
    drawn = TrajectoryNoise(0, range(8), model.shape)
    return model, drawn, ended(model, drawn, "unipc:order=2,b=bh2", 200)


def ended(model, drawn, spec, steps=20):
    grid = grid_for(model, steps, "logsnr")
    with torch.inference_mode():
        return sample(model, get_sampler(spec), grid, drawn.initial(), drawn)


@pytest.mark.parametrize("spec", QUIET)
def test_a_trained_network_is_followed_more_closely_than_by_ddim(spec, digits):
    model, drawn, limit = digits

    def distance(spec):
        return float((ended(model, drawn, spec) - limit).square().mean().sqrt())

    assert distance(spec) < distance("ddim") / 2


@pytest.mark.parametrize("spec", NOISY)
def test_noise_leaves_a_trained_network_s_samples_in_their_range(spec, digits):
    model, drawn, limit = digits
    end = ended(model, drawn, spec)
    assert end.dtype == torch.float32
    assert float(end.abs().max()) < 1.5
    assert float((end.std() / limit.std() - 1).abs()) < 0.2


@pytest.mark.parametrize("spec", RULES)
def test_the_contract_is_kept(spec):
    """But for the order, which a grid even in time does not tell; it has tests of its own."""
    sampler, model = get_sampler(spec), PixelOracle(LINEAR)
    grid = make_grid(LINEAR, 10)
    for clause, measure in CLAUSES.items():
        if "order" not in clause:
            assert measure(sampler, model, grid)[0] is True, clause


@pytest.mark.parametrize(
    ("spec", "order"),
    [
        ("dpmpp:order=1", 1),
        ("dpmpp:order=3", 2),
        ("dpmpp:order=3,weights=exact", 3),
        ("dpm-solver:order=3", 2),
        ("dpmpp-sde:order=3,weights=exact", 2),
        ("dpmpp-sde:order=3,weights=exact,eta=0", 3),
        ("unipc:order=3", 3),
        ("unipc:order=3,final=only", 4),
        ("deis:order=4", 4),
        ("ipndm:order=4", 2),
        ("ipndm-v:order=4", 2),
        ("ipndm-v:order=4,weights=exact", 4),
        ("pndm", 2),
        ("lms:order=3", 3),
        ("sa-solver:predictor=3,corrector=4,tau=0", 4),
        ("sa-solver:predictor=3,corrector=4", 2),
    ],
)
def test_the_declared_order_follows_the_parameters(spec, order):
    assert get_sampler(spec).order == order


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("dpmpp:order=4", "order must be at most 3"),
        ("dpmpp:form=taylor", "one of midpoint, heun"),
        ("unipc:b=bh3", "one of bh1, bh2"),
        ("deis:order=5", "order must be at most 4"),
        ("deis:basis=sigma", "one of t, rho, logrho"),
        ("lms:final=first", "one of only, lowered"),
        ("sa-solver:tau=-1", "tau must be at least 0"),
        ("sa-solver:tau=inf", "tau must be a finite number"),
        ("dpmpp:afs=maybe", "afs must be true or false"),
        ("unipcc", "did you mean unipc"),
    ],
)
def test_bad_parameters_are_refused_in_a_sentence(spec, sentence):
    with pytest.raises(UsageError, match=sentence):
        get_sampler(spec)


def test_a_spec_with_an_infinite_bound_is_read_back():
    sampler = get_sampler("sa-solver")
    assert "tau_max=inf" in sampler.spec
    assert get_sampler(sampler.spec) == sampler
    assert all(map(math.isfinite, sampler.place))


def test_the_default_sweep_is_still_the_table_of_the_ddim_paper():
    loaded = Registry()
    loaded.load_built_ins()
    rules = [sampler.name for sampler in loaded.default_samplers.values()]
    assert rules == ["ddpm"] * 3 + ["ddim"] * 4
    assert {get_sampler(spec).name for spec in RULES} <= set(registry().samplers)


@pytest.mark.parametrize(
    ("steps", "final", "orders"),
    [
        (6, "only", [1, 2, 3, 3, 3, 1]),
        (6, "none", [1, 2, 3, 3, 3, 3]),
        (6, "lowered", [1, 2, 3, 3, 2, 1]),
        (6, "lowered_then_x0", [1, 2, 3, 2, 1, 1]),
        (14, "lowered15", [1, 2, *[3] * 9, 3, 2, 1]),
        (15, "lowered15", [1, 2, *[3] * 12, 1]),
        (10, "lowered10_then_x0", [1, 2, *[3] * 5, 2, 1, 1]),
        (11, "lowered10_then_x0", [1, 2, *[3] * 8, 1]),
        (2, "lowered_then_x0", [1, 1]),
        (1, "none", [1]),
    ],
)
def test_the_orders_end_as_the_table_says(steps, final, orders):
    grid = make_grid(LINEAR, steps, "linspace")
    assert [p for _, p in planned(grid, 3, final, to_zero=True)] == orders


@pytest.mark.parametrize("spec", ["unipc", "sa-solver", "dpmpp"])
def test_an_end_that_asks_for_the_number_of_steps_is_one_of_the_others(spec):
    few, many = [0, 100, 300, 500, 700, 900], list(range(0, 1000, 60))
    for spacing, ends in ((few, ("lowered", "lowered_then_x0")), (many, ("only", "only"))):
        for asked, same in zip(("lowered15", "lowered10_then_x0"), ends, strict=True):
            assert torch.equal(run(f"{spec}:final={asked}", spacing), run(f"{spec}:final={same}", spacing))


@pytest.mark.parametrize("final", ["only", "lowered", "lowered_then_x0", "none"])
def test_only_rules_with_a_weight_there_keep_their_order_at_the_last_step(final):
    grid = make_grid(LINEAR, 6, "linspace")
    assert [p for _, p in planned(grid, 3, final)][-1] == 1


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("z", [-40, -3, -1, -0.999, -1e-3, -1e-12, 0, 1e-9, 0.3, 0.9999, 1, 2.5, 30])
def test_phi_is_its_integral(k, z):
    def integrand(v):
        return math.exp((1 - v) * z) * v ** (k - 1) / math.factorial(k - 1)

    exact, _ = quad(integrand, 0, 1, epsabs=0, epsrel=1e-13, points=(0.9, 0.99))
    assert phi(k, z) == pytest.approx(exact, rel=2e-13)


NODES = ([0.0], [0.0, -0.7], [0.0, -0.7, -2.1], [0.0, -0.2, -1.4, -1.9], [1.0, 0.0, -0.5])


@pytest.mark.parametrize("at", NODES)
@pytest.mark.parametrize("z", [-2.0, -1e-6, 1.5])
def test_exponential_weights_are_the_integrals(at, z):
    for powers, weight in zip(lagrange(at), exponential_weights(at, z), strict=True):
        exact, _ = quad(
            lambda v, c=powers: math.exp((1 - v) * z) * polynomial.polyval(v, c), 0, 1, epsabs=1e-14
        )
        assert weight == pytest.approx(exact, abs=1e-13)


def test_lagrange_s_polynomials_are_one_at_their_own_place():
    at = NODES[3]
    values = [[polynomial.polyval(place, powers) for place in at] for powers in lagrange(at)]
    assert np.allclose(values, np.eye(4), rtol=0, atol=1e-13)


LEVELS = [Level(t, LINEAR.alpha_bar(t)) for t in (500.0, 612.5, 700.0, 900.0)]


def test_weights_in_sigma_integrate_cubics():
    end = Level(320.25, LINEAR.alpha_bar(320.25))
    weights = sigma_weights(LEVELS, end)
    for power in range(4):
        got = sum(w * level.sigma**power for w, level in zip(weights, LEVELS, strict=True))
        exact = (end.sigma ** (power + 1) - LEVELS[0].sigma ** (power + 1)) / (power + 1)
        assert got == pytest.approx(exact, rel=1e-12)


def slope(schedule, t):
    """d sigma / dt for the linear schedule between two time steps, where log alpha_bar is a line."""
    below = math.floor(t)
    rate = math.log(schedule.alpha_bar(below + 1) / schedule.alpha_bar(below))
    abar = schedule.alpha_bar(t)
    return -rate / (2 * abar * math.sqrt((1 - abar) / abar))


def test_weights_in_time_are_the_integrals_on_time_steps():
    end = Level(491.5, LINEAR.alpha_bar(491.5))
    at = places([level.t for level in LEVELS], end.t)
    edges = [500.0, *map(float, range(499, 491, -1)), 491.5]
    for powers, weight in zip(lagrange(at), _time_weights(LINEAR, LEVELS, end), strict=True):

        def integrand(t, c=powers):
            return polynomial.polyval((t - 500) / (end.t - 500), c) * slope(LINEAR, t)

        pieces = [quad(integrand, a, b, epsabs=1e-13, epsrel=1e-12)[0] for a, b in pairwise(edges)]
        assert weight == pytest.approx(sum(pieces), rel=1e-9, abs=1e-11)


def test_weights_in_time_are_the_integrals_in_continuous_time():
    """Of the edm schedule time is sigma: both bases are one."""
    edm = ContinuousSchedule.edm()
    levels = [Level(t, edm.alpha_bar(t)) for t in (5.0, 9.0, 20.0, 60.0)]
    end = Level(2.0, edm.alpha_bar(2.0))
    assert _time_weights(edm, levels, end) == pytest.approx(sigma_weights(levels, end), rel=1e-11)


def test_weights_in_a_variance_preserving_time_are_the_integrals_over_edm_s_levels():
    edm = ContinuousSchedule.edm()
    levels = [Level(t, edm.alpha_bar(t)) for t in (5.0, 9.0, 20.0, 60.0)]
    slope, rise = np.linalg.solve([[1e-6 / 2, 1e-3], [1 / 2, 1]], [math.log1p(0.002**2), math.log1p(80.0**2)])

    def time(sigma):
        return (math.sqrt(rise**2 + 2 * slope * math.log1p(sigma**2)) - rise) / slope

    ends = [(2.0, edm.alpha_bar(2.0)), (0.0, 1.0)]
    for end in (Level(*one) for one in ends):
        at = [(time(level.sigma) - time(5.0)) / (time(end.sigma) - time(5.0)) for level in levels]
        found = _time_weights(_VP, [_in_vp(level) for level in levels], _in_vp(end))
        for powers, weight in zip(lagrange(at), found, strict=True):

            def integrand(sigma, c=powers, end=end):
                v = (time(sigma) - time(5.0)) / (time(end.sigma) - time(5.0))
                return polynomial.polyval(v, c)

            exact, _ = quad(integrand, 5.0, end.sigma, epsabs=1e-13, epsrel=1e-12)
            assert weight == pytest.approx(exact, rel=1e-9 if end.sigma else 1e-6)  # sigma ends as a root


def test_levels_know_their_ends():
    assert Level(-1, 1.0).sigma == 0
    assert Level(-1, 1.0).half_log_snr == math.inf
    assert Level(999, 0.0).sigma == math.inf
    assert Level(999, 0.0).half_log_snr == -math.inf
    level = Level.of(Curved(), 0.4)
    assert level.half_log_snr == pytest.approx(0.4, abs=1e-12)
    assert Level.at(Curved(), level.t).alpha_bar == pytest.approx(level.alpha_bar, rel=1e-12)
    assert isinstance(Level.of(Lonely(), 0.4).t, int)
    assert isinstance(Level.at(Curved(), 925.0).t, int)
