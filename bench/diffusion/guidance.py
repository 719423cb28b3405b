"""Guidance: wrappers that make an `EpsilonModel` of a conditional network, a classifier, a threshold.

They are composed in this order: a network bound to the conditions of its samples, `guided`, `thresholded`,
and then the sampler. Guidance combines in the network's own parametrisation, then converts: rescaling and
norms do not commute with the conversion. The scale w is 1 for no guidance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from bench.diffusion.interfaces import Clip, EpsilonModel, Prediction, Variance
from bench.diffusion.posterior import threshold
from bench.diffusion.prediction import (
    Predicts,
    broadcast,
    count_gradients,
    count_rows,
    from_network,
    to_network,
)
from bench.diffusion.schedule import Schedule
from bench.errors import NotApplicable, UsageError


@runtime_checkable
class ConditionalNetwork(Protocol):
    """A network that takes a label beside x and t; what `guided` makes a model of.

    Attributes:
        schedule: the schedule it was trained on.
        shape: (C, H, W) of one sample.
        variance: what ``Prediction.raw_variance`` holds.
        prediction: what ``Prediction.eps`` holds: the network's own parametrisation.
        classes: K, the number of labels; the label K is "none".

    A network that was never trained without a label says so by an attribute ``has_none`` that is False.
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

    @property
    def prediction(self) -> Predicts:
        """Say what the network predicts."""

    @property
    def classes(self) -> int:
        """Give the number of labels."""

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Prediction:
        """Answer for x (B, C, H, W) in the network's own state, times t (B,) and labels (B,), int64."""
        ...


class Around:
    """What a wrapper takes from the model or network inside."""

    @property
    def inside(self) -> EpsilonModel | ConditionalNetwork:
        """What is wrapped."""
        raise NotImplementedError

    @property
    def schedule(self) -> Schedule:
        """That of what is inside."""
        return self.inside.schedule

    @property
    def shape(self) -> tuple[int, int, int]:
        """That of what is inside."""
        return self.inside.shape

    @property
    def variance(self) -> Variance:
        """That of what is inside."""
        return self.inside.variance

    @property
    def continuous(self) -> bool:
        """Whether what is inside takes real times."""
        return self.schedule.continuous or bool(getattr(self.inside, "continuous", False))


