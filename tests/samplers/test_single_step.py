"""Single-step and stochastic samplers: what they are to one another, and how they meet the ends of a grid."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad

from bench import (
    ContinuousSchedule,
    NoiseMoments,
    NoiseSchedule,
    NotApplicable,
    Prediction,
    TrajectoryNoise,
    UsageError,
    get_sampler,
    load_results,
    make_grid,
    read_moments,
    trajectory,
    zero_terminal_snr,
)
from bench.commands.options import parse_samplers
from bench.diffusion.moments import noise_moment
from bench.diffusion.orders import GaussianOracle, draws, output_variance
from bench.plugins.loading import registry
from samplers.inner import at_sigma, between
from samplers.ode import Level

LINEAR = NoiseSchedule.linear()
SHAPE = (1, 3, 3)
SPECS = [
    "euler",
    "euler-a",
    "heun",
    "edm:churn=30",
    "dpm2",
    "dpm-single:order=3",
    "dpm-single:order=3,form=heun,points=grid",
    "dpm-single:order=3,final=2-1",
    "dpmpp-2s",
    "dpmpp-single:order=3",
    "dpmpp-single:order=3,points=grid,inner=midpoint",
    "dpm2-ancestral",
    "dpmpp-2s-ancestral",
    "dpmpp-sde-single",
    "er-sde",
    "er-sde:scale=sde,weights=exact",
    "er-sde:scale=ode",
    "restart",
    "ddim-inversion",
    "ddim-inversion:told=target",
    "analytic-ddpm:moments=FILE",
    "analytic-ddim:moments=FILE",
]
"""Every rule, with each way of walking the grid."""


class Wavy:
    """A network of a wavy x_0, which it tells itself, and the eps that follows: at alpha_bar = 0 too."""

    shape, variance = SHAPE, "fixed"

    def __init__(self, schedule=LINEAR, continuous=True):
        self.schedule, self.continuous, self.calls = schedule, continuous, []

    def __call__(self, x, t):
        assert self.continuous or t.dtype == torch.int64
        self.calls.append(float(t[0]))
        abar = self.schedule.alpha_bars(t).to(x).view(-1, 1, 1, 1)
        x0 = 0.5 * torch.sin(2 * x + abar)
        return Prediction((x - abar.sqrt() * x0) / (1 - abar).sqrt(), None, x0)


def noise_of(dtype):
    """Noise of two samples."""
    drawn = TrajectoryNoise(0, range(2), SHAPE)
    return drawn.initial().to(dtype), lambda index, draw=0: drawn(index, draw).to(dtype)


def run(spec, grid, model=None, dtype=torch.float64):
    """x after every step."""
    x, noise = noise_of(dtype)
    return list(trajectory(model or Wavy(grid.schedule), get_sampler(spec), grid, x, noise))


def gap(one, other):
    """The greatest difference of two rules on common noise, over all of ten steps."""
    grid = make_grid(LINEAR, 10, "logsnr")
    return max(float((a - b).abs().max()) for a, b in zip(run(one, grid), run(other, grid), strict=True))


@pytest.fixture(autouse=True)
def moments(tmp_path, monkeypatch):
    """A file of second moments for every time that a test asks for."""
    monkeypatch.chdir(tmp_path)

    def write(grid):
        values = {float(step.t): 1 - 0.85 * math.sqrt(step.alpha_bar) for step in grid}
        (tmp_path / "FILE").write_text(NoiseMoments("wavy", "", 0, 0, values).text())

    return write


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_is_euler_ancestral_as_sigma_frames_have_it(eta):
    grid = make_grid(LINEAR, 10, "logsnr")
    model, (x, noise) = Wavy(), noise_of(torch.float64)
    y = x / math.sqrt(grid[0].alpha_bar)
    for step, ours in zip(grid, run(f"euler-ancestral:eta={eta}", grid), strict=True):
        sigma, after = (math.sqrt(1 / a - 1) for a in (step.alpha_bar, step.alpha_bar_next))
        up = min(after, eta * math.sqrt(after**2 * (sigma**2 - after**2) / sigma**2))
        down = math.sqrt(after**2 - up**2)
        x0 = model(math.sqrt(step.alpha_bar) * y, step.times(y)).x0
        y = y + (y - x0) / sigma * (down - sigma) + up * noise(step.index)
        assert float((math.sqrt(step.alpha_bar_next) * y - ours).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("heun", "edm:churn=0"),
        ("heun", "edm:churn=40,churn_min=1e9"),
        ("dpm2-ancestral:eta=0", "dpm2"),
        ("dpmpp-2s-ancestral:eta=0", "dpmpp-2s"),
        ("dpmpp-sde-single:eta=0", "dpmpp-2s"),
        ("er-sde:order=1,scale=ode", "ddim"),
        ("er-sde:order=1,scale=sde", "ddim:eta=1"),
        ("restart:times=0", "heun"),
    ],
)
def test_limits_of_one_rule_are_the_other(one, other):
    assert gap(one, other) < 1e-12


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dpm2", "dpmpp-2s"),
        ("dpm2", "heun"),
        ("dpmpp-single:order=3", "dpmpp-single:order=3,inner=midpoint"),
        ("dpmpp-single:order=3", "dpmpp-single:order=3,form=heun"),
        ("er-sde", "er-sde:weights=exact"),
        ("edm:churn=30", "edm:churn=30,churn_noise=1.01"),
    ],
)
def test_rules_that_differ_do(one, other):
    assert gap(one, other) > 1e-5


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("real", [True, False])
def test_a_grid_of_any_length_ends_finite_in_the_dtype_it_began_in(spec, steps, real, moments):
    grid = make_grid(LINEAR, steps, "logsnr" if real else "linspace")
    moments(grid)
    if spec == "restart" and steps == 1:
        with pytest.raises(NotApplicable, match="no level of a grid of 1 steps"):
            run(spec, grid)
        return
    for dtype in (torch.float64, torch.float32):
        states = run(spec, grid, Wavy(continuous=real), dtype)
        assert len(states) == steps
        assert all(x.dtype == dtype and bool(torch.isfinite(x).all()) for x in states)


@pytest.mark.parametrize("spec", SPECS)
def test_a_repeated_level_keeps_everything_finite(spec, moments):
    grid = make_grid(LINEAR, spacing=[0, 0, 20, 300, 300, 300, 600, 900, 900])
    moments(grid)
    for continuous in (True, False):
        states = run(spec, grid, Wavy(continuous=continuous))
        assert all(bool(torch.isfinite(x).all()) for x in states)
        if not spec.startswith(("edm", "ddim-inversion")):  # churn acts there, inversion ends elsewhere
            assert float((states[4] - states[2]).abs().max()) < 1e-12


@pytest.mark.parametrize("spec", SPECS)
def test_a_start_from_nothing_but_noise_takes_the_x0_that_the_model_tells(spec, moments):
    schedule = zero_terminal_snr(LINEAR)
    grid = make_grid(schedule, 6, "linspace")
    assert grid[0].alpha_bar == 0
    moments(grid)
    for continuous in (True, False):
        states = run(spec, grid, Wavy(schedule, continuous))
        assert all(bool(torch.isfinite(x).all()) for x in states)


@pytest.mark.parametrize("spec", SPECS)
def test_no_noise_reaches_the_last_step(spec, moments):
    grid = make_grid(LINEAR, 5, "logsnr")
    moments(grid)
    states, model = run(spec, grid), Wavy()
    if spec.startswith(("edm", "ddim-inversion")):
        return  # EDM's noise comes before the step, and is removed by it
    x0 = model(states[-2], grid[4].times(states[-2])).x0
    assert float((states[-1] - x0).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("spec", "calls"),
    [
        ("heun", 19),
        ("dpm2", 19),
        ("dpm-single:order=3", 28),
        ("dpm-single:order=3,points=grid", 10),
        ("dpm-single:order=3,final=2-1", 25),
        ("dpmpp-2s", 19),
        ("dpm2-ancestral", 19),
        ("dpmpp-sde-single", 19),
        ("er-sde", 10),
        ("restart", 19 + 2 * 4),
        ("restart:times=3,points=5", 19 + 3 * 8),
        ("ddim-inversion", 30),
    ],
)
def test_calls_are_those_of_the_rule(spec, calls):
    model = Wavy()
    run(spec, make_grid(LINEAR, 10, "logsnr"), model)
    assert len(model.calls) == calls


# Inner times.


def test_inner_levels_are_equal_parts_in_lambda_for_a_model_of_real_times():
    start, end = Level.at(Wavy(), 900), Level.at(Wavy(), 700)
    first, second = between(Wavy(), start, end, (1 / 3, 2 / 3))
    h = end.half_log_snr - start.half_log_snr
    assert first.half_log_snr == pytest.approx(start.half_log_snr + h / 3, abs=1e-12)
    assert second.half_log_snr == pytest.approx(start.half_log_snr + 2 * h / 3, abs=1e-12)
    assert LINEAR.alpha_bar(first.t) == pytest.approx(first.alpha_bar, rel=1e-12)


def test_inner_levels_of_a_model_of_time_steps_are_the_nearest_ones_with_their_own_alpha_bar():
    model = Wavy(continuous=False)
    exact, nearest = (
        between(one, Level.at(one, 900), Level.at(one, 700), (1 / 3, 2 / 3)) for one in (Wavy(), model)
    )
    assert [level.t for level in nearest] == [round(level.t) for level in exact]
    assert [level.alpha_bar for level in nearest] == [LINEAR.alpha_bar(level.t) for level in nearest]


def test_between_neighbouring_time_steps_the_end_is_asked_once():
    model = Wavy(continuous=False)
    (only,) = between(model, Level.at(model, 5), Level.at(model, 4), (1 / 3, 2 / 3))
    assert only == Level.at(model, 4)


def test_no_level_lies_inside_a_step_without_length_or_end():
    start = Level.at(Wavy(), 5)
    assert between(Wavy(), start, start, (0.5,)) == []
    assert between(Wavy(), start, Level.at(Wavy(), -1), (0.5,)) == []


@pytest.mark.parametrize("spec", ["dpm2", "dpm-single:order=3", "dpmpp-2s", "dpmpp-single:order=3"])
def test_rounded_inner_times_cost_no_accuracy(spec):
    """On 100 time steps, where half a step matters: the error is that of real times within a third."""

    class Whole(GaussianOracle):
        continuous = False

    schedule = NoiseSchedule.linear(100, 1e-3, 0.2)
    grid = make_grid(schedule, 12, "time").rounded()
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    start, end = (math.sqrt(a / 4 + 1 - a) for a in (grid[0].alpha_bar, grid[11].alpha_bar))
    errors = []
    for model in (Whole(schedule), GaussianOracle(schedule)):
        states = list(trajectory(model, get_sampler(spec), grid, x, None))
        errors.append(abs(float(states[-2][0, 0, 0, 0]) * start / end - 1))
    rounded, real = errors
    assert rounded < 1.34 * real


def test_edm_raises_no_level_above_the_schedule_s_noisiest():
    schedule = ContinuousSchedule.edm()
    model = Wavy(schedule)
    run("edm:churn=40", make_grid(schedule, 5, "edm"), model)
    assert max(model.calls) == 80
    assert at_sigma(model, 200.0).sigma == pytest.approx(80)


def test_restart_goes_back_to_the_level_asked_for():
    schedule = ContinuousSchedule.edm()
    model = Wavy(schedule)
    grid = make_grid(schedule, 18, "edm")
    run("restart:low=0.06,high=0.3", grid, model)
    near = min(grid.timesteps, key=lambda sigma: abs(sigma - 0.06))
    middle = ((0.3 ** (1 / 7) + near ** (1 / 7)) / 2) ** 7
    at = next(k for k, t in enumerate(model.calls) if t == pytest.approx(0.3, rel=1e-9))
    assert model.calls[at : at + 8] == pytest.approx(2 * [0.3, middle, middle, near], rel=1e-6)
    assert len(model.calls) == 43  # the NFE of the paper's run on CIFAR-10


def test_restart_is_heun_in_sigma_with_noise_in_between():
    """Written out in y = x / sqrt(abar), as the published code has it."""
    schedule = ContinuousSchedule.edm()
    grid, model, (x, noise) = make_grid(schedule, 8, "edm"), Wavy(schedule), noise_of(torch.float64)

    def slope(y, sigma):
        t = torch.full((2,), sigma, dtype=torch.float64)
        return model(y / math.sqrt(1 + sigma**2), t).eps

    def heun(y, sigma, after):
        first = slope(y, sigma)
        over = y + (after - sigma) * first
        return y + (after - sigma) * (first + slope(over, after)) / 2 if after else over

    y, sigmas = math.sqrt(1 + grid[0].t ** 2) * x, [*grid.timesteps, 0.0]
    near = min(range(1, 8), key=lambda k: abs(sigmas[k] - 0.5))
    high, low = 5 ** (1 / 7), sigmas[near] ** (1 / 7)
    again = [(high + k / 3 * (low - high)) ** 7 for k in range(4)]
    for k, ours in enumerate(run("restart:low=0.5,high=5,points=4,times=3", grid)):
        y = heun(y, sigmas[k], sigmas[k + 1])
        for draw in range(3 if k + 1 == near else 0):
            y = y + math.sqrt(again[0] ** 2 - again[-1] ** 2) * noise(k, draw)
            for one, other in pairwise(again):
                y = heun(y, one, other)
        assert float((ours * math.sqrt(1 + sigmas[k + 1] ** 2) - y).abs().max()) < 1e-9


@pytest.mark.parametrize("weights", ["published", "exact"])
def test_er_sde_is_the_integral_of_its_equation(weights):
    """y_u = r y + phi(sigma_u) int phi'/phi^2 x_0 dsigma, x_0 a polynomial in sigma, by quadrature."""
    grid = make_grid(LINEAR, 9, "logsnr")
    model, (x, noise) = Wavy(), noise_of(torch.float64)
    y, past = x / math.sqrt(grid[0].alpha_bar), []

    def phi(sigma):
        return sigma * (math.exp(sigma**0.3) + 10)

    def pull(sigma):  # phi' / phi^2
        rise = 0.3 * sigma**0.3 * math.exp(sigma**0.3)
        return (math.exp(sigma**0.3) + 10 + rise) / phi(sigma) ** 2

    for step, ours in zip(grid, run(f"er-sde:weights={weights}", grid), strict=True):
        sigma, after = (math.sqrt(1 / a - 1) for a in (step.alpha_bar, step.alpha_bar_next))
        past = [(sigma, model(math.sqrt(step.alpha_bar) * y, step.times(y)).x0), *past[:2]]
        if step.last:
            assert float((ours - past[0][1]).abs().max()) < 1e-9
            return

        def moment(k, sigma=sigma, after=after):
            return quad(lambda v: phi(after) * pull(v) * (v - sigma) ** k, after, sigma, epsabs=1e-13)[0]

        r = phi(after) / phi(sigma)
        y = r * y + (1 - r) * past[0][1] + math.sqrt(after**2 - (r * sigma) ** 2) * noise(step.index)
        if len(past) > 1:
            first = (past[0][1] - past[1][1]) / (sigma - past[1][0])
            y = y + moment(1) * first
        if len(past) > 2:
            earlier = (past[1][1] - past[2][1]) / (past[1][0] - past[2][0])
            second = (first - earlier) / (sigma - past[2][0])
            more = (sigma - past[1][0]) * moment(1) if weights == "exact" else 0
            y = y + (moment(2) + more) * second
        assert float((math.sqrt(step.alpha_bar_next) * y - ours).abs().max()) < 1e-9


