"""Published code under guidance and in other parametrisations, trajectory by trajectory.

GLIDE, guided-diffusion, latent-diffusion, diffusers and EDM were run in float64 on closed-form networks; the
same networks, wrapped here, must end where theirs did, with as many evaluations.
"""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support import toys
from support.toys import signed

from bench import (
    ContinuousSchedule,
    NoiseSchedule,
    Prediction,
    TrajectoryNoise,
    UsageError,
    cascade,
    classifier_guided,
    from_denoiser,
    from_flow,
    from_prediction,
    get_sampler,
    guided,
    make_grid,
    preconditioned,
    projected,
    sample,
    thresholded,
    trajectory,
    zero_terminal_snr,
)
from bench.diffusion.prediction import SPENT, Spent

GOLDEN = Path(__file__).parents[1] / "golden" / "guided"
CASES = {case["case"]: case for case in json.loads((GOLDEN / "guided_cases.json").read_text())}
END = np.load(GOLDEN / "guided_trajectories.npz")
PLAIN = {case["case"]: case for case in json.loads((GOLDEN / "parametrisation_cases.json").read_text())}
PLAIN_END = np.load(GOLDEN / "parametrisation_trajectories.npz")
SHAPE = (3, 4, 4)


def of_family(*families):
    return [name for name, case in CASES.items() if case["family"] in families]


def array(name):
    return torch.from_numpy(END[name])


def schedule_of(case):
    if "beta_start" in case or case["schedule"].startswith("scaled_linear"):
        low, high = case.get("beta_start", 0.00085), case.get("beta_end", 0.012)
        betas = torch.linspace(math.sqrt(low), math.sqrt(high), 1000, dtype=torch.float64).square()
        made = NoiseSchedule.from_betas(betas)
    else:
        made = NoiseSchedule.linear() if case["schedule"] == "linear" else NoiseSchedule.cosine()
    return zero_terminal_snr(made) if case.get("zero_snr") else made


class Net:
    """A toy as the conditional network that `guided` takes."""

    shape, classes = SHAPE, toys.CLASSES

    def __init__(self, schedule, prediction="eps", variance="fixed"):
        self.schedule, self.prediction, self.variance = schedule, prediction, variance

    def __call__(self, x, t, label):
        label = signed(label)
        if self.prediction == "eps":
            raw = toys.eps_net(x, t, label, self.schedule.alpha_bars(t))
        else:
            raw = {"v": toys.v_net, "x0": toys.x0_net, "flow": toys.flow_net}[self.prediction](x, t, label)
        return Prediction(raw, toys.v_range(x, t, label) if self.variance == "learned_range" else None)


class Noises:
    """The draws of a case, one a step in order."""

    def __init__(self, name):
        self.draws = array(f"{name}_noise") if f"{name}_noise" in END.files else None

    def __call__(self, index):
        return self.draws[index]


def spent_on(model):
    """A model that adds up what is asked of the networks inside."""
    total = Spent(0, 0)

    def counted(x, t):
        inside = Spent()
        token = SPENT.set(inside)
        try:
            return model(x, t)
        finally:
            SPENT.reset(token)
            total.rows += len(x) if inside.rows is None else inside.rows
            total.gradients += inside.gradients

    counted.schedule, counted.shape, counted.variance = model.schedule, model.shape, model.variance
    for name in ("gradient", "unguided"):
        if hasattr(model, name):
            setattr(counted, name, getattr(model, name))
    return counted, total


def model_of(case):
    guidance = case["guidance"]
    kind = "learned_range" if str(case["variance"]).startswith("learned_range") else "fixed"
    schedule = schedule_of(case)
    if guidance["kind"] == "classifier":
        label = torch.tensor(case["labels"])
        net = Net(schedule, "eps", kind)
        seen = label if guidance["network_conditional"] else torch.full_like(label, toys.CLASSES)
        base = guided(net, seen)
        gradient = lambda x, t: toys.classifier_gradient(x, schedule.alpha_bars(t), label)  # noqa: E731
        before = case["clip"] if case["sampler"] == "ddim" else "none"
        return classifier_guided(base, gradient, guidance["scale"], clip=before)
    interval = None
    if "from_step" in guidance:
        times = case["timesteps"]
        interval = (times[guidance["to_step"]], times[guidance["from_step"]])
    net = Net(schedule, case["network"], kind)
    return guided(net, case["labels"], guidance["scale"], guidance.get("rescale", 0.0), interval)


