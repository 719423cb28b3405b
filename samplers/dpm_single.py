"""DPM-Solver and DPM-Solver++, single-step: every step asks the network two or three times, and forgets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    UsageError,
    diffuse,
    hookimpl,
    sampler,
    weighted_sum,
)
from samplers.inner import between
from samplers.ode import Level, exponential_weights, phi

Form = Literal["midpoint", "heun"]
"""How what the network says is continued over a step: ``midpoint`` as in the papers, by the slope to the last
value alone; ``heun`` (also "taylor") by the polynomial through all values, integrated exactly."""

Points = Literal["between", "grid"]
"""Where inner calls are made: ``between`` two times of the grid, at equal parts in lambda; or at the times of
the ``grid`` itself, so that a step of order k uses up k of them, and S steps are S calls."""

Inner = Literal["exact", "midpoint"]
"""How the second inner state of order 3 is made: as in the papers, or by order 2's formula."""

Predict = Literal["eps", "x0"]

Final = Literal["only", "2", "1", "2-1"]
"""The orders of the last steps before the one to x_0, which is of order 1: like the others, or these."""

PLACES = {1: (), 2: (1 / 2,), 3: (1 / 3, 2 / 3)}
"""r of the inner calls by order, as in the DPM-Solver paper's algorithms 1 and 2."""


@sampler(
    order=lambda order, **_: order,
    calls_per_step=lambda order, points, **_: order if points == "between" else 1,
    source="Lu et al. 2022, DPM-Solver, arXiv:2206.00927, algorithms 1 and 2",
    most_steps=100,
)
def dpm_single(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    order: Annotated[int, AtLeast(2), AtMost(3)] = 2,
    form: Form = "midpoint",
    points: Points = "between",
    inner: Inner = "exact",
    final: Final = "only",
) -> Iterator[Tensor]:
    """Step from t to u with h = lambda_u - lambda_t, e_k = eps at lambda_t + r_k h, y = x / sqrt(abar):

        order 2   y_1 = y + (sigma_1 - sigma_t) e_0
                  y_u = y - sigma_u [(e^h - 1) e_0 + (e^h - 1) (e_1 - e_0) / (2 r_1)]
        order 3   y_2 = y - sigma_2 [(e^g - 1) e_0 + r_2/r_1 ((e^g - 1)/g - 1) (e_1 - e_0)], g = r_2 h
                  y_u = y - sigma_u [(e^h - 1) e_0 + ((e^h - 1)/h - 1) (e_2 - e_0) / r_2]

    The last step, to x_0, is DDIM's. Order 2 with r_1 = 1/2 is k-diffusion's DPM-2.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: never asked for.
        order: 2 or 3, the number of calls a step.
        form: ``midpoint``: as above; ``heun``: the polynomial through all e_k, integrated exactly.
        points: ``between``: r = 1/2, or 1/3 and 2/3; ``grid``: the grid's own times are the inner ones.
        inner: y_2 of order 3: ``exact`` as above; ``midpoint`` by order 2's formula, as in diffusers.
        final: orders of the last steps before the one to x_0: ``only``: like the others; ``1``, ``2``,
            ``2-1``: with these DPM-Solver-fast makes n calls where n mod 3 is 1, 2, 0.

    Yields:
        x after every step; the last is x_0.

    Raises:
        UsageError: if ``final`` is given together with ``points=grid``.
    """
    return _solved(model, x, grid, "eps", order, form, points, inner, final)


@sampler(
    order=lambda order, **_: order,
    calls_per_step=lambda order, points, **_: order if points == "between" else 1,
    source="Lu et al. 2022, DPM-Solver++, arXiv:2211.01095, algorithm 1",
    most_steps=100,
)
def dpmpp_single(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    order: Annotated[int, AtLeast(2), AtMost(3)] = 2,
    form: Form = "midpoint",
    points: Points = "between",
    inner: Inner = "exact",
    final: Final = "only",
) -> Iterator[Tensor]:
    """Step from t to u with h = lambda_u - lambda_t, D_k = x_0 at lambda_t + r_k h, y = x / sqrt(abar):

        order 2   y_1 = e^(-r_1 h) y + (1 - e^(-r_1 h)) D_0
                  y_u = e^-h y + (1 - e^-h) [D_0 + (D_1 - D_0) / (2 r_1)]
        order 3   y_2 = e^-g y + (1 - e^-g) D_0 + r_2/r_1 (1 - (1 - e^-g)/g) (D_1 - D_0), g = r_2 h
                  y_u = e^-h y + (1 - e^-h) D_0 + (1 - (1 - e^-h)/h) (D_2 - D_0) / r_2

    It is `dpm_single` with x_0 in the place of eps; the last step, to x_0, is DDIM's.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: never asked for.
        order: 2 or 3, the number of calls a step.
        form: ``midpoint``: as above; ``heun``: the polynomial through all D_k, integrated exactly.
        points: see `dpm_single`.
        inner: see `dpm_single`.
        final: see `dpm_single`.

    Yields:
        x after every step; the last is x_0.
    """
    return _solved(model, x, grid, "x0", order, form, points, inner, final)


