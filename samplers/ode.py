"""What the families of solvers share: noise levels, weights without cancellation, histories, ends.

With a = sqrt(abar) and s = sqrt(1 - abar), the papers write x = a x_0 + s eps and

    lambda = log(a / s)    sigma = s / a = exp(-lambda)    y = x / a
    dy/dsigma = eps        dy/dlambda = -sigma eps         x_0 = y - sigma eps

A step leads from t to u, h = lambda_u - lambda_t. Every rule is DDIM's step (`first_order`) and a correction
for what eps or x_0 does between t and u, told by its values at other levels. Written so, x_0 and eps are
taken as the network tells them: no digits are lost where alpha_bar is near 0, and the last step, to
alpha_bar = 1, gives x_0 itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import exp, expm1, factorial, inf, log, prod, sqrt
from typing import Literal, NamedTuple

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import NDArray
from torch import Tensor

from bench import (
    EpsilonModel,
    Grid,
    NotApplicable,
    Prediction,
    Step,
    diffuse,
    predict_x0,
    takes_real_times,
    times_like,
    weighted_sum,
)

Final = Literal["only", "lowered", "lowered15", "lowered10_then_x0", "lowered_then_x0", "none"]
"""How the orders of a multistep rule of order p end, the last step being the one to x_0:

    only                p ... p, p, 1
    lowered             p ... 2, 1
    lowered15           lowered in fewer than 15 steps, else only
    lowered_then_x0     p ... 2, 1, then the step to x_0
    lowered10_then_x0   lowered_then_x0 where fewer than 10 steps come before the one to x_0, else only
    none                p to the end; where lambda is the variable the last step is of order 1 all the same,
                        since h is infinite there

Where the grid ends before x_0 there is no such step: ``only`` is none there, ``lowered_then_x0`` lowered.
"""

Floats = NDArray[np.float64]


class Level(NamedTuple):
    """A noise level and the time at which the network is asked about it.

    Attributes:
        t: the time.
        alpha_bar: alpha_bar_t.
    """

    t: float
    alpha_bar: float

    @classmethod
    def start(cls, step: Step) -> Level:
        """Return the level that a step leaves."""
        return cls(step.t, step.alpha_bar)

    @classmethod
    def end(cls, step: Step) -> Level:
        """Return the level that a step arrives at."""
        return cls(step.t_next, step.alpha_bar_next)

    @classmethod
    def at(cls, model: EpsilonModel, t: float) -> Level:
        """Return the level of a time, at the nearest time step where the model takes no other."""
        schedule = model.schedule
        if not schedule.continuous and (float(t).is_integer() or not takes_real_times(model)):
            t = round(t)
        return cls(t, schedule.alpha_bar(t))

    @classmethod
    def of(cls, model: EpsilonModel, half_log_snr: float) -> Level:
        """Return the level of a lambda, at the nearest time step where the model takes no other."""
        alpha_bar = 1 / (1 + exp(-2 * half_log_snr))
        t = model.schedule.time(alpha_bar)
        return cls(t, alpha_bar) if takes_real_times(model) else cls.at(model, t)

    @property
    def a(self) -> float:
        """The share of x_0 in x_t, sqrt(abar)."""
        return sqrt(self.alpha_bar)

    @property
    def s(self) -> float:
        """The share of eps in x_t, sqrt(1 - abar)."""
        return sqrt(1 - self.alpha_bar)

    @property
    def sigma(self) -> float:
        """The share of noise beside a whole x_0, s / a; infinite at alpha_bar = 0."""
        return sqrt((1 - self.alpha_bar) / self.alpha_bar) if self.alpha_bar > 0 else inf

    @property
    def half_log_snr(self) -> float:
        """The papers' lambda, log(a / s): -infinity at alpha_bar = 0, infinity at 1."""
        if self.alpha_bar in (0, 1):
            return inf if self.alpha_bar == 1 else -inf
        return log(self.alpha_bar / (1 - self.alpha_bar)) / 2

    def ask(self, model: EpsilonModel, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x_0, eps) that a network says of x (B, C, H, W) at this level."""
        return predict_x0(x, model(x, times_like(x, self.t)), self.alpha_bar)


class History:
    """The last values of x_0 or eps, newest first, each with the level it was told at.

    A value at alpha_bar = 0 is left out: where lambda and sigma are infinite no polynomial passes.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self.levels: deque[Level] = deque(maxlen=most)
        self.values: deque[Tensor] = deque(maxlen=most)

    @property
    def empty(self) -> bool:
        """Whether nothing is kept yet."""
        return not self.levels

    def add(self, level: Level, value: Tensor) -> None:
        """Keep a value, and forget the oldest where there are more than ``most``."""
        if level.alpha_bar > 0:
            self.levels.appendleft(level)
            self.values.appendleft(value)

    def last(self, n: int) -> list[Tensor]:
        """Return the last n values, newest first."""
        return list(self.values)[:n]