# Second moments.


def test_with_the_true_moments_analytic_steps_are_exact_on_gaussian_data(tmp_path):
    """Gamma_t = (1 - abar) / (abar s^2 + 1 - abar).

    What is missing is the variance of x_0 given x at t = 0; DDIM also remembers that x_T is not quite normal.
    """
    grid = make_grid(LINEAR, 10, "linspace")
    values = {float(s.t): (1 - s.alpha_bar) / (s.alpha_bar / 4 + 1 - s.alpha_bar) for s in grid}
    (tmp_path / "true").write_text(NoiseMoments("gaussian", "", 0, 0, values).text())
    abar = LINEAR.alpha_bar(0)
    missing = 0.25 * (1 - abar) / (0.25 * abar + 1 - abar)
    for spec in ("analytic-ddpm", "analytic-ddim", "analytic-ddim:eta=0.5"):
        options = "," if ":" in spec else ":"
        got = output_variance(get_sampler(f"{spec}{options}moments=true,clip=none"), LINEAR, grid)
        assert got == pytest.approx(0.25 - missing, abs=1e-8 if "ddpm" in spec else 1e-5), spec


def test_moments_are_estimated_to_sampling_error():
    model = GaussianOracle(LINEAR)
    x0 = 0.5 * TrajectoryNoise(7, range(5000), (1, 2, 2)).initial()
    for t in (0, 300, 999):
        abar = LINEAR.alpha_bar(t)
        exact = (1 - abar) / (abar / 4 + 1 - abar)
        assert noise_moment(model, x0, t) == pytest.approx(exact, rel=4 * math.sqrt(2 / 20000))


