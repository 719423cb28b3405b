"""What a model and a noise source must offer: the whole contract between samplers and the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from bench.diffusion.schedule import Schedule

Variance = Literal["fixed", "learned", "learned_range", "x0"]
"""What a model says of the variance: nothing; the logarithm of the reverse step's; a place between that
one's two bounds; or Var[x_0 | x_t], from which the best reverse variance of any step follows."""


Clip = Literal["none", "x0", "x0-raw-eps", "dynamic", "dynamic-raw-eps", "state"]
"""What is done to a predicted x_0: nothing; clamped to [-1, 1] with eps re-derived from it; clamped with the
network's own eps kept; thresholded at a quantile of each sample (Saharia et al. 2022, arXiv:2205.11487, sec.
2.3) with eps re-derived, or kept; or nothing, and x itself clamped after every step. Inequivalent things that
published code calls "clipping"."""


class Prediction(NamedTuple):
    """What a network says about (x_t, t).

    Attributes:
        eps: predicted noise, shape (B, C, H, W).
        raw_variance: None for ``variance="fixed"``; the log-variance for ``"learned"``; v for
            ``"learned_range"``, where (v + 1) / 2 interpolates between log beta~ and log beta
            (Nichol & Dhariwal 2021, eq. 15); Var[x_0 | x_t] for ``"x0"``. Shape (B, C, H, W).
        x0: predicted x_0, shape (B, C, H, W), where the network tells it itself: at alpha_bar = 0 it does not
            follow from eps, and near there it follows with a loss of digits. None: it is derived from eps.
    """

    eps: Tensor
    raw_variance: Tensor | None = None
    x0: Tensor | None = None


@runtime_checkable
class EpsilonModel(Protocol):
    """A noise predictor eps(x_t, t). Any module, function or object with these attributes is one.

    Attributes:
        schedule: the schedule it was trained on.
        shape: (C, H, W) of one sample.
        variance: what ``Prediction.raw_variance`` holds.

    A model that takes times between the steps of a discrete schedule says so by an attribute ``continuous``
    that is true; for one without it, times are rounded.
    """

    @property
    def schedule(self) -> Schedule:
        """Give alpha_bar_t."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Give (C, H, W)."""

    @property
    def variance(self) -> Variance:
        """Say what ``raw_variance`` holds."""

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict the noise in x (B, C, H, W) at times t (B,): int64 time steps, or float64 real times."""
        ...


def takes_real_times(model: EpsilonModel) -> bool:
    """Return whether a model takes times between time steps."""
    return model.schedule.continuous or bool(getattr(model, "continuous", False))


class Noise(Protocol):
    """The noise of a trajectory: a function of the step, the same however often it is asked."""

    def __call__(self, index: int, draw: int = 0) -> Tensor:
        """Return standard normal values shaped like x for the step with an index; ``draw`` counts several."""
        ...


SamplerFunction = Callable[..., Iterator[Tensor]]
"""(model, x, grid, noise, **parameters) -> iterator over x after every step; the last one is x_0."""


__all__ = ["Clip", "EpsilonModel", "Noise", "Prediction", "SamplerFunction", "Variance", "takes_real_times"]
