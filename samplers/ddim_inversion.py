"""DDIM inversion: from x_0 back up to the noise it came from, and how well the way back is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from torch import Tensor

from bench import (
    Added,
    EpsilonModel,
    Grid,
    Noise,
    Sampler,
    diffuse,
    hookimpl,
    predict_x0,
    sampler,
    times_like,
)
from samplers.ode import Level

Told = Literal["current", "target"]


@sampler(
    order=1,
    calls_per_step=3,
    source="Song et al. 2021, arXiv:2010.02502, section 4.3; Mokady et al. 2023, arXiv:2211.09794, eq. 3",
    most_steps=100,
)
def ddim_inversion(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    told: Told = "current",
    gives: Annotated[Literal["image", "error"], Added("0.2.0")] = "image",
) -> Iterator[Tensor]:
    """Sample x_0 by DDIM, invert it up the grid again, and sample from what was found: a round trip.

        down   x_u = a_u x_0(x_t, t) + s_u eps(x_t, t)
        up     x_t = a_t x_0(x_u, told) + s_t eps(x_u, told)

    The sample after the last step is that of the second way down. It differs from DDIM's of the same noise by
    the error of the inversion. The second and third way are made at the last step: 3 S calls in all.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: never asked for.
        told: the time that the network is told on the way up: ``current``, that of x_u, or of the least noisy
            step where x_u is x_0; ``target``, t, where it is going, as diffusers' inverse scheduler does.
        gives: ``image``, the sample of the second way down; ``error``, what it has beyond that of the first:
            the score ``rms_x0`` is then the size of the round trip's error.

    Yields:
        x after every step; the last is x_0 after the round trip.
    """
    levels = [*(Level.start(step) for step in grid), Level.end(grid[len(grid) - 1])]
    for step, end in zip(grid, levels[1:], strict=True):
        x = diffuse(*levels[step.index].ask(model, x), end.alpha_bar)
        if step.index == len(grid) - 1:
            first = x
            x = inverted(model, x, levels[::-1], told)
            for one, other in pairwise(levels):
                x = diffuse(*one.ask(model, x), other.alpha_bar)
            x = x - first if gives == "error" else x
        yield x


def inverted(model: EpsilonModel, x: Tensor, levels: Sequence[Level], told: Told) -> Tensor:
    """Return x at the last of some levels, by DDIM's step from each to the next one, which is noisier.

    Args:
        model: the noise predictor.
        x: x at the first level, shape (B, C, H, W).
        levels: from the cleanest to the noisiest; the network is never told of alpha_bar = 1.
        told: see `ddim_inversion`.
    """
    for clean, noisy in pairwise(levels):
        asked = noisy if told == "target" or clean.alpha_bar == 1 else clean
        x0, eps = predict_x0(x, model(x, times_like(x, asked.t)).eps, clean.alpha_bar)
        x = diffuse(x0, eps, noisy.alpha_bar)
    return x


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register it."""
    return [ddim_inversion]