def sampler_of(case):
    clip, guidance = case["clip"], case["guidance"]
    if case["sampler"] == "ddim":
        clip = "none" if guidance["kind"] == "classifier" else clip
        clip = "dynamic-raw-eps" if clip == "dynamic" and case["clip_eps"] == "raw" else clip
        more = {"eta": case["eta"] or 0.0}
    else:
        given = str(case["variance"]).replace("_", "")
        more = {"variance": "learned" if given.startswith("learned") else given}
        more |= {"guide": "mean"} if guidance["kind"] == "classifier" else {}
    if clip.startswith("dynamic"):
        more |= {"quantile": case["threshold_quantile"], "greatest": case["threshold_max"]}
    return get_sampler(case["sampler"]).with_(clip=clip, **more)


FAMILIES = ("cfg-learned-range", "classifier-guidance", "prediction-types")


@pytest.mark.parametrize("name", [name for name in of_family(*FAMILIES) if not name.startswith("apg")])
def test_guided_trajectories_end_where_the_published_ones_do(name):
    case = CASES[name]
    model, total = spent_on(model_of(case))
    grid = make_grid(model.schedule, spacing=case["timesteps"])
    x = array(f"{name}_xT")  # times the initial temperature, where there is one
    end = sample(model, sampler_of(case), grid, x, Noises(name))
    assert float((end - array(f"{name}_final")).abs().max()) < case["tolerance"]
    if "evaluations_per_sample" in case:
        rows = case["evaluations_per_sample"]
        if case["guidance"].get("scale") == 0 and model.variance == "fixed":
            rows = case["calls"]
        assert total.rows == rows * len(x)
    if case.get("gradient_calls") and case["sampler"] == "ddim":
        assert total.gradients == case["gradient_calls"] * len(x)


def test_thresholding_in_the_model_is_the_sampler_s_mode_with_eps_derived_again():
    name = "cfg_ddim_eps_S10_w7_dynamic_reclip"
    case = CASES[name]
    model = thresholded(model_of(case), case["threshold_quantile"], case["threshold_max"])
    grid = make_grid(model.schedule, spacing=case["timesteps"])
    end = sample(model, get_sampler("ddim"), grid, array(f"{name}_xT"), None)
    assert float((end - array(f"{name}_final")).abs().max()) < case["tolerance"]


@pytest.mark.parametrize("name", [name for name in of_family("latent-diffusion") if "plms" not in name])
def test_latent_diffusion_ends_at_its_first_level(name):
    """Its last step goes to alpha_bar_0: one more time step here, and the state before the last step."""
    case = CASES[name]
    model = guided(Net(schedule_of(case)), case["labels"], case["guidance"]["scale"])
    grid = make_grid(model.schedule, spacing=[0, *case["timesteps"]])
    sampler = get_sampler("ddim").with_(eta=case["eta"])
    noise = Noises(name) if case["eta"] else None
    *_, before, _ = trajectory(model, sampler, grid, array(f"{name}_xT"), noise)
    assert float((before - array(f"{name}_final")).abs().max()) < case["tolerance"]


def test_latent_diffusion_s_plms_ends_at_its_first_level():
    """PLMS under guidance; the step to x_0 comes after its own end."""
    name = "ldm_plms_10_w5"
    case = CASES[name]
    model, total = spent_on(guided(Net(schedule_of(case)), case["labels"], case["guidance"]["scale"]))
    grid = make_grid(model.schedule, spacing=[0, *case["timesteps"]])
    steps = trajectory(model, get_sampler("plms"), grid, array(f"{name}_xT"), None)
    for _ in range(len(grid) - 1):
        before = next(steps)
    assert float((before - array(f"{name}_final")).abs().max()) < case["tolerance"]
    assert total.rows == case["evaluations_per_sample"] * len(before)


