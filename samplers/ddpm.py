"""DDPM: ancestral sampling from the reverse Gaussians, with three choices of their variance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Literal

from torch import Tensor

from bench import (
    EpsilonModel,
    Grid,
    Noise,
    NotApplicable,
    Sampler,
    hookimpl,
    learned_variance,
    posterior_constants,
    posterior_mean,
    predict_x0,
    sampler,
)


@sampler(
    order=1, source="Ho et al. 2020, Denoising Diffusion Probabilistic Models, arXiv:2006.11239, algorithm 2"
)
def ddpm(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    variance: Literal["fixedsmall", "fixedlarge", "learned"] = "fixedsmall",
    clip: Literal["x0", "none"] = "x0",
) -> Iterator[Tensor]:
    r"""Draw x_s from N(mean, variance), s the next time step of the grid, beta' = 1 - abar_t / abar_s:

        mean       = beta' sqrt(abar_s) / (1 - abar_t) x_0 + (1 - abar_s) sqrt(1 - beta') / (1 - abar_t) x_t
        fixedsmall = beta~ = beta' (1 - abar_s) / (1 - abar_t)    the posterior's, for x_0 a point
        fixedlarge = beta'                                        the posterior's, for x_0 white noise
        learned    = the network's: its logarithm, or v with
                     log variance = (1 + v)/2 log beta' + (1 - v)/2 log beta~
                     (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15), or, from Var[x_0 | x_t],
                     beta~ + (beta' sqrt(abar_s) / (1 - abar_t))^2 Var[x_0 | x_t]
                     (Bao et al. 2022, arXiv:2201.06503, eq. 8)

    No noise is added at the last step. On a sub-sequence of time steps the same formulas hold with abar of
    the chosen steps. fixedlarge is the sigma-hat row of the DDIM paper's table 1.

    Args:
        model: the noise predictor; ``learned`` needs one that predicts a variance.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for at every step but the last.
        variance: which of the three.
        clip: ``x0`` clamps the predicted x_0 to [-1, 1], as published; or ``none``.

    Yields:
        x after every step; the last is x_0.

    Raises:
        NotApplicable: if the variance is to be learned and the model predicts none.
    """
    if variance == "learned" and model.variance == "fixed":
        raise NotApplicable("the model predicts no variance")
    for step in grid:
        eps, raw_variance = model(x, step.times(x))
        x0, _ = predict_x0(x, eps, step.alpha_bar, clip)
        mean = posterior_mean(x, x0, step)
        posterior = posterior_constants(step)
        if step.last or posterior.beta == 0:
            x = mean
        elif variance == "learned":
            assert raw_variance is not None  # the model said it predicts one
            x = mean + learned_variance(raw_variance, model.variance, step).sqrt() * noise(step.index)
        else:
            fixed = posterior.beta if variance == "fixedlarge" else posterior.variance
            x = mean + sqrt(fixed) * noise(step.index)
        yield x


@hookimpl
def bench_samplers() -> Sequence[Sampler]:
    """Register the three variances; fixedlarge under the name of its row in the DDIM paper too."""
    return [
        ddpm.with_(variance="fixedsmall"),
        ddpm.with_(variance="fixedlarge"),
        ddpm.with_(variance="learned"),
        ddpm.with_(variance="fixedlarge", alias="sigma-hat"),
    ]
