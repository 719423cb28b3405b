"""Published single-step and stochastic solvers on a closed-form network, to the end point and call by call.

`blocks` of a case are the orders of its steps; `end` tells whether it goes on to x_0. Where it stops at the
level of the grid's last time, our state after the step before the last is that one.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support import toys

from bench import NoiseMoments, NoiseSchedule, Prediction, get_sampler, make_grid, trajectory
from samplers.ddim_inversion import inverted
from samplers.ode import Level

GOLDEN = Path(__file__).parents[1] / "golden" / "solvers_single"
CASES = {case["case"]: case for case in json.loads((GOLDEN / "cases.json").read_text())}
ARRAYS = np.load(GOLDEN / "trajectories.npz")
FORWARD = [name for name, case in CASES.items() if case["sampler"] != "ddim-inverse"]
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


def spec_of(case, moments):
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


def run(case, spec):
    """Return (model, x after every step) of our sampler on a case."""
    model = Toy(case)
    name = case["case"]
    x = torch.from_numpy(ARRAYS[f"{name}_xT"])
    drawn = ARRAYS.get(f"{name}_noise", ())

    def noise(index, draw=0):
        return torch.from_numpy(drawn[index])

    grid = make_grid(model.schedule, spacing=sorted(case["grid"]))
    return model, list(trajectory(model, get_sampler(spec), grid, x, noise))


@pytest.fixture
def moments(tmp_path):
    """The file of the published code's Gamma_t."""
    values = {float(t): float(value) for t, value in enumerate(ARRAYS["Gamma_t"])}
    path = tmp_path / "moments.json"
    path.write_text(NoiseMoments("toy", "", 0, 0, values).text())
    return path


@pytest.mark.parametrize("name", FORWARD)
def test_end_point_and_calls_are_the_published_code_s(name, moments):
    case = CASES[name]
    model, states = run(case, spec_of(case, moments))
    stops = case["end"] == "alpha_bar_0"
    called = model.called[:-1] if stops else model.called
    assert len(called) == case["calls"]
    assert called == pytest.approx(case["called_t"], abs=1e-9)
    end = states[-2] if stops else states[-1]
    assert np.abs(end.numpy() - ARRAYS[f"{name}_final"]).max() <= case["tolerance"]


def test_inversion_told_the_target_is_the_published_code_s():
    """Its first step leads from the level of t = 0 to itself."""
    case = CASES["ddiminverse_lin_S10"]
    model = Toy(case)
    levels = [Level.at(model, int(t)) for t in [0, *case["grid"]]]
    x = inverted(model, torch.from_numpy(ARRAYS["ddiminverse_lin_S10_xT"]), levels, "target")
    assert model.called == case["called_t"]
    assert np.abs(x.numpy() - ARRAYS["ddiminverse_lin_S10_final"]).max() <= case["tolerance"]
