"""Small networks of every family with random weights, for tests that need no published checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from models import UNet, UNetConfig
from models.families import find_family
from models.layers import sinusoidal_embedding

CONFIGS: dict[str, dict[str, Any]] = {
    "diffusers": {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 1,
        "block_out_channels": [32, 64],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": None,
        "norm_eps": 1e-6,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    },
    "openai": {
        "image_size": 8,
        "in_channels": 3,
        "model_channels": 32,
        "out_channels": 6,
        "num_res_blocks": 1,
        "attention_resolutions": [2],
        "channel_mult": [1, 2],
        "num_heads": 4,
        "use_scale_shift_norm": True,
    },
    "pesser": {
        "ch": 32,
        "out_ch": 3,
        "ch_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [4],
        "in_channels": 3,
        "resolution": 8,
    },
    "pytorch_ddpm": {
        "T": 1000,
        "ch": 32,
        "ch_mult": [1, 2],
        "attn": [1],
        "num_res_blocks": 1,
        "image_size": 8,
    },
}


def random_network(config: UNetConfig, seed: int = 0) -> UNet:
    """Return a U-Net none of whose weights is zero, so that every path shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    network = UNet(config)
    with torch.no_grad():
        for parameter in network.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
    return network.eval()


def export(name: str, network: UNet) -> dict[str, Tensor]:
    """Return a network's weights as a checkpoint of the family has them: the loader's inverse."""
    family, config = find_family(name), network.config
    trailing = {"diffusers": 0, "openai": 1}.get(
        name, 2
    )  # what 1x1 convolutions have more than linear layers
    state = {}
    for key, value in network.state_dict().items():
        names = family.sources(key, config)
        for source, piece in zip(names, value.chunk(len(names)), strict=True):
            projection = "attention" in key and key.endswith((".qkv.weight", ".out.weight"))
            shape = (*piece.shape, *[1] * trailing) if projection else piece.shape
            state[source] = piece.reshape(shape).clone()
    if name == "pytorch_ddpm":
        table = sinusoidal_embedding(torch.arange(1000), config.channels, "interleaved", 0)
        state["time_embedding.timembedding.0.weight"] = table
    return state


def family_checkpoint(name: str, seed: int = 0) -> tuple[UNet, dict[str, Tensor], dict[str, Any]]:
    """Return a random network, its state dict in the family's names, and the family's configuration."""
    family, config = find_family(name), CONFIGS[name]
    inferred = {"resnet_time_scale_shift": "default"} if name == "diffusers" else {}
    network = random_network(family.read({**inferred, **config}), seed)
    return network, export(name, network), config


def image_and_time(config: UNetConfig, batch: int = 2, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return x and t to try a network on."""
    generator = torch.Generator().manual_seed(seed)
    size = config.image_size or 8
    x = torch.randn((batch, config.in_channels, size, size), generator=generator)
    return x, torch.tensor([3, 977] * batch)[:batch]


GOLDEN = ("diffusers", "improved_diffusion", "guided_diffusion", "pesser", "ermongroup", "pytorch_ddpm")


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, Any], Tensor, Tensor, Tensor]:
    """Return state dict, configuration, x, t and output of a network of published code; skip without it."""
    shared = os.environ.get("SAMPLER_BENCH_SHARED")
    path = Path(shared or "") / "golden" / "networks" / f"{name}.safetensors"
    if not shared or not path.is_file():
        pytest.skip("SAMPLER_BENCH_SHARED does not name the folder with golden/networks")
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    return state, config, tensors["x"], tensors["t"], tensors["y"]