def test_projected_guidance_with_momentum_ends_where_diffusers_does():
    name = "apg_ddim_v_S10_w6"
    case = CASES[name]
    guidance = case["guidance"]
    net = Net(schedule_of(case), "v")
    arguments = (guidance["eta"], guidance["norm_threshold"], guidance["momentum"])
    chosen = projected(net, case["labels"], guidance["scale"], *arguments, onto="unconditional")
    model, total = spent_on(chosen)
    grid = make_grid(net.schedule, spacing=case["timesteps"])
    end = sample(model, get_sampler("ddim"), grid, array(f"{name}_xT"), None)
    assert float((end - array(f"{name}_final")).abs().max()) < case["tolerance"]
    assert total.rows == case["evaluations_per_sample"] * len(end)


def test_projected_guidance_that_keeps_all_is_guidance():
    net, x, t = Net(NoiseSchedule.linear()), array("apg_ddim_v_S10_w6_xT"), torch.tensor([500, 500])
    plain, whole = guided(net, [2, 5], 3.0)(x, t), projected(net, [2, 5], 3.0, along=1.0)(x, t)
    assert float((plain.eps - whole.eps).abs().max()) < 1e-12
    for onto, scale in (("conditional", 1.0), ("unconditional", 0.0)):
        short = projected(net, [2, 5], 3.0, along=1.0, greatest=1e-9, onto=onto)(x, t)
        assert float((short.eps - guided(net, [2, 5], scale)(x, t).eps).abs().max()) < 1e-8


def test_projected_guidance_of_scale_one_is_the_conditional_answer():
    net, x, t = Net(NoiseSchedule.linear()), array("apg_ddim_v_S10_w6_xT"), torch.tensor([500, 500])
    one = projected(net, [2, 5], 1.0, along=0.0, greatest=0.1)(x, t)
    assert float((one.eps - guided(net, [2, 5], 1.0)(x, t).eps).abs().max()) < 1e-12


def test_projected_guidance_takes_the_part_along_the_conditional_answer_out():
    """c + (w - 1) d' with d' at a right angle to c, by the formula written out."""
    net, x, t = Net(NoiseSchedule.linear()), array("apg_ddim_v_S10_w6_xT"), torch.tensor([500, 500])
    c, u = (guided(net, [2, 5], scale)(x, t).eps.flatten(1) for scale in (1.0, 0.0))
    d = (c - u) - ((c - u) * c).sum(1, keepdim=True) / (c * c).sum(1, keepdim=True) * c
    found = projected(net, [2, 5], 4.0)(x, t).eps.flatten(1)
    assert float((found - (c + 3 * d)).abs().max()) < 1e-10


def test_projected_guidance_refuses_what_it_cannot_do():
    net = Net(NoiseSchedule.linear())
    with pytest.raises(UsageError, match="onto conditional or unconditional, got 'both'"):
        projected(net, [2, 5], 3.0, onto="both")
    with pytest.raises(UsageError, match="greatest > 0"):
        projected(net, [2, 5], 3.0, greatest=0.0)


def test_heun_in_flow_time_ends_where_diffusers_does():
    """Heun's rule in s, which is not Heun's in sigma, on the converted network."""
    name = "flow_heun_S8_w2"
    case = CASES[name]
    called = dict(zip(case["sigmas"], case["called"], strict=False))
    schedule = ContinuousSchedule.flow(case["shift"])
    model = guided(Net(schedule, "flow"), case["labels"], case["guidance"]["scale"])
    levels = [*dict.fromkeys(case["sigmas"][:-1]), 0.0]
    z = array(f"{name}_xT")

    def velocity(z, s):
        """The network's answer u = eps - x_0 at z = (1 - s) x_0 + s eps, by what the model says of x_t."""
        times = torch.full((len(z),), called[s], dtype=torch.float64)
        a, b = ((one := schedule.alpha_bar(called[s])) ** 0.5, (1 - one) ** 0.5)
        answer = model(z * (a + b), times)
        return answer.eps - answer.x0

    for here, there in itertools.pairwise(levels):
        first = velocity(z, here)
        moved = z + (there - here) * first
        last = there == 0
        z = moved if last else z + (there - here) * (first + velocity(moved, there)) / 2
    assert float((z - array(f"{name}_final")).abs().max()) < 1e-5


