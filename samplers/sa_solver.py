"""SA-Solver: Adams predictor and corrector for the reverse SDE with as much noise as is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, expm1, inf, sqrt
from typing import Annotated, Literal

from torch import Tensor

from bench import (
    AtLeast,
    AtMost,
    EpsilonModel,
    Grid,
    Noise,
    Sampler,
    Step,
    hookimpl,
    sampler,
    weighted_sum,
)
from samplers.ode import (
    Final,
    History,
    Level,
    answer,
    exponential_weights,
    lagrange,
    planned,
    settled,
)

Mode = Literal["few", "more"]


def _order(predictor: int, corrector: int, tau: float, **others: object) -> int:
    order = min(predictor + 1, corrector) if corrector > 0 else predictor
    return order if tau == 0 else min(order, 2)


@sampler(
    order=_order, source="Xue et al. 2023, SA-Solver, arXiv:2309.05019, eq. 15 and 18, app. D", most_steps=100
)
def sa_solver(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    predictor: Annotated[int, AtLeast(1), AtMost(4)] = 2,
    corrector: Annotated[int, AtLeast(0), AtMost(4)] = 2,
    tau: Annotated[float, AtLeast(0)] = 1.0,
    tau_min: Annotated[float, AtLeast(0)] = 0.0,
    tau_max: Annotated[float, AtLeast(0), AtMost(inf)] = inf,
    mode: Mode = "few",
    final: Final = "lowered_then_x0",
    afs: bool = False,
) -> Iterator[Tensor]:
    """Predict x at u, ask the network there, correct x with the same z; g = (1 + tau^2) h, z standard normal:

        y_u = e^(-g) y_t + sum_j w_j x_0j + sigma_u sqrt(1 - e^(-2 tau^2 h)) z
        w_j = int_0^1 g e^(-(1-v) g) l_j(v) dv        v = (lambda - lambda_t) / h

    with l_j Lagrange's polynomials through the last values of x_0, the corrector's through the one at u too.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for at every step where tau > 0 but the last.
        predictor: the number of values of x_0 that the predictor combines.
        corrector: the number of values of the corrector, the one at u included; 0 corrects nothing.
        tau: 0 is the probability flow, 1 the reverse SDE.
        tau_min: tau is 0 at steps that arrive at a sigma below it.
        tau_max: and above it.
        mode: the two forms of the published code. ``few``: the slope of two values has the weight g / 2, the
            integral's for small h, and with final=lowered_then_x0 the step before the one to x_0 has no noise
            and is not corrected. ``more``: the integral's weights, and with final=lowered_then_x0 that step
            is corrected and the network asked once more for x_0.
        final: how the orders end; see `samplers.ode.Final`.
        afs: take x_T as its own eps, and save the first call.

    Yields:
        x after every step, not yet corrected; the last is x_0.
    """
    most, to_x0 = max(predictor, corrector), settled(grid, final) == "lowered_then_x0"
    past = History(most)
    # The step to here, its g, what predictor and corrector share, its order.
    before: tuple[Step, float, Tensor, int] | None = None
    for step, order in planned(grid, most, final):
        if order > 0:
            x0, _ = answer(model, x, step, afs=afs and past.empty)
            past.add(Level.start(step), x0)
            if before is not None and corrector > 0 and not (step.last and to_x0 and mode == "few"):
                last, g, shared, reached = before
                x = _drifted(shared, past, last, g, min(corrector, reached + 1), mode)
                if step.last and to_x0:
                    x0, _ = answer(model, x, step)
            silent = mode == "few" and to_x0 and step.alpha_bar_next == grid[len(grid) - 1].alpha_bar
            noisy = not silent and tau_min <= Level.end(step).sigma <= tau_max
            g, shared = _shared(x, step, tau if noisy else 0.0, noise)
            before = (step, g, shared, order) if step.alpha_bar > 0 else None
            reach = min(predictor, order)
            if reach > 1:
                x = _drifted(shared, past, step, g, reach, mode)
            else:
                x = weighted_sum((1.0, -expm1(-g) * Level.end(step).a), (shared, x0))
        yield x


def _shared(x: Tensor, step: Step, tau: float, noise: Noise) -> tuple[float, Tensor]:
    """Return (g, x at u but for what x_0 adds): the same for predictor and corrector."""
    start, end = Level.start(step), Level.end(step)
    h = end.half_log_snr - start.half_log_snr
    if tau == 0 or end.s == 0:
        return h, end.s / start.s * x
    kept, spread = exp(-(tau**2) * h), sqrt(-expm1(-2 * tau**2 * h))
    shared = weighted_sum((end.s * kept / start.s, end.s * spread), (x, noise(step.index)))
    return (1 + tau**2) * h, shared


def _drifted(shared: Tensor, past: History, step: Step, g: float, n: int, mode: Mode) -> Tensor:
    """Return x with sum_j w_j x_0j over the last n values, for a step to or from the newest level."""
    start, end = Level.start(step).half_log_snr, Level.end(step).half_log_snr
    at = [(level.half_log_snr - start) / (end - start) for level in list(past.levels)[:n]]
    if n == 2 and mode == "few":
        weights = [float(c[0] * -expm1(-g) + c[1] * g / 2) for c in lagrange(at)]
    else:
        weights = [g * weight for weight in exponential_weights(at, -g)]
    a = Level.end(step).a
    return weighted_sum([1.0, *(a * weight for weight in weights)], [shared, *past.last(n)])


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register SA-Solver."""
    return [sa_solver]
