"""Restart sampling: Heun's method, going back to a noisier level and down again several times on its way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import count, pairwise
from typing import Annotated, NamedTuple

from torch import Tensor

from bench import (
    AtLeast,
    Checked,
    EpsilonModel,
    Grid,
    Noise,
    NotApplicable,
    Sampler,
    UsageError,
    hookimpl,
    sampler,
)
from samplers.edm import heun_step
from samplers.inner import at_sigma, renoised
from samplers.ode import Level

_FORM = re.compile(r"([2-9]|\d\d+)x(\d+)@(\d*\.?\d+)-(\d*\.?\d+)")


class Interval(NamedTuple):
    """A stretch that is gone through again.

    Attributes:
        points: levels from sigma_high to sigma_low, both counted.
        times: how often.
        low: sigma_low.
        high: sigma_high.
    """

    points: int
    times: int
    low: float
    high: float

    @classmethod
    def read(cls, text: str) -> list[Interval]:
        """Return the intervals of ``POINTSxTIMES@LOW-HIGH/...``.

        Raises:
            UsageError: if the text is not of that form.
        """
        found = [_FORM.fullmatch(part) for part in text.split("/")]
        whole = [one for one in found if one is not None]
        if len(whole) < len(found):
            raise UsageError(
                "restart:intervals takes POINTSxTIMES@LOW-HIGH with slashes between, as in"
                f" 4x1@1.09-1.92/6x6@0.06-0.3, got {text!r}"
            )
        return [cls(int(one[1]), int(one[2]), float(one[3]), float(one[4])) for one in whole]


def _check(text: str) -> None:
    """Refuse intervals that cannot be read."""
    if text:
        Interval.read(text)


@sampler(
    calls_per_step=2,
    source="Xu et al. 2023, Restart Sampling for Improving Generative Processes, arXiv:2306.14878, section 3",
    most_steps=100,
)
def restart(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    times: Annotated[int, AtLeast(0)] = 2,
    points: Annotated[int, AtLeast(2)] = 3,
    low: Annotated[float, AtLeast(0)] = 0.06,
    high: Annotated[float, AtLeast(0)] = 0.3,
    rho: Annotated[float, AtLeast(1)] = 7.0,
    intervals: Annotated[str, Checked(_check)] = "",
) -> Iterator[Tensor]:
    """Step by `heun_step`; where the grid has come to sigma_low, ``times`` times over, z standard normal:

        y_high = y_low + sqrt(sigma_high^2 - sigma_low^2) z
        y_low  = y_high after `heun_step` over ``points`` levels from sigma_high to sigma_low

    y = x / sqrt(abar). sigma_low is the grid's level, x_0 apart, that is nearest to ``low``; the levels from
    sigma_high down are Karras et al.'s, with their rho. A restart costs 2 (points - 1) calls. Its error is of
    second order in the distance of these levels: no order in the number of steps alone.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for ``times`` times at the step to sigma_low, and at no other.
        times: the paper's K; 2 for CIFAR-10.
        points: the paper's N_Restart, both ends counted; 3 for CIFAR-10.
        low: the paper's t_min; 0.06 for CIFAR-10.
        high: the paper's t_max; 0.3 for CIFAR-10.
        rho: see the grid ``edm``.
        intervals: several, in the place of points, times, low and high: ``POINTSxTIMES@LOW-HIGH/...``, as in
            the paper's ``3x1@19.35-40.79/4x1@1.09-1.92/4x5@0.59-1.09/4x5@0.3-0.59/6x6@0.06-0.3`` of ImageNet.

    Yields:
        x after every step; the last is x_0.

    Raises:
        UsageError: if a ``low`` is not below its ``high``.
        NotApplicable: if no level that the grid arrives at, x_0 apart, lies below sigma_high.
    """
    at: dict[int, list[Interval]] = {}
    for one in Interval.read(intervals) if intervals else [Interval(points, times, low, high)]:
        at.setdefault(_nearest(grid, one.low, one.high), []).append(one)
    for step in grid:
        end, drawn = Level.end(step), count()
        x = heun_step(model, x, Level.start(step), end)
        for interval in at.get(step.index, ()):
            levels = _levels(model, end, interval.high, interval.points, rho)
            for _ in range(interval.times):
                x = renoised(x, end, levels[0], noise(step.index, next(drawn)))
                for start, stop in pairwise(levels):
                    x = heun_step(model, x, start, stop)
        yield x


def _nearest(grid: Grid, low: float, high: float) -> int:
    """Return the index of the step that arrives at the level nearest to sigma ``low``."""
    if low >= high:
        raise UsageError(
            f"restart goes from sigma low up to high: low={low:g} must be less than high={high:g}"
        )
    below = [
        (abs(Level.end(s).sigma - low), s.index) for s in grid if not s.last and Level.end(s).sigma < high
    ]
    if not below:
        raise NotApplicable(
            f"no level of a grid of {len(grid)} steps lies between x_0 and sigma {high:g} to restart from;"
            " take more steps or a greater high"
        )
    return min(below)[1]


def _levels(model: EpsilonModel, end: Level, high: float, points: int, rho: float) -> list[Level]:
    """Return the levels from sigma_high to sigma_low, each once."""
    first, last = high ** (1 / rho), end.sigma ** (1 / rho)
    parts = [first + k / (points - 1) * (last - first) for k in range(points - 1)]
    return list(dict.fromkeys([*(at_sigma(model, part**rho) for part in parts), end]))


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register it."""
    return [restart]
