r"""The order of a sampler, measured on laws whose probability flow is known exactly.

A rule without noise is held to end points: for a mixture of three Gaussians in one dimension the flow keeps
quantiles (F_t is the distribution function of x_t),

    x_u = F_u^-1(F_t(x_t)),

so the exact end of every start is known. The standard deviation of Gaussian data would not do: the odd terms
of the error cancel in it, and a third-order rule shows 4. A rule with noise is held to its law, on Gaussian
data x_0 ~ N(0, s^2), whose exact noise predictor is linear:

    eps(x, t) = sqrt(1 - abar_t) / (abar_t s^2 + 1 - abar_t) x

Its output is then linear in x_T and in each draw of noise, so one batch of impulses gives the variance
without sampling error.

Both are measured at t = 1e-3 of the continuous linear schedule, on times at equal parts of log SNR: at equal
parts of time the last steps of 320 still lead through one unit of log SNR, and nothing above order 2 shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor

from bench.diffusion.grid import Grid, make_grid
from bench.diffusion.interfaces import Prediction, Variance
from bench.diffusion.sampling import Sampler, sample, trajectory
from bench.diffusion.schedule import ContinuousSchedule, Schedule
from bench.errors import BenchError

STEPS = (80, 160, 320)
"""The numbers of steps at which errors are measured; the order is told by the last two."""

STD = 0.5

IMPULSE = 1e-3
"""So small that no clamp to [-1, 1] is reached, and clipped rules are linear too."""

_SCHEDULE = ContinuousSchedule.vp()  # beta from 0.1 to 20
_END = 1e-3
_STARTS = torch.linspace(-1.9, 1.9, 41, dtype=torch.float64).view(-1, 1, 1, 1)


class GaussianOracle:
    """The exact predictor for x_0 ~ N(0, s^2 I), in the dtype it is given."""

    shape: tuple[int, int, int] = (1, 2, 2)
    variance: Variance = "x0"

    continuous = True

    def __init__(self, schedule: Schedule, std: float = STD) -> None:
        self.schedule, self.std, self.calls = schedule, std, 0

    def noise_moment(self, t: float) -> float:
        """Return E |eps(x_t, t)|^2 / d = (1 - abar) / (abar s^2 + 1 - abar)."""
        abar = self.schedule.alpha_bar(t)
        return (1 - abar) / (abar * self.std**2 + 1 - abar)

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return eps and Var[x_0 | x_t] = s^2 (1 - abar) / (abar s^2 + 1 - abar)."""
        self.calls += 1
        abar = self.schedule.alpha_bars(t).to(x).view(-1, 1, 1, 1)
        total = abar * self.std**2 + 1 - abar
        posterior = (self.std**2 * (1 - abar) / total).expand_as(x)
        return Prediction((1 - abar).sqrt() / total * x, posterior)


class MixtureOracle:
    """The exact predictor for a mixture of three Gaussians in one dimension, at real times too."""

    shape: tuple[int, int, int] = (1, 1, 1)
    variance: Variance = "fixed"

    continuous = True

    weights = torch.tensor([0.22, 0.40, 0.38], dtype=torch.float64)
    means = torch.tensor([-0.85, 0.2, 1.26], dtype=torch.float64)
    stds = torch.tensor([0.45, 0.19, 0.24], dtype=torch.float64)

    def __init__(self, schedule: Schedule = _SCHEDULE) -> None:
        self.schedule = schedule

    def _standardised(self, x: Tensor, abar: float) -> tuple[Tensor, Tensor]:
        std = (abar * self.stds**2 + 1 - abar).sqrt()
        return (x.view(-1, 1) - math.sqrt(abar) * self.means) / std, std

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return eps = -sqrt(1 - abar) d log p_t / dx."""
        abar = float(self.schedule.alpha_bars(t[:1])[0])
        distance, std = self._standardised(x, abar)
        shares = torch.softmax(self.weights.log() - std.log() - distance.square() / 2, dim=1)
        return Prediction((math.sqrt(1 - abar) * (shares * distance / std).sum(1)).view_as(x))

    def below(self, x: Tensor, abar: float) -> Tensor:
        """Return F(x), the share of the law below x, at a level."""
        below: Tensor = torch.special.ndtr(self._standardised(x, abar)[0])
        return (self.weights * below).sum(1)

    def quantiles(self, share: Tensor, abar: float) -> Tensor:
        """Return F^-1(share) at a level, by halving."""
        low, high = torch.full_like(share, -10), torch.full_like(share, 10)
        for _ in range(80):
            middle = (low + high) / 2
            under = self.below(middle, abar) < share
            low, high = torch.where(under, middle, low), torch.where(under, high, middle)
        return (low + high) / 2


def even_in_log_snr(steps: int) -> Grid:
    """Return S steps from t = 1 to t = 1e-3 at equal parts of log SNR, and the one to x_0."""
    low, high = (math.log(a / (1 - a)) for a in map(_SCHEDULE.alpha_bar, (1.0, _END)))
    levels = [low + (high - low) * k / steps for k in range(1, steps)]
    between = [_SCHEDULE.time(1 / (1 + math.exp(-level))) for level in levels]
    return make_grid(_SCHEDULE, spacing=[_END, *between, 1.0])


def flow_error(sampler: Sampler, steps: int) -> float:
    """Return the greatest error of 41 end points of the mixture's probability flow after S steps."""
    model = MixtureOracle()
    noisy, clean = map(_SCHEDULE.alpha_bar, (1.0, _END))
    exact = model.quantiles(model.below(_STARTS, noisy), clean)
    states = trajectory(model, sampler, even_in_log_snr(steps), _STARTS.clone(), no_noise)
    return float((_after(steps, states).view(-1) - exact).abs().max())


