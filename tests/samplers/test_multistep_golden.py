"""Published multistep solvers on a closed-form network, to the end point, call by call.

A case that ends at ``alpha_bar_0`` stops at the level of t = 0: our state before the step to x_0 is that one.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support import toys

from bench import NoiseSchedule, Prediction, get_sampler, make_grid, trajectory
from samplers.ode import planned

GOLDEN = Path(__file__).parents[1] / "golden" / "solvers"
CASES = {case["case"]: case for case in json.loads((GOLDEN / "cases.json").read_text())}
ARRAYS = np.load(GOLDEN / "trajectories.npz")
BASIS = {"rho_ab": "rho", "t_ab": "t"}
START = {"euler": "improved-euler", "prk": "runge-kutta"}


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
        return Prediction(toys.eps_net(x, t, none, self.schedule.alpha_bars(t), self.scale, self.frequency))


def final_of(case):
    """The end rule on our grids, which always go on to x_0."""
    if case["end"] == "alpha_bar_0" and case["end_rule"] == "lowered":
        return "lowered_then_x0"
    return "only" if case["end_rule"] == "any" else case["end_rule"]


def spec_of(case):
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


@pytest.mark.parametrize("name", CASES)
def test_the_trajectory_is_the_published_code_s(name):
    case = CASES[name]
    model = Toy(case)
    grid = grid_of(case, model.schedule)
    drawn = ARRAYS.get(f"{name}_noise", ())
    thrown_away = int(case.get("note", "").startswith("draw i + 1"))

    def noise(index, draw=0):
        return torch.from_numpy(drawn[index + thrown_away])

    x = torch.from_numpy(ARRAYS[f"{name}_xT"])
    states = trajectory(model, get_sampler(spec_of(case)), grid, x, noise)
    for _ in range(len(grid) - (case["end"] == "alpha_bar_0")):
        end = next(states)

    assert float(np.abs(end.numpy() - ARRAYS[f"{name}_final"]).max()) <= case["tolerance"]
    assert len(model.called) == case["calls"]
    assert model.called == pytest.approx(case["called_t"], abs=1e-9)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "orders" in case])
def test_the_orders_of_the_steps_are_the_published_code_s(name):
    case = CASES[name]
    orders = [
        p for _, p in planned(grid_of(case, NoiseSchedule.linear()), max(case["orders"]), final_of(case))
    ]
    assert orders[: len(case["orders"])] == case["orders"]
