"""Models by name: cards that plugins register, factories in files, checkpoints on disk."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from bench.data import is_here, load_images
from bench.errors import BenchError, UsageError
from bench.images import to_uint8
from bench.interfaces import EpsilonModel
from bench.plugins import import_file, registry
from bench.source import walk

LAW_DRAWS = 50_000
"""Images drawn from an exact model's law as its reference: as many as FID is computed with."""
LAW_SEED, FLOOR_SEED = 1, 2
METRICS = "metrics.csv"
"""Name of the table that a training leaves beside its weights."""
CHECKPOINTS = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".bin"})
"""What files of weights are called."""


@runtime_checkable
class KnownLaw(Protocol):
    """A model whose data can be drawn: its reference is its own law."""

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """Return n independent x_0, float32 (n, C, H, W)."""


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
        metrics: names of the default metrics, the first is the table's.
        batch: samples at a time where the user does not say.
        training: the ``metrics.csv`` of its training, which results keep and draw; None where there is none.
    """

    name: str
    load: Callable[[], EpsilonModel]
    summary: str
    data: str | None = None
    held_out: str | None = None
    metrics: tuple[str, ...] = ("fd_pixels",)
    batch: int = 250
    training: Path | None = None


@dataclass(frozen=True)
class Source:
    """Images to score against, read or drawn when first needed.

    Attributes:
        name: for people.
        images: returns uint8 images (N, C, H, W); UsageError where one of them cannot be decoded, since the
            score would be against another set than was named.
    """

    name: str
    images: Callable[[], Tensor]


@dataclass(frozen=True)
class LoadedModel:
    """A model with everything a record says about it.

    Attributes:
        card: its card; made up for a file or checkpoint.
        model: on its device, in evaluation mode.
        weights_hash: of the numbers that make its predictions: weights, or the law.
        reference: what samples are scored against, None where nobody said.
        floor: (n, fold) -> n images of the same law as the data, other ones in every fold; fewer or none
            where there are no more.
    """

    card: ModelCard
    model: EpsilonModel
    weights_hash: str
    reference: Source | None
    floor: Callable[[int, int], Tensor] | None


def find_card(spec: str) -> ModelCard:
    """Return the card for a registered name, ``file.py:factory`` or a checkpoint (path or ``hub:NAME``).

    Raises:
        UsageError: if there is no such model; the message offers the nearest names.
    """
    known = registry().models
    file, colon, factory = spec.rpartition(":")
    if spec in known.entries:
        return known.entries[spec]
    if colon and file.endswith(".py"):
        return ModelCard(spec, lambda: _from_file(Path(file), factory), f"{factory} of {file}")
    path = Path(spec)
    if spec.startswith("hub:") or "/" in spec or "=" in spec or path.suffix in CHECKPOINTS or path.exists():
        summary, table = f"checkpoint {spec}", _table_beside(spec)
        return ModelCard(spec, lambda: _from_checkpoint(spec), summary, batch=100, training=table)
    return known.find(spec)


def load_model(spec: str, device: torch.device | str = "cpu", reference: str | None = None) -> LoadedModel:
    """Load a model by name and put it on a device.

    Args:
        spec: what ``--model`` takes: see `find_card`.
        device: where the network goes.
        reference: image set to score against instead of the card's.

    Raises:
        UsageError: if there is no such model, or the file does not define one.
        BenchError: if its weights are missing, damaged or wrong.
    """
    card = find_card(spec)
    model = card.load()
    for attribute in ("schedule", "shape", "variance"):
        if not hasattr(model, attribute):
            raise UsageError(f"model {spec!r} has no attribute {attribute!r}; see bench.EpsilonModel")
    if hasattr(model, "to"):
        model = model.to(device)
    if isinstance(model, nn.Module):
        model.eval().requires_grad_(False)
    return LoadedModel(
        card, model, weights_hash(model), _reference(card, model, reference), _floor(card, model)
    )


def weights_hash(model: EpsilonModel) -> str:
    """Return a hash of the numbers that a model predicts with, 16 hex digits.

    It is made of the model's ``fingerprint`` where it has one, of a network's weights by name, else of every
    tensor found in the model's attributes.
    """
    given = getattr(model, "fingerprint", None)
    if isinstance(given, str):
        return hashlib.sha256(given.encode()).hexdigest()[:16]
    if isinstance(model, nn.Module):
        tensors = sorted(model.state_dict().items())
    else:
        found = (one for one in walk([model]) if isinstance(one, Tensor))
        tensors = [(str(place), tensor) for place, tensor in enumerate(found)]
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _reference(card: ModelCard, model: EpsilonModel, given: str | None) -> Source | None:
    if given is None and card.data is None and isinstance(model, KnownLaw):
        law = cast(KnownLaw, model)
        return Source(
            f"{LAW_DRAWS:,} draws from {card.name}", lambda: to_uint8(law.draw(LAW_DRAWS, LAW_SEED))
        )
    name = given or card.data
    return None if name is None else Source(name, lambda: load_images(name, strict=True).images)


def _floor(card: ModelCard, model: EpsilonModel) -> Callable[[int, int], Tensor] | None:
    held_out = card.held_out
    if held_out is not None and is_here(held_out):
        return lambda n, fold: load_images(held_out, strict=True).images[fold * n : (fold + 1) * n]
    if card.data is None and isinstance(model, KnownLaw):
        law = cast(KnownLaw, model)
        return lambda n, fold: to_uint8(law.draw(n, FLOOR_SEED + fold))
    return None


def _from_file(path: Path, factory: str) -> EpsilonModel:
    if not path.is_file():
        raise UsageError(f"model file {path} does not exist")
    try:
        make = getattr(import_file(path), factory)
    except AttributeError:
        raise UsageError(f"{path} defines no {factory!r}; give a function that returns the model") from None
    except Exception as error:
        raise BenchError(
            f"model file {path} could not be imported: {type(error).__name__}: {error}"
        ) from error
    return cast(EpsilonModel, make())


def _table_beside(spec: str) -> Path | None:
    """Return the table that ``bench train`` left beside a file of weights."""
    weights = Path(importlib.import_module("models.spec").split_spec(spec)[0])
    table = weights.with_name(METRICS)
    return table if weights.is_file() and table.is_file() else None


def _from_checkpoint(spec: str) -> EpsilonModel:
    # By name: bench does not import models, so that there is no circle.
    checkpoints = importlib.import_module("models.checkpoints")
    return cast(EpsilonModel, checkpoints.load_spec(spec))
