"""Models and samplers given as objects, without a file or a package: registered while they are used.

An object is told from another one of its name by all that it holds, so that a changed one never answers for
what it was. It lives in this process alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.catalog import Catalog, Origin
from bench.diffusion.answers import ModelError, name_of
from bench.diffusion.interfaces import EpsilonModel
from bench.diffusion.sampling import Sampler
from bench.errors import BenchError, sentence_of, users_code
from bench.files.live import values_hash
from bench.files.source import walk
from bench.plugins.cards import ModelCard
from bench.plugins.loading import registry
from bench.spec import split_spec

GIVEN = Origin("an object in Python", "")
"""Where models and samplers come from that were given as objects."""


def is_object(model: str) -> bool:
    """Return whether a model of this name, with options or without, was given as an object."""
    origins = registry().models.origins  # a name may itself look like one with options
    return origins.get(model if model in origins else split_spec(model)[0]) == GIVEN


def card_of(model: Any) -> ModelCard:
    """Return the card of a model that is given as an object; of a card, with the model that it loads.

    The object is named by its attribute ``name``, else by its class or function.

    Raises:
        BenchError: if a card's model cannot be made.
    """
    if isinstance(model, ModelCard):
        made = made_by(model, model.name)
        return replace(model, load=lambda: made)
    called = getattr(model, "__name__", None) or name_of(model)
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in str(called))
    return ModelCard(name.strip("-"), lambda: model, "an object in Python")


def made_by(card: ModelCard, name: str) -> EpsilonModel:
    """Return the model that a card loads.

    Raises:
        BenchError: if it cannot be made; of whatever a user's code raises, with the model's name.
    """
    try:
        return card.load()
    except BenchError:
        raise
    except users_code() as error:
        raise ModelError(f"model {name!r} could not be made: {sentence_of(error)}") from error


def values_of(model: object) -> str:
    """Return the hash that tells a model from another object of its name: of all its values.

    A model that counts its calls would be another one after each. Of one with a text ``fingerprint`` that
    text counts, with the tensors: weights may be changed in their place.
    """
    given = getattr(model, "fingerprint", None)
    if not isinstance(given, str) or not given:
        return values_hash(model)
    return values_hash(given, *(one for one in walk([model]) if isinstance(one, Tensor)))


def values_in(sampler: Sampler) -> dict[str, str]:
    """Return, for a record's provenance, the hash of what a sampler holds that was given as an object."""
    if registry().samplers.origins.get(sampler.name) != GIVEN:
        return {}
    return {"values in the sampler": values_hash(sampler.function)}


@contextmanager
def offered(models: Iterable[ModelCard], samplers: Iterable[Sampler]) -> Iterator[None]:
    """Register models and samplers for a while; their networks are left behind as they were.

    Raises:
        UsageError: if a name is taken by something else.
    """
    known, models = registry(), list(models)
    catalogues: tuple[Catalog[Any], ...] = (known.models, known.samplers)
    states = [_State.of(one) for card in models for one in walk([card.load()]) if isinstance(one, nn.Module)]
    try:
        for card in models:
            known.models.add(card.name, card, GIVEN)
        for sampler in samplers:
            if not _is_known(sampler):
                known.add_named_sampler(sampler, GIVEN)
        yield
    finally:
        for catalogue in catalogues:
            for name in [name for name, origin in catalogue.origins.items() if origin == GIVEN]:
                del catalogue.entries[name], catalogue.origins[name]
        for state in states:
            state.put_back()


def _is_known(sampler: Sampler) -> bool:
    """Return whether a sampler is one that is registered: a built-in or a plugin's."""
    there = registry().samplers.entries.get(sampler.alias or sampler.name)
    if there is None or there.function is not sampler.function:
        return False
    return sampler.alias is None or there == sampler


@dataclass(frozen=True)
class _State:
    """What loading a model changes of a network: mode, device, and whether gradients are kept.

    Attributes:
        network: a network or a layer.
        training: whether it was in training mode.
        tensors: (a tensor of its own, its device, whether it required gradients).
    """

    network: nn.Module
    training: bool
    tensors: tuple[tuple[Tensor, torch.device, bool], ...]

    @classmethod
    def of(cls, network: nn.Module) -> _State:
        """Return a network's state, without that of the layers inside."""
        own = [*network.parameters(recurse=False), *network.buffers(recurse=False)]
        return cls(network, network.training, tuple((one, one.device, one.requires_grad) for one in own))

    def put_back(self) -> None:
        """Give the network its state again."""
        self.network.training = self.training
        for tensor, device, requires_grad in self.tensors:
            tensor.data = tensor.data.to(device)
            tensor.requires_grad_(requires_grad)