def test_moments_come_back_from_their_file_and_say_what_they_lack(tmp_path):
    known = NoiseMoments("digits", "abc", 1000, 2000, {999.0: 1.0, 0.5: 0.25})
    (tmp_path / "kept.json").write_text(known.text())
    assert read_moments(tmp_path / "kept.json") == known
    with pytest.raises(UsageError, match="no moment of digits for the time 5; `sampler-bench moments`"):
        known.at(5)
    with pytest.raises(UsageError, match="cannot read moments from"):
        read_moments(tmp_path / "none.json")
    for text in ("{}", "[]", '{"values": 3}', "no json", '{"values": [], "strange": 1}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UsageError, match="holds no moments"):
            read_moments(tmp_path / "bad.json")


def test_analytic_samplers_ask_for_moments():
    for spec in ("analytic-ddpm", "analytic-ddim"):
        with pytest.raises(NotApplicable, match="moments=FILE gives them"):
            run(spec, make_grid(LINEAR, 5))


# Inversion.


def test_the_round_trip_comes_closer_with_the_number_of_steps():
    """On a schedule that comes as near to x_0 as one likes: the first step up has an error of its own."""
    model = GaussianOracle(ContinuousSchedule.edm(1e-6))
    for told in ("current", "target"):
        gaps = []
        for steps in (160, 320):
            grid = make_grid(model.schedule, steps, "logsnr")
            there, back = (run(one, grid, model)[-1] for one in ("ddim", f"ddim-inversion:told={told}"))
            gaps.append(float((there - back).abs().max()))
        assert 1e-3 < gaps[0] < 0.1
        assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.25)


