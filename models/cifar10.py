"""The shipped CIFAR-10 model: a small U-Net, trained within an hour on two cores; its card lies in assets."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from bench import ModelCard, hookimpl
from models.checkpoints import load_checkpoint
from models.epsilon import EpsilonNetwork

ASSETS = Path(str(resources.files("models"))) / "assets"
WEIGHTS_SHA256 = "0cca990e4a8cf576cde5048743ae20d12d1feeb381bea769cb7427cdc489cb2d"


def load_cifar10_small() -> EpsilonNetwork:
    """Return the model; its weight file is checked first.

    Raises:
        CheckpointError: if the file is missing or not the shipped one.
    """
    model = load_checkpoint(ASSETS / "cifar10-small.safetensors", digest=f"sha256:{WEIGHTS_SHA256}")
    assert isinstance(model, EpsilonNetwork)  # it has no labels
    return model


@hookimpl
def bench_models() -> Sequence[ModelCard]:
    """Register it."""
    return [
        ModelCard(
            "cifar10-small",
            load_cifar10_small,
            "shipped: a 2.7 M U-Net on CIFAR-10, an hour on a CPU, learned variance, averaged weights; for"
            " comparing samplers, not for its pictures",
            data="cifar10",
            held_out="cifar10-test",
            batch=125,
            training=ASSETS / "cifar10-small-training.csv",
        )
    ]
