"""Trajectories of published solvers on a closed-form network, and ours on the same start and noise.

A case that ends at ``alpha_bar_0`` stops at the level of t = 0, or of its grid's last time: our state before
the step to x_0 is that one.
"""

import json
from pathlib import Path

import numpy as np
import torch

from bench import NoiseMoments, NoiseSchedule, Prediction, get_sampler, make_grid, trajectory
from support import toys

GOLDEN = Path(__file__).parents[1] / "golden"


def _read(folder):
    cases = json.loads((GOLDEN / folder / "cases.json").read_text())
    return {case["case"]: case for case in cases}, np.load(GOLDEN / folder / "trajectories.npz")


MULTISTEP, MULTISTEP_ARRAYS = _read("solvers")
SINGLE, SINGLE_ARRAYS = _read("solvers_single")
BASIS = {"rho_ab": "rho", "t_ab": "t"}
START = {"euler": "improved-euler", "prk": "runge-kutta"}
CHURN = {"S_churn": "churn", "S_min": "churn_min", "S_max": "churn_max", "S_noise": "churn_noise"}


class Toy:
    """The published codes' network, at real times too; it remembers when it was called."""

    shape, variance, continuous = (3, 4, 4), "fixed", True

    def __init__(self, case):
        self.schedule = NoiseSchedule.linear(case["T"])
        self.scale, self.frequency = case["eps_scale"], case["eps_freq"]
        self.called = []

    def __call__(self, x, t):
        self.called.append(float(t[0]))
        none = torch.full((len(x),), -1)
        abar = self.schedule.alpha_bars(t)
        return Prediction(toys.eps_net(x, t, none, abar, self.scale, self.frequency))


def final_of(case):
    """The end rule on our grids, which always go on to x_0."""
    if case["end"] == "alpha_bar_0" and case["end_rule"] == "lowered":
        return "lowered_then_x0"
    return "only" if case["end_rule"] == "any" else case["end_rule"]


def multistep_spec(case):
    """The sampler that a case was made with, in our names."""
    name, given = case["sampler"], dict(case["options"])
    if given.get("m") == "ipndm":
        return "ipndm:order=4"
    if name == "deis" and "m" in given:
        return f"deis:order={given['order'] + 1},basis={BASIS[given['m']]}"
    if name == "pndm":
        return f"pndm:start={START[given['start']]}"
    if name == "lms":
        return f"lms:order={given['order']}"
    if name == "sa-solver":
        return spec_of_sa_solver(given)
    given.pop("corrector_skipped_on_the_step_to", None)
    return f"{name}:" + ",".join(f"{k}={v}" for k, v in {**given, "final": final_of(case)}.items())


def spec_of_sa_solver(given):
    """tau = 1 from t = 0.2 T to 0.8 T alone is told by the levels of these times: sigma 0.72 and 25.7."""
    tau = {"mid": 1, "0p5": 0.5}.get(given["tau"], given["tau"])
    spec = f"sa-solver:predictor={given['p']},corrector={given['c']},tau={tau}"
    if given["tau"] == "mid" or "tau_interval" in given:
        spec += ",tau_min=0.5,tau_max=20"
    return spec + (",mode=more" if given.get("mode") == "more" else "")


def grid_of(case, schedule):
    ends_before_0 = case["end"] == "alpha_bar_0" and case["grid"][-1] != 0
    return make_grid(schedule, spacing=[*case["grid"], *([0] if ends_before_0 else [])])


def single_spec(case, moments):
    """The sampler that a case was made with."""
    given = case["options"]
    if case["sampler"] == "edm":
        options = {CHURN[key]: value for key, value in given.items() if key in CHURN}
    elif case["sampler"].startswith("analytic"):
        options = {"moments": moments} | ({"levels": 2} if "clip" in given else {})
    elif case["sampler"] in ("dpm-single", "dpmpp-single"):
        options = {"order": given["order"]}
        if "diffusers" in case["source"]:
            options |= {"points": "grid", "inner": "midpoint"}
        elif fewer := [str(one) for one in case["blocks"] if one != given["order"]]:
            options |= {"final": "-".join(fewer)}
    else:
        options = given
    text = ",".join(f"{key}={value}" for key, value in options.items())
    return f"{case['sampler']}:{text}" if text else case["sampler"]


def published_moments(folder):
    """The file of the published code's Gamma_t."""
    values = {float(t): float(value) for t, value in enumerate(SINGLE_ARRAYS["Gamma_t"])}
    path = Path(folder) / "moments.json"
    path.write_text(NoiseMoments("toy", "", 0, 0, values).text())
    return path


def run_multistep(case):
    """Return (greatest deviation of our end point, times of our calls)."""
    drawn = MULTISTEP_ARRAYS.get(f"{case['case']}_noise", ())
    thrown_away = int(case.get("note", "").startswith("draw i + 1"))
    model = Toy(case)
    grid = grid_of(case, model.schedule)
    return _run(case, multistep_spec(case), model, grid, MULTISTEP_ARRAYS, drawn[thrown_away:])


def run_single(case, moments):
    """Return (greatest deviation of our end point, times of our calls)."""
    model = Toy(case)
    grid = make_grid(model.schedule, spacing=sorted(case["grid"]))
    drawn = SINGLE_ARRAYS.get(f"{case['case']}_noise", ())
    return _run(case, single_spec(case, moments), model, grid, SINGLE_ARRAYS, drawn)


def _run(case, spec, model, grid, arrays, drawn):
    x = torch.from_numpy(arrays[f"{case['case']}_xT"])

    def noise(index, draw=0):
        return torch.from_numpy(drawn[index])

    states = trajectory(model, get_sampler(spec), grid, x, noise)
    for _ in range(len(grid) - (case["end"] == "alpha_bar_0")):
        end = next(states)
    return float(np.abs(end.numpy() - arrays[f"{case['case']}_final"]).max()), model.called
