"""The conformance kit: whether a sampler keeps the contract, and the order it truly has.

Everything is measured on Gaussian data x_0 ~ N(0, s^2), whose exact noise predictor is linear:

    eps(x, t) = sqrt(1 - abar_t) / (abar_t s^2 + 1 - abar_t) x

A sampler's output is then linear in x_T and in each step's noise, so one batch of unit impulses gives the
variance of its output without sampling error, and the probability flow's end point is known:
x_0 = s x_T (Song et al. 2021, arXiv:2011.13456, eq. 13, for this law).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.diffusion.grid import Grid, make_grid
from bench.diffusion.interfaces import Prediction, Variance
from bench.diffusion.noise import TrajectoryNoise
from bench.diffusion.sampling import Sampler, sample, trajectory
from bench.diffusion.schedule import NoiseSchedule, Schedule
from bench.errors import USERS_CODE, BenchError, NotApplicable, sentence_of

ORDER_TOLERANCE = 0.25
"""How far the measured order may lie from the declared one."""


EXACT = 1e-4
"""A rule with smaller errors at every S has no order to be measured: the optimal variance has none."""


_STD = 0.5


_SHAPE = (1, 2, 2)


_IMPULSE = 1e-3  # so small that no clamp to [-1, 1] is reached and clipped rules are linear too


_FINE = 20_000  # time steps of the schedule that orders are measured on: time is as good as continuous


_STEPS = (40, 80, 160)


@dataclass(frozen=True)
class Clause:
    """One clause of the contract.

    Attributes:
        clause: what was asked.
        kept: the answer; None where the clause does not apply.
        detail: the measurement.
    """

    clause: str
    kept: bool | None
    detail: str = ""


Answer = tuple[bool | None, str]
"""Whether a clause is kept, None where it does not apply, and the measurement."""


class GaussianOracle:
    """The exact predictor for x_0 ~ N(0, s^2 I), in the dtype it is given."""

    shape: tuple[int, int, int] = _SHAPE
    variance: Variance = "x0"

    continuous = True

    def __init__(self, schedule: Schedule, std: float = _STD) -> None:
        self.schedule, self.std, self.calls = schedule, std, 0

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return eps and Var[x_0 | x_t] = s^2 (1 - abar) / (abar s^2 + 1 - abar)."""
        self.calls += 1
        abar = self.schedule.alpha_bars(t).to(x).view(-1, 1, 1, 1)
        total = abar * self.std**2 + 1 - abar
        posterior = (self.std**2 * (1 - abar) / total).expand_as(x)
        return Prediction((1 - abar).sqrt() / total * x, posterior)


def check_sampler(sampler: Sampler) -> list[Clause]:
    """Return what was found for every clause; a clause that raises is not kept."""
    model = GaussianOracle(NoiseSchedule.linear())
    grid = make_grid(model.schedule, 10)
    found = []
    for text, measure in CLAUSES.items():
        kept: bool | None
        try:
            kept, detail = measure(sampler, model, grid)
        except NotApplicable as reason:
            kept, detail = None, str(reason)
        except USERS_CODE as error:
            kept, detail = False, sentence_of(error)
        found.append(Clause(text, kept, detail))
    return found


def output_variance(sampler: Sampler, schedule: Schedule, grid: Grid, std: float = _STD) -> float:
    """Return the exact variance of a sampler's output for x_T ~ N(0, 1) and data N(0, std^2).

    Row 0 of one batch starts from an impulse in x_T, every other row receives one as one draw of noise; the
    sum of their squared outputs is the variance. Exact for rules that are linear in x and noise.
    """
    model, nothing = GaussianOracle(schedule, std), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    asked: dict[tuple[int, int], int] = {}

    def listen(index: int, draw: int = 0) -> Tensor:
        asked.setdefault((index, draw), len(asked) + 1)
        return nothing

    sample(model, sampler, grid, nothing.clone(), listen)
    rows = len(asked) + 1
    one = torch.eye(rows, dtype=torch.float64).view(rows, rows, 1, 1, 1) * _IMPULSE

    def noise(index: int, draw: int = 0) -> Tensor:
        return one[asked[index, draw]]

    end = sample(model, sampler, grid, one[0].clone(), noise)
    return float((end / _IMPULSE).square().sum())