# Names.


def test_names_of_one_rule_are_told_as_such_and_none_joins_the_default_sweep():
    assert get_sampler("euler").spec == get_sampler("ddim").spec
    assert (
        get_sampler("euler-a").spec == get_sampler("euler-ancestral").spec == get_sampler("ddim:eta=1").spec
    )
    assert get_sampler("heun").spec == get_sampler("edm").spec
    assert get_sampler("dpm2").spec == get_sampler("dpm-single:order=2").spec
    assert get_sampler("dpmpp-2s").spec == get_sampler("dpmpp-single").spec
    labels = [one.label for one in registry().default_samplers.values()]
    assert [label.partition(" ")[0] for label in labels] == 3 * ["ddpm"] + 4 * ["ddim"]


def test_two_names_of_one_rule_are_one_row_and_the_user_is_told(capsys):
    (only,) = parse_samplers(["heun", "edm"])
    assert only.label == "heun"
    assert capsys.readouterr().err == "edm and heun are one rule: one row\n"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("dpm-single:order=4", "dpm-single:order must be at most 3, got 4"),
        ("edm:churn_noise=inf", "must be a finite number"),
        ("er-sde:scale=vp", "must be one of er, sde, ode"),
        ("restart:points=1", "at least 2"),
    ],
)
def test_bad_values_are_refused_in_a_sentence(spec, sentence):
    with pytest.raises(UsageError, match=sentence):
        get_sampler(spec)


