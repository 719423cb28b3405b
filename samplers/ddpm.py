"""DDPM: ancestral sampling from the reverse Gaussians, with three choices of their variance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Annotated, Literal

from torch import Tensor

from bench import (
    Added,
    AtLeast,
    AtMost,
    Clip,
    EpsilonModel,
    Grid,
    GuidedByGradient,
    Noise,
    NotApplicable,
    Prediction,
    Sampler,
    Step,
    Variance,
    hookimpl,
    learned_log_variance,
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
    clip: Literal["x0", "none", "dynamic", "state"] = "x0",
    quantile: Annotated[float, AtLeast(0), AtMost(1), Added("0.2.0")] = 0.995,
    greatest: Annotated[float, AtLeast(1), Added("0.2.0")] = 1000.0,
    guide: Annotated[Literal["eps", "mean"], Added("0.2.0")] = "eps",
) -> Iterator[Tensor]:
    """Draw x_s from N(mean, variance), s the next time step of the grid, beta' = 1 - abar_t / abar_s:

        mean       = beta' sqrt(abar_s) / (1 - abar_t) x_0 + (1 - abar_s) sqrt(1 - beta') / (1 - abar_t) x_t
        fixedsmall = beta~ = beta' (1 - abar_s) / (1 - abar_t)    the posterior's, for x_0 a point
        fixedlarge = beta'                                        the posterior's, for x_0 white noise
        learned    = the network's: its logarithm, or v with
                     log variance = (1 + v)/2 log beta' + (1 - v)/2 log beta~
                     (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15), or, from Var[x_0 | x_t],
                     beta~ + (beta' sqrt(abar_s) / (1 - abar_t))^2 Var[x_0 | x_t]
                     (Bao et al. 2022, arXiv:2201.06503, theorem 1)

    No noise is added at the last step. On a sub-sequence of time steps the same formulas hold with abar of
    the chosen steps. fixedlarge is the sigma-hat row of the DDIM paper's table 1.

    Args:
        model: the noise predictor; ``learned`` needs one that predicts a variance.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for at every step but the last.
        variance: which of the three.
        clip: ``x0`` clamps the predicted x_0 to [-1, 1], as published; ``none``; ``dynamic`` thresholds it at
            a quantile of each sample; ``state`` clamps x itself after every step.
        quantile: the quantile of |x_0|, for ``dynamic``.
        greatest: the largest threshold of ``dynamic``.
        guide: how a classifier of the model guides: ``eps``, inside the model; ``mean``: its scaled gradient
            at x_t times the variance is added to the mean (Dhariwal & Nichol 2021, arXiv:2105.05233,
            algorithm 1), at the last step with the variance that published code puts there.

    Yields:
        x after every step; the last is x_0.

    Raises:
        NotApplicable: if the variance is to be learned and the model predicts none; if the mean is to be
            guided and the model has no classifier.
    """
    if variance == "learned" and model.variance == "fixed":
        raise NotApplicable("the model predicts no variance")
    if guide == "mean" and not isinstance(model, GuidedByGradient):
        raise NotApplicable("the model has no classifier to guide the mean by")
    for step in grid:
        times, shift = step.times(x), None
        if guide == "mean" and isinstance(model, GuidedByGradient):
            predicted, shift = model.unguided(x, times), model.gradient(x, times)
        else:
            predicted = model(x, times)
        x0, _ = predict_x0(x, predicted, step.alpha_bar, _EPS_UNUSED[clip], quantile, greatest)
        mean = posterior_mean(x, x0, step)
        if shift is not None:
            mean = mean + _spread(variance, predicted, model.variance, step, grid) * shift
        if step.last or step.alpha_bar == step.alpha_bar_next:
            x = mean
        else:
            x = _drawn(mean, _spread(variance, predicted, model.variance, step, grid), noise(step.index))
        if clip == "state":
            x = x.clamp(-1, 1)
        yield x


_EPS_UNUSED: dict[str, Clip] = {
    "none": "none",
    "state": "state",
    "x0": "x0-raw-eps",
    "dynamic": "dynamic-raw-eps",
}
"""The same clip of x_0 without the eps that it implies, which costs time and which no mean here needs."""


def _drawn(mean: Tensor, variance: Tensor | float, z: Tensor) -> Tensor:
    """Return mean + sqrt(variance) z, in the place of the mean."""
    if isinstance(variance, Tensor):
        return mean.addcmul_(variance.sqrt(), z)
    return mean.add_(z, alpha=sqrt(variance))


def _spread(variance: str, predicted: Prediction, kind: Variance, step: Step, grid: Grid) -> Tensor | float:
    """Return the variance of x_s.

    At the last step, where no noise is drawn and beta~ is 0, a guided mean is still shifted: by 0 with
    fixedsmall, else by the variance that published code puts there, with beta~ of the step before (Dhariwal &
    Nichol 2021).
    """
    posterior = posterior_constants(step)
    if variance == "fixedsmall":
        return posterior.variance
    if not step.last:
        if variance == "fixedlarge":
            return posterior.beta
        assert predicted.raw_variance is not None  # the model said it predicts one
        return learned_variance(predicted.raw_variance, kind, step)
    before = posterior_constants(grid[max(0, step.index - 1)]).variance
    if variance == "fixedlarge":
        return before
    assert predicted.raw_variance is not None
    return learned_log_variance(predicted.raw_variance, kind, step, before).exp()


@hookimpl
def bench_samplers() -> Sequence[Sampler]:
    """Register the three variances; fixedlarge under the name of its row in the DDIM paper too."""
    return [
        ddpm.with_(variance="fixedsmall"),
        ddpm.with_(variance="fixedlarge"),
        ddpm.with_(variance="learned"),
        ddpm.with_(variance="fixedlarge", alias="sigma-hat"),
    ]
