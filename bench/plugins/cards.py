"""What is known of a model: its card, and the model once it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from bench.data.sets import ImageData
from bench.diffusion.interfaces import EpsilonModel
from bench.diffusion.stages import image_shape
from bench.metrics.defaults import default_metric
from bench.metrics.space import Shape


@runtime_checkable
class KnownLaw(Protocol):
    """A model whose data can be drawn: its reference is its own law."""

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """Return n independent x_0, float32 (n, C, H, W)."""


@dataclass(frozen=True)
class SamplerSet:
    """Samplers that belong together, which ``--samplers NAME`` runs at their numbers of steps.

    Attributes:
        samplers: what ``--samplers`` takes, one row each.
        steps: the numbers of steps where ``--steps`` gives no others.
        summary: one line for ``list sets``.
    """

    samplers: tuple[str, ...]
    steps: tuple[int, ...]
    summary: str = ""


@dataclass(frozen=True)
class ModelCard:
    """A model that ``--model NAME`` can load, and what its samples are scored against.

    Attributes:
        name: what the command line takes.
        load: returns the model, on the CPU.
        summary: one line for ``list models``.
        data: image set that its samples should resemble: a name or path for `load_images`; None where the
            model has a ``draw`` of its own, or the user gives ``--reference``.
        held_out: images of the same law that were not trained on: their score is the floor, which is left out
            where they are not at hand.
        metrics: names of the default metrics, the first is the table's; where empty, the one that
            `bench.metrics.defaults.default_metric` chooses by the shape of the images.
        batch: samples at a time where the user does not say.
        training: the ``metrics.csv`` of its training, which results keep and draw; None where there is none.
    """

    name: str
    load: Callable[[], EpsilonModel]
    summary: str
    data: str | None = None
    held_out: str | None = None
    metrics: tuple[str, ...] = ()
    batch: int = 250
    training: Path | None = None

    def metrics_for(self, shape: Shape) -> tuple[str, ...]:
        """Return the names of the default metrics for images of ``shape`` (C, H, W)."""
        return self.metrics or (default_metric(shape),)


@dataclass(frozen=True)
class ReferenceImages:
    """Images to score against, read or drawn when first needed.

    Attributes:
        name: for people.
        data: returns the set; UsageError where one of its images cannot be decoded, since the score would be
            against another set than was named.
    """

    name: str
    data: Callable[[], ImageData]

    def images(self) -> Tensor:
        """Return the images, uint8 (N, C, H, W)."""
        return self.data().images


@dataclass(frozen=True)
class LoadedModel:
    """A model with everything a record says about it.

    Attributes:
        card: its card; made up for a file or checkpoint.
        model: on its device, in evaluation mode.
        weights_hash: the hash of the numbers that make its predictions: weights, or the law.
        reference: what samples are scored against, None where nobody said.
        floor: (n, fold) -> n images of the same law as the data, other ones in every fold; fewer or none
            where there are no more.
        makers: functions of users' files and plugins that made it.
    """

    card: ModelCard
    model: EpsilonModel
    weights_hash: str
    reference: ReferenceImages | None
    floor: Callable[[int, int], Tensor] | None
    makers: tuple[object, ...] = ()

    @property
    def code(self) -> tuple[object, ...]:
        """What `bench.files.source.code_hash` takes: a change of any of it may change predictions."""
        return (self.model, *self.makers)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the default metrics."""
        return self.card.metrics_for(image_shape(self.model))
