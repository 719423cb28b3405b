"""Conditions: which label each sample is drawn for, and a conditional network bound to the labels of a block.

A label is a function of the seed and the sample's index alone, from a stream of its own: every sampler and
every guidance scale draws sample i for the same label, whatever the batch. Labels are never sorted: jackknife
groups are runs of indices, and sorted labels would make them classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from bench.diffusion.guidance import Around, ConditionalNetwork, GuidedModel, guided
from bench.diffusion.interfaces import EpsilonModel, Prediction
from bench.diffusion.noise import INITIAL, normal_noise
from bench.errors import UnknownNameError, UsageError

LABEL_DRAW = 1 << 33
"""``draw`` of the normal values behind labels: no sampler counts that far, nor does the bound's noise."""

RULES = ("data", "uniform", "balanced")


@runtime_checkable
class BoundPerSample(Protocol):
    """A model with something that belongs to each sample: the worker binds it before it draws a block."""

    def at(self, indices: Sequence[int] | range, seed: int) -> EpsilonModel:
        """Return the model for the samples with some indices."""


@runtime_checkable
class TakesOptions(Protocol):
    """A model that the command line gives options, as in ``NAME:guidance=3,label=uniform``."""

    def with_options(self, options: dict[str, str]) -> EpsilonModel:
        """Return the model with options as text."""


def bound(model: EpsilonModel, indices: Sequence[int] | range, seed: int) -> EpsilonModel:
    """Return a model for the samples with some indices: itself where nothing in it belongs to a sample."""
    return model.at(indices, seed) if isinstance(model, BoundPerSample) else model


def is_conditional(model: EpsilonModel) -> bool:
    """Return whether something in a model belongs to each sample, within whatever wrapper."""
    return bound(model, range(1), 0) is not model


def labels_in(model: object) -> Tensor | None:
    """Return the labels (B,) that a model was bound to, within whatever wrapper; None without any."""
    while model is not None:
        if isinstance(labels := getattr(model, "labels", None), Tensor):
            return labels
        model = getattr(model, "inside", None)
    return None


def labels_of(
    rule: str, indices: Sequence[int] | range, seed: int, classes: int, shares: Sequence[float] | None = None
) -> Tensor:
    """Return the labels of the samples with some indices, int64 (B,).

    Args:
        rule: ``uniform``, each label as likely as the others; ``data``, each as often as in the training
            data; ``balanced``, i mod K for sample i; ``3``, that one; or the name of a file that lists a
            label for each sample, repeated where it is too short.
        indices: indices of the samples.
        seed: seed of the run.
        classes: K; the label K is "none".
        shares: how often each label is in the training data; None where nobody knows: then ``data`` is
            ``uniform``.

    Raises:
        UsageError: if there is no such rule, or a label is not 0 .. K.
    """
    if rule in ("uniform", "data"):
        weights = np.full(classes, 1 / classes) if rule == "uniform" or shares is None else np.asarray(shares)
        values = normal_noise(seed, indices, INITIAL, (1,), draw=LABEL_DRAW).double().view(-1).numpy()
        chosen = np.searchsorted(np.cumsum(weights / weights.sum()), ndtr(values), side="right")
        return torch.from_numpy(chosen.clip(max=classes - 1).astype(np.int64))
    places = torch.as_tensor(list(indices), dtype=torch.int64)
    if rule == "balanced":
        return places % classes
    listed = _listed(rule, classes)
    return listed[places % len(listed)]


def _listed(rule: str, classes: int) -> Tensor:
    path = Path(rule)
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else rule
        labels = [int(part) for part in text.replace(",", " ").split()]
    except (OSError, ValueError):
        raise UnknownNameError("label rule", rule, [*RULES, "a label", "a file of labels"]) from None
    if not labels or min(labels) < 0 or max(labels) > classes:
        raise UsageError(f"label={rule}: labels lie in 0 .. {classes - 1}, or are {classes} for none")
    return torch.tensor(labels)


@dataclass(frozen=True)
class ConditionalModel(Around):
    """A conditional network with the rule for its labels and its guidance, to be bound to samples.

    Attributes:
        network: the network.
        label: the rule; see `labels_of`.
        guidance: w; 1 is none.
        rescale: see `bench.guided`.
        interval: see `bench.guided`.
        shares: how often each label is in the training data.
        fingerprint: SHA-256 of what the network predicts with.
    """

    network: ConditionalNetwork = field(repr=False)
    label: str = "data"
    guidance: float = 1.0
    rescale: float = 0.0
    interval: tuple[float, float] | None = None
    shares: tuple[float, ...] | None = None
    fingerprint: str = ""

    @property
    def inside(self) -> ConditionalNetwork:
        """The network."""
        return self.network

    def at(self, indices: Sequence[int] | range, seed: int) -> GuidedModel:
        """Return the guided model for the samples with some indices."""
        labels = labels_of(self.label, indices, seed, self.network.classes, self.shares)
        return guided(self.network, labels, self.guidance, self.rescale, self.interval)

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Refuse: nobody has said whose x this is.

        Raises:
            UsageError: always.
        """
        raise UsageError("a conditional model is bound to its samples first: model.at(indices, seed)(x, t)")

    def with_options(self, options: dict[str, str]) -> ConditionalModel:
        """Return the model with options as text: ``guidance``, ``label``, ``rescale``, ``interval``.

        Raises:
            UsageError: if an option is unknown or its value cannot be.
        """
        changed = self
        for name, text in options.items():
            if name not in OPTIONS:
                raise UnknownNameError("option of a conditional model", name, OPTIONS)
            try:
                value = OPTIONS[name](text)
            except ValueError:
                raise UsageError(f"option {name} of a conditional model cannot be {text!r}") from None
            changed = replace(changed, **{name: value})  # type: ignore[arg-type]
        changed.at(range(1), 0)  # what cannot be is said now
        return changed

    def to(self, device: torch.device | str) -> ConditionalModel:
        """Put the network on a device and return the model."""
        move = getattr(self.network, "to", None)
        if callable(move):
            move(device)
        return self


def _interval(text: str) -> tuple[float, float]:
    low, high = (float(part) for part in text.split("-"))
    return low, high


OPTIONS: dict[str, Callable[[str], object]] = {
    "guidance": float,
    "label": str,
    "rescale": float,
    "interval": _interval,
}
"""Options of a conditional model on the command line: ``digits-conditional:guidance=3,label=uniform``."""
