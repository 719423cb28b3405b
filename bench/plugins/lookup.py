"""Find models by name: registered cards, factories in files, checkpoints on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.images import to_uint8
from bench.data.sets import ImageData, held_out_of, is_here, load_images
from bench.diffusion.answers import check_contract
from bench.diffusion.conditions import TakesOptions
from bench.diffusion.interfaces import EpsilonModel
from bench.diffusion.stages import image_shape
from bench.errors import BenchError, UsageError, sentence_of, users_code
from bench.files.live import is_users
from bench.files.source import users_parts, walk
from bench.files.tensors import tensor_bytes
from bench.plugins.cards import KnownLaw, LoadedModel, ModelCard, ReferenceImages
from bench.plugins.executor import Configurable, Executor
from bench.plugins.loading import import_file, registry
from bench.plugins.objects import is_object, made_by, values_of
from bench.spec import parse_options, refuse_repeated, split_spec

LAW_DRAWS = 50_000
"""Images drawn from an exact model's law as its reference: as many as FID is computed with."""


LAW_SEED, FLOOR_SEED = 1, 2


def get_card(spec: str) -> ModelCard:
    """Return the card for a registered name, ``file.py:factory`` or a checkpoint (path or ``hub:NAME``).

    Raises:
        UsageError: if there is no such model; the message offers the nearest names.
    """
    known = registry().models
    if spec in known.entries:
        return known.entries[spec]
    name, options = split_spec(spec)
    refuse_repeated(options, f"model {spec!r}")
    file, colon, factory = name.rpartition(":")
    if colon and file.endswith(".py"):
        card = ModelCard(name, _FileModel(Path(file), factory), f"{factory} of {file}")
        return _with_options(card, spec, options)
    if options and name in known.entries:
        return _with_options(known.entries[name], spec, options)
    return registry().open_model(spec) or known.get(spec)


def _with_options(card: ModelCard, spec: str, options: str) -> ModelCard:
    """Return the card of a model with options: ``NAME:guidance=3,label=uniform``."""
    given = parse_options(options, f"model {spec!r}")
    if not given:
        return card

    def load() -> EpsilonModel:
        model = card.load()
        if not isinstance(model, TakesOptions):
            raise UsageError(f"model {card.name!r} takes no options: it has no conditions to guide")
        return model.with_options(given)

    return replace(card, name=spec, load=load)


def load_model(
    spec: str,
    device: torch.device | str = "cpu",
    reference: str | None = None,
    held_out: str | None = None,
) -> LoadedModel:
    """Load a model by name and put it on a device.

    Args:
        spec: what ``--model`` takes: see `get_card`.
        device: where the network goes.
        reference: image set to score against instead of the card's.
        held_out: image set that stands for the law of the data instead of the card's.

    Raises:
        UsageError: if there is no such model, or the file does not define one.
        BenchError: if its weights are missing, damaged or wrong.
    """
    card = get_card(spec)
    if reference is not None and reference != card.data:  # the card's images are of another law
        card = replace(card, held_out=held_out_of(reference))
    card = card if held_out is None else replace(card, held_out=held_out)
    model = made_by(card, spec)
    check_contract(model, repr(spec))
    for network in [one for one in walk([model]) if isinstance(one, nn.Module)]:
        network.to(device).eval()
        for parameter in network.parameters():  # a scripted network has no requires_grad_ of its own
            parameter.requires_grad_(False)
    if hasattr(model, "to"):
        model = model.to(device)
    floor = None if held_out is None else _sets_of(held_out, image_shape(model))
    if floor is None:
        floor = _floor(card, model, reference)
    images = _reference(card, model, reference)
    weights = values_of(model) if is_object(card.name) else weights_hash(model)
    return LoadedModel(card, model, weights, images, floor, users_parts([card.load]))