def _after(steps: int, states: Iterator[Tensor]) -> Tensor:
    """Return x after so many steps."""
    state = next(islice(states, steps - 1, None), None)
    if state is None:
        raise BenchError(f"it yields fewer states than the {steps} steps it is given")
    return state


def law_error(sampler: Sampler, steps: int) -> float:
    """Return the error of the standard deviation of x after S steps, for data N(0, 1/4)."""

    def true(t: float) -> float:
        abar = _SCHEDULE.alpha_bar(t)
        return math.sqrt(abar * STD**2 + 1 - abar)

    variance = output_variance(sampler, _SCHEDULE, even_in_log_snr(steps), start=true(1.0), taken=steps)
    return abs(math.sqrt(variance) - true(_END))


def output_variance(
    sampler: Sampler,
    schedule: Schedule,
    grid: Grid,
    std: float = STD,
    *,
    start: float = 1.0,
    taken: int | None = None,
) -> float:
    """Return the exact variance of a sampler's output for x_T ~ N(0, start^2) and data N(0, std^2).

    Row 0 of one batch starts from an impulse in x_T, every other row receives one as one draw of noise; the
    sum of their squared outputs is the variance. Exact for rules that are linear in x and noise.

    Args:
        sampler: the rule.
        schedule: the model's schedule.
        grid: the time steps.
        std: s, the standard deviation of the data.
        start: the standard deviation of x_T.
        taken: the number of steps after which the variance is told; all of the grid's if None.
    """
    model = GaussianOracle(schedule, std)
    places = {asked: 1 + place for place, asked in enumerate(draws(sampler, grid))}
    rows = len(places) + 1
    one = torch.eye(rows, dtype=torch.float64).view(rows, rows, 1, 1, 1) * IMPULSE

    def noise(index: int, draw: int = 0) -> Tensor:
        return one[places[index, draw]]

    states = trajectory(model, sampler, grid, start * one[0], noise)
    end = _after(len(grid) if taken is None else taken, states)
    return float((end / IMPULSE).square().sum())


def no_noise(index: int, draw: int = 0) -> Tensor:
    """Stand for the noise of a rule that draws none."""
    raise AssertionError(f"noise was asked for at step {index} by a rule that drew none before")


def draws(sampler: Sampler, grid: Grid) -> list[tuple[int, int]]:
    """Return the (index, draw) of all noise that a rule asks for on a grid, each once."""
    nothing = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    asked: dict[tuple[int, int], None] = {}

    def listen(index: int, draw: int = 0) -> Tensor:
        asked[index, draw] = None
        return nothing

    sample(GaussianOracle(grid.schedule), sampler, grid, nothing.clone(), listen)
    return list(asked)


def measured_order(sampler: Sampler) -> tuple[float, list[float]]:
    """Return (order, errors at 80, 160 and 320 steps) of a sampler.

    The error is that of end points for a rule without noise, and of the standard deviation of its law for
    one with noise (its weak order). The order is the slope of log error against log S over the last two.
    """
    error: Callable[[Sampler, int], float] = law_error if draws(sampler, even_in_log_snr(10)) else flow_error
    errors = [error(sampler, steps) for steps in STEPS]
    if not errors[-1] > 0 or not math.isfinite(errors[-2]):
        return math.inf if errors[-1] == 0 else math.nan, errors
    return math.log2(errors[-2] / errors[-1]), errors