def test_restarts_at_several_levels_are_one_after_another():
    grid = make_grid(LINEAR, 10, "edm")
    one, other = "4x2@0.06-0.3", "3x1@1-2.5"
    alone = [drawn_at(f"restart:intervals={part}", grid) for part in (one, other)]
    assert drawn_at(f"restart:intervals={one}/{other}", grid) == {**alone[0], **alone[1]}
    first, last = run("restart:intervals=3x2@0.06-0.3", grid)[-1], run("restart", grid)[-1]
    assert torch.equal(first, last)  # the defaults, written as an interval
    with pytest.raises(UsageError, match="POINTSxTIMES@LOW-HIGH"):
        get_sampler("restart:intervals=3x2@0.06")
    with pytest.raises(UsageError, match="POINTSxTIMES@LOW-HIGH"):
        get_sampler("restart:intervals=1x2@0.06-0.3")


def drawn_at(spec, grid):
    """How often noise is asked for at each step."""
    asked = {}
    for index, _ in draws(get_sampler(spec), grid):
        asked[index] = asked.get(index, 0) + 1
    return asked


def test_a_restart_from_above_is_refused_in_a_sentence():
    with pytest.raises(UsageError, match=r"low=0\.5 must be less than high=0\.3"):
        run("restart:low=0.5", make_grid(LINEAR, 5))