@dataclass(frozen=True)
class GuidedModel(Around):
    """A conditional network under classifier-free guidance; made by `guided`."""

    network: ConditionalNetwork = field(repr=False)
    labels: Tensor
    scale: float = 1.0
    rescale: float = 0.0
    interval: tuple[float, float] | None = None

    @property
    def inside(self) -> ConditionalNetwork:
        """The network; a variance is that of its conditional branch."""
        return self.network

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict the guided eps, and x_0 where the network tells it, of x (B, C, H, W) at times t (B,)."""
        net, alpha_bar = self.network, self.schedule.alpha_bars(t)
        state, labels = to_network(net.prediction, x, alpha_bar), self._labels_of(x)
        if not self._is_on(t) or self.scale == 1:
            count_rows(len(x))
            raw, variance, _ = net(state, t, labels)
        elif self.scale == 0 and self.variance == "fixed":
            count_rows(len(x))
            raw, variance, _ = net(state, t, torch.full_like(labels, net.classes))
        else:
            count_rows(2 * len(x))
            both = torch.cat([labels, torch.full_like(labels, net.classes)])
            answer = net(torch.cat([state, state]), torch.cat([t, t]), both)
            with_label, without = answer.eps.chunk(2)
            raw = without + self.scale * (with_label - without)
            if self.rescale:
                raw = _rescaled(raw, with_label, self.rescale)
            variance = None if answer.raw_variance is None else answer.raw_variance.chunk(2)[0]
        eps, x0 = from_network(net.prediction, x, raw, alpha_bar)
        return Prediction(eps, variance, x0)

    def _labels_of(self, x: Tensor) -> Tensor:
        if len(self.labels) != len(x):
            raise UsageError(
                f"a model bound to {len(self.labels)} labels was given {len(x)} samples; bind it to the"
                " labels of these samples"
            )
        return self.labels.to(x.device)

    def _is_on(self, t: Tensor) -> bool:
        if self.interval is None:
            return True
        low, high = self.interval
        on = (t > low) & (t <= high)
        if bool(on.all()):
            return True
        if bool(on.any()):
            raise UsageError("a guidance interval needs all samples of a call at one time")
        return False


def guided(
    net: ConditionalNetwork,
    labels: Tensor | Sequence[int],
    scale: float = 1.0,
    rescale: float = 0.0,
    interval: tuple[float, float] | None = None,
) -> GuidedModel:
    """Return the `EpsilonModel` of a conditional network under classifier-free guidance:

        out = u + w (c - u),   c and u the network's answers with the label and without

    w = 1 costs one evaluation a call, w = 0 too where no variance is learned, others two. A learned variance
    is that of the conditional branch, as in the published code of GLIDE and DiT.

    Args:
        net: the network.
        labels: int (B,), the label of every sample of a call; ``net.classes`` is "none".
        scale: w; 1 is no guidance. Ho & Salimans' own strength is w - 1.
        rescale: phi: out <- phi out std(c) / std(out) + (1 - phi) out, std over each sample.
        interval: (t_low, t_high): guided where t_low < t <= t_high, else the conditional answer alone.

    Source: Ho & Salimans 2022, arXiv:2207.12598; rescaling: Lin et al. 2023, arXiv:2305.08891, section 3.4;
    interval: Kynkaanniemi et al. 2024, arXiv:2404.07724.

    Raises:
        UsageError: if a label is not 0 .. K, or a number is out of its range.
    """
    given = torch.as_tensor(labels, dtype=torch.int64).view(-1)
    if len(given) and not 0 <= int(given.min()) <= int(given.max()) <= net.classes:
        raise UsageError(
            f"labels must lie in 0 .. {net.classes - 1}, or be {net.classes} for none, got"
            f" {int(given.min())} .. {int(given.max())}"
        )
    if scale != 1 and not getattr(net, "has_none", True):
        raise UsageError(
            "this network knows no label for none, so that nothing can be guided away from: leave guidance at"
            " 1, or tell which of its labels is none"
        )
    if not math.isfinite(scale) or scale < 0:
        raise UsageError(f"a guidance scale must be at least 0, got {scale}")
    if not 0 <= rescale <= 1:
        raise UsageError(f"a guidance rescale must lie in 0 .. 1, got {rescale}")
    if interval is not None and interval[0] >= interval[1]:
        raise UsageError(f"a guidance interval must ascend, got {interval[0]:g} .. {interval[1]:g}")
    return GuidedModel(net, given, float(scale), float(rescale), interval)


def _rescaled(out: Tensor, conditional: Tensor, phi: float) -> Tensor:
    dims = tuple(range(1, out.ndim))
    ratio = conditional.std(dims, keepdim=True) / out.std(dims, keepdim=True)
    return phi * out * ratio + (1 - phi) * out


class _Wrapper(Around):
    """A model around another one."""

    def __init__(self, model: EpsilonModel) -> None:
        self.model = model

    @property
    def inside(self) -> EpsilonModel:
        """The model inside."""
        return self.model

    def _x0(self, x: Tensor, predicted: Prediction, alpha_bar: Tensor) -> Tensor:
        if predicted.x0 is not None:
            return predicted.x0
        if not bool(alpha_bar.all()):
            raise NotApplicable(
                "at alpha_bar = 0 eps does not tell the x_0 that is to be clipped: put a model that predicts"
                " v, x_0 or a velocity inside, or let the grid begin at a later time"
            )
        return (x - broadcast((1 - alpha_bar).sqrt(), x) * predicted.eps) / broadcast(alpha_bar.sqrt(), x)

    def _eps(self, x: Tensor, x0: Tensor, alpha_bar: Tensor) -> Tensor:
        return (x - broadcast(alpha_bar.sqrt(), x) * x0) / broadcast((1 - alpha_bar).sqrt(), x)


class ClassifierGuidedModel(_Wrapper):
    """A model under the gradient of a classifier; made by `classifier_guided`."""

    def __init__(
        self,
        model: EpsilonModel,
        gradient: Callable[[Tensor, Tensor], Tensor],
        scale: float,
        clip: Clip,
    ) -> None:
        super().__init__(model)
        self._gradient, self.scale, self.clip = gradient, scale, clip

    def gradient(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the scaled gradient of log p(label | x_t), shaped like x: what shifts a mean."""
        count_gradients(len(x))
        return self.scale * self._gradient(x, t).to(x.dtype)

    def unguided(self, x: Tensor, t: Tensor) -> Prediction:
        """Return what the model inside predicts."""
        return self.model(x, t)

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict eps - sqrt(1 - abar) times the gradient, x_0 clipped before where that was asked for.

        An x_0 that the model inside tells moves by (1 - abar) / sqrt(abar) times the gradient; at abar = 0
        the gradient does not tell it.
        """
        predicted, alpha_bar = self.model(x, t), self.schedule.alpha_bars(t)
        eps, raw, x0 = predicted
        if self.clip == "x0":
            clipped = self._x0(x, predicted, alpha_bar).clamp(-1, 1)
            eps, x0 = self._eps(x, clipped, alpha_bar), None if x0 is None else clipped
        slope, noise = self.gradient(x, t), 1 - alpha_bar
        if x0 is not None:
            x0 = x0 + broadcast(noise / alpha_bar.sqrt(), x) * slope if bool(alpha_bar.all()) else None
        return Prediction(eps - broadcast(noise.sqrt(), x) * slope, raw, x0)


def classifier_guided(
    model: EpsilonModel,
    gradient: Callable[[Tensor, Tensor], Tensor],
    scale: float = 1.0,
    clip: Clip = "none",
) -> ClassifierGuidedModel:
    """Return the `EpsilonModel` eps - sqrt(1 - abar_t) scale grad log p(label | x_t).

    The sampler on it runs with ``clip=none``: published code clips x_0 before the guidance and not after it.
    For the other form, a mean that is shifted by the variance times the gradient, run ``ddpm:guide=mean``.

    Args:
        model: the noise predictor.
        gradient: (x_t, t) -> grad_x log p(label | x_t), shaped like x.
        scale: factor of the gradient; with an exact classifier on an unconditional model it is guidance of
            w = scale.
        clip: ``x0`` clamps x_0 to [-1, 1] before the gradient is taken off; or ``none``.

    Source: Dhariwal & Nichol 2021, arXiv:2105.05233, eq. 14 and algorithm 2.

    Raises:
        UsageError: if clip is neither.
    """
    if clip not in ("none", "x0"):
        raise UsageError(f"classifier_guided clips x0 or none, not {clip!r}")
    return ClassifierGuidedModel(model, gradient, scale, clip)


@runtime_checkable
class GuidedByGradient(Protocol):
    """A model that tells its guidance apart, for samplers that shift the mean: see `classifier_guided`."""

    def gradient(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the scaled gradient of log p(label | x_t)."""

    def unguided(self, x: Tensor, t: Tensor) -> Prediction:
        """Return the prediction without it."""


