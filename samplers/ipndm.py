"""iPNDM and iPNDM_v: the weights of Adams and Bashforth for the noise, with orders that grow from one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from torch import Tensor

from bench import AtLeast, AtMost, EpsilonModel, Grid, Noise, Sampler, hookimpl, sampler
from samplers.ode import Final, Level, adams, equal_step_weights, sigma_weights


def _variable_order(order: int, weights: Literal["published", "exact"], **others: object) -> int:
    return 2 if weights == "published" and order == 4 else order


@sampler(
    order=lambda order, **_: min(order, 2),
    source="Zhang & Chen 2022, DEIS, arXiv:2204.13902, iPNDM; Liu et al. 2022, arXiv:2202.09778",
    most_steps=100,
)
def ipndm(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    order: Annotated[int, AtLeast(1), AtMost(4)] = 4,
    final: Final = "only",
    afs: bool = False,
) -> Iterator[Tensor]:
    """Step from t to u with the weights for equal steps, whatever the steps are:

        y_u = y_t + (sigma_u - sigma_t) (55 eps_0 - 59 eps_1 + 37 eps_2 - 9 eps_3) / 24

    and while the history grows eps_0, (3 eps_0 - eps_1) / 2, (23 eps_0 - 16 eps_1 + 5 eps_2) / 12. On steps
    that are not equal in sigma the order of convergence is 2.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: never asked for.
        order: the number of past values; 1 is DDIM.
        final: how the orders end; see `samplers.ode.Final`.
        afs: take x_T as its own eps, and save the first call.

    Yields:
        x after every step; the last is x_0.
    """
    return adams(model, x, grid, order, final, afs, equal_step_weights)


@sampler(
    order=_variable_order,
    source="Zhang & Chen 2022, DEIS, arXiv:2204.13902; Zhou et al. 2024, AMED, arXiv:2312.00094",
    most_steps=100,
)
def ipndm_v(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    order: Annotated[int, AtLeast(1), AtMost(4)] = 4,
    weights: Literal["published", "exact"] = "published",
    final: Final = "only",
    afs: bool = False,
) -> Iterator[Tensor]:
    """Step from t to u with weights for steps of any length, eps extrapolated in sigma:

        y_u = y_t + h_0 [eps_0 + h_0 / (2 h_1) (eps_0 - eps_1) + ...]    h_i the steps in sigma, newest first

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: never asked for.
        order: the number of past values; 1 is DDIM.
        weights: ``published`` are those of the code that tables were made with: its terms of third and fourth
            order are not those of the polynomial, and four values converge no faster than two; ``exact`` is
            `lms`.
        final: how the orders end; see `samplers.ode.Final`.
        afs: take x_T as its own eps, and save the first call.

    Yields:
        x after every step; the last is x_0.
    """
    weigh = _published_weights if weights == "published" else sigma_weights
    return adams(model, x, grid, order, final, afs, weigh)


def _published_weights(levels: Sequence[Level], end: Level) -> list[float]:
    """Return the weights of published code, term by term.

    In the third term stands (1 - q w) / 2 where the integral has (1 - q) w / 2, in the fourth a sum for a
    difference, and h_1 / h_2 for h_2 / h_3 in the weight of eps_3, so that their sum is no longer h_0.
    """
    h, h1, h2, h3 = _lengths(levels, end)
    found = [1.0, 0.0, 0.0, 0.0]
    found[0], found[1] = 1 + h / (2 * h1), -h / (2 * h1)
    if len(levels) > 2:
        q, wide = h / (3 * (h + h1)), h * (h + h1) / (h1 * (h1 + h2))
        third = (1 - q * wide) / 2
        found[0] += third
        found[1] -= (1 + h1 / h2) * third
        found[2] += h1 / h2 * third
    if len(levels) > 3:
        wider = wide * (h + h1 + h2) / (h1 + h2 + h3)
        fourth = ((1 - q) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))) * wider
        span = h1 * (h1 + h2) / (h2 * (h2 + h3))
        found[0] += fourth
        found[1] -= (1 + h1 / h2 + span) * fourth
        found[2] += (h1 / h2 + span * (1 + h2 / h3)) * fourth
        found[3] -= span * h1 / h2 * fourth
    return [h * weight for weight in found[: len(levels)]]


def _lengths(levels: Sequence[Level], end: Level) -> list[float]:
    """Return the steps in sigma, the one to come first, as many as four: 1 for those that are not known."""
    sigmas = [end.sigma, *(level.sigma for level in levels)]
    steps = [later - earlier for later, earlier in pairwise(sigmas)]
    return [*steps, *[1.0] * (4 - len(steps))]


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register both."""
    return [ipndm, ipndm_v]
