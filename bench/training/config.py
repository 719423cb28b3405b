"""What defines a training run: one frozen dataclass, hashed into every checkpoint."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bench.diffusion.schedule import NoiseSchedule
from bench.errors import UnknownNameError, UsageError

Objective = Literal["simple", "vlb", "hybrid"]
"""L_simple (Ho et al. 2020, eq. 14); L_vlb (eq. 5); their weighted sum (Nichol & Dhariwal 2021, eq. 16)."""

TrainedVariance = Literal["fixedsmall", "fixedlarge", "learned_range"]
"""The reverse variance that L_vlb is computed with: beta~, beta, or between the two as the network says."""

TimestepSampling = Literal["uniform", "loss-second-moment"]
"""p(t) = 1/T, or proportional to sqrt(E[L_t^2]) (Nichol & Dhariwal 2021, eq. 18)."""

# Changing these continues the same run: they say where it ends up on disk, not what is computed.
_BOOKKEEPING = ("summary", "checkpoint_every", "pictures")


@dataclass(frozen=True)
class TrainConfig:
    """A training run. The same config on the same machine gives the same weights to the last bit.

    Attributes:
        name: the name of the run, for people.
        network: "module:factory"; ``factory(images, schedule, learned_range, **network_options)`` returns an
            ``nn.Module`` whose ``forward(x, t)`` maps (B, C, H, W) and int64 (B,) to (B, C, H, W), or to
            (B, 2C, H, W) holding eps and v where the variance is ``learned_range``.
        network_options: further arguments of the factory.
        data: what :func:`bench.data.load_images` takes.
        schedule: ``linear`` or ``cosine``.
        timesteps: T of the schedule.
        rescale_timesteps: whether the network receives t 1000/T for the time step t.
        objective: what is minimised.
        variance: the reverse variance of L_vlb.
        vlb_weight: lambda of L_hybrid, with L_vlb in bits per dimension.
        timestep_sampling: how t is drawn.
        steps: optimiser steps.
        batch: images a step, over all micro-batches and processes.
        accumulate: micro-batches of a process a step; their number over all processes must divide ``batch``.
        optimiser: ``adam``, or ``muon`` for the matrices of ``muon_parameters`` and Adam for the rest.
        learning_rate: the learning rate of Adam, after the warm-up.
        muon_learning_rate: the learning rate of Muon, after the warm-up.
        muon_parameters: regular expression that the full names of Muon's matrices match.
        warmup: steps over which the learning rate rises linearly.
        decay: how the learning rates fall to zero: ``none``, ``cosine`` over the whole run, or ``linear``
            over the last ``decay_steps``.
        decay_steps: see ``decay``.
        beta1: decay rate of Adam's mean of the gradients.
        beta2: decay rate of its mean of their squares.
        weight_decay: decoupled (AdamW).
        ema: decay of the exponential moving average; at step i it is at most (1 + i) / (10 + i).
        clip: largest global norm of a gradient; infinity for none.
        flip: mirror half of the images left to right.
        precision: ``float32``, ``bf16`` for the network under autocast, or ``auto``: bf16 where the device
            computes in it, else float32, since to emulate it takes many times as long.
        channels_last: memory format of network and images.
        compile: whether the network goes through torch.compile.
        seed: the seed of everything random: initial weights, data order, t, noise, flips, dropout.
        log_every: steps between rows of the metrics table.
        checkpoint_every: steps between checkpoints; a multiple of ``log_every``.
        pictures: samples in the grid drawn at every checkpoint beside the losses' curves; 0 for neither.
        autoencoder: "module:factory"; ``factory()`` returns a trained one, with ``encode(images)`` and
            ``decode(latents)``: the network is trained on its latents, and pictures are decoded. None: the
            network is trained on the images.
        label_dropout: probability with which a label is hidden from a network that takes one, (x, t, label),
            with K for "none"; such a network can be guided. None: the network takes no labels.
        summary: one line for people.
    """

    name: str
    network: str
    data: str
    steps: int
    batch: int
    network_options: Mapping[str, Any] = field(default_factory=dict)
    schedule: Literal["linear", "cosine"] = "linear"
    timesteps: int = 1000
    rescale_timesteps: bool = False
    objective: Objective = "simple"
    variance: TrainedVariance = "fixedlarge"
    vlb_weight: float = 0.001
    timestep_sampling: TimestepSampling = "uniform"
    accumulate: int = 1
    optimiser: Literal["adam", "muon"] = "adam"
    learning_rate: float = 2e-4
    muon_learning_rate: float = 0.02
    muon_parameters: str = ".*"
    warmup: int = 5000
    decay: Literal["none", "cosine", "linear"] = "none"
    decay_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    ema: float = 0.9999
    clip: float = 1.0
    flip: bool = False
    precision: Literal["float32", "bf16", "auto"] = "float32"
    channels_last: bool = False
    compile: bool = False
    seed: int = 0
    log_every: int = 100
    checkpoint_every: int = 1000
    pictures: int = 36
    label_dropout: float | None = None
    autoencoder: str | None = None
    summary: str = ""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            _check(name, kind, getattr(self, name))
        _check_ranges(self)
        if self.batch % self.accumulate:
            raise UsageError(f"batch {self.batch} does not divide into {self.accumulate} micro-batches")
        if self.checkpoint_every % self.log_every:
            raise UsageError(
                f"checkpoint_every={self.checkpoint_every} must be a multiple of log_every={self.log_every},"
                " so that a resumed table has the same rows"
            )
        if self.autoencoder is not None and self.flip:
            raise UsageError("latents cannot be mirrored: give flip = false with an autoencoder")
        if self.decay == "linear" and self.decay_steps < 1:
            raise UsageError(f"decay 'linear' needs decay_steps of at least 1, got {self.decay_steps}")
        if not self.name or Path(self.name).name != self.name:
            raise UsageError(f"name must be one that a folder can have, got {self.name!r}")
        if not self.data:
            raise UsageError("data must name an image set, a folder or an .npz, got ''")

    def make_schedule(self) -> NoiseSchedule:
        """Return the noise schedule."""
        if self.schedule == "cosine":
            return NoiseSchedule.cosine(self.timesteps)
        return NoiseSchedule.linear(self.timesteps)

    def rate_share_at(self, step: int) -> float:
        """Return what the learning rates are multiplied by at optimiser step ``step`` = 0, 1, ..."""
        share = 1.0
        if self.decay == "cosine":
            share = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        elif self.decay == "linear":
            share = min(1.0, (self.steps - step) / self.decay_steps)
        return share * min(1.0, (step + 1) / self.warmup) if self.warmup else share

    def ema_at(self, step: int) -> float:
        """Return the decay of the moving average after optimiser step ``step`` = 0, 1, ..."""
        return min(self.ema, (1 + step) / (10 + step))

    def to_json(self) -> dict[str, Any]:
        """Return the config as what ``json.dumps`` takes, and TOML: what is None is left out."""
        given = asdict(self) | {"network_options": dict(self.network_options)}
        return {name: value for name, value in given.items() if value is not None}

    def but(self, **changes: Any) -> TrainConfig:
        """Return the config with some values changed."""
        return replace(self, **changes)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Return the config with the given values, as read from JSON or TOML.

        Raises:
            UsageError: naming an unknown or a missing key.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(f"unknown training option {unknown[0]!r}; known: {', '.join(sorted(known))}")
        if missing := [n for n in ("name", "network", "data", "steps", "batch") if n not in values]:
            raise UsageError(f"a training config needs {missing[0]!r}")
        return cls(**values)

    @property
    def hash(self) -> str:
        """16 hex digits over everything that decides the weights."""
        parts = {k: v for k, v in self.to_json().items() if k not in _BOOKKEEPING}
        if self.precision == "auto":
            parts["precision"] = "bf16"  # what presets asked for before: a run begun then goes on
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


_LEAST: Mapping[str, int] = (
    dict.fromkeys(("steps", "batch", "accumulate", "timesteps", "log_every", "checkpoint_every"), 1)
) | dict.fromkeys(("warmup", "decay_steps", "pictures", "seed"), 0)
_POSITIVE = ("learning_rate", "muon_learning_rate")
_NOT_NEGATIVE = ("vlb_weight", "weight_decay")
_SHARES = ("ema", "beta1", "beta2", "label_dropout")


def _check_ranges(config: TrainConfig) -> None:
    """Refuse a number that no run can have."""
    for name, least in _LEAST.items():
        if getattr(config, name) < least:
            raise UsageError(f"{name} must be at least {least}, got {getattr(config, name)}")
    for name in _POSITIVE:
        if not 0 < getattr(config, name) < math.inf:
            raise UsageError(f"{name} must be positive, got {getattr(config, name)}")
    for name in _NOT_NEGATIVE:
        if not 0 <= getattr(config, name) < math.inf:
            raise UsageError(f"{name} must not be negative, got {getattr(config, name)}")
    for name in _SHARES:
        if not 0 <= (getattr(config, name) or 0) < 1:
            raise UsageError(f"{name} must lie in [0, 1), got {getattr(config, name)}")
    if not config.clip > 0:
        raise UsageError(f"clip must be positive, inf for none, got {config.clip}")
    try:
        re.compile(config.muon_parameters)
    except re.error as error:
        raise UsageError(
            f"muon_parameters={config.muon_parameters!r} is no regular expression: {error}"
        ) from None


_KINDS: Mapping[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    str | None: ((str, NoneType), "text"),
    float | None: ((int, float, NoneType), "a number"),
}


def _check(name: str, kind: Any, value: Any) -> None:
    """Refuse a value that is not of its field's type or none of its choices."""
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise UnknownNameError(name, str(value), get_args(kind))
    types, words = _KINDS.get(kind, ((object,), ""))
    if not isinstance(value, types) or (isinstance(value, bool) and kind in (int, float, float | None)):
        raise UsageError(f"{name} must be {words}, got {value!r}")
    if name == "network_options" and not isinstance(value, Mapping):
        raise UsageError(f"network_options must be a table, got {value!r}")
