"""Adaptive projected guidance: the part of the guidance along the answer is taken out, its length bounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from bench.diffusion.guidance import Around, ConditionalNetwork, GuidedModel, guided
from bench.diffusion.interfaces import Prediction
from bench.diffusion.prediction import count_rows, from_network, to_network
from bench.errors import UsageError

Onto = Literal["conditional", "unconditional"]


@dataclass
class ProjectedModel(Around):
    """A conditional network under projected guidance; made by `projected`."""

    plain: GuidedModel
    along: float
    greatest: float
    momentum: float
    onto: Onto
    _running: Tensor | None = field(default=None, repr=False)

    @property
    def inside(self) -> ConditionalNetwork:
        """The network; a variance is that of its conditional branch."""
        return self.plain.network

    @property
    def labels(self) -> Tensor:
        """The labels of the samples."""
        return self.plain.labels

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict the guided eps, and x_0 where the network tells it, of x (B, C, H, W) at times t (B,)."""
        net, alpha_bar = self.inside, self.schedule.alpha_bars(t)
        labels, state = self.labels.to(x.device), to_network(net.prediction, x, alpha_bar)
        count_rows(2 * len(x))
        both = torch.cat([labels, torch.full_like(labels, net.classes)])
        answer = net(torch.cat([state, state]), torch.cat([t, t]), both)
        with_label, without = answer.eps.chunk(2)
        update = self._update(with_label - without, with_label)
        ours = self.onto == "conditional"
        raw = (with_label if ours else without) + (self.plain.scale - ours) * update
        variance = None if answer.raw_variance is None else answer.raw_variance.chunk(2)[0]
        eps, x0 = from_network(net.prediction, x, raw, alpha_bar)
        return Prediction(eps, variance, x0)

    def _update(self, difference: Tensor, with_label: Tensor) -> Tensor:
        if self.momentum:
            before = 0 if self._running is None else self._running
            self._running = difference = difference + self.momentum * before
        dims = tuple(range(1, difference.ndim))
        if math.isfinite(self.greatest):
            length = torch.linalg.vector_norm(difference, dim=dims, keepdim=True)
            difference = difference * (self.greatest / length).clamp(max=1)
        direction = with_label / torch.linalg.vector_norm(with_label, dim=dims, keepdim=True)
        part: Tensor = (difference * direction).sum(dims, keepdim=True) * direction
        return difference - (1 - self.along) * part


def projected(
    net: ConditionalNetwork,
    labels: Tensor | Sequence[int],
    scale: float = 1.0,
    along: float = 0.0,
    greatest: float = math.inf,
    momentum: float = 0.0,
    onto: Onto = "conditional",
) -> ProjectedModel:
    """Return the `EpsilonModel` of a conditional network under adaptive projected guidance:

        out = c + (w - 1) d',    d' = d = c - u, scaled down to a length of ``greatest`` at most, the part of
                                 it along c multiplied by ``along``

    With w = 1 it is the conditional answer, and where d' is d it is `bench.guided`.

    It acts on the network's own output and does not commute with a conversion. With a momentum d is a running
    sum d + momentum d_before: a memory, so that the model is no function of (x, t). It must then be made anew
    for every trajectory, suits samplers with one call a step, and is refused by a sweep.

    Args:
        net: the network.
        labels: int (B,), the label of every sample of a call.
        scale: w.
        along: what is kept of the part along c; 1 keeps all.
        greatest: the longest d of a sample.
        momentum: share of the sum before; negative in the paper.
        onto: ``unconditional`` for out = u + w d', which is another rule where d' is not d: the one that
            diffusers takes unless it is told to use the original.

    Source: Sadat et al. 2024, arXiv:2410.02416, section 4.

    Raises:
        UsageError: as `bench.guided`; also if a number is out of its range, or ``onto`` is another word.
    """
    if onto not in get_args(Onto):
        raise UsageError(f"projected guidance goes onto conditional or unconditional, got {onto!r}")
    if not greatest > 0 or not -1 < momentum < 1:
        raise UsageError(
            f"projected guidance needs greatest > 0 and -1 < momentum < 1, got {greatest} and {momentum}"
        )
    return ProjectedModel(guided(net, labels, scale), along, greatest, momentum, onto)