class ThresholdedModel(_Wrapper):
    """A model whose x_0 is thresholded; made by `thresholded`."""

    def __init__(self, model: EpsilonModel, quantile: float, greatest: float) -> None:
        super().__init__(model)
        self.quantile, self.greatest = quantile, greatest

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict the thresholded x_0 and the eps that it implies."""
        predicted, alpha_bar = self.model(x, t), self.schedule.alpha_bars(t)
        x0 = threshold(self._x0(x, predicted, alpha_bar), self.quantile, self.greatest)
        return Prediction(self._eps(x, x0, alpha_bar), predicted.raw_variance, x0)


def thresholded(model: EpsilonModel, quantile: float = 0.995, greatest: float = math.inf) -> ThresholdedModel:
    """Return the `EpsilonModel` with x_0 under dynamic thresholding, eps re-derived from it; see `threshold`.

    With the network's eps kept it is a clip mode of the sampler: ``ddim:clip=dynamic-raw-eps``.

    Args:
        model: the noise predictor.
        quantile: in (0, 1]; 0.995 in Imagen, and a protocol without it is none.
        greatest: the largest threshold.

    Source: Saharia et al. 2022, arXiv:2205.11487, section 2.3.

    Raises:
        UsageError: if a number is out of its range.
    """
    if not 0 < quantile <= 1 or greatest < 1:
        raise UsageError(
            f"thresholding needs a quantile in (0, 1] and a greatest of at least 1, got {quantile} and"
            f" {greatest}"
        )
    return ThresholdedModel(model, quantile, greatest)
