"""PNDM: four-term Adams-Bashforth on the noise after a start by a one-step rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from bench import (
    EpsilonModel,
    Grid,
    Noise,
    Sampler,
    Step,
    hookimpl,
    sampler,
    weighted_sum,
)
from samplers.ode import Final, History, Level, adams_step, answer, equal_step_weights, first_order, planned

_VALUES = 4


@sampler(order=2, source="Liu et al. 2022, PNDM, arXiv:2202.09778", most_steps=100)
def pndm(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    start: Literal["improved-euler", "runge-kutta"] = "improved-euler",
    final: Final = "none",
    afs: bool = False,
) -> Iterator[Tensor]:
    """Step from t to u by DDIM's map with an eps that is put together from several:

        x_u = a_u (x_t - s_t eps) / a_t + s_u eps
        eps = (55 eps_0 - 59 eps_1 + 37 eps_2 - 9 eps_3) / 24

    The first steps take eps from a one-step rule: ``runge-kutta``, for three steps, (k_1 + 2 k_2 + 2 k_3 +
    k_4) / 6 of answers at t, twice half way in time and at u, each reached by DDIM's map; ``improved-euler``,
    for one step, the mean of the answers at t and at u, and then the weights of two and of three values. A
    step to x_0, where the network cannot be asked, is not among them, nor one from alpha_bar = 0. The weights
    are those of equal steps: on others the order of convergence is 2.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: never asked for.
        start: the one-step rule: nine calls more than steps, or one more.
        final: how the orders end; see `samplers.ode.Final`.
        afs: take x_T as its own eps, and save the first call.

    Yields:
        x after every step; the last is x_0.
    """
    past = History(_VALUES)
    rule, starting = (_runge_kutta, 3) if start == "runge-kutta" else (_improved_euler, 1)
    for step, p in planned(grid, _VALUES, final, to_zero=True):
        if p > 0:
            x0, eps = answer(model, x, step, afs=afs and past.empty)
            past.add(Level.start(step), eps)
            if not past.empty and len(past.levels) <= starting and not step.last:
                x = rule(model, step, x0, eps)
            elif p > 1:
                x = adams_step(step, x0, past, p, equal_step_weights)
            else:
                x = first_order(step, x0, eps)
        yield x


def _mapped(step: Step, to: Level, x0: Tensor, told: Tensor, eps: Tensor) -> Tensor:
    """Return DDIM's map to a level with another eps than was told: x_0 is then another one too."""
    moved = to.a * Level.start(step).sigma
    return weighted_sum((to.a, moved, to.s - moved), (x0, told, eps))


def _improved_euler(model: EpsilonModel, step: Step, x0: Tensor, eps: Tensor) -> Tensor:
    end = Level.end(step)
    _, second = end.ask(model, first_order(step, x0, eps))
    return _mapped(step, end, x0, eps, weighted_sum((1 / 2, 1 / 2), (eps, second)))


def _runge_kutta(model: EpsilonModel, step: Step, x0: Tensor, eps: Tensor) -> Tensor:
    end, middle = Level.end(step), Level.at(model, (step.t + step.t_next) / 2)
    _, second = middle.ask(model, _mapped(step, middle, x0, eps, eps))
    _, third = middle.ask(model, _mapped(step, middle, x0, eps, second))
    _, fourth = end.ask(model, _mapped(step, end, x0, eps, third))
    mean = weighted_sum((1 / 6, 2 / 6, 2 / 6, 1 / 6), (eps, second, third, fourth))
    return _mapped(step, end, x0, eps, mean)


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register PNDM, under its other name too."""
    return [pndm.with_(alias="plms", start="improved-euler")]