def planned(grid: Grid, order: int, final: Final, *, to_zero: bool = False) -> Iterator[tuple[Step, int]]:
    """Yield every step with the number of values that a multistep rule is to combine at it.

    The number grows from 1 to ``order`` with the history and ends as `Final` says. It is 0 where a level is
    repeated: such a step changes nothing, and needs no call.

    Args:
        grid: the time steps.
        order: the greatest number of values.
        final: the rule for the last steps.
        to_zero: whether the rule has weights for a step to sigma = 0; without, that step is of order 1.
    """
    moves, final = _moves(grid), settled(grid, final)
    orders = {}
    for place, step in enumerate(moves):
        most = min(order, place + (moves[0].alpha_bar > 0))  # a value at alpha_bar = 0 is in no history
        left = len(moves) - place
        if final in ("lowered", "lowered_then_x0"):
            most = min(most, left - (final == "lowered_then_x0"))
        alone = left == 1 and step.last and not (to_zero and final == "none")
        orders[step.index] = 1 if alone else max(1, most)
    for step in grid:
        yield step, orders.get(step.index, 0)


def settled(grid: Grid, final: Final) -> Final:
    """Return which of ``only``, ``lowered``, ``lowered_then_x0`` and ``none`` a rule is on a grid."""
    steps, to_x0 = len(_moves(grid)), grid.end is None
    if final == "lowered15":
        final = "lowered" if steps < 15 else "only"
    elif final == "lowered10_then_x0":
        final = "lowered_then_x0" if steps - to_x0 < 10 else "only"
    instead: dict[Final, Final] = {"only": "none", "lowered_then_x0": "lowered"}
    return final if to_x0 else instead.get(final, final)


def _moves(grid: Grid) -> list[Step]:
    """Return the steps that change the level."""
    return [step for step in grid if step.alpha_bar_next != step.alpha_bar]


def answer(model: EpsilonModel, x: Tensor, step: Step, *, afs: bool = False) -> tuple[Tensor, Tensor]:
    """Return (x_0, eps) at the start of a step.

    Args:
        model: the noise predictor.
        x: x_t, shape (B, C, H, W).
        step: the step.
        afs: take x itself as its eps, which saves a call: almost all of x_T is noise (Dockhorn et al. 2022,
            arXiv:2210.05475, the "analytical first step").

    Raises:
        NotApplicable: if x is to be its own eps where alpha_bar = 0, and x_0 is not told by it.
    """
    if not afs:
        return predict_x0(x, model(x, step.times(x)), step.alpha_bar)
    if step.alpha_bar == 0:
        raise NotApplicable("afs needs a first step with alpha_bar > 0: x_T alone does not tell x_0 there")
    return predict_x0(x, Prediction(x), step.alpha_bar)


def first_order(step: Step, x0: Tensor, eps: Tensor) -> Tensor:
    """Return x_u = a_u x_0 + s_u eps: DDIM's map, and the first order of every solver.

    Args:
        step: the step from t to u.
        x0: x_0 as told at t, shape (B, C, H, W).
        eps: shaped like x0.

    Source: Song et al. 2021, arXiv:2010.02502, eq. 12, with sigma = 0.
    """
    return diffuse(x0, eps, step.alpha_bar_next)