def weights_hash(model: object) -> str:
    """Return a hash of the numbers that a model predicts with, 16 hex digits.

    It is made of the model's ``fingerprint`` where it has one, of a network's weights by name, else of every
    tensor found in the model's attributes. Of a user's model the tensors that lie beside the weights count
    too, and all arrays: a network that a function of its file names, or a table that is no buffer.
    """
    given = getattr(model, "fingerprint", None)
    if isinstance(given, str) and given:
        return hashlib.sha256(given.encode()).hexdigest()[:16]
    held = list(walk([model]))
    users = any(isinstance(one, FunctionType | type) and is_users(one) for one in held)
    tensors, counted = [], set[int]()
    if isinstance(model, nn.Module):
        tensors = sorted(model.state_dict().items())
        within = (*model.parameters(), *model.buffers(), *walk([getattr(model, "schedule", None)]))
        counted = {id(one) for one in within}
    if users or not isinstance(model, nn.Module):
        found = (one for one in held if isinstance(one, Tensor) and id(one) not in counted)
        tensors += [(str(place), tensor) for place, tensor in enumerate(found)]
    digest = hashlib.sha256()
    for part in tensor_bytes(tensors):
        digest.update(part)
    for array in held if users else ():
        if isinstance(array, np.ndarray) and array.dtype != object:
            digest.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _reference(card: ModelCard, model: EpsilonModel, given: str | None) -> ReferenceImages | None:
    if given is None and card.data is None and isinstance(model, KnownLaw):
        law = cast(KnownLaw, model)
        drawn = f"{LAW_DRAWS:,} draws from {card.name}"
        return ReferenceImages(
            drawn, lambda: ImageData(drawn, to_uint8(law.draw(LAW_DRAWS, LAW_SEED)), hash="")
        )
    name = given or card.data
    return None if name is None else ReferenceImages(name, partial(load_images, name, strict=True))


def _sets_of(name: str, shape: tuple[int, int, int]) -> Callable[[int, int], Tensor]:
    """Return disjoint sets of the user's own images, shuffled: a folder is sorted, by class as a rule.

    Raises:
        UsageError: if there are no such images, or of another shape than the model's.
    """
    images = load_images(name, strict=True).images
    if tuple(images.shape[1:]) != shape or len(images) < 2:
        raise UsageError(
            f"--held-out {name} has {len(images):,} images of shape {tuple(images.shape[1:])}; give at least"
            f" 2 of shape {shape} that the model was not trained on"
        )
    order = shuffled(len(images))
    return lambda n, fold: images[order[fold * n : (fold + 1) * n]]


def shuffled(count: int) -> Tensor:
    """Return the numbers below ``count`` in an order that is the same every time."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(FLOOR_SEED))


def _floor(
    card: ModelCard, model: EpsilonModel, reference: str | None
) -> Callable[[int, int], Tensor] | None:
    held_out = card.held_out
    if held_out is not None and is_here(held_out):
        return lambda n, fold: load_images(held_out, strict=True).images[fold * n : (fold + 1) * n]
    if card.data is None and reference is None and isinstance(model, KnownLaw):
        law = cast(KnownLaw, model)
        return lambda n, fold: to_uint8(law.draw(n, FLOOR_SEED + fold))
    return None


@dataclass
class _FileModel:
    """Makes the model that a function in a user's file returns.

    Attributes:
        path: the file.
        name: the function in it.
        make: the function itself, once the file is imported.
    """

    path: Path
    name: str
    make: Callable[[], EpsilonModel] | None = None

    def __call__(self) -> EpsilonModel:
        """Import the file and return what the function makes.

        Raises:
            UsageError: if there is no such file or function.
            BenchError: if the file cannot be imported.
        """
        if not self.path.is_file():
            raise UsageError(f"model file {self.path} does not exist")
        try:
            module = import_file(self.path)
        except users_code() as error:
            raise BenchError(f"model file {self.path} could not be imported: {sentence_of(error)}") from error
        make = getattr(module, self.name, None)
        if not callable(make):
            raise UsageError(f"{self.path} defines no {self.name!r}; give a function that returns the model")
        self.make = cast(Callable[[], EpsilonModel], make)
        return self.make()


def get_executor(spec: str) -> Executor:
    """Return the executor for a registered name, with options where it takes any: ``NAME:key=value,...``.

    Raises:
        UsageError: if there is no such executor, or its options cannot be.
        BenchError: if what its options name does not answer.
    """
    name, given = split_spec(spec)
    what = f"executor {name!r}"
    executor = registry().executors.get(name)
    refuse_repeated(given, what)
    options = parse_options(given, what)
    if isinstance(executor, Configurable):
        return executor.with_options(options)
    if options:
        raise UsageError(f"{what} takes no options, got {', '.join(options)}")
    return executor
