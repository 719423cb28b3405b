"""Networks of checkpoints, as samplers see them."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import cached_property

import torch
from torch import Tensor, nn

from bench import NoiseSchedule, Prediction, Schedule, Variance
from bench.diffusion.prediction import Predicts, count_rows, from_network, split_variance, to_network
from bench.files.tensors import tensor_bytes


class _Checkpoint(nn.Module):
    """A network with its diffusion.

    Args:
        network: maps x (B, C, H, W), t (B,) and maybe labels (B,) to (B, C, H, W), or to (B, 2C, H, W) with
            the raw variance in the second half of the channels.
        schedule: what it was trained on.
        shape: (C, H, W).
        variance: what the second half holds; with ``"fixed"`` it is ignored where there is one.
        rescale_timesteps: whether the network receives t 1000/T for the time step t
            (``rescale_timesteps`` of improved-diffusion); s in (0, 1] of rectified flow becomes 1000 s.
        predicts: what it predicts.

    Attributes:
        averaged: whether its weights are averaged (EMA); None where its files do not say.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        shape: tuple[int, int, int],
        variance: Variance = "fixed",
        rescale_timesteps: bool = False,
        predicts: Predicts = "eps",
    ) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.shape = shape
        self.variance: Variance = variance
        self.rescale_timesteps = rescale_timesteps
        self.predicts: Predicts = predicts
        self.averaged: bool | None = None
        # Sinusoids embed any real time; a table of the best scalar predictor has the time steps only.
        self.continuous = not getattr(getattr(network, "config", None), "residual", 0)

    def answer(self, x: Tensor, t: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (what the network predicts of its state x, its raw variance) in the precision of x."""
        if self.rescale_timesteps:
            T = self.schedule.T if isinstance(self.schedule, NoiseSchedule) else 1
            t = t.to(torch.float32) * (1000.0 / T)
        out = self.network(x, t, *labels).to(x.dtype)
        raw, variance = split_variance(out, self.shape[0], self.variance)
        return raw[:, : self.shape[0]], variance

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights and of everything else that decides what the model predicts."""
        digest = hashlib.sha256()
        for part in tensor_bytes(sorted(self.network.state_dict().items())):
            digest.update(part)
        if isinstance(self.schedule, NoiseSchedule):
            digest.update(self.schedule.betas.numpy().tobytes())
        else:
            digest.update(self.schedule.name.encode())
        digest.update(f"{self.shape} {self.variance} {self.rescale_timesteps}".encode())
        digest.update(_unseen(self.network).encode())
        if self.predicts != "eps":
            digest.update(self.predicts.encode())
        return digest.hexdigest()


_HARMLESS = frozenset({"image_size", "dropout"})
"""Options of a network that do not change its answers."""


def _unseen(network: nn.Module) -> str:
    """Return what decides a network's answers and leaves no trace in its weights, as heads and epsilons do.

    Options at their defaults are left out: one that is added later changes nothing for a network without it.
    """
    config = getattr(network, "config", None)
    if config is None or not dataclasses.is_dataclass(config):
        return network.extra_repr()
    told = {f.name: (getattr(config, f.name), f.default) for f in dataclasses.fields(config)}
    chosen = {name: value for name, (value, usual) in told.items() if value != usual}
    return repr({name: value for name, value in chosen.items() if name not in _HARMLESS})


class EpsilonNetwork(_Checkpoint):
    """A network without conditions with its diffusion: an :class:`bench.EpsilonModel`."""

    def forward(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict the noise in x (B, C, H, W) at the original times t (B,), in x's precision."""
        if self.predicts == "eps":
            return Prediction(*self.answer(x, t))
        count_rows(len(x))
        alpha_bar = self.schedule.alpha_bars(t)
        raw, variance = self.answer(to_network(self.predicts, x, alpha_bar), t)
        eps, x0 = from_network(self.predicts, x, raw, alpha_bar)
        return Prediction(eps, variance, x0)


class LabelledNetwork(_Checkpoint):
    """A network that takes labels with its diffusion: a :class:`bench.ConditionalNetwork`.

    Args:
        network: maps x (B, C, H, W), t (B,) and labels (B,), 0 .. K - 1 and ``null_label``, to its answer.
        schedule: what it was trained on.
        shape: (C, H, W).
        variance: what the second half of the channels holds.
        rescale_timesteps: whether it receives t 1000/T for the time step t.
        predicts: what it predicts.
        classes: K.
        null_label: the label that the network knows as none; None where it knows none, so that it cannot be
            guided.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        shape: tuple[int, int, int],
        variance: Variance = "fixed",
        rescale_timesteps: bool = False,
        predicts: Predicts = "eps",
        *,
        classes: int,
        null_label: int | None = None,
    ) -> None:
        super().__init__(network, schedule, shape, variance, rescale_timesteps, predicts)
        self.prediction = predicts
        self.classes, self.null_label = classes, null_label
        self.has_none = null_label is not None

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Prediction:
        """Answer for x (B, C, H, W) in the network's own state, times t (B,) and labels (B,)."""
        if self.null_label not in (None, self.classes):
            label = torch.where(label == self.classes, self.null_label, label)
        return Prediction(*self.answer(x, t, label))
