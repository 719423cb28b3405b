"""Training recipes by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from bench.errors import UnknownNameError, UsageError
from bench.files.toml import read_toml
from bench.training.config import TrainConfig

UNET = "models.unet_training:make_unet"

DIGITS = TrainConfig(
    name="digits",
    summary="the shipped network, 12 x 12 digits",
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
    precision="auto",
    log_every=100,
    checkpoint_every=500,
)

DIGITS_QUICK = DIGITS.but(
    name="digits-quick",
    summary="the same for under a minute",
    steps=500,
    decay_steps=300,
    checkpoint_every=100,
)

DIGITS_CONDITIONAL = DIGITS.but(
    name="digits-conditional",
    summary="the shipped network told which digit, fine-tuned",
    network="models.digits:make_conditional_digits",
    network_options={"classes": 10},
    steps=2000,
    optimiser="adam",
    learning_rate=1e-3,
    warmup=100,
    decay_steps=1500,
    precision="float32",
    label_dropout=0.15,
)
"""The shipped network with a table of labels, which begins at zero: Ho & Salimans 2022, arXiv:2207.12598."""

DIGITS_LATENT = DIGITS.but(
    name="digits-latent",
    summary="a smaller one in the latents of the shipped autoencoder",
    network="models.digits_latent:make_latent_network",
    network_options={"width": 128, "hidden": 224, "blocks": 3, "embedding": 32},
    autoencoder="models.digits_latent:load_autoencoder",
    steps=10_000,
    decay_steps=3000,
    precision="float32",
)
"""A diffusion in latents: Rombach et al. 2022, arXiv:2112.10752."""

CIFAR10_DDPM = TrainConfig(
    name="cifar10-ddpm",
    summary="35.7 M U-Net of Ho et al. 2020, L_simple, fixed variance",
    network=UNET,
    network_options={"dropout": 0.1},
    data="cifar10",
    steps=800_000,
    batch=128,
    flip=True,
    checkpoint_every=5000,
)
"""Source: arXiv:2006.11239, section 4 and appendix B. The rest of the recipe is `TrainConfig`'s defaults."""

CIFAR10_IDDPM = TrainConfig(
    name="cifar10-iddpm",
    summary="52.5 M U-Net of Nichol & Dhariwal 2021, T=4000 cosine, L_hybrid, learned variance",
    network=UNET,
    network_options={
        "widths": (128, 256, 256, 256),
        "blocks": 3,
        "attention": (False, True, True, False),
        "heads": 4,
        "heads_first": True,
        "dropout": 0.3,
        "scale_shift": True,
        "asymmetric_padding": False,
        "norm_eps": 1e-5,
        "embedding_order": "cos-sin",
        "embedding_shift": 0,
    },
    data="cifar10",
    schedule="cosine",
    timesteps=4000,
    rescale_timesteps=True,
    objective="hybrid",
    variance="learned_range",
    steps=500_000,
    batch=128,
    learning_rate=1e-4,
    warmup=0,
    clip=math.inf,
    checkpoint_every=5000,
)
"""Source: arXiv:2102.09672, section 2.2 and appendix A, and the flags its code documents."""

CELEBA64_DDPM = CIFAR10_DDPM.but(
    name="celeba64-ddpm",
    summary="78.7 M U-Net of the DDIM paper's CelebA model, L_simple, fixed variance",
    network_options={
        "widths": (128, 256, 256, 256, 512),
        "attention": (False, False, True, False, False),
        "dropout": 0.1,
    },
    data="celeba64",
    steps=500_000,
)
"""Source: arXiv:2010.02502, appendix D.1, which does not say how many steps; half a million are DDPM's for
CelebA-HQ."""

# For little compute: patches of 2 x 2 pixels buy twice the speed at several times the parameters, and what
# corrects the best scalar predictor has the colours right long before what must first learn to copy x.
_SMALL = {
    "patch": 2,
    "residual": 1000,
    "channels": 32,
    "norm_groups": 8,
    "blocks": 1,
    "scale_shift": True,
}

CIFAR10_SMALL = CIFAR10_DDPM.but(
    name="cifar10-small",
    summary="2.7 M U-Net, L_hybrid, learned variance: about an hour on two CPU cores",
    network_options=_SMALL | {"widths": (32, 64, 128), "attention": (False, True, False)},
    objective="hybrid",
    variance="learned_range",
    steps=9000,
    batch=64,
    learning_rate=1e-3,
    warmup=200,
    decay="linear",
    decay_steps=3500,
    ema=0.999,
    precision="auto",
    channels_last=True,
    log_every=25,
    checkpoint_every=500,
)

CELEBA64_SMALL = CIFAR10_SMALL.but(
    name="celeba64-small",
    summary="4.5 M U-Net, L_hybrid, learned variance: about two hours on two CPU cores",
    network_options=_SMALL | {"widths": (32, 64, 128, 128), "attention": (False, False, True, False)},
    data="celeba64",
    batch=32,
)

RECIPES: Mapping[str, TrainConfig] = MappingProxyType(
    {
        config.name: config
        for config in (
            DIGITS,
            DIGITS_QUICK,
            DIGITS_CONDITIONAL,
            DIGITS_LATENT,
            CIFAR10_DDPM,
            CIFAR10_IDDPM,
            CIFAR10_SMALL,
            CELEBA64_DDPM,
            CELEBA64_SMALL,
        )
    }
)


def get_recipe(name: str) -> TrainConfig:
    """Return the recipe called ``name``.

    Raises:
        UnknownNameError: with the nearest known names.
    """
    if name not in RECIPES:
        raise UnknownNameError("training preset", name, RECIPES)
    return RECIPES[name]


def read_config(what: str | Path) -> TrainConfig:
    """Return the config for a preset's name or a TOML file with the fields of `TrainConfig`.

    A file may name a ``preset`` that has what it leaves out; ``network_options`` add to the preset's. A run
    without a ``name`` is called after its file.

    Raises:
        UsageError: if the preset is unknown, or the file is missing or not such a config.
    """
    path = Path(what)
    if path.suffix != ".toml":
        return get_recipe(str(what))
    values = {"name": path.stem} | read_toml(path, "training config")
    try:
        if "preset" in values:
            base = get_recipe(str(values.pop("preset"))).to_json() | {"summary": ""}
            values = base | values
            if isinstance(options := values["network_options"], Mapping):
                values["network_options"] = base["network_options"] | options
        return TrainConfig.from_mapping(values)
    except (UsageError, TypeError) as error:
        raise UsageError(f"training config {path}: {error}") from None
