"""LMS: Adams and Bashforth's linear multistep rule in sigma, for steps of any length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from torch import Tensor

from bench import AtLeast, AtMost, EpsilonModel, Grid, Noise, Sampler, hookimpl, sampler
from samplers.ode import Final, adams, sigma_weights


@sampler(
    order=lambda order, **_: order,
    source="Hairer, Norsett & Wanner 1993, Solving Ordinary Differential Equations I, sec. III.5",
    most_steps=100,
)
def lms(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    order: Annotated[int, AtLeast(1), AtMost(4)] = 4,
    final: Final = "none",
    afs: bool = False,
) -> Iterator[Tensor]:
    """Step from t to u with eps extrapolated in sigma, l_j Lagrange's polynomials on the last levels:

        y_u = y_t + sum_j eps_j int_(sigma_t)^(sigma_u) l_j(sigma) d sigma

    It is k-diffusion's ``lms``, DEIS with basis=rho, and iPNDM_v with the weights that its derivation has.

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
    return adams(model, x, grid, order, final, afs, sigma_weights)


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register LMS."""
    return [lms]