def phi(k: int, z: float) -> float:
    """Return phi_k(z), the integral of e^((1-v) z) v^(k-1) / (k-1)! over v in [0, 1], k >= 1:

        phi_1(z) = (e^z - 1) / z        phi_(k+1)(z) = (phi_k(z) - 1/k!) / z

    Near 0, where the differences would cancel, by its power series, sum z^i / (i + k)!.

    Source: Hochbruck & Ostermann 2010, "Exponential integrators", Acta Numerica 19.
    """
    if abs(z) < 1:
        return sum(z**i / factorial(i + k) for i in range(18, -1, -1))
    value = expm1(z) / z
    for i in range(1, k):
        value = (value - 1 / factorial(i)) / z
    return value


def places(values: Sequence[float], end: float) -> list[float]:
    """Return where values of a variable lie in units of the step: the first is its start, 0; ``end`` is 1."""
    return [(value - values[0]) / (end - values[0]) for value in values]


def lagrange(places: Sequence[float]) -> list[Floats]:
    """Return the coefficients c of Lagrange's polynomials l_j(v) = sum_k c_k v^k on different places."""
    others = [[other for k, other in enumerate(places) if k != j] for j in range(len(places))]
    return [
        np.asarray(polynomial.polyfromroots(roots), float) / prod(place - root for root in roots)
        for place, roots in zip(places, others, strict=True)
    ]


def exponential_weights(places: Sequence[float], z: float) -> list[float]:
    """Return the integrals of e^((1-v) z) l_j(v) over v in [0, 1]: sum_k c_k k! phi_(k+1)(z).

    Args:
        places: where values are known, in units of the step.
        z: the exponent.
    """
    moments = [factorial(k) * phi(k + 1, z) for k in range(len(places))]
    return [float(powers @ moments) for powers in lagrange(places)]


def sigma_weights(levels: Sequence[Level], end: Level) -> list[float]:
    """Return the integrals of Lagrange's polynomials in sigma over a step: variable-step Adams-Bashforth.

    Args:
        levels: where values are known, the step's start first.
        end: the level that the step arrives at.
    """
    start, stop = levels[0].sigma, end.sigma
    moments = [(stop - start) / (k + 1) for k in range(len(levels))]
    return [float(c @ moments) for c in lagrange(places([level.sigma for level in levels], stop))]


EQUAL_STEPS: dict[int, tuple[float, ...]] = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
"""Adams and Bashforth's weights of one to four values where all steps are equal."""


def equal_step_weights(levels: Sequence[Level], end: Level) -> list[float]:
    """Return Adams and Bashforth's weights for equal steps in sigma, whatever the steps are."""
    return [(end.sigma - levels[0].sigma) * weight for weight in EQUAL_STEPS[len(levels)]]


Weigh = Callable[[Sequence[Level], Level], Sequence[float]]
"""(levels where eps is known, the step's start first; its end) -> the w of y_u = y_t + sum_j w_j eps_j."""


def adams(
    model: EpsilonModel, x: Tensor, grid: Grid, order: int, final: Final, afs: bool, weigh: Weigh
) -> Iterator[Tensor]:
    """Yield x after every step of a linear multistep rule in the noise, y_u = y_t + sum_j w_j eps_j.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        order: the greatest number of values.
        final: how the orders end.
        afs: take x_T as its own eps, and save the first call.
        weigh: gives the weights; a single value has sigma_u - sigma_t.
    """
    past = History(order)
    for step, p in planned(grid, order, final, to_zero=True):
        if p > 0:
            x0, eps = answer(model, x, step, afs=afs and past.empty)
            past.add(Level.start(step), eps)
            x = adams_step(step, x0, past, p, weigh) if p > 1 else first_order(step, x0, eps)
        yield x


def adams_step(step: Step, x0: Tensor, past: History, order: int, weigh: Weigh) -> Tensor:
    """Return x after a step of `adams` with several values, the newest told together with x_0."""
    levels, values, end = list(past.levels)[:order], past.last(order), Level.end(step)
    own, *others = weigh(levels, end)
    beyond = own - (end.sigma - levels[0].sigma)  # what DDIM's step does not have
    return weighted_sum(
        [end.a, end.s + end.a * beyond, *(end.a * weight for weight in others)], [x0, *values]
    )