def _solved(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    predict: Predict,
    order: int,
    form: Form,
    points: Points,
    inner: Inner,
    final: Final,
) -> Iterator[Tensor]:
    if points == "grid" and final != "only":
        raise UsageError(
            f"final={final} is for points=between: the length of the grid decides with points=grid"
        )
    blocks = _grouped(grid, order) if points == "grid" else _divided(model, grid, order, final)
    for levels in blocks:
        if levels[0].alpha_bar == levels[-1].alpha_bar:  # a repeated level: nothing changes
            yield x
            continue
        states = single_step(model, x, levels, predict, form, inner)
        if points == "grid":
            for x in states:
                yield x
        else:
            *_, x = states
            yield x


def single_step(
    model: EpsilonModel,
    x: Tensor,
    levels: Sequence[Level],
    predict: Predict,
    form: Form = "midpoint",
    inner: Inner = "exact",
) -> Iterator[Tensor]:
    """Yield x at every level of a step but the first; the last of them is what the step ends in.

    The network is asked at every level but the last. What it says there, m_k, bends DDIM's step from the
    first level to the next ones: m = x_0 and z = -h, or m = eps and z = h, in

        x = a x_0 + s eps + (a or -s) sum_k w_k(z) (m_k - m_0)

    Args:
        model: the noise predictor.
        x: at the first level, shape (B, C, H, W).
        levels: the levels from the start to the end; two of them are DDIM's step.
        predict: whether x_0 or eps is continued over the step.
        form: see `dpm_single`.
        inner: see `dpm_single`.
    """
    start, end = levels[0], levels[-1]
    x0, eps = start.ask(model, x)
    first = x0 if predict == "x0" else eps
    asked: list[Level] = []
    told: list[Tensor] = []
    for level in levels[1:]:
        if told:
            h = level.half_log_snr - start.half_log_snr
            places = [(one.half_log_snr - start.half_log_snr) / h for one in asked]
            curve: Form = form if level is end else "heun" if inner == "exact" else "midpoint"
            weights = _weights(curve, places, h, -h if predict == "x0" else h)
            scale = level.a if predict == "x0" else -level.s
            bend = [scale * weight for weight in weights]
            x = weighted_sum([level.a, level.s, -sum(bend), *bend], [x0, eps, first, *told])
        else:
            x = diffuse(x0, eps, level.alpha_bar)
        yield x
        if level is not end:
            asked.append(level)
            told.append(level.ask(model, x)[0 if predict == "x0" else 1])


def _weights(form: Form, places: Sequence[float], h: float, z: float) -> list[float]:
    """Return the weights of m_k - m_0, k >= 1, for places r_k in units of the step."""
    if form == "heun":
        return [h * weight for weight in exponential_weights([0.0, *places], z)[1:]]
    *earlier, last = places
    slope = phi(1, z) / 2 if not earlier else phi(2, z)
    return [0.0 for _ in earlier] + [h * slope / last]


def _divided(model: EpsilonModel, grid: Grid, order: int, final: Final) -> Iterator[list[Level]]:
    """Yield the levels of every step of the grid, the inner ones at equal parts in lambda."""
    lowered = [] if final == "only" else [min(order, int(one)) for one in final.split("-")]
    left = len(grid) - (grid.end is None)  # steps before the one to x_0
    for step in grid:
        start, end = Level.start(step), Level.end(step)
        known = left - step.index  # steps from this one to the one before the last
        wanted = lowered[-known] if 0 < known <= len(lowered) else order
        yield [start, *between(model, start, end, PLACES[wanted]), end]


def _grouped(grid: Grid, order: int) -> Iterator[list[Level]]:
    """Yield the levels of ``order`` steps of the grid at a time.

    The step to x_0, one from alpha_bar = 0 and a repeated one are alone; what is left before them is a group
    of fewer.
    """
    group: list[Step] = []
    for step in grid:
        alone = step.last or step.alpha_bar == 0 or step.alpha_bar == step.alpha_bar_next
        if alone and group:
            yield _ends(group)
            group = []
        group.append(step)
        if alone or len(group) == order:
            yield _ends(group)
            group = []


def _ends(steps: Sequence[Step]) -> list[Level]:
    return [Level.start(steps[0]), *map(Level.end, steps)]


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register both, and the names by which their second order is known elsewhere."""
    return [
        dpm_single,
        dpm_single.with_(order=2, alias="dpm2"),
        dpmpp_single,
        dpmpp_single.with_(order=2, alias="dpmpp-2s"),
    ]
