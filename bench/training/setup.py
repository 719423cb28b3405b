"""What a training run starts from: its images and its network."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bench.data.sets import ImageData, load_images
from bench.diffusion.interfaces import Variance
from bench.diffusion.schedule import NoiseSchedule
from bench.errors import UsageError
from bench.training.config import TrainConfig
from bench.training.draws import initial_seed

_NAMED = 20  # files that a warning names


@runtime_checkable
class SelfDescribing(Protocol):
    """A network whose weight file can be loaded by path alone, because it says what it is."""

    def weight_metadata(
        self, schedule: NoiseSchedule, variance: Variance, rescale_timesteps: bool
    ) -> dict[str, str]:
        """Return what the loader needs besides the weights."""


def load_training_images(config: TrainConfig, strict: bool, warn: Callable[[str], None]) -> ImageData:
    """Return the images that ``config`` names, after a warning that names and counts what was left out.

    Raises:
        UsageError: if there are none, or ``strict`` is set and one cannot be decoded.
    """
    data = load_images(config.data, strict=strict)
    if left_out := data.unreadable:
        named = ", ".join(map(str, left_out[:_NAMED])) + (", ..." if len(left_out) > _NAMED else "")
        warn(
            f"{len(left_out)} of {len(left_out) + len(data)} images in {data.name} cannot be decoded and are"
            f" left out: {named}"
        )
    return data


def make_network(config: TrainConfig, images: Tensor, schedule: NoiseSchedule) -> nn.Module:
    """Return the network that ``config`` names, with its initial weights.

    Raises:
        UsageError: if there is no such factory, or it does not take the options.
    """
    factory: Callable[..., nn.Module] = found(config.network)
    arguments = (images, schedule, config.variance == "learned_range")
    try:
        inspect.signature(factory).bind(*arguments, **config.network_options)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"network {config.network!r} cannot be called as factory(images, schedule, learned_range,"
            f" **network_options): {error}"
        ) from None
    torch.manual_seed(initial_seed(config.seed))
    network = factory(*arguments, **config.network_options)
    if not isinstance(network, nn.Module):
        raise UsageError(f"network {config.network!r} returns no nn.Module but {type(network).__name__}")
    return network


def found(address: str) -> Callable[..., Any]:
    """Return the function or class that ``module:name`` means.

    Raises:
        UsageError: if there is no such thing.
    """
    module, _, name = address.partition(":")
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{address!r} cannot be found ({error}); give it as module:factory") from None