@pytest.mark.parametrize("name", [name for name in of_family("flow") if "euler" in name])
def test_euler_in_flow_time_is_ddim(name):
    case = CASES[name]
    called = dict(zip(case["sigmas"], case["called"], strict=False))
    net = Net(ContinuousSchedule.flow(case["shift"]), "flow")
    inner = net.__class__.__call__

    class Told(Net):
        """The network is told the times that the published code told it: not quite its float32 levels."""

        def __call__(self, x, t, label):
            return inner(self, x, torch.full_like(t, called[float(t[0])]), label)

    model = guided(Told(net.schedule, "flow"), case["labels"], case["guidance"]["scale"])
    grid = make_grid(model.schedule, spacing=case["sigmas"][:-1])
    end = sample(model, get_sampler("ddim"), grid, array(f"{name}_xT"), None)
    assert float((end - array(f"{name}_final")).abs().max()) < case["tolerance"]


def heun(model, x, grid):
    """EDM's algorithm 1 in y = x / sqrt(abar), dy / dsigma = eps."""
    levels = [math.sqrt(1 / step.alpha_bar - 1) for step in grid] + [0.0]
    a = [math.sqrt(step.alpha_bar) for step in grid] + [1.0]
    y = x / a[0]
    steps = list(grid)
    for i, step in enumerate(steps):
        first = model(y * a[i], step.times(x)).eps
        there = y + (levels[i + 1] - levels[i]) * first
        if i + 1 < len(steps):
            second = model(there * a[i + 1], steps[i + 1].times(x)).eps
            there = y + (levels[i + 1] - levels[i]) * (first + second) / 2
        y = there
    return y


@pytest.mark.parametrize("name", of_family("edm"))
def test_denoisers_are_preconditioned_as_published(name):
    case = CASES[name]
    label = torch.tensor(case["labels"])
    raw = lambda x, noise, labels: toys.raw_net(x, noise, signed(labels), case["raw_gain"])  # noqa: E731
    inside = preconditioned(raw, case["precond"])
    levels = list(dict.fromkeys(case["called_sigma"]))
    schedule = ContinuousSchedule.edm(1e-3, 100.0)

    class Denoiser:
        shape, classes, variance, prediction = SHAPE, toys.CLASSES, "fixed", "denoiser"

        def __call__(self, x, t, labels):
            return Prediction(inside(x, t, labels))

    net = Denoiser()
    net.schedule = schedule
    model = guided(net, label, case["guidance"]["scale"])
    grid = make_grid(schedule, spacing=levels)
    x = array(f"{name}_xT") * levels[0] * math.sqrt(schedule.alpha_bar(levels[0]))
    end = heun(model, x, grid)
    assert float((end - array(f"{name}_final")).abs().max()) < case["tolerance"]
    if case["guidance"]["scale"] == 1:
        plain = from_denoiser(lambda y, s: inside(y, s, label), SHAPE, 1e-3, 100.0)
        assert torch.equal(heun(plain, x, grid), end)