def test_orders_of_the_last_steps_are_the_grid_s_own_where_it_holds_the_inner_times():
    with pytest.raises(UsageError, match="final=1 is for points=between"):
        run("dpm-single:order=3,points=grid,final=1", make_grid(LINEAR, 5))


def test_the_error_of_a_round_trip_is_a_score_that_falls_as_one_over_s(tmp_path):
    from bench.commands.main import main

    spec = "ddim-inversion:gives=error"
    options = ["--model", "exact-mixture", "--n", "60", "--samplers", spec, "--metrics", "rms_x0"]
    assert main(["run", *options, "--steps", "50,100", "--results", str(tmp_path)]) == 0
    frame = load_results(tmp_path).query("kind == 'samples'").set_index("steps")
    assert 1.5 < frame.score[50] / frame.score[100] < 2.6
    assert (frame.score_se > 0).all()


def test_the_error_is_what_the_second_sample_has_beyond_the_first():
    grid = make_grid(LINEAR, 10)
    found = run("ddim-inversion:gives=error", grid)[-1]
    assert torch.allclose(found, run("ddim-inversion", grid)[-1] - run("ddim", grid)[-1], atol=1e-12)


def test_a_round_trip_from_a_grid_that_stops_is_made_too():
    grid = make_grid(LINEAR, 10, "linspace:stop=true")
    assert (run("ddim-inversion", grid)[-1] - run("ddim", grid)[-1]).abs().max() > 1e-4
