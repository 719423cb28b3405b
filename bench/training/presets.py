"""Training recipes by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bench.errors import UnknownNameError
from bench.training.config import TrainConfig

DIGITS = TrainConfig(
    name="digits",
    network="models.digits:make_digits_network",
    network_options={"width": 256, "hidden": 512, "blocks": 3, "embedding": 64},
    data="digits",
    objective="hybrid",
    variance="learned_range",
    steps=12_000,
    batch=1024,
    optimiser="muon",
    learning_rate=2e-3,
    muon_learning_rate=0.02,
    muon_parameters=r"(enter|up\.\d+|down\.\d+)\.weight",
    beta2=0.99,
    warmup=200,
    decay="linear",
    decay_steps=3500,
    ema=0.999,
    precision="bf16",
    log_every=100,
    checkpoint_every=500,
)

DIGITS_QUICK = DIGITS.but(name="digits-quick", steps=500, decay_steps=300, checkpoint_every=100)

PRESETS: Mapping[str, TrainConfig] = MappingProxyType({c.name: c for c in (DIGITS, DIGITS_QUICK)})
"""``digits`` is how the shipped network was made; ``digits-quick`` is the same for under a minute."""


def get_preset(name: str) -> TrainConfig:
    """Return the recipe called ``name``.

    Raises:
        UnknownNameError: with the nearest known names.
    """
    if name not in PRESETS:
        raise UnknownNameError("training preset", name, PRESETS)
    return PRESETS[name]