def test_a_cascade_binds_the_base_s_eight_bits():
    name = "cascade_glide_100_fast27"
    case = CASES[name]
    base, up = case["stages"]
    model = guided(Net(NoiseSchedule.cosine(), "eps", "learned_range"), base["labels"], 3.0)
    sampler = get_sampler("ddpm").with_(variance="learned")
    grid = make_grid(model.schedule, spacing=base["timesteps"])
    small = sample(model, sampler, grid, array(f"{name}_xT"), Noises(name))
    assert float((small - array(f"{name}_base")).abs().max()) < case["tolerance"]
    schedule = NoiseSchedule.linear()

    def upsampler(low):
        return from_prediction(
            lambda x, t: toys.upsampler_net(x, t, low, schedule.alpha_bars(t)), schedule, (3, 8, 8), "eps"
        )

    stage = cascade(model, upsampler).stages[0]
    larger = stage.bound_to(small, TrajectoryNoise(0, range(len(small)), (3, 8, 8), stage=1))
    grid = make_grid(schedule, spacing=up["timesteps"])
    end = sample(larger, get_sampler("ddim:clip=x0"), grid, array(f"{name}_up_xT"), None)
    assert float((end - array(f"{name}_final")).abs().max()) < case["tolerance"]


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_zero_terminal_snr_has_the_published_tables(kind):
    base = schedule_of({"schedule": kind})
    made = zero_terminal_snr(base)
    assert made.alpha_bar(999) == 0
    assert float((made.alphas_cumprod - array(f"zero_snr_abar_{kind}")).abs().max()) < 1e-12
    assert float((made.betas - array(f"zero_snr_betas_{kind}")).abs().max()) < 1e-12


class Toy:
    """The unconditional toy in any parametrisation; where alpha_bar = 0 its x_0 is 0.3 sin(x)."""

    def __init__(self, schedule, kind):
        self.schedule, self.kind = schedule, kind

    def __call__(self, x, t):
        abar = toys.spread(self.schedule.alpha_bars(t), x)
        shown = x
        if self.kind == "flow":  # its state is (1 - s) x_0 + s eps
            s = toys.spread(t, x)
            shown = x / ((1 - s).square() + s.square()).sqrt()
            abar = (1 - s).square() / ((1 - s).square() + s.square())
        times = toys.spread(t, x) * (1000 if self.kind == "flow" else 1)
        gain = (1 - abar).sqrt() / (1 - abar + abar * 0.25)
        eps = gain * shown + 0.05 * torch.sin(3.0 * shown + times / 250)
        a, b = abar.sqrt(), (1 - abar).sqrt()
        x0 = torch.where(abar == 0, 0.3 * torch.sin(shown), (shown - b * eps) / a.clamp(min=1e-30))
        return {"epsilon": eps, "v_prediction": a * eps - b * x0, "sample": x0, "flow": eps - x0}[self.kind]


@pytest.mark.parametrize("name", PLAIN)
def test_other_parametrisations_end_where_diffusers_does(name):
    case = PLAIN[name]
    x = torch.from_numpy(PLAIN_END[f"{name}_xT"]).double()
    draws = torch.from_numpy(PLAIN_END[f"{name}_noise"]).double()
    final = torch.from_numpy(PLAIN_END[f"{name}_final"]).double()
    if "sigmas" in case:
        model = from_flow(Toy(ContinuousSchedule.flow(), "flow"), SHAPE, case["shift"])
        grid, sampler = make_grid(model.schedule, spacing=case["sigmas"][:-1]), get_sampler("ddim")
    else:
        schedule = NoiseSchedule.linear()
        schedule = zero_terminal_snr(schedule) if case["config"].get("rescale_betas_zero_snr") else schedule
        predicts = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}[case["prediction"]]
        model = from_prediction(Toy(schedule, case["prediction"]), schedule, SHAPE, predicts)
        grid = make_grid(schedule, spacing=case["timesteps"])
        clip = "dynamic-raw-eps" if case["config"].get("thresholding") else "none"
        sampler = get_sampler("ddpm:clip=none") if "ddpm" in name else get_sampler("ddim").with_(clip=clip)
        if "dpmpp2m" in name:
            sampler = get_sampler("dpmpp:order=2,final=lowered15")
        if clip != "none":
            sampler = sampler.with_(quantile=0.95, greatest=1.5)
    end = sample(model, sampler, grid, x, lambda index: draws[index])
    assert float((end - final).abs().max()) < case["tolerance"]
