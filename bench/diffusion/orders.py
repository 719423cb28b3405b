r"""The order of a sampler, measured on laws whose probability flow is known exactly.

A rule without noise is held to end points: for a mixture of three Gaussians in one dimension the flow keeps
quantiles (F_t is the distribution function of x_t),

    x_u = F_u^-1(F_t(x_t)),

so the exact end of every start is known. The standard deviation of Gaussian data would not do: the odd terms
of the error cancel in it, and a third-order rule shows 4. A rule with noise is held to its law, on Gaussian
data x_0 ~ N(0, s^2), whose exact noise predictor is linear:

    eps(x, t) = sqrt(1 - abar_t) / (abar_t s^2 + 1 - abar_t) x

Its output is then linear in x_T and in each draw of noise, so one batch of impulses gives the variance
without sampling error. Noise that moves nothing, asked for and multiplied by 0, makes no rule noisy.

Both are measured at t = 1e-3 of the continuous linear schedule, on times at equal parts of log SNR: at equal
parts of time the last steps of 320 still lead through one unit of log SNR, and nothing above order 2 shows.
A rule of several steps that leaves out the ratio of their lengths keeps its order there; on steps that are
long and short in turn it does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from bench.diffusion.grid import Grid, make_grid
from bench.diffusion.interfaces import EpsilonModel, Prediction, Variance
from bench.diffusion.sampling import Sampler, sample, trajectory
from bench.diffusion.schedule import ContinuousSchedule, Schedule
from bench.errors import BenchError, NotApplicable

STEPS = (80, 160, 320)
"""The numbers of steps at which errors are measured; the order is told by the last two."""

STD = 0.5

IMPULSE = 1e-3
"""So small that no clamp to [-1, 1] is reached, and clipped rules are linear too."""

_LINEAR = 1e-3
"""How far a rule that is linear in its noise may be from it, as a part of the greatest value: rounding."""

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


class PixelOracle(GaussianOracle):
    """The same for pixels x_0 ~ N(m, s^2) that are all unlike: an image turned round has another law."""

    shape = (2, 2, 3)

    means = torch.linspace(-0.3, 0.3, 12, dtype=torch.float64).view(shape)
    stds = torch.linspace(0.35, 0.6, 12, dtype=torch.float64).view(shape)

    def noise_moment(self, t: float) -> float:
        """Return E |eps(x_t, t)|^2 / d, the mean over the pixels."""
        abar = self.schedule.alpha_bar(t)
        return float(((1 - abar) / (abar * self.stds**2 + 1 - abar)).mean())

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return eps = sqrt(1 - abar) (x - sqrt(abar) m) / (abar s^2 + 1 - abar), and Var[x_0 | x_t]."""
        self.calls += 1
        abar = self.schedule.alpha_bars(t[:1]).to(x).view(-1, 1, 1, 1)  # of all rows
        means, variance = self.means.to(x), self.stds.to(x) ** 2
        total = abar * variance + 1 - abar
        eps = (1 - abar).sqrt() / total * (x - abar.sqrt() * means)
        return Prediction(eps, (variance * (1 - abar) / total).expand_as(x))


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
    return _in_log_snr(steps, range(1, steps))


def uneven_in_log_snr(steps: int) -> Grid:
    """Return the same with steps that are long and short in turn, the long ones twice as long."""
    return _in_log_snr(steps, [k + k % 2 / 3 for k in range(1, steps)])


def _in_log_snr(steps: int, places: Iterable[float]) -> Grid:
    low, high = (math.log(a / (1 - a)) for a in map(_SCHEDULE.alpha_bar, (1.0, _END)))
    levels = [low + (high - low) * place / steps for place in places]
    between = [_SCHEDULE.time(1 / (1 + math.exp(-level))) for level in levels]
    return make_grid(_SCHEDULE, spacing=[_END, *between, 1.0])


class _MovedByNoise(Exception):  # noqa: N818  it is no error
    """A rule to whose states the noise that it asks for makes a difference."""


def flow_error(sampler: Sampler, steps: int, spaced: Callable[[int], Grid] = even_in_log_snr) -> float:
    """Return the greatest error of 41 end points of the mixture's probability flow after S steps.

    Every start is gone from twice, with noise of 0 and of 1: a rule without noise is moved by neither.
    """
    model, size = MixtureOracle(), len(_STARTS)
    noisy, clean = map(_SCHEDULE.alpha_bar, (1.0, _END))
    exact = model.quantiles(model.below(_STARTS, noisy), clean)
    twice = torch.cat([_STARTS, _STARTS])
    places = torch.arange(2 * size).view(-1, 1, 1, 1) // size

    def noise(index: int, draw: int = 0) -> Tensor:
        return places.to(twice)

    def still() -> Iterator[Tensor]:
        for state in trajectory(model, sampler, spaced(steps), twice.clone(), noise):
            if not torch.equal(state[:size].nan_to_num(), state[size:].nan_to_num()):
                raise _MovedByNoise
            yield state[:size]

    return float((_after(steps, still()).view(-1) - exact).abs().max())