def measured_order(sampler: Sampler) -> tuple[float, list[float]]:
    """Return (order, errors at 40, 80 and 160 steps) of a sampler on a practically continuous schedule.

    The error is that of the output's standard deviation: for a rule without noise this is the end point of
    the probability flow, for one with noise the law it ends in (its weak order). The order is the slope of
    log error against log step size over the last two.
    """
    schedule = _fine_schedule()
    errors = []
    for steps in _STEPS:
        grid = make_grid(schedule, steps, "linspace")
        errors.append(abs(math.sqrt(output_variance(sampler, schedule, grid)) - _STD))
    return math.log2(errors[-2] / errors[-1]), errors


def _fine_schedule() -> NoiseSchedule:
    """Return Ho et al.'s linear schedule cut 20 times finer: beta scaled by 1000 / T."""
    scale = 1000 / _FINE
    return NoiseSchedule.linear(_FINE, 1e-4 * scale, 0.02 * scale)


def _start(rows: int = 4) -> Tensor:
    return TrajectoryNoise(0, range(rows), _SHAPE).initial()


def _noise(rows: int = 4) -> TrajectoryNoise:
    return TrajectoryNoise(0, range(rows), _SHAPE)


def _yields(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    model.calls = 0
    taken = sum(1 for _ in trajectory(model, sampler, grid, _start(), _noise()))
    detail = f"{taken} times in {len(grid)} steps, {model.calls / len(grid):g} network calls a step"
    return taken == len(grid), detail


def _repeatable(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    first, second = (sample(model, sampler, grid, _start(), _noise()) for _ in range(2))
    return torch.equal(first, second), ""


def _independent(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    together = sample(model, sampler, grid, _start(4), _noise(4))[:2]
    apart = sample(model, sampler, grid, _start(2), _noise(2))
    gap = float((together - apart).abs().max())
    return gap < 1e-5, f"differs by {gap:.1e} in another batch"


def _harmless(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    x, state = _start(), torch.get_rng_state()
    before = x.clone()
    sample(model, sampler, grid, x, _noise())
    unchanged, undrawn = torch.equal(x, before), torch.equal(state, torch.get_rng_state())
    detail = "" if unchanged else "x_T was changed in place; "
    detail += "" if undrawn else "it drew from torch's global generator; use noise(index)"
    return unchanged and undrawn, detail


def _last_noise(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    asked: list[int] = []

    def noise(index: int, draw: int = 0) -> Tensor:
        asked.append(index)
        return _noise()(index, draw)

    sample(model, sampler, grid, _start(), noise)
    used = f"noise at {len(set(asked))} of {len(grid)} steps"
    return len(grid) - 1 not in asked, used


def _repeated(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    grid = make_grid(model.schedule, spacing=[0, 300, 300, 600, 900])
    end = sample(model, sampler, grid, _start(), _noise())
    if not bool(torch.isfinite(end).all()):
        raise BenchError("the result is not finite; quadratic grids repeat time steps")
    return True, ""


def _order(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    order, errors = measured_order(sampler)
    shown = ", ".join(f"{error:.2e}" for error in errors)
    detail = f"measured {order:.2f}, declared {sampler.order}; error at S={_STEPS}: {shown}"
    if max(errors) < EXACT:
        exact = f"exact on Gaussian data; error at S={_STEPS}: {shown}"
        return None, exact
    if sampler.order is None:
        return None, detail
    return abs(order - sampler.order) <= ORDER_TOLERANCE, detail


def _source(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    return bool(sampler.source), sampler.source


CLAUSES: Mapping[str, Callable[[Sampler, GaussianOracle, Grid], Answer]] = {
    "yields x after every step": _yields,
    "gives the same for the same noise": _repeatable,
    "treats each sample alone": _independent,
    "leaves its input and the global random state alone": _harmless,
    "adds no noise at the last step": _last_noise,
    "survives a repeated time step": _repeated,
    "states a source": _source,
    "has the declared order": _order,
}
"""The contract of a sampler, each clause with what measures it."""