def _after(steps: int, states: Iterator[Tensor]) -> Tensor:
    """Return x after so many steps."""
    state = next(islice(states, steps - 1, None), None)
    if state is None:
        raise BenchError(f"it yields fewer states than the {steps} steps it is given")
    return state


def law_error(sampler: Sampler, steps: int, spaced: Callable[[int], Grid] = even_in_log_snr) -> float:
    """Return the error of the standard deviation of x after S steps, for data N(0, 1/4)."""

    def true(t: float) -> float:
        abar = _SCHEDULE.alpha_bar(t)
        return math.sqrt(abar * STD**2 + 1 - abar)

    variance = output_variance(sampler, _SCHEDULE, spaced(steps), start=true(1.0), taken=steps)
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

    Exact for rules that are linear in x and noise, see `laws`.

    Args:
        sampler: the rule.
        schedule: the model's schedule.
        grid: the time steps.
        std: s, the standard deviation of the data.
        start: the standard deviation of x_T.
        taken: the number of steps after which the variance is told; all of the grid's if None.
    """
    steps = len(grid) if taken is None else taken
    found = laws(sampler, GaussianOracle(schedule, std), grid, (1, 1, 1), start=start, taken=steps)
    return float(found[-1].std.square())


class Law(NamedTuple):
    """What is known of a state x_t: mean and standard deviation of every pixel."""

    mean: Tensor
    std: Tensor


def laws(
    sampler: Sampler,
    model: EpsilonModel,
    grid: Grid,
    shape: tuple[int, int, int] | None = None,
    *,
    start: float = 1.0,
    taken: int | None = None,
) -> list[Law]:
    """Return the exact law of x after every step, for x_T ~ N(0, start^2).

    Of one batch row 0 starts at 0 and has no noise, row 1 starts from an impulse in x_T, every further one
    receives an impulse as one draw of noise, and the last one a mixture of all. Row 0 is the mean, and the
    sum of squares of what the impulses move is the variance.

    Args:
        sampler: the rule.
        model: the exact predictor for a Gaussian law.
        grid: the time steps.
        shape: that of a sample; the model's if None.
        start: the standard deviation of x_T.
        taken: the number of steps after which it ends; all of the grid's if None.

    Raises:
        NotApplicable: if the rule is not linear in x_T and its noise: the mixture tells.
    """
    shape = shape or model.shape
    places = {asked: 2 + place for place, asked in enumerate(draws(sampler, grid))}
    rows = len(places) + 3
    weights = torch.linspace(1.5, 2.5, rows, dtype=torch.float64)
    weights[0] = weights[-1] = 0
    pushes = torch.eye(rows, dtype=torch.float64)
    pushes[:, -1] = weights
    pushes = IMPULSE * pushes.view(rows, rows, 1, 1, 1)

    def noise(index: int, draw: int = 0) -> Tensor:
        return pushes[places[index, draw]].expand(rows, *shape).clone()

    found: list[Law] = []
    x_T = start * pushes[1].expand(rows, *shape)
    for x in islice(trajectory(model, sampler, grid, x_T.clone(), noise), taken):
        moved = (x - x[0]).double() / IMPULSE
        found.append(Law(x[0].double().clone(), torch.linalg.vector_norm(moved[1:-1], dim=0)))
    if taken is not None and len(found) < taken:
        raise BenchError(f"it yields fewer states than the {taken} steps it is given")
    gap = (moved[-1] - torch.tensordot(weights, moved, dims=1)).abs().max()
    if not float(gap) <= _LINEAR * float(moved.abs().max()):
        raise NotApplicable("the rule is not linear in its noise: its law is not known without drawing")
    return found


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


def measured_order(
    sampler: Sampler, spaced: Callable[[int], Grid] = even_in_log_snr, steps: Sequence[int] = STEPS
) -> tuple[float, list[float]]:
    """Return (order, errors at 80, 160 and 320 steps) of a sampler.

    The error is that of end points for a rule without noise, and of the standard deviation of its law for
    one with noise (its weak order). The order is the slope of log error against log S over the last two.

    Args:
        sampler: the rule.
        spaced: the grid of so many steps.
        steps: the numbers of steps, each twice the one before.

    Raises:
        NotApplicable: if a rule with noise is not linear in it.
    """
    try:
        errors = [flow_error(sampler, count, spaced) for count in steps]
    except (_MovedByNoise, NotApplicable) as reason:  # a mixture's model tells no variance, a Gaussian's does
        if isinstance(reason, NotApplicable) and not draws(sampler, spaced(10)):
            raise
        errors = [law_error(sampler, count, spaced) for count in steps]
    if not errors[-1] > 0 or not math.isfinite(errors[-2]):
        return math.inf if errors[-1] == 0 else math.nan, errors
    return math.log2(errors[-2] / errors[-1]), errors
